//! Manifests, indexes and configurations of images, as far as they decide how one runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::{Error, Result};

/// Bytes of a manifest, an index or a configuration; registries themselves take 4 MiB at most.
pub(crate) const MAX_BYTES: u64 = 4 << 20;
/// Layers of one image; Docker's own limit is 127.
const MAX_LAYERS: usize = 128;

/// The media types we can read.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A file of an image, by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    pub platform: Option<Platform>,
}

/// What a manifest of an index is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub architecture: String,
    pub os: String,
}

/// Either of the two documents that a reference may lead to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: i64,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// The files of an image for this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// What a reference led to.
pub(crate) enum Found {
    Manifest(Manifest),
    /// Look for this one instead.
    Other(Descriptor),
}

/// Reads a manifest or an index.
///
/// # Errors
/// It is neither, or has nothing for this machine.
pub(crate) fn read(bytes: &[u8]) -> Result<Found> {
    let document: Document = parse("manifest", bytes)?;
    if document.schema_version != 2 {
        return Err(Error::Invalid(format!(
            "its manifest has the version {}, which is of before 2017: push the image again with a \
             newer tool",
            document.schema_version
        )));
    }
    if let Some(manifests) = document.manifests {
        return choose(manifests).map(Found::Other);
    }
    let config = document.config;
    let config = config.ok_or_else(|| Error::Invalid("its manifest has no config".to_owned()))?;
    if document.layers.len() > MAX_LAYERS {
        let count = document.layers.len();
        return Err(Error::Invalid(format!("it has {count} layers; {MAX_LAYERS} are allowed")));
    }
    Ok(Found::Manifest(Manifest { config, layers: document.layers }))
}

/// The one for this machine. An index without platforms has one image.
fn choose(manifests: Vec<Descriptor>) -> Result<Descriptor> {
    let (os, wanted) = ("linux", architecture());
    let mut others = Vec::new();
    for manifest in manifests {
        match &manifest.platform {
            Some(platform) if platform.os == os && platform.architecture == wanted => {
                return Ok(manifest);
            }
            None if others.is_empty() => return Ok(manifest),
            None => {}
            Some(platform) => others.push(format!("{}/{}", platform.os, platform.architecture)),
        }
    }
    others.truncate(20);
    let others = others.join(", ");
    Err(Error::Invalid(format!("it has no image for {os}/{wanted}, only for: {others}")))
}

/// This machine's, by the name images use.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// How an image is made and meant to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `amd64`.
    pub architecture: String,
    /// What its processes get.
    #[serde(deserialize_with = "null_is_none")]
    pub config: Config,
    /// Its layers.
    pub(crate) rootfs: RootFs,
}

/// What the processes of an image get.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_none")]
    pub env: Vec<String>,
    /// The first words of its command.
    #[serde(deserialize_with = "null_is_none")]
    pub entrypoint: Vec<String>,
    /// The further words.
    #[serde(deserialize_with = "null_is_none")]
    pub cmd: Vec<String>,
    /// Where it is run.
    pub working_dir: String,
    /// Free texts about it.
    #[serde(deserialize_with = "null_is_none")]
    pub labels: BTreeMap<String, String>,
    /// `8080/tcp`.
    #[serde(deserialize_with = "null_is_none")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Directories it writes to.
    #[serde(deserialize_with = "null_is_none")]
    pub volumes: BTreeMap<String, serde_json::Value>,
}

/// The layers by what is in them, uncompressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RootFs {
    pub diff_ids: Vec<Digest>,
}

fn null_is_none<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl ImageConfig {
    /// Reads a configuration that is to have so many layers.
    ///
    /// # Errors
    /// It is none, is not for this machine, or is of another image.
    pub(crate) fn read(bytes: &[u8], layers: usize) -> Result<ImageConfig> {
        let config: ImageConfig = parse("configuration", bytes)?;
        let (found, wanted) = (config.architecture.as_str(), architecture());
        if found != wanted && !found.is_empty() {
            return Err(Error::Invalid(format!("it is for {found}, and this machine is {wanted}")));
        }
        let count = config.rootfs.diff_ids.len();
        if count != layers {
            return Err(Error::Invalid(format!(
                "its configuration names {count} layers and its manifest {layers}"
            )));
        }
        Ok(config)
    }
}

fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Invalid(format!("its {what} cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn descriptor(text: &str, platform: Option<(&str, &str)>) -> serde_json::Value {
        let platform = platform.map(|(os, arch)| json!({"os": os, "architecture": arch}));
        json!({"mediaType": "x", "digest": Digest::of(text.as_bytes()), "size": 1,
            "platform": platform})
    }

    #[test]
    fn an_index_leads_to_the_image_for_this_machine() {
        let index = json!({"schemaVersion": 2, "manifests": [
            descriptor("s390", Some(("linux", "s390x"))),
            descriptor("attestation", Some(("unknown", "unknown"))),
            descriptor("ours", Some(("linux", architecture()))),
        ]});
        let Found::Other(found) = read(index.to_string().as_bytes()).unwrap() else { panic!() };
        assert_eq!(found.digest, Digest::of(b"ours"));
        let index = json!({"schemaVersion": 2,
            "manifests": [descriptor("a", Some(("linux", "s390x")))]});
        let error = read(index.to_string().as_bytes()).err().unwrap().to_string();
        assert!(error.contains("only for: linux/s390x"), "{error}");
    }

    #[test]
    fn what_is_not_an_image_is_refused_with_a_reason() {
        let many: Vec<_> = (0..10_000).map(|n| descriptor(&n.to_string(), None)).collect();
        for (document, why) in [
            (json!({"schemaVersion": 1, "fsLayers": []}), "before 2017"),
            (json!({"schemaVersion": 2}), "no config"),
            (json!({"schemaVersion": 2, "config": descriptor("c", None), "layers": many}), "10000"),
            (json!([]), "cannot be read"),
            (
                json!({"schemaVersion": 2, "config": {"digest": "sha256:../../x", "size": 1}}),
                "digest",
            ),
        ] {
            let error = read(document.to_string().as_bytes()).err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_configuration_must_fit_its_manifest_and_the_machine() {
        let config = json!({"architecture": architecture(), "config": {"Env": null, "Cmd": ["a"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"1")]}});
        let found = ImageConfig::read(config.to_string().as_bytes(), 1).unwrap();
        assert_eq!(found.config.cmd, ["a"]);
        assert!(ImageConfig::read(config.to_string().as_bytes(), 2).is_err());
        let config = json!({"architecture": "s390x", "config": null});
        assert!(ImageConfig::read(config.to_string().as_bytes(), 0).is_err());
    }
}
