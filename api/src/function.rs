//! Functions and their revisions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::egress::{Allow, Link, Target};
use crate::validate::{self, Invalid};
use crate::wire::{Wire, null_is_default, null_when_empty};
use crate::{ScaleSchedule, Status, Tag};

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
    /// Thousandths of a core one worker may use; 0 means the server's default.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub cpu: i64,
    /// Calls one worker takes at a time; 0 means 1.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub concurrency: i64,
    /// Workers kept ready at all times.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub min_scale: i64,
    /// When to keep more ready: each a [`ScaleSchedule`](crate::ScaleSchedule), such as
    /// `5 mon-fri 08:00-18:00 Europe/Berlin`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub schedules: Vec<String>,
    /// The most workers; 0 means the server's default.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub max_scale: i64,
    /// Fork the workers from a process that has loaded the source, where the language can.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preload: bool,
    /// Environment variables of the workers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub environment: BTreeMap<String, String>,
    /// What a worker may reach on the network, one of [`EGRESS`]; empty means the server's default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub egress: String,
    /// With `egress` `proxy`, the only destinations: `HOST[:PORT]`, where a host may be a name,
    /// `*.name`, an address or a range of addresses; none listed means all public ones.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub egress_allow: Vec<String>,
    /// Ports of the worker's own `127.0.0.1` that lead to places outside.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub links: Vec<Link>,
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
/// The largest share of processor time, in thousandths of a core: a thousand cores.
pub const MAX_CPU: i64 = 1_000_000;
/// The most calls in one worker, and the most workers of one function.
pub const MAX_SCALE: i64 = 1000;
/// What `egress` may be: nothing, what a proxy lets through, the same while all that was reached is
/// noted, or the machine's network.
pub const EGRESS: &[&str] = &["none", "proxy", "learn", "full"];
/// The most entries of `egressAllow`.
pub const MAX_ALLOW: usize = 256;
/// The most schedules.
pub const MAX_SCHEDULES: usize = 16;
/// The most links.
pub const MAX_LINKS: usize = 16;

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
        "cpu",
        "concurrency",
        "minScale",
        "schedules",
        "maxScale",
        "preload",
        "environment",
        "egress",
        "egressAllow",
        "links",
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
            ("cpu", self.cpu, MAX_CPU),
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
        self.validate_schedules()?;
        if !self.egress.is_empty() && !EGRESS.contains(&self.egress.as_str()) {
            return Err(Invalid::not_in("egress", "body", EGRESS));
        }
        self.validate_egress()?;
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

/// The port inside a sandbox where the proxy listens.
pub const PROXY_PORT: u16 = 3128;

impl Function {
    fn validate_schedules(&self) -> Result<(), Invalid> {
        if self.schedules.len() > MAX_SCHEDULES {
            let text = format!("schedules in body should have at most {MAX_SCHEDULES} items");
            return Err(Invalid::new(validate::TOO_LONG, text));
        }
        for text in &self.schedules {
            let schedule: ScaleSchedule = text.parse().map_err(|what| {
                Invalid::new(validate::PATTERN, format!("schedules in body: {what}"))
            })?;
            if self.max_scale != 0 && schedule.workers() as i64 > self.max_scale {
                return Err(Invalid::too_large("schedules", self.max_scale));
            }
        }
        Ok(())
    }

    fn validate_egress(&self) -> Result<(), Invalid> {
        let pattern = |field: &str, what: String| {
            Invalid::new(validate::PATTERN, format!("{field} in body: {what}"))
        };
        for (field, length, maximum) in [
            ("egressAllow", self.egress_allow.len(), MAX_ALLOW),
            ("links", self.links.len(), MAX_LINKS),
        ] {
            if length > maximum {
                let text = format!("{field} in body should have at most {maximum} items");
                return Err(Invalid::new(validate::TOO_LONG, text));
            }
            if length > 0 && matches!(self.egress.as_str(), "none" | "full") {
                let mode = &self.egress;
                let text = format!("has no effect with egress {mode}; use proxy, or leave it out");
                return Err(pattern(field, text));
            }
        }
        for entry in &self.egress_allow {
            entry.parse::<Allow>().map_err(|what| pattern("egressAllow", what))?;
        }
        for (index, link) in self.links.iter().enumerate() {
            link.to.parse::<Target>().map_err(|what| pattern("links.to", what))?;
            if link.listen == 0 || link.listen == PROXY_PORT {
                let text = format!("1 to 65535, but not {PROXY_PORT}, where the proxy is");
                return Err(pattern("links.listen", text));
            }
            if self.links[..index].iter().any(|other| other.listen == link.listen) {
                return Err(pattern("links.listen", format!("{} is there twice", link.listen)));
            }
        }
        Ok(())
    }
}
