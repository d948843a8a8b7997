//! Checks of the shape of what clients send. The first check that fails is the one reported.

use crate::Kind;

/// A failed check: HTTP 422 with this code in the body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// One of [`WRONG_TYPE`] to [`NOT_IN_ENUM`].
    pub code: i64,
    /// What is wrong and where.
    pub message: String,
}

/// 601: a value of the wrong type.
pub const WRONG_TYPE: i64 = 601;
/// 602: something required is absent.
pub const REQUIRED: i64 = 602;
/// 603: too long or too large.
pub const TOO_LONG: i64 = 603;
/// 604: too short or too small.
pub const TOO_SHORT: i64 = 604;
/// 605: not of the form that is asked for.
pub const PATTERN: i64 = 605;
/// 606: not one of the values that are allowed.
pub const NOT_IN_ENUM: i64 = 606;

/// The longest name of a resource, in bytes. Names become file names and label values, whose
/// customary limits are higher than this.
pub const MAX_NAME: usize = 128;

impl Invalid {
    /// A failed check with its code.
    pub fn new(code: i64, message: impl Into<String>) -> Invalid {
        Invalid { code, message: message.into() }
    }

    /// `name in body is required`.
    pub fn required(field: &str, place: &str) -> Invalid {
        Invalid::new(REQUIRED, format!("{field} in {place} is required"))
    }

    /// `since in query must be of type int64: "x"`.
    pub fn wrong_type(field: &str, place: &str, kind: &str, value: &str) -> Invalid {
        Invalid::new(WRONG_TYPE, format!("{field} in {place} must be of type {kind}: {value:?}"))
    }

    /// `egress in body should be one of [none full]`.
    pub fn not_in(field: &str, place: &str, allowed: &[&str]) -> Invalid {
        let allowed = allowed.join(" ");
        Invalid::new(NOT_IN_ENUM, format!("{field} in {place} should be one of [{allowed}]"))
    }

    /// `timeout in body should be greater than or equal to 0`.
    pub fn too_small(field: &str, minimum: i64) -> Invalid {
        let text = format!("{field} in body should be greater than or equal to {minimum}");
        Invalid::new(TOO_SHORT, text)
    }

    /// `timeout in body should be less than or equal to 10`.
    pub fn too_large(field: &str, maximum: i64) -> Invalid {
        let text = format!("{field} in body should be less than or equal to {maximum}");
        Invalid::new(TOO_LONG, text)
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether `name` has the form `^[\w\d][\w\d\-]*$`, in ASCII.
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(is_word) && bytes.all(|byte| is_word(byte) || byte == b'-')
}

/// Checks the name in a body.
///
/// # Errors
/// 602 when it is empty, 603 when it is longer than [`MAX_NAME`], 605 when it is of another form.
pub fn name(name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid::required("name", "body"));
    }
    if name.len() > MAX_NAME {
        let text = format!("name in body should be at most {MAX_NAME} chars long");
        return Err(Invalid::new(TOO_LONG, text));
    }
    if !is_name(name) {
        return Err(Invalid::new(
            PATTERN,
            "name should start with letter or number and may only contain letters, numbers, \
             underscores and dashes",
        ));
    }
    Ok(())
}

/// Checks a name in a path or a query: `^[\w\d\-]+$`.
///
/// # Errors
/// 605 when it is of another form.
pub fn path_name(field: &str, place: &str, value: &str) -> Result<(), Invalid> {
    let fits = !value.is_empty()
        && value.len() <= MAX_NAME
        && value.bytes().all(|byte| is_word(byte) || byte == b'-');
    if fits {
        return Ok(());
    }
    Err(Invalid::new(PATTERN, format!(r"{field} in {place} should match '^[\w\d\-]+$'")))
}

/// Checks a reference to another resource inside a body, such as `function` of an endpoint.
///
/// # Errors
/// 602 when it is empty, 605 when it is not a name.
pub fn reference(field: &str, value: &str) -> Result<(), Invalid> {
    if value.is_empty() {
        return Err(Invalid::required(field, "body"));
    }
    path_name(field, "body", value)
}

/// The field that carries a resource's name in a path: `functionName`.
pub fn path_field(kind: Kind) -> &'static str {
    match kind {
        Kind::BaseImage => "baseImageName",
        Kind::Image => "imageName",
        Kind::Function => "functionName",
        Kind::Secret => "secretName",
        Kind::Endpoint => "endpoint",
        Kind::Api => "api",
        Kind::Subscription => "subscriptionName",
        Kind::DriverType => "driverTypeName",
        Kind::Driver => "driverName",
        Kind::Schedule => "scheduleName",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_follow_the_old_pattern() {
        for good in ["a", "A1", "_x", "hello-py", "0"] {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        for (bad, code) in [("", 602), ("-a", 605), ("a.b", 605), ("a/b", 605), ("é", 605)] {
            assert_eq!(name(bad).map_err(|e| e.code), Err(code), "{bad:?}");
        }
        assert_eq!(name(&"a".repeat(MAX_NAME + 1)).map_err(|e| e.code), Err(TOO_LONG));
    }

    proptest! {
        /// A name that passes is safe as a file name and in a path.
        #[test]
        fn accepted_names_are_plain_ascii_words(candidate in ".{0,40}") {
            if name(&candidate).is_ok() {
                prop_assert!(candidate.bytes().all(|b| is_word(b) || b == b'-'));
                prop_assert!(!candidate.starts_with('-'));
            }
        }
    }
}
