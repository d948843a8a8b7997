//! Access rules that a process puts on itself and on all its children, and cannot take back: a second
//! wall behind the view of the file tree, and the only one where there are no namespaces.
#![expect(unsafe_code, reason = "the kernel's interface")]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::sys::check;

/// Rights on files and directories: `LANDLOCK_ACCESS_FS_*` of linux/landlock.h.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
/// Those that make sense for a file.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
/// Those on TCP ports, to be bound and to be connected to.
const TCP: u64 = 0b11;
/// Abstract sockets and signals.
const SCOPES: u64 = 0b11;

const VERSION: libc::c_long = 1;
const PATH_BENEATH: libc::c_long = 1;

/// The version below which moving a file to another directory is always refused, which installers of
/// packages do not survive.
const OLDEST: u32 = 2;

/// What may be done below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read and execute.
    Read,
    /// Write to what is there: devices, and what `/proc` lets a process say of itself.
    Use,
    /// Everything but to make devices.
    Write,
}

/// The version of the rules that this kernel knows; none where it has none that are of use.
pub(crate) fn version() -> Option<u32> {
    // SAFETY: asks for the version, which takes no structure.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0usize, 0usize, VERSION) };
    u32::try_from(version).ok().filter(|version| *version >= OLDEST)
}

/// Whether signals and abstract sockets stay inside, too.
pub(crate) fn has_scopes(version: u32) -> bool {
    version >= 6
}

/// All file rights that a version knows.
fn known(version: u32) -> u64 {
    let bits = match version {
        ..=1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << bits) - 1
}

impl Access {
    fn rights(self) -> u64 {
        match self {
            Access::Read => EXECUTE | READ_FILE | READ_DIR,
            Access::Use => WRITE_FILE | TRUNCATE | IOCTL_DEV,
            Access::Write => !(MAKE_CHAR | MAKE_BLOCK),
        }
    }
}

/// `struct landlock_ruleset_attr`. A kernel takes a longer one than it knows where the rest is zero.
#[repr(C)]
struct Handled {
    files: u64,
    network: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`, which has no padding.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// Confines this process to these rules, as far as version `version` has them; with `no_tcp` it may
/// neither bind nor connect to a port. What a rule names and is not there is no harm.
///
/// # Errors
/// What the kernel says.
pub(crate) fn confine(version: u32, rules: &[(&Path, Access)], no_tcp: bool) -> io::Result<()> {
    let handled = Handled {
        files: known(version),
        network: if no_tcp && version >= 4 { TCP } else { 0 },
        scoped: if has_scopes(version) { SCOPES } else { 0 },
    };
    // SAFETY: the structure outlives the call and the size is its own.
    let set = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const handled,
            size_of::<Handled>(),
            0,
        )
    })?;
    // SAFETY: the call returned a new descriptor.
    let set = unsafe { OwnedFd::from_raw_fd(set as i32) };
    for (path, access) in rules {
        let place = match open(*path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(place) => place,
            // What cannot be reached needs no rule.
            Err(Errno::ENOENT | Errno::EACCES) => continue,
            Err(error) => return Err(error.into()),
        };
        let directory = nix::sys::stat::fstat(&place)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let fitting = if directory { u64::MAX } else { OF_FILES };
        let rule = PathBeneath {
            allowed: access.rights() & fitting & handled.files,
            parent: place.as_raw_fd(),
        };
        // SAFETY: the structure outlives the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                set.as_raw_fd(),
                PATH_BENEATH,
                &raw const rule,
                0,
            )
        })?;
    }
    // SAFETY: plain call.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, set.as_raw_fd(), 0) }).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::io::ErrorKind;

    use super::*;

    /// In a thread, which alone is confined.
    fn confined<T: Send>(
        rules: &[(&Path, Access)],
        no_tcp: bool,
        work: impl FnOnce() -> T + Send,
    ) -> Option<T> {
        let Some(version) = version() else {
            println!("skipped: this kernel has no Landlock");
            return None;
        };
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                crate::sys::no_new_privileges().unwrap();
                confine(version, rules, no_tcp).unwrap();
                work()
            });
            Some(thread.join().unwrap())
        })
    }

    #[test]
    fn files_are_read_and_written_where_rules_say() {
        let (outside, read, write) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        for dir in [&outside, &read, &write] {
            fs::write(dir.path().join("file"), "text").unwrap();
        }
        let rules = [
            (read.path(), Access::Read),
            (write.path(), Access::Write),
            (Path::new("/dev/null"), Access::Use),
            (Path::new("/no/such/place"), Access::Read),
        ];
        confined(&rules, false, || {
            let denied = |result: io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
            };
            let file = |dir: &tempfile::TempDir| dir.path().join("file");
            assert_eq!(fs::read(file(&read)).unwrap(), b"text");
            denied(fs::write(file(&read), "other"));
            denied(fs::read(file(&outside)).map(drop));
            denied(fs::read_dir(outside.path()).map(drop));
            denied(fs::write(outside.path().join("new"), ""));
            denied(fs::remove_file(file(&outside)));
            denied(fs::remove_file(file(&read)));
            fs::create_dir(write.path().join("directory")).unwrap();
            fs::rename(file(&write), write.path().join("directory/moved")).unwrap();
            fs::write("/dev/null", "gone").unwrap();
            denied(fs::read("/dev/null").map(drop));
        });
    }

    #[test]
    fn ports_are_closed_where_that_is_asked_for() {
        if version().is_none_or(|version| version < 4) {
            println!("skipped: this kernel's Landlock knows no ports");
            return;
        }
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        for no_tcp in [false, true] {
            let connected = confined(&[], no_tcp, || {
                let bound = std::net::TcpListener::bind("127.0.0.1:0");
                (std::net::TcpStream::connect(address).is_ok(), bound.is_ok())
            });
            assert_eq!(connected, Some((!no_tcp, !no_tcp)));
        }
    }
}
