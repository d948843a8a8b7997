//! Tags: free labels on resources.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One label. Both members may be absent on input and are then empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Tag {
    /// The label's name.
    pub key: String,
    /// The label's value.
    pub value: String,
}

/// The tag that names the application a resource belongs to.
pub const APPLICATION: &str = "Application";
