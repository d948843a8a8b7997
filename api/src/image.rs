//! Images: a base image and the dependencies installed on it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::validate::{self, Invalid};
use crate::wire::{Wire, null_is_default, null_when_empty};
use crate::{Status, Tag};

/// What `POST /v1/imagearchive` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Archive {
    /// What base images name it by: `oci:sha256:…`.
    pub reference: String,
    /// Bytes of it.
    pub bytes: i64,
}

/// An image, which functions run on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    /// The base image's name.
    pub base_image_name: String,
    /// Unix seconds.
    pub created_time: i64,
    /// Where the built image is; empty until it is built.
    pub docker_url: String,
    /// Kept for old clients: always null.
    pub groups: Option<Vec<String>>,
    /// UUID, set by the server.
    pub id: String,
    /// Always `Image`.
    pub kind: String,
    /// Copied from the base image.
    pub language: String,
    /// Unique in the organization.
    pub name: String,
    /// Why the status is `ERROR`: one text, the installer's own last lines.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub reason: Vec<String>,
    /// Packages of the language, such as the text of a `requirements.txt`.
    pub runtime_dependencies: RuntimeDependencies,
    /// Where it is in its life.
    pub status: Status,
    /// Secrets that only the installer of the dependencies learns, such as how to get at a private
    /// index: variables (`PIP_INDEX_URL`) and files (`.npmrc`).
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub build_secrets: Vec<String>,
    /// Packages of the operating system.
    pub system_dependencies: SystemDependencies,
    /// Free labels.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub tags: Vec<Tag>,
    /// The same as `baseImageName`.
    pub base_image: String,
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

/// Packages of the language.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RuntimeDependencies {
    /// The text of the language's manifest: `requirements.txt`, `package.json`, …
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub manifest: String,
}

/// Packages of the operating system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SystemDependencies {
    /// The packages.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub packages: Vec<SystemPackage>,
}

/// One package of the operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SystemPackage {
    /// The package's name.
    pub name: String,
    /// Its version; empty means any.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub version: String,
}

/// The largest manifest, in bytes.
pub const MAX_MANIFEST: usize = 1 << 20;

impl Wire for Image {
    const DIALECT: &'static [(&'static str, &'static str)] = &[("baseImage", "baseImageName")];
    const FIELDS: &'static [&'static str] = &[
        "baseImageName",
        "language",
        "name",
        "buildSecrets",
        "runtimeDependencies",
        "systemDependencies",
        "tags",
        "status",
        "reason",
        "revision",
    ];

    fn validate(&self) -> Result<(), Invalid> {
        validate::name(&self.name)?;
        validate::reference("baseImageName", &self.base_image_name)?;
        if self.runtime_dependencies.manifest.len() > MAX_MANIFEST {
            let text = format!(
                "runtimeDependencies.manifest in body should be at most {MAX_MANIFEST} bytes long"
            );
            return Err(Invalid::new(validate::TOO_LONG, text));
        }
        if self.system_dependencies.packages.iter().any(|package| package.name.is_empty()) {
            return Err(Invalid::required("systemDependencies.packages.name", "body"));
        }
        Ok(())
    }
}
