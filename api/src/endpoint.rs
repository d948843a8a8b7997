//! Endpoints (once "APIs"): routes of the gateway.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::validate::{self, Invalid};
use crate::wire::{Wire, null_is_default, null_when_empty};
use crate::{Status, Tag};

/// A route from HTTP requests to a function. `/v1/endpoint` and `/v1/api` are two views of the
/// same routes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Who may call: `public`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub authentication: String,
    /// Whether browsers of other origins may call it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cors: bool,
    /// Whether it takes requests.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub enabled: bool,
    /// The function it calls.
    pub function: String,
    /// Host names, exact and without a port; empty means the default host.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub hosts: Vec<String>,
    /// UUID, set by the server.
    pub id: String,
    /// `Endpoint` or `API`, by the path it was read from.
    pub kind: String,
    /// HTTP methods, upper case; empty means all.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub methods: Vec<String>,
    /// Unique in the organization.
    pub name: String,
    /// `http`, `https` or both; empty means both.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub protocols: Vec<String>,
    /// Where it is in its life.
    pub status: Status,
    /// Free labels.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub tags: Vec<Tag>,
    /// The name of a certificate; stored only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tls: String,
    /// Paths: exact (`/hello`), prefix (`/files/*`) or with parameters (`/users/{id}`).
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub uris: Vec<String>,
    /// Unix seconds.
    pub created_time: i64,
    /// Unix seconds.
    pub modified_time: i64,
    /// The organization it belongs to.
    pub org: String,
    /// The project it belongs to.
    pub project: String,
    /// Changes with every write; send it back with an update to refuse a lost update.
    pub revision: String,
}

/// The most hosts, methods or paths of one endpoint.
pub const MAX_LIST: usize = 64;

impl Wire for Endpoint {
    const DIALECT: &'static [(&'static str, &'static str)] = &[];
    const FIELDS: &'static [&'static str] = &[
        "authentication",
        "cors",
        "enabled",
        "function",
        "hosts",
        "methods",
        "name",
        "protocols",
        "status",
        "tags",
        "tls",
        "uris",
        "revision",
    ];

    fn validate(&self) -> Result<(), Invalid> {
        validate::name(&self.name)?;
        validate::reference("function", &self.function)?;
        for (field, list) in
            [("hosts", &self.hosts), ("methods", &self.methods), ("uris", &self.uris)]
        {
            if list.len() > MAX_LIST {
                let text = format!("{field} in body should have at most {MAX_LIST} items");
                return Err(Invalid::new(validate::TOO_LONG, text));
            }
        }
        let protocol = |p: &String| p == "http" || p == "https";
        if !self.protocols.iter().all(protocol) {
            return Err(Invalid::not_in("protocols", "body", &["http", "https"]));
        }
        let method = |m: &String| !m.is_empty() && m.bytes().all(|b| b.is_ascii_alphabetic());
        if !self.methods.iter().all(method) {
            return Err(Invalid::new(
                validate::PATTERN,
                "methods in body should match '^[A-Za-z]+$'",
            ));
        }
        let host = |h: &String| {
            !h.is_empty()
                && h.len() <= 253
                && h.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        };
        if !self.hosts.iter().all(host) {
            return Err(Invalid::new(
                validate::PATTERN,
                "hosts in body should be host names without scheme and port",
            ));
        }
        Ok(())
    }
}
