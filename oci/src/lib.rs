//! Images of containers without a container engine: pulled from a registry or read from a directory,
//! checked, and unpacked into trees that sandboxes show as their root.
//!
//! The formats are those of the OCI image specification 1.1 and of the OCI distribution
//! specification 1.1; Docker's second manifest version means the same.

mod auth;
mod difference;
mod digest;
mod furnish;
mod layout;
mod manifest;
mod pull;
mod reference;
mod registry;
mod store;
mod tree;
mod unpack;

pub use self::auth::Credentials;
pub use self::digest::Digest;
pub use self::furnish::Inside;
pub use self::manifest::{Config, ImageConfig};
pub use self::reference::{Reference, Source};
pub use self::registry::Registries;
pub use self::store::{Copy, Image, Images};
pub use self::unpack::Limits;

/// Why there is no image. The text is for who asked for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody but the image's owner can do something about it.
    #[error("{0}")]
    Invalid(String),
    /// A registry does not answer as it should: worth another try.
    #[error("{0}")]
    Unavailable(String),
    /// This machine's trouble.
    #[error("cannot use {place}: {source}")]
    Files {
        /// The file or directory.
        place: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Of a file or directory of ours.
    pub(crate) fn files(place: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
        let place = place.display().to_string();
        move |source| Error::Files { place, source }
    }
}

/// Opens a file of an image's tree, links being followed as inside.
///
/// # Errors
/// It is not there, or is no file.
pub fn open_file(root: &std::path::Path, path: &std::path::Path) -> std::io::Result<std::fs::File> {
    tree::Tree::open(root).and_then(|tree| tree.file(path))
}

/// The names in a directory of an image's tree; none if it is not there.
pub fn names(root: &std::path::Path, path: &std::path::Path) -> Vec<String> {
    let names = tree::Tree::open(root).and_then(|tree| tree.list(path)).unwrap_or_default();
    names.into_iter().filter_map(|name| name.into_string().ok()).collect()
}

/// Removes what is in a directory of a tree that is ours alone, links to it being followed as inside. What
/// cannot be removed stays.
pub fn empty(root: &std::path::Path, directory: &std::path::Path) {
    let Ok(tree) = tree::Tree::open(root) else { return };
    for name in tree.list(directory).unwrap_or_default() {
        let place = tree.existing(&directory.join(name));
        let _ = place.and_then(|place| place.remove());
    }
}

/// What this crate's functions answer.
pub type Result<T, E = Error> = std::result::Result<T, E>;
