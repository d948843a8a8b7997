//! `/v1/version` and `/healthz`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was built, from what and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// The release, such as `v0.2.0`.
    pub version: String,
    /// The commit it was built from, or empty.
    pub commit: String,
    /// When it was built (RFC 3339), or empty.
    pub build_date: String,
    /// Kept for old clients; empty.
    pub go_version: String,
    /// The compiler.
    pub compiler: String,
    /// Operating system and architecture, such as `linux/x86_64`.
    pub platform: String,
}

impl Version {
    /// The version of this program.
    pub fn current() -> Version {
        Version {
            version: format!("v{}", env!("CARGO_PKG_VERSION")),
            commit: option_env!("DISPATCH_BUILD_COMMIT").unwrap_or_default().to_owned(),
            build_date: option_env!("DISPATCH_BUILD_DATE").unwrap_or_default().to_owned(),
            go_version: String::new(),
            compiler: "rustc".to_owned(),
            platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// The two halves that `dispatch version` shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerVersion {
    /// The command line program.
    pub client: Version,
    /// The server it talks to.
    pub server: Version,
}

/// The answer of `/healthz`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The server's version.
    pub version: Version,
    /// The isolation tier in force: `A`, `B`, `C` or `D`.
    #[serde(default)]
    pub isolation: String,
    /// What it means.
    #[serde(default)]
    pub meaning: String,
    /// What must be known about it, where functions are not well isolated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Its parts.
    #[serde(default)]
    pub layers: Vec<IsolationLayer>,
    /// What would make it better.
    #[serde(default)]
    pub advice: Vec<String>,
}

/// One part of what keeps functions in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IsolationLayer {
    /// Its name.
    pub name: String,
    /// Whether it is in force.
    pub active: bool,
    /// What it does, or why it is not in force.
    pub detail: String,
}
