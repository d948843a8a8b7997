//! Runs: one call of a function each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::validate::{self, Invalid};
use crate::wire::{Wire, null_is_default, null_when_empty};
use crate::{Status, Tag};

/// Unix seconds of the year 1: what old clients read as "never" in `finishedTime`.
pub const NEVER: i64 = -62_135_596_800;

/// One call of a function: what went in, what came out, and where the time went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Run {
    /// Whether the caller waits for the result.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub blocking: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// The event that caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Value>,
    /// Unix seconds: when it was accepted.
    pub executed_time: i64,
    /// UUID of the function's revision.
    pub faas_id: String,
    /// Unix seconds: when it ended, whatever the result; [`NEVER`] until then.
    pub finished_time: i64,
    /// UUID of the function.
    pub function_id: String,
    /// The function's name.
    pub function_name: String,
    /// The HTTP request that caused it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub http_context: BTreeMap<String, Value>,
    /// The payload: any JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What this call, and no other, wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<Logs>,
    /// UUID: the run's id.
    pub name: String,
    /// The result: any JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// On failure one text.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub reason: Vec<String>,
    /// Secrets merged into the context: the function's, then the run's.
    #[serde(deserialize_with = "null_is_default")]
    pub secrets: Vec<String>,
    /// Service instances bound to this run.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub services: Vec<String>,
    /// Where it is in its life: `READY` means it ended well.
    pub status: Status,
    /// Free labels.
    #[serde(deserialize_with = "null_is_default")]
    pub tags: Vec<Tag>,
    /// When it was accepted: RFC 3339 with nanoseconds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub executed_at: String,
    /// When it ended: RFC 3339 with nanoseconds; absent until then.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub finished_at: String,
    /// Where the time went; absent until it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
    /// How often it was tried, counting the first.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub attempts: i64,
    /// Whether all tries failed and it waits to be redriven.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
    /// Whether input or output were too large to be kept, and are absent for that reason.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The raw request body (base64), as the second old generation sent it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub input_bytes: String,
    /// The raw answer `{context, payload}` (base64) to a request with `inputBytes`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output_bytes: String,
}

/// Lines a call wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Logs {
    /// Standard error, line by line; null when nothing was written.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub stderr: Vec<String>,
    /// Standard output, line by line; null when nothing was written.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub stdout: Vec<String>,
}

/// Why a run failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RunError {
    /// What happened.
    pub message: String,
    /// The language's own stack trace, line by line.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub stacktrace: Vec<String>,
    /// Whose fault it was.
    #[serde(rename = "type")]
    pub kind: ErrorType,
}

/// Whose fault a failed run was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum ErrorType {
    /// The caller's: the input does not fit.
    InputError,
    /// The function's.
    #[default]
    FunctionError,
    /// The platform's.
    SystemError,
}

impl ErrorType {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorType::InputError => "InputError",
            ErrorType::FunctionError => "FunctionError",
            ErrorType::SystemError => "SystemError",
        }
    }
}

/// Where a run's time went, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Timings {
    /// Waiting for a worker.
    pub queue: u64,
    /// Starting a worker; 0 when a warm one was there.
    pub start: u64,
    /// In the function.
    pub function: u64,
    /// From accepted to ended.
    pub total: u64,
}

impl Wire for Run {
    const DIALECT: &'static [(&'static str, &'static str)] = &[];
    const FIELDS: &'static [&'static str] = &[
        "blocking",
        "event",
        "functionName",
        "httpContext",
        "input",
        "inputBytes",
        "secrets",
        "services",
        "tags",
    ];

    fn validate(&self) -> Result<(), Invalid> {
        for secret in &self.secrets {
            validate::path_name("secrets", "body", secret)?;
        }
        Ok(())
    }
}
