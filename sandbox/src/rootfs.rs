//! The root of a container image in the place of the machine's own directories.
//!
//! Its topmost directories are bound into a root of ours, so that what a sandbox needs besides can be
//! beside them, and nothing of the image changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::setup::{Failure, Step as _};

/// What every sandbox has of its own.
const OURS: [&str; 4] = ["dev", "proc", "sys", "tmp"];
/// The size of a directory that may be written to, and how many of them there can be.
pub(crate) const SCRATCH: &str = "size=32m,nr_inodes=4k,mode=1777";
pub(crate) const MAX_SCRATCH: usize = 16;

/// What is at the top of an image's root.
#[derive(Default)]
pub(crate) struct Top {
    /// Places inside, with what is to be seen there.
    pub trees: Vec<(PathBuf, PathBuf)>,
    /// Links, and where they lead.
    pub links: Vec<(PathBuf, PathBuf)>,
}

/// Looks at it.
pub(crate) fn top(root: &Path) -> Result<Top, Failure> {
    let step = || format!("image {}", root.display());
    let mut top = Top::default();
    for entry in fs::read_dir(root).step(step())? {
        let entry = entry.step(step())?;
        let name = entry.file_name();
        if OURS.iter().any(|own| name == *own) {
            continue;
        }
        let (inside, outside) = (Path::new("/").join(&name), entry.path());
        let kind = entry.file_type().step(step())?;
        if kind.is_symlink() {
            top.links.push((inside, fs::read_link(outside).step(step())?));
        } else if kind.is_dir() || kind.is_file() {
            top.trees.push((inside, outside));
        }
    }
    Ok(top)
}

/// Whether something can be mounted there: a directory that is there, or one at the top.
pub(crate) fn make_scratch(place: &Path) -> io::Result<bool> {
    if place.is_dir() {
        return Ok(true);
    }
    if place.parent() == Some(Path::new("/")) && !place.exists() {
        return fs::create_dir(place).map(|()| true);
    }
    Ok(false)
}
