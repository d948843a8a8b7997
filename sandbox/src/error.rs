//! What can go wrong, and how a process ended.

use std::io;

/// Why a sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step of the setup failed.
    #[error("the sandbox could not be made: {step}: {source}{}", hint(step, source))]
    Setup {
        /// The step, such as `bind /opt/python`.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Nothing would keep a process from the machine.
    #[error(
        "functions cannot run here, since nothing would keep them from the machine: {0}; \
         docs/reference/isolation.md says what to change, and --insecure-no-isolation runs them \
         nevertheless, with all that the server's user may do"
    )]
    NoIsolation(String),
    /// The launcher did not start.
    #[error(
        "the launcher of sandboxes did not start: {0}; the program must be able to execute itself \
         (/proc/self/exe) and call dispatch_sandbox::run_if_launcher() first in main"
    )]
    NoLauncher(io::Error),
    /// The launcher has ended, and all it had started with it. The next process starts another one.
    #[error("the launcher of sandboxes has ended; try again")]
    LauncherLost,
    /// The sandbox has ended.
    #[error("the sandbox has ended")]
    Ended,
    /// The request is larger than a message may be.
    #[error("the description of a sandbox has {0} bytes; at most {max} fit", max = crate::wire::MAX_MESSAGE)]
    TooLarge(usize),
    /// The owner's side failed.
    #[error("the sandbox could not be made: {0}")]
    Io(#[from] io::Error),
}

fn hint(step: &str, error: &io::Error) -> &'static str {
    match (step, error.raw_os_error().unwrap_or_default()) {
        // Some machines allow the namespace and then nothing in it.
        ("namespaces", libc::EPERM | libc::ENOSPC | libc::EUSERS | libc::EINVAL)
        | ("private mounts", libc::EPERM | libc::EACCES) => {
            " (user namespaces are not allowed: see sysctl kernel.unprivileged_userns_clone, \
             user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns, or run \
             the server as root; in a container, allow it to make namespaces)"
        }
        ("user mapping" | "output" | "privileges", libc::EPERM | libc::EINVAL) => {
            " (the user functions run as must be a user id that exists here, and not root's; \
             inside a container, one of the ids the container has)"
        }
        (step, libc::EROFS) if step.starts_with("bind at") => {
            " (inside a directory of the machine, which is read-only, the place must exist already)"
        }
        ("exec", libc::ENOENT) => {
            " (the program, or the loader or interpreter it names, is not visible inside the \
             sandbox)"
        }
        ("exec" | "working directory", libc::EACCES) => {
            " (it, or a directory above it, may not be used by other users than its owner)"
        }
        ("exec", libc::ENOEXEC) => " (it is not a program for this machine)",
        ("network namespace", libc::ESRCH) => {
            " (sandboxes have no network of their own here, which egress proxy and full need: run \
             the server in tier A or B)"
        }
        ("nft", libc::ENOENT) => " (egress full needs it: install the package nftables)",
        ("slirp4netns", libc::ENOENT) => " (egress full needs it: install the package slirp4netns)",
        ("slirp4netns", libc::EIO) => {
            " (it ended at once: it needs to open /dev/net/tun for reading and writing)"
        }
        ("nft", libc::EIO) => " (this kernel has no nftables, or they may not be used here)",
        ("sandboxes", _) => {
            " (as many sandboxes run as the limit on open files allows: see ulimit -n)"
        }
        ("processes", _) | (_, libc::EAGAIN) => " (a limit on processes is reached)",
        _ => "",
    }
}

/// How a confined process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It made a system call that is forbidden and was killed by `SIGSYS`.
    ForbiddenCall,
    /// It used more memory than it may and was killed.
    OutOfMemory {
        /// Its limit in bytes.
        limit_bytes: u64,
    },
    /// Nobody can say: what watched over it ended first.
    Lost,
}

impl Exit {
    /// What a wait status says.
    pub fn from_status(status: i32) -> Exit {
        if libc::WIFSIGNALED(status) {
            match libc::WTERMSIG(status) {
                libc::SIGSYS => Exit::ForbiddenCall,
                signal => Exit::Signal(signal),
            }
        } else {
            Exit::Code(libc::WEXITSTATUS(status))
        }
    }
}
