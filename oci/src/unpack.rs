//! Applying a layer: a tar archive of what it adds, changes and, by whiteouts, removes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

use crate::digest::{Digest, Hashing};
use crate::tree::{MAX_DEPTH, Place, Tree};
use crate::{Error, Result};

/// What an image may be at most, unpacked. Bytes are counted as they come; what headers claim is not
/// believed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files of all layers.
    pub bytes: u64,
    /// Entries of all layers.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: 8 << 30, entries: 1_000_000 }
    }
}

/// Bytes of a path and of where a link leads, which is the kernel's limit.
const MAX_PATH: usize = 4096;
/// What the names of whiteouts begin with, and the one of a directory that hides all below it.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What such names of another kind begin with.
const OTHER: &[u8] = b".wh..wh.";
/// Directories that every sandbox has of its own.
const OURS: [&str; 3] = ["dev", "proc", "sys"];

/// What is left of the limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub bytes: u64,
    pub entries: u64,
}

/// Applies the layer in `file` to the tree at `root`.
///
/// # Errors
/// It is not what `diff_id` says, is refused, or is more than the budget.
pub(crate) fn apply(file: &Path, diff_id: &Digest, root: &Path, budget: &mut Budget) -> Result<()> {
    let digest = extract(file, root, budget)?;
    if digest != *diff_id {
        return Err(Error::Invalid(format!(
            "a layer is not what its configuration says: {digest} instead of {diff_id}"
        )));
    }
    Ok(())
}

/// Applies the archive in `file`, whatever it is. Returns the digest of it, uncompressed.
///
/// # Errors
/// It is refused, or is more than the budget.
pub(crate) fn extract(file: &Path, root: &Path, budget: &mut Budget) -> Result<Digest> {
    let opened = File::open(file).map_err(Error::files(file))?;
    let reader = decompressed(opened).map_err(Error::files(file))?;
    // The padding of many small files, and of the end.
    let most =
        budget.bytes.saturating_add(budget.entries.saturating_mul(2048)).saturating_add(1 << 20);
    let mut archive = Archive::new(Hashing::new(reader, most));
    let tree = Tree::open(root).map_err(Error::files(root))?;
    let mut layer = Layer { tree: &tree, added: HashSet::new(), budget };
    let damaged = |error: io::Error| Error::Invalid(format!("a layer is damaged: {error}"));
    for entry in archive.entries().map_err(damaged)? {
        layer.take(entry.map_err(damaged)?)?;
    }
    archive.into_inner().finish().map(|(digest, _)| digest).map_err(damaged)
}

/// By what the file begins with, since media types are not always true.
fn decompressed(file: File) -> io::Result<Box<dyn Read + Send>> {
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let start = io::BufRead::fill_buf(&mut reader)?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(reader)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = ruzstd::decoding::StreamingDecoder::new(reader);
        return Ok(Box::new(decoder.map_err(io::Error::other)?));
    }
    Ok(Box::new(reader))
}

struct Layer<'a> {
    tree: &'a Tree,
    /// What this layer has brought, which its own whiteouts do not mean.
    added: HashSet<PathBuf>,
    budget: &'a mut Budget,
}

impl Layer<'_> {
    fn take<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<()> {
        let raw = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&raw).chars().take(200).collect::<String>();
        let refused = |why: &str| {
            Error::Invalid(format!("a layer is refused because of its entry {shown:?}: {why}"))
        };
        let rest = self.budget.entries.checked_sub(1);
        self.budget.entries = rest.ok_or_else(|| refused("there are too many entries"))?;
        let Some(path) = clean(&raw).map_err(refused)? else { return Ok(()) };
        if path
            .components()
            .next()
            .is_some_and(|first| OURS.iter().any(|own| first.as_os_str() == *own))
        {
            return Ok(());
        }
        let name = path.file_name().unwrap_or_default().as_bytes();
        let applied = if name.starts_with(WHITEOUT) {
            let name = name.to_owned();
            self.whiteout(&path, &name).map_err(|error| (error, "as a whiteout"))
        } else {
            self.add(&mut entry, &path).map_err(|error| (error, "as a file"))
        };
        match applied {
            Ok(()) => Ok(()),
            Err((error, what)) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Err(Error::Files { place: shown, source: error })
                }
                _ => Err(refused(&format!("{error} ({what})"))),
            },
        }
    }

    fn whiteout(&mut self, path: &Path, name: &[u8]) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if name == OPAQUE {
            return self.clear(parent);
        }
        if name.starts_with(OTHER) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it removes no name"));
        }
        let path = parent.join(std::ffi::OsStr::from_bytes(hidden));
        if self.added.contains(&path) {
            return Ok(());
        }
        match self.tree.existing(&path) {
            Ok(place) => place.remove(),
            // Nothing to be hidden.
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes what earlier layers have left in a directory.
    fn clear(&mut self, directory: &Path) -> io::Result<()> {
        let names = match self.tree.list(directory) {
            Err(error) if is_gone(&error) => return Ok(()),
            names => names?,
        };
        for name in names {
            let path = directory.join(name);
            if self.added.contains(&path) {
                if self.tree.existing(&path)?.kind().is_some_and(|kind| kind.is_dir()) {
                    self.clear(&path)?;
                }
            } else {
                self.tree.existing(&path)?.remove()?;
            }
        }
        Ok(())
    }

    fn add<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Directory => {
                let place = self.tree.place(path)?;
                if !place.kind().is_some_and(|kind| kind.is_dir()) {
                    place.remove()?;
                    place.make_directory()?;
                }
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let place = self.fresh(path)?;
                self.file(entry, &place)?;
            }
            EntryType::Symlink => {
                let target = link_name(entry)?;
                std::os::unix::fs::symlink(target, self.fresh(path)?.path())?;
            }
            EntryType::Link => {
                let wrong = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
                let target = clean(link_name(entry)?.as_os_str().as_bytes()).map_err(wrong)?;
                let target = target.ok_or_else(|| wrong("it is a link to the root"))?;
                let target = self.tree.existing(&target)?;
                if !target.kind().is_some_and(|kind| kind.is_file() || kind.is_symlink()) {
                    return Err(wrong("it is a link to what is no file"));
                }
                fs::hard_link(target.path(), self.fresh(path)?.path())?;
            }
            // Devices and pipes have no meaning in a sandbox; the rest is about the archive.
            _ => return Ok(()),
        }
        self.added.insert(path.to_owned());
        Ok(())
    }

    /// A place where nothing is any more.
    fn fresh(&self, path: &Path) -> io::Result<Place> {
        let place = self.tree.place(path)?;
        place.remove()?;
        Ok(place)
    }

    fn file<R: Read>(&mut self, entry: &mut Entry<'_, R>, place: &Place) -> io::Result<()> {
        let mode = entry.header().mode().unwrap_or(0o644);
        // All processes of a sandbox are one user, which is nobody's owner: what one may do, all may.
        let executable = if mode & 0o111 == 0 { 0 } else { 0o111 };
        let mut file = place.make_file(0o444 | executable | (mode & 0o200))?;
        let left = self.budget.bytes;
        let written = io::copy(&mut entry.take(left.saturating_add(1)), &mut file)?;
        let rest = left.checked_sub(written);
        self.budget.bytes = rest.ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "the image has more bytes than allowed")
        })?;
        let time = entry.header().mtime().unwrap_or_default();
        // Only for those who look at it; a time far off is no reason to fail.
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time));
        if let Some(time) = time {
            let _ = file.set_modified(time);
        }
        Ok(())
    }
}

/// Whether there is no such place, or something else in its way.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn link_name<R: Read>(entry: &Entry<'_, R>) -> io::Result<PathBuf> {
    let wrong = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let name = entry.link_name_bytes().ok_or_else(|| wrong("it is a link to nothing"))?;
    if name.is_empty() || name.len() >= MAX_PATH {
        return Err(wrong("it is a link to an impossible name"));
    }
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(&name)))
}

/// The names that a path consists of; none for the root itself.
fn clean(raw: &[u8]) -> Result<Option<PathBuf>, &'static str> {
    if raw.len() >= MAX_PATH {
        return Err("its name is too long");
    }
    if raw.contains(&0) {
        return Err("its name has a NUL");
    }
    let mut path = PathBuf::new();
    let mut depth = 0;
    for part in Path::new(std::ffi::OsStr::from_bytes(raw)).components() {
        match part {
            Component::Normal(name) => {
                path.push(name);
                depth += 1;
            }
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err("its name leads out of the image");
            }
        }
    }
    if depth > MAX_DEPTH {
        return Err("its directories are too deep");
    }
    Ok((depth > 0).then_some(path))
}

#[cfg(test)]
mod tests;
