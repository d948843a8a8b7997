//! Parts of the host's file tree inside: opened while the host is in sight, attached to the new root.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::sys::statvfs::statvfs;

use crate::sys;

/// A file or directory of the host, to be attached somewhere.
pub(crate) struct Tree {
    fd: OwnedFd,
    directory: bool,
    attributes: u64,
    /// A copy of the mounts with their attributes, ready to be moved; otherwise the place itself.
    detached: bool,
}

impl Tree {
    /// Opens `source`; `attributes` are those of [`sys`], and hold for the mounts below it too.
    pub(crate) fn open(source: &Path, attributes: u64) -> io::Result<Tree> {
        let directory = fs::metadata(source)?.is_dir();
        match sys::open_tree(source, attributes) {
            Ok(fd) => Ok(Tree { fd, directory, attributes, detached: true }),
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                Tree::open_place(source, attributes)
            }
            Err(error) => Err(error),
        }
    }

    /// The same for kernels before 5.12.
    fn open_place(source: &Path, attributes: u64) -> io::Result<Tree> {
        let directory = fs::metadata(source)?.is_dir();
        let fd = open(source, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Tree { fd, directory, attributes, detached: false })
    }

    /// Makes it visible at `target`, which is created where it does not exist.
    pub(crate) fn attach(&self, target: &Path) -> io::Result<()> {
        if self.directory {
            fs::create_dir_all(target)?;
        } else {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            if !target.exists() {
                fs::write(target, "")?;
            }
        }
        if self.detached {
            return sys::move_mount(&self.fd, target);
        }
        // Not recursive: a second call could only protect the topmost mount.
        let source = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let none = None::<&str>;
        mount(Some(source.as_str()), target, none, MsFlags::MS_BIND, none)?;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | self.flags(target)?;
        mount(none, target, none, flags, none).map_err(io::Error::from)
    }

    /// The same where the place exists and may be in another mount namespace than the source.
    pub(crate) fn attach_detached(&self, target: &Path) -> io::Result<()> {
        if !self.detached {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        sys::move_mount(&self.fd, target)
    }

    /// What is wanted, and what is there already: in a user namespace that may not be taken away.
    fn flags(&self, target: &Path) -> io::Result<MsFlags> {
        let there = statvfs(target)?.flags().bits();
        let mut flags = MsFlags::empty();
        for (attribute, given, flag) in [
            (sys::RDONLY, libc::ST_RDONLY, MsFlags::MS_RDONLY),
            (sys::NOSUID, libc::ST_NOSUID, MsFlags::MS_NOSUID),
            (sys::NODEV, libc::ST_NODEV, MsFlags::MS_NODEV),
            (0, libc::ST_NOEXEC, MsFlags::MS_NOEXEC),
            (0, libc::ST_NOATIME, MsFlags::MS_NOATIME),
            (0, libc::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
            (0, libc::ST_RELATIME, MsFlags::MS_RELATIME),
        ] {
            flags.set(flag, self.attributes & attribute != 0 || there & given != 0);
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn older_kernels_get_read_only_binds_too() {
        // Of this thread only: others go on in the namespace they are in.
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
            println!("skipped: only root can make a mount namespace of its own");
            return;
        }
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("new/target"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "text").unwrap();
        let tree = Tree::open_place(&source, sys::RDONLY | sys::NOSUID | sys::NODEV).unwrap();
        // What is mounted over the source meanwhile does not matter.
        mount(Some("tmpfs"), &source, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        tree.attach(&target).unwrap();
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "text");
        let refused = fs::write(target.join("file"), "other").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    }
}
