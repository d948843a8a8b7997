//! Base images: what images are built on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::validate::{self, Invalid};
use crate::wire::{Wire, null_is_default, null_when_empty};
use crate::{Status, Tag};

/// A base image: a reference to a language of this machine or to an OCI image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BaseImage {
    /// Unix seconds.
    pub created_time: i64,
    /// The image reference, such as `dispatchframework/python3-base:0.0.13`.
    pub docker_url: String,
    /// Kept for old clients: always null.
    pub groups: Option<Vec<String>>,
    /// UUID, set by the server.
    pub id: String,
    /// Always `BaseImage`.
    pub kind: String,
    /// The language of functions built on it.
    pub language: String,
    /// Unique in the organization.
    pub name: String,
    /// Why the status is `ERROR`: one text.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub reason: Vec<String>,
    /// The secret with `username` and `password` for its registry, or with Docker's `config.json` as
    /// `.dockerconfigjson`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registry_secret: String,
    /// Where it is in its life.
    pub status: Status,
    /// Free labels.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub tags: Vec<Tag>,
    /// The same as `dockerUrl`.
    #[serde(rename = "imageURL")]
    pub image_url: String,
    /// Unix seconds.
    pub modified_time: i64,
    /// The organization it belongs to.
    pub org: String,
    /// The project it belongs to.
    pub project: String,
    /// Changes with every write; send it back with an update to refuse a lost update.
    pub revision: String,
}

impl Wire for BaseImage {
    const DIALECT: &'static [(&'static str, &'static str)] = &[("imageURL", "dockerUrl")];
    const FIELDS: &'static [&'static str] = &[
        "dockerUrl",
        "language",
        "name",
        "tags",
        "status",
        "reason",
        "revision",
        "registrySecret",
    ];

    fn validate(&self) -> Result<(), Invalid> {
        validate::name(&self.name)
    }
}
