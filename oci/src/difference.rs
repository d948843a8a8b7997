//! What was changed in a copy of an image, written as a layer: what it has more, what is other, and
//! whiteouts for what is gone.
//!
//! The copy is what strangers' programs have left, and none of them runs any more. Links in it are
//! written down and never followed, nor are those of the image it was made from.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tar::{Builder, EntryType, Header};

use crate::tree::MAX_DEPTH;

/// Bytes that are compared at a time.
const PIECE: usize = 64 << 10;
/// What every sandbox has of its own, at the top.
const OURS: [&str; 4] = ["dev", "proc", "sys", "tmp"];
/// What the names of whiteouts begin with: a file that is called so cannot be in a layer.
const WHITEOUT: &str = ".wh.";

/// Writes what `changed` differs in from `base`.
///
/// # Errors
/// The system's, or directories that are too deep.
pub(crate) fn write(base: &Path, changed: &Path, to: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(to);
    directory(&mut archive, Some(base), changed, Path::new(""), 0)?;
    archive.into_inner()?.flush()
}

/// `base` is none where the image has no such directory.
fn directory(
    archive: &mut Builder<impl Write>,
    base: Option<&Path>,
    changed: &Path,
    inside: &Path,
    depth: usize,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "directories are too deep"));
    }
    let names = fs::read_dir(changed)?.map(|entry| Ok(entry?.file_name()));
    let mut names: Vec<OsString> = names.collect::<io::Result<_>>()?;
    names.sort_unstable();
    let is_ours = |name: &OsStr| depth == 0 && OURS.iter().any(|own| name == *own);
    let is_whiteout = |name: &OsStr| name.as_bytes().starts_with(WHITEOUT.as_bytes());
    for name in names.iter().filter(|name| !is_ours(name) && !is_whiteout(name)) {
        let (path, place) = (changed.join(name), inside.join(name));
        let before = base.map(|base| base.join(name));
        let known = before.as_deref().and_then(|path| fs::symlink_metadata(path).ok());
        let data = fs::symlink_metadata(&path)?;
        if data.is_dir() {
            let known = known.is_some_and(|known| known.is_dir());
            if !known {
                archive.append_data(
                    &mut header(EntryType::Directory, &data),
                    &place,
                    io::empty(),
                )?;
            }
            directory(archive, before.as_deref().filter(|_| known), &path, &place, depth + 1)?;
        } else if data.is_symlink() {
            let target = fs::read_link(&path)?;
            let same = known.is_some_and(|known| known.is_symlink())
                && before.is_some_and(|path| fs::read_link(path).is_ok_and(|old| old == target));
            if !same {
                archive.append_link(&mut header(EntryType::Symlink, &data), &place, target)?;
            }
        } else if data.is_file() {
            let known = known.filter(|known| is_alike(known, &data));
            let same = match before.filter(|_| known.is_some()) {
                Some(before) => has_same_bytes(&before, &path)?,
                None => false,
            };
            if !same {
                let mut header = header(EntryType::Regular, &data);
                header.set_size(data.len());
                archive.append_data(&mut header, &place, File::open(&path)?.take(data.len()))?;
            }
        }
    }
    let gone = base.into_iter().flat_map(fs::read_dir).flatten().flatten();
    for name in gone.map(|entry| entry.file_name()) {
        if names.binary_search(&name).is_err() && !is_ours(&name) {
            let mut hidden = OsString::from(WHITEOUT);
            hidden.push(name);
            let mut header = Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(0);
            archive.append_data(&mut header, inside.join(hidden), io::empty())?;
        }
    }
    Ok(())
}

fn header(kind: EntryType, data: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(data.mode() & 0o777);
    header.set_mtime(u64::try_from(data.mtime()).unwrap_or_default());
    header.set_size(0);
    header
}

/// As far as the tree of an image keeps it: there are no owners, and what one may run all may.
fn is_alike(known: &Metadata, data: &Metadata) -> bool {
    let runs = |data: &Metadata| data.mode() & 0o111 != 0;
    known.is_file() && known.len() == data.len() && runs(known) == runs(data)
}

/// Times say nothing: who changes a file can set them.
fn has_same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    loop {
        left.clear();
        right.clear();
        (&mut one).take(PIECE as u64).read_to_end(&mut left)?;
        (&mut other).take(PIECE as u64).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_more_other_and_gone_is_written_and_no_link_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let (base, changed) = (place.path().join("base"), place.path().join("changed"));
        let outside = place.path().join("outside");
        let write = |root: &Path, name: &str, text: &str| {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), text).unwrap();
        };
        write(&outside, "file", "secret");
        for (name, text) in
            [("same", "1"), ("other", "1"), ("dir/gone", "1"), ("dir/kept", "1"), ("dev/x", "1")]
        {
            write(&base, name, text);
        }
        // A directory in the place of a link: what this leads to is not what was there before.
        symlink(&outside, base.join("link")).unwrap();
        symlink("one", base.join("turned")).unwrap();
        for (name, text) in [("same", "1"), ("other", "2"), ("dir/kept", "1"), ("new/file", "1")] {
            write(&changed, name, text);
        }
        write(&changed, "link/file", "secret");
        write(&changed, ".wh.same", "");
        symlink(&outside, changed.join("turned")).unwrap();
        let mut layer = Vec::new();
        super::write(&base, &changed, &mut layer).unwrap();
        let mut archive = tar::Archive::new(&layer[..]);
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        let wanted = ["dir/.wh.gone", "link", "link/file", "new", "new/file", "other", "turned"];
        assert_eq!(names, wanted);
    }
}
