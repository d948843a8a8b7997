//! Images that are others with one more layer: what a package manager has changed in a copy.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{Images, Record, Work, chain, partial};
use crate::digest::{Digest, Hashing};
use crate::{Error, Image, Result, difference, tree};

/// A copy of an image's tree, to be changed. It goes when this is dropped.
#[derive(Debug)]
pub struct Copy {
    /// Our own directory, which holds nothing else.
    place: tempfile::TempDir,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its files and directories.
    pub files: usize,
}

impl Copy {
    /// The tree.
    pub fn root(&self) -> PathBuf {
        self.place.path().join("tree")
    }

    /// Makes sure that we may read and remove what others have left in it.
    ///
    /// # Errors
    /// The system's.
    pub fn reclaim(&self) -> io::Result<()> {
        tree::reclaim(&self.root())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What has been left in it may not want to go.
        let _ = self.reclaim();
    }
}

impl Images {
    /// Copies the tree of an image, for `owner` if it is not to be ours.
    ///
    /// # Errors
    /// The system's.
    pub fn copy(&self, image: &Image, owner: Option<u32>) -> Result<Copy> {
        let trees = self.directory.join("trees");
        let copy = || {
            let mut copy = Copy { place: partial(&trees)?, bytes: 0, files: 0 };
            tree::copy_tree(&image.root, &copy.root(), owner, &mut |bytes| {
                copy.bytes += bytes;
                copy.files += 1;
            })?;
            Ok(copy)
        };
        copy().map_err(Error::files(&trees))
    }

    /// The image that was made for `purpose`, if it is here.
    pub fn extension(&self, purpose: &str) -> Option<Image> {
        let mut ids = self.ids();
        let id = ids.find(|id| {
            self.read(id).is_some_and(|record| record.purpose.as_deref() == Some(purpose))
        })?;
        self.get(&id).inspect(|image| self.mark(image))
    }

    /// Makes an image of `base` and what is other in a changed copy of it. `purpose` says what for, so
    /// that it is found again. Takes a while.
    ///
    /// # Errors
    /// The changes are refused as those of any layer would be, or are too many.
    pub fn extend(&self, base: &Image, changed: &Copy, purpose: &str) -> Result<Image> {
        changed.reclaim().map_err(Error::files(&base.root))?;
        let gone = || Error::Unavailable("the image is gone again".to_owned());
        let Record { manifest, mut config, .. } = self.read(&base.id).ok_or_else(gone)?;
        let blobs = self.directory.join("blobs");
        let layer = partial(&blobs).map_err(Error::files(&blobs))?;
        let file = layer.path().join("layer");
        let written = || -> io::Result<Digest> {
            let to = io::BufWriter::new(File::create_new(&file)?);
            difference::write(&base.root, &changed.root(), to)?;
            Ok(Hashing::new(File::open(&file)?, u64::MAX).finish()?.0)
        };
        let diff_id = written().map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => {
                Error::Invalid(format!("the changes are refused: {error}"))
            }
            _ => Error::files(&file)(error),
        })?;
        let count = config.rootfs.diff_ids.len();
        config.rootfs.diff_ids.push(diff_id);
        let id = Digest::of(&serde_json::to_vec(&config).map_err(|error| {
            Error::Invalid(format!("the image's configuration cannot be written: {error}"))
        })?);
        let work = Work {
            trees: self.directory.join("trees"),
            base: (count, base.root.clone()),
            all: self.tree(&chain(&config, usize::MAX)),
            // Those of the base are in its tree already.
            layers: std::iter::repeat_n(PathBuf::new(), count).chain([file.clone()]).collect(),
            config: config.clone(),
            inside: self.inside.clone(),
            budget: self.budget(),
        };
        work.make()?;
        self.write(&id, &Record { manifest, config, purpose: Some(purpose.to_owned()) })?;
        self.get(&id).ok_or_else(gone)
    }
}

/// Removes it, whatever rights its owner has left us.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tree::reclaim(path)?;
            fs::remove_dir_all(path)
        }
        removed => removed,
    }
}
