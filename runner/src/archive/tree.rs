//! The directory an archive is unpacked into: every name is checked, every byte counted.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::{ArchiveError, Limits, Stats};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    Link,
}

/// A tree that grows entry by entry.
pub(super) struct Tree<'a> {
    root: PathBuf,
    limits: &'a Limits,
    made: HashMap<PathBuf, Kind>,
    stats: Stats,
}

fn refuse(name: &str, reason: impl Into<String>) -> ArchiveError {
    ArchiveError::Entry { name: name.to_owned(), reason: reason.into() }
}

impl<'a> Tree<'a> {
    /// Makes the root, which must not exist.
    pub(super) fn create(root: &Path, limits: &'a Limits) -> io::Result<Tree<'a>> {
        DirBuilder::new().mode(0o755).create(root)?;
        Ok(Tree { root: root.to_owned(), limits, made: HashMap::new(), stats: Stats::default() })
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats
    }

    /// An entry's path below the root; empty for the root itself.
    fn relative(&self, name: &str) -> Result<PathBuf, ArchiveError> {
        if name.len() > self.limits.path_bytes {
            return Err(refuse(
                name,
                format!("its name has more than {} bytes", self.limits.path_bytes),
            ));
        }
        if name.chars().any(char::is_control) || name.contains('\\') {
            return Err(refuse(name, "its name has control characters or backslashes"));
        }
        let mut path = PathBuf::new();
        for component in Path::new(name).components() {
            match component {
                Component::CurDir => {}
                Component::Normal(part) => path.push(part),
                Component::ParentDir => return Err(refuse(name, "its name has a `..`")),
                Component::RootDir | Component::Prefix(_) => {
                    return Err(refuse(name, "its name is absolute"));
                }
            }
        }
        if path.components().count() > self.limits.depth {
            return Err(refuse(
                name,
                format!("it is more than {} directories deep", self.limits.depth),
            ));
        }
        Ok(path)
    }

    /// Makes room for a new entry: its parents are directories of ours, and it is not there yet.
    fn place(&mut self, name: &str, kind: Kind) -> Result<PathBuf, ArchiveError> {
        let path = self.relative(name)?;
        if path.as_os_str().is_empty() {
            return Err(refuse(name, "it has no name"));
        }
        if let Some(parent) = path.parent() {
            self.parents(name, parent)?;
        }
        if self.made.insert(path.clone(), kind).is_some() {
            return Err(refuse(name, "it is there twice"));
        }
        if self.made.len() > self.limits.entries {
            return Err(ArchiveError::TooLarge(format!("{} entries", self.limits.entries)));
        }
        Ok(self.root.join(path))
    }

    fn parents(&mut self, name: &str, directory: &Path) -> Result<(), ArchiveError> {
        let mut path = PathBuf::new();
        for part in directory.components() {
            path.push(part);
            match self.made.get(&path) {
                Some(Kind::Directory) => {}
                Some(Kind::File | Kind::Link) => {
                    return Err(refuse(name, "it lies below a file or a link"));
                }
                None => {
                    DirBuilder::new().mode(0o755).create(self.root.join(&path))?;
                    self.made.insert(path.clone(), Kind::Directory);
                }
            }
        }
        if self.made.len() > self.limits.entries {
            return Err(ArchiveError::TooLarge(format!("{} entries", self.limits.entries)));
        }
        Ok(())
    }

    pub(super) fn directory(&mut self, name: &str) -> Result<(), ArchiveError> {
        let path = self.relative(name)?;
        self.parents(name, &path)
    }

    pub(super) fn file(
        &mut self,
        name: &str,
        mode: u32,
        content: &mut impl Read,
    ) -> Result<(), ArchiveError> {
        let path = self.place(name, Kind::File)?;
        let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        self.copy(content, &mut file)?;
        self.stats.files += 1;
        Ok(())
    }

    fn copy(&mut self, content: &mut impl Read, file: &mut File) -> Result<(), ArchiveError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = content
                .read(&mut buffer)
                .map_err(|error| ArchiveError::Damaged(error.to_string()))?;
            if read == 0 {
                return Ok(());
            }
            self.stats.bytes += read as u64;
            if self.stats.bytes > self.limits.total_bytes {
                let text = format!("{} bytes when unpacked", self.limits.total_bytes);
                return Err(ArchiveError::TooLarge(text));
            }
            file.write_all(&buffer[..read])?;
        }
    }

    /// A link inside the tree. Its target may go up first and then down, but not up again: the part
    /// that goes up crosses real directories only, so where it ends is known.
    pub(super) fn symlink(&mut self, name: &str, target: &str) -> Result<(), ArchiveError> {
        let path = self.relative(name)?;
        let mut depth = path.components().count().saturating_sub(1);
        let mut down = false;
        let fits =
            !target.is_empty() && target.len() <= self.limits.path_bytes && !target.contains('\0');
        let inside = fits
            && Path::new(target).components().all(|component| match component {
                Component::CurDir => true,
                Component::Normal(_) => {
                    down = true;
                    true
                }
                Component::ParentDir if !down && depth > 0 => {
                    depth -= 1;
                    true
                }
                _ => false,
            });
        if !inside {
            return Err(refuse(name, format!("it links to {target:?}, which may be outside")));
        }
        let place = self.place(name, Kind::Link)?;
        std::os::unix::fs::symlink(target, place)?;
        Ok(())
    }

    /// A second name of a file that was unpacked before.
    pub(super) fn hard_link(&mut self, name: &str, target: &str) -> Result<(), ArchiveError> {
        let target = self.relative(target)?;
        if self.made.get(&target) != Some(&Kind::File) {
            return Err(refuse(
                name,
                "it is a hard link to something that is no file of the archive",
            ));
        }
        let place = self.place(name, Kind::File)?;
        fs::hard_link(self.root.join(target), place)?;
        self.stats.files += 1;
        Ok(())
    }
}
