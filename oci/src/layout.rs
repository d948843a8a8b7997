//! Images in a directory: an OCI layout, or what `docker save` writes.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::digest::Digest;
use crate::manifest::{self, Descriptor, Found};
use crate::tree::Tree;
use crate::{Error, Result};

/// Indexes that lead to each other.
const MAX_STEPS: usize = 4;

/// The files of an image, on this machine.
pub(crate) struct Files {
    /// Names the image: of its manifest, or of its configuration where it has none.
    pub digest: Digest,
    pub config: Vec<u8>,
    /// The layers' archives, the lowest first.
    pub layers: Vec<PathBuf>,
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: PathBuf,
    layers: Vec<PathBuf>,
}

/// Finds the image in a directory.
///
/// # Errors
/// There is none, or it is not for this machine.
pub(crate) fn read(directory: &Path) -> Result<Files> {
    let tree = Tree::open(directory).map_err(Error::files(directory))?;
    if let Ok(index) = bytes(&tree, Path::new("index.json")) {
        return layout(&tree, directory, index);
    }
    let saved = bytes(&tree, Path::new("manifest.json")).map_err(|_| {
        Error::Invalid(
            "it holds no image: neither index.json of an OCI layout nor manifest.json of docker \
             save is at its top"
                .to_owned(),
        )
    })?;
    let saved: Vec<Saved> = serde_json::from_slice(&saved)
        .map_err(|error| Error::Invalid(format!("its manifest.json cannot be read: {error}")))?;
    let Some(saved) = saved.into_iter().next() else {
        return Err(Error::Invalid("its manifest.json names no image".to_owned()));
    };
    let config = bytes(&tree, &saved.config)?;
    let digest = Digest::of(&config);
    let layers = saved.layers.iter().map(|path| place(&tree, directory, path));
    Ok(Files { digest, config, layers: layers.collect::<Result<_>>()? })
}

fn layout(tree: &Tree, directory: &Path, index: Vec<u8>) -> Result<Files> {
    let (mut digest, mut document) = (Digest::of(&index), index);
    for _ in 0..MAX_STEPS {
        let manifest = match manifest::read(&document)? {
            Found::Manifest(manifest) => manifest,
            Found::Other(next) => {
                document = checked(tree, &next)?;
                digest = next.digest;
                continue;
            }
        };
        let config = checked(tree, &manifest.config)?;
        let layers =
            manifest.layers.iter().map(|layer| place(tree, directory, &blob(&layer.digest)));
        return Ok(Files { digest, config, layers: layers.collect::<Result<_>>()? });
    }
    Err(Error::Invalid("its indexes lead to each other without end".to_owned()))
}

fn blob(digest: &Digest) -> PathBuf {
    Path::new("blobs/sha256").join(digest.hex())
}

/// A small file that must be what its digest says.
fn checked(tree: &Tree, blob_of: &Descriptor) -> Result<Vec<u8>> {
    let bytes = bytes(tree, &blob(&blob_of.digest))?;
    if Digest::of(&bytes) != blob_of.digest {
        return Err(Error::Invalid(format!("its file {} is damaged", blob_of.digest)));
    }
    Ok(bytes)
}

fn bytes(tree: &Tree, path: &Path) -> Result<Vec<u8>> {
    let missing =
        |error: std::io::Error| Error::Invalid(format!("its file {}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = tree.file(path).map_err(missing)?;
    file.take(manifest::MAX_BYTES + 1).read_to_end(&mut bytes).map_err(missing)?;
    if bytes.len() as u64 > manifest::MAX_BYTES {
        return Err(Error::Invalid(format!("its file {} is too large", path.display())));
    }
    Ok(bytes)
}

/// A path to a file in the directory, through no link that leads out of it.
fn place(tree: &Tree, directory: &Path, path: &Path) -> Result<PathBuf> {
    use std::os::fd::AsRawFd as _;
    let missing =
        |error: std::io::Error| Error::Invalid(format!("its file {}: {error}", path.display()));
    let file = tree.file(path).map_err(missing)?;
    let real =
        std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(missing)?;
    let root = std::fs::canonicalize(directory).map_err(missing)?;
    match real.starts_with(root) {
        true => Ok(real),
        false => Err(Error::Invalid(format!("its file {} is elsewhere", path.display()))),
    }
}
