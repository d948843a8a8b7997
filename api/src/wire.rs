//! Reading bodies: keys in any case, and the names of both old API generations.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::validate::{Invalid, WRONG_TYPE};

/// A type that is read from a request body.
pub trait Wire: DeserializeOwned {
    /// Names that are accepted besides the field's own: `("imageURL", "dockerUrl")`.
    const DIALECT: &'static [(&'static str, &'static str)];
    /// The field's own names.
    const FIELDS: &'static [&'static str];

    /// Checks the shape beyond what the types say.
    ///
    /// # Errors
    /// The first check that fails.
    fn validate(&self) -> Result<(), Invalid>;

    /// Fills fields that follow from others; called before the checks.
    fn settle(&mut self) {}
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not JSON: HTTP 400.
    #[error("parsing body failed: {0}")]
    Syntax(serde_json::Error),
    /// It is JSON of the wrong shape: HTTP 422.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Reads a resource from a request body and checks its shape. Unknown keys are ignored and keys
/// may be written in any case, as the old servers allowed.
///
/// # Errors
/// [`Error::Syntax`] for what is not JSON, [`Error::Invalid`] for a wrong type or a failed check.
pub fn decode<T: Wire>(body: &[u8]) -> Result<T, Error> {
    let value: Value = serde_json::from_slice(body).map_err(Error::Syntax)?;
    Ok(from_value(value)?)
}

/// The same for a value that was read already, such as a document of a YAML file.
///
/// # Errors
/// The first check that fails.
pub fn from_value<T: Wire>(value: Value) -> Result<T, Invalid> {
    let Value::Object(map) = value else {
        return Err(Invalid::wrong_type("body", "body", "object", &short(&value.to_string())));
    };
    let value = Value::Object(fold::<T>(map));
    let mut decoded: T = serde_json::from_value(value).map_err(|error| {
        Invalid::new(WRONG_TYPE, format!("body in body is of the wrong type: {error}"))
    })?;
    decoded.settle();
    decoded.validate()?;
    Ok(decoded)
}

/// Renames keys to the field's own names. Where several keys mean one field, its own name wins
/// unless its value is null or empty.
fn fold<T: Wire>(map: Map<String, Value>) -> Map<String, Value> {
    let mut folded = Map::with_capacity(map.len());
    let mut foreign = Vec::new();
    for (key, value) in map {
        if value.is_null() {
            continue;
        }
        if let Some(field) = T::FIELDS.iter().find(|field| field.eq_ignore_ascii_case(&key)) {
            folded.insert((*field).to_owned(), value);
        } else if let Some((_, field)) =
            T::DIALECT.iter().find(|(other, _)| other.eq_ignore_ascii_case(&key))
        {
            foreign.push((*field, value));
        }
    }
    for (field, value) in foreign {
        let own = folded.get(field);
        if own.is_none_or(|own| own.as_str() == Some("")) {
            folded.insert(field.to_owned(), value);
        }
    }
    folded
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Serializes an absent or empty list as `null`, as the old servers did for lists never set.
pub(crate) fn null_when_empty<S, T>(list: &[T], serializer: S) -> Result<S::Ok, S::Error>
where
    S: serde::Serializer,
    T: serde::Serialize,
{
    if list.is_empty() { serializer.serialize_none() } else { serializer.collect_seq(list) }
}

/// Leaves out numbers that mean "not set".
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
pub(crate) fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Reads `null` as the type's default.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::Deserialize<'de>,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BaseImage, Secret};

    #[test]
    fn both_dialects_and_any_case_are_read() {
        for body in [
            r#"{"name":"b","dockerUrl":"img"}"#,
            r#"{"NAME":"b","imageURL":"img"}"#,
            r#"{"name":"b","imageUrl":"img","dockerurl":""}"#,
            r#"{"name":"b","dockerUrl":"img","imageURL":"other","unknown":[1]}"#,
        ] {
            let image: BaseImage = decode(body.as_bytes()).expect(body);
            assert_eq!((image.name.as_str(), image.docker_url.as_str()), ("b", "img"), "{body}");
        }
    }

    #[test]
    fn a_wrong_type_is_601_and_broken_json_is_a_syntax_error() {
        let error = decode::<BaseImage>(br#"{"name":7,"dockerUrl":"x"}"#).expect_err("a number");
        assert!(matches!(error, Error::Invalid(Invalid { code: 601, .. })), "{error:?}");
        assert!(matches!(decode::<BaseImage>(b"{"), Err(Error::Syntax(_))));
        assert!(matches!(decode::<BaseImage>(b"[]"), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_secret_takes_its_name_from_meta() {
        let secret: Secret =
            decode(br#"{"meta":{"name":"s"},"secrets":{"k":"v"}}"#).expect("a secret");
        assert_eq!(secret.name, "s");
        assert_eq!(secret.meta.name, "s");
    }
}
