//! Functions and their revisions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::validate::{self, Invalid};
use crate::wire::{Wire, null_is_default, null_when_empty};
use crate::{Status, Tag};

/// A function: source code, the image it runs on, and its settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Function {
    /// Base64 of a `tar.gz` or `zip` archive; only ever sent, never answered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Kept for old clients; no scheme is fetched.
    #[serde(rename = "sourceURL", skip_serializing_if = "String::is_empty")]
    pub source_url: String,
    /// A file or directory beside a YAML file; only the command line client uses it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_path: String,
    /// Unix seconds.
    pub created_time: i64,
    /// UUID of the newest revision; changes with every update.
    pub faas_id: String,
    /// UUID, set by the server.
    pub id: String,
    /// The image's name.
    pub image: String,
    /// Where the built function is.
    #[serde(rename = "functionImageURL", skip_serializing_if = "String::is_empty")]
    pub function_image_url: String,
    /// Always `Function`.
    pub kind: String,
    /// The language's handler, such as `hello.handle`; empty for a single file.
    pub handler: String,
    /// Unix seconds.
    pub modified_time: i64,
    /// Unique in the organization.
    pub name: String,
    /// Why the status is `ERROR`: one text with the interpreter's own message.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub reason: Vec<String>,
    /// JSON Schemas of input and output.
    #[serde(deserialize_with = "null_is_default")]
    pub schema: Schema,
    /// Secrets merged into the context of every run.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub secrets: Vec<String>,
    /// Service instances bound to every run.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub services: Vec<String>,
    /// Where it is in its life.
    pub status: Status,
    /// Milliseconds a run may take; 0 means the server's limit.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub timeout: i64,
    /// Free labels.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub tags: Vec<Tag>,
    /// MiB one worker may use; 0 means the server's default.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub memory: i64,
    /// Calls one worker takes at a time; 0 means 1.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub concurrency: i64,
    /// Workers kept ready at all times.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub min_scale: i64,
    /// The most workers; 0 means the server's default.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub max_scale: i64,
    /// Fork the workers from a process that has loaded the source, where the language can.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preload: bool,
    /// Environment variables of the workers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub environment: BTreeMap<String, String>,
    /// What a worker may reach on the network: `none` (default) or `full`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub egress: String,
    /// What happens to a run that was not waited for and failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// The organization it belongs to.
    pub org: String,
    /// The project it belongs to.
    pub project: String,
    /// Changes with every write; send it back with an update to refuse a lost update.
    pub revision: String,
    /// The number of the revision that serves; 0 while there is none.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub serving_revision: i64,
    /// The isolation tier that its workers run in: `A`, `B`, `C` or `D`. Only answered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub isolation: String,
}

/// JSON Schemas (draft 2020-12, or draft 4 where `$schema` says so) of input and output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Schema {
    /// What the input must match.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What the output must match.
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// How often, and how far apart, a failed run that nobody waits for is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Retries {
    /// Tries after the first one, 0 to 100.
    pub max: i64,
    /// Milliseconds before the first retry; doubled before each further one, one hour at most.
    pub backoff: i64,
}

/// One immutable revision of a function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Revision {
    /// 1 for the first, counted per function.
    pub number: i64,
    /// UUID of the revision.
    pub faas_id: String,
    /// Whether calls go to it.
    pub serving: bool,
    /// Whether it could be built and its handler loaded.
    pub status: Status,
    /// Why not.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub reason: Vec<String>,
    /// Unix seconds.
    pub created_time: i64,
    /// The image's name.
    pub image: String,
    /// The handler.
    pub handler: String,
    /// `sha256:…` of the source archive.
    pub source_digest: String,
}

/// The largest timeout, in milliseconds: one day.
pub const MAX_TIMEOUT: i64 = 86_400_000;
/// The largest memory setting, in MiB: one TiB.
pub const MAX_MEMORY: i64 = 1 << 20;
/// The most calls in one worker, and the most workers of one function.
pub const MAX_SCALE: i64 = 1000;
/// What `egress` may be.
pub const EGRESS: &[&str] = &["none", "full"];

impl Wire for Function {
    const DIALECT: &'static [(&'static str, &'static str)] = &[];
    const FIELDS: &'static [&'static str] = &[
        "source",
        "sourceURL",
        "sourcePath",
        "image",
        "handler",
        "name",
        "schema",
        "secrets",
        "services",
        "status",
        "reason",
        "timeout",
        "tags",
        "memory",
        "concurrency",
        "minScale",
        "maxScale",
        "preload",
        "environment",
        "egress",
        "retries",
        "revision",
    ];

    fn validate(&self) -> Result<(), Invalid> {
        validate::name(&self.name)?;
        if !self.image.is_empty() {
            validate::path_name("image", "body", &self.image)?;
        }
        for secret in &self.secrets {
            validate::path_name("secrets", "body", secret)?;
        }
        let limits = [
            ("timeout", self.timeout, MAX_TIMEOUT),
            ("memory", self.memory, MAX_MEMORY),
            ("concurrency", self.concurrency, MAX_SCALE),
            ("minScale", self.min_scale, MAX_SCALE),
            ("maxScale", self.max_scale, MAX_SCALE),
            ("retries.max", self.retries.map_or(0, |r| r.max), 100),
            ("retries.backoff", self.retries.map_or(0, |r| r.backoff), 3_600_000),
        ];
        for (field, value, maximum) in limits {
            if value < 0 {
                return Err(Invalid::too_small(field, 0));
            }
            if value > maximum {
                return Err(Invalid::too_large(field, maximum));
            }
        }
        if self.max_scale != 0 && self.min_scale > self.max_scale {
            return Err(Invalid::too_large("minScale", self.max_scale));
        }
        if !self.egress.is_empty() && !EGRESS.contains(&self.egress.as_str()) {
            return Err(Invalid::not_in("egress", "body", EGRESS));
        }
        let variable = |key: &String| {
            !key.is_empty()
                && !key.as_bytes()[0].is_ascii_digit()
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !self.environment.keys().all(variable) {
            return Err(Invalid::new(
                validate::PATTERN,
                "environment in body should have names that match '^[A-Za-z_][A-Za-z0-9_]*$'",
            ));
        }
        let size: usize = self.environment.iter().map(|(k, v)| k.len() + v.len()).sum();
        if size > 32 << 10 || self.environment.values().any(|v| v.contains('\0')) {
            return Err(Invalid::new(
                validate::TOO_LONG,
                "environment in body should be at most 32768 bytes long, without NUL",
            ));
        }
        Ok(())
    }
}
