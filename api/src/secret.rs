//! Secrets: named maps of texts that functions receive in their context.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Tag;
use crate::validate::{self, Invalid};
use crate::wire::{Wire, null_is_default, null_when_empty};

/// A secret.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    /// UUID, set by the server.
    pub id: String,
    /// Always `Secret`.
    pub kind: String,
    /// Unique in the organization.
    pub name: String,
    /// The values, in clear for those who may read them, otherwise the keys with empty texts.
    #[serde(deserialize_with = "null_is_default")]
    pub secrets: BTreeMap<String, String>,
    /// Free labels.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub tags: Vec<Tag>,
    /// The same identity, nested as the second old generation had it.
    #[serde(deserialize_with = "null_is_default")]
    pub meta: Meta,
    /// Whether the values were left out because the caller may not read them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// Names and counts only: a secret's values must not reach a log by way of `{:?}`.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .field("keys", &self.secrets.len())
            .finish_non_exhaustive()
    }
}

/// The identity of a resource, nested.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Unix seconds.
    pub created_time: i64,
    /// UUID, set by the server.
    pub id: String,
    /// The resource's kind.
    pub kind: String,
    /// Unix seconds.
    pub modified_time: i64,
    /// Unique in the organization.
    pub name: String,
    /// The organization it belongs to.
    pub org: String,
    /// The project it belongs to.
    pub project: String,
    /// Changes with every write.
    pub revision: String,
}

/// The largest secret, in bytes of keys and values together.
pub const MAX_SECRET: usize = 256 << 10;

impl Wire for Secret {
    const DIALECT: &'static [(&'static str, &'static str)] = &[];
    const FIELDS: &'static [&'static str] = &["name", "secrets", "tags", "meta"];

    fn validate(&self) -> Result<(), Invalid> {
        validate::name(&self.name)?;
        let size: usize = self.secrets.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > MAX_SECRET {
            let text = format!("secrets in body should be at most {MAX_SECRET} bytes long");
            return Err(Invalid::new(validate::TOO_LONG, text));
        }
        Ok(())
    }

    fn settle(&mut self) {
        if self.name.is_empty() {
            self.name.clone_from(&self.meta.name);
        }
        self.meta.name.clone_from(&self.name);
    }
}
