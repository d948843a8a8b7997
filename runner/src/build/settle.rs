//! From what a program left to a tree that is used: measured, checked, read-only, on the disk.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown};
use std::path::{Component, Path};

use super::LayerLimits;

/// Bytes of the disk that builders leave to others.
const ROOM: u64 = 512 << 20;

/// Whether files can be given to others.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0)
}

/// Makes the directory a builder writes to.
pub(crate) fn open_to_builder(path: &Path, uid: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))?;
    give(path, uid)
}

/// Hands a file to the builder's user, where we may.
pub(crate) fn give(path: &Path, uid: u32) -> io::Result<()> {
    if is_root() { chown(path, Some(uid), Some(uid)) } else { Ok(()) }
}

/// Hands over a tree that nobody writes to at the moment. Links are handed over as they are.
pub(crate) fn give_tree(path: &Path, uid: u32) -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    lchown(path, Some(uid), Some(uid))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give_tree(&entry?.path(), uid)?;
        }
    }
    Ok(())
}

/// Lets every user read a file.
pub(crate) fn readable(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

fn refuse(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Refuses a tree that is larger than allowed. It may be growing while we look.
pub(crate) fn measure(root: &Path, what: &str, limits: &LayerLimits) -> io::Result<()> {
    let (mut bytes, mut files) = (0, 0);
    let mut queue = vec![root.to_owned()];
    while let Some(directory) = queue.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(data) = entry.metadata() else { continue };
            files += 1;
            bytes += data.len();
            if data.is_dir() {
                queue.push(entry.path());
            }
        }
        if bytes > limits.layer_bytes {
            let most = limits.layer_bytes >> 20;
            return Err(refuse(format!("{what} take more than {most} MiB")));
        }
        if files > limits.files {
            let most = limits.files;
            return Err(refuse(format!("{what} have more than {most} files")));
        }
    }
    Ok(())
}

/// Refuses to go on where the disk is nearly full: files without a name are in no tree.
pub(crate) fn leave_room(root: &Path) -> io::Result<()> {
    let disk = nix::sys::statvfs::statvfs(root)?;
    if disk.blocks_available().saturating_mul(disk.fragment_size()) < ROOM {
        let least = ROOM >> 20;
        return Err(refuse(format!("less than {least} MiB are left on the server's disk")));
    }
    Ok(())
}

/// Makes a tree ours, readable by all, writable by nobody else, without links out of it, and writes
/// it to the disk. Refused trees are errors of kind [`io::ErrorKind::InvalidData`].
pub(crate) fn settle(root: &Path, what: &str, limits: &LayerLimits) -> io::Result<()> {
    measure(root, what, limits)?;
    let root_owned = is_root();
    visit(root, root, what, root_owned)
}

fn visit(root: &Path, path: &Path, what: &str, root_owned: bool) -> io::Result<()> {
    let data = fs::symlink_metadata(path)?;
    if root_owned {
        lchown(path, Some(0), Some(0))?;
    }
    let kind = data.file_type();
    if kind.is_symlink() {
        return check_link(root, path, what);
    }
    if kind.is_dir() {
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(path)? {
            visit(root, &entry?.path(), what, root_owned)?;
        }
    } else if kind.is_file() {
        let executable = data.mode() & 0o111 != 0;
        fs::set_permissions(path, Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
    } else {
        return Err(refuse(format!("{what} hold {}, which is no file", inside(root, path))));
    }
    File::open(path)?.sync_all()
}

/// A link may point anywhere inside the layer, and at the runtime's own files in `/usr`.
fn check_link(root: &Path, path: &Path, what: &str) -> io::Result<()> {
    let target = fs::read_link(path)?;
    let depth = path.strip_prefix(root).map_or(0, |path| path.components().count());
    let mut left = depth.saturating_sub(1);
    let fine = target.components().all(|part| match part {
        Component::CurDir => true,
        Component::Normal(_) => {
            left += 1;
            true
        }
        Component::ParentDir if left > 0 => {
            left -= 1;
            true
        }
        _ => false,
    });
    if fine || target.starts_with("/usr") {
        return Ok(());
    }
    Err(refuse(format!(
        "{what} hold {}, a link to {} outside of them",
        inside(root, path),
        target.display()
    )))
}

fn inside(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
