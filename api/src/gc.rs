//! What nothing refers to any more.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What `POST /v1/gc` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Garbage {
    /// Whether it is all still there: nobody asked to remove it.
    pub dry_run: bool,
    /// Bytes of all items.
    pub bytes: i64,
    /// What was removed, or would be.
    pub items: Vec<Unused>,
}

/// Files that no function and no image refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Unused {
    /// `archive`, `source`, `layer`, `image`, `image archive` or `download`.
    pub kind: String,
    /// The name in the data directory: a hex SHA-256.
    pub name: String,
    /// Bytes of its files.
    pub bytes: i64,
    /// When it was last made or used, in seconds since 1970.
    pub used_time: i64,
}
