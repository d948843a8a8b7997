//! JSON Schemas of functions: draft 2020-12, or an older draft where `$schema` names one.

use dispatch_api::Invalid;
use serde_json::Value;

/// A compiled schema.
pub struct Schema {
    validator: jsonschema::Validator,
}

/// Failures listed in one message.
const MAX_FAILURES: usize = 10;

impl Schema {
    /// Compiles a schema. References to other documents are refused: nothing is ever fetched.
    ///
    /// # Errors
    /// What is wrong with the schema.
    pub fn compile(schema: &Value) -> Result<Schema, String> {
        jsonschema::options()
            .build(schema)
            .map(|validator| Schema { validator })
            .map_err(|error| error.to_string())
    }

    /// Checks a document.
    ///
    /// # Errors
    /// `validation failure list:` and a line for each failure.
    pub fn check(&self, document: &Value) -> Result<(), String> {
        let mut failures = self.validator.iter_errors(document);
        let Some(first) = failures.next() else { return Ok(()) };
        let mut text = "validation failure list:".to_owned();
        for failure in std::iter::once(first).chain(failures).take(MAX_FAILURES) {
            let place = failure.instance_path().to_string();
            let place = if place.is_empty() { "body".to_owned() } else { place };
            text += &format!("\n{place}: {failure}");
        }
        Err(text)
    }
}

/// Refuses a function whose schema cannot be compiled.
///
/// # Errors
/// 400 in the old server's words, with the compiler's reason.
pub fn check(field: &str, schema: Option<&Value>) -> Result<(), crate::problem::Error> {
    let Some(schema) = schema else { return Ok(()) };
    if schema.to_string().len() > 256 << 10 {
        let text = format!("{field} in body should be at most {} bytes long", 256 << 10);
        return Err(Invalid::new(dispatch_api::validate::TOO_LONG, text).into());
    }
    match Schema::compile(schema) {
        Ok(_) => Ok(()),
        Err(reason) => {
            Err(crate::problem::Error::bad_request(format!("could not decode {field}: {reason}")))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn drafts_differ_where_they_must() {
        let old = json!({"$schema": "http://json-schema.org/draft-04/schema#",
            "type": "number", "maximum": 3, "exclusiveMaximum": true});
        let schema = Schema::compile(&old).unwrap();
        assert!(schema.check(&json!(3)).is_err());
        assert!(schema.check(&json!(2)).is_ok());
        let new = json!({"type": "number", "exclusiveMaximum": 3});
        assert!(Schema::compile(&new).unwrap().check(&json!(3)).is_err());
    }

    #[test]
    fn failures_name_their_place() {
        let schema = Schema::compile(&json!({"type": "object", "required": ["name"],
            "properties": {"age": {"type": "integer"}}}))
        .unwrap();
        let text = schema.check(&json!({"age": "x"})).unwrap_err();
        assert!(text.starts_with("validation failure list:\n"), "{text}");
        assert!(text.contains("name") && text.contains("/age"), "{text}");
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        for reference in ["http://127.0.0.1:9/x.json", "file:///etc/passwd"] {
            assert!(Schema::compile(&json!({"$ref": reference})).is_err(), "{reference}");
        }
    }
}
