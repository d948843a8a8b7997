//! The body of every error.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `{"code": 404, "message": "function hello not found"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The HTTP status, or 601 to 606 for a failed check of the input's shape.
    #[serde(default, skip_serializing_if = "crate::wire::is_zero")]
    pub code: i64,
    /// What is wrong, where, and what to do.
    pub message: String,
    /// The stable code of the page in `docs/errors/`, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The request this answers; the server's logs carry the same id.
    #[serde(default, rename = "requestId", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    /// A problem with a code and a message.
    pub fn new(code: i64, message: impl Into<String>) -> Problem {
        Problem { code, message: message.into(), ..Problem::default() }
    }
}
