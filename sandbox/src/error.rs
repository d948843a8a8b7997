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
    /// The launcher does not answer any more: no process can be started until the server restarts.
    #[error("the launcher of sandboxes has ended; start the server again")]
    LauncherLost,
    /// The request is larger than a message may be.
    #[error("the description of a sandbox has {0} bytes; at most {max} fit", max = crate::wire::MAX_MESSAGE)]
    TooLarge(usize),
    /// The owner's side failed.
    #[error("the sandbox could not be made: {0}")]
    Io(#[from] io::Error),
}

fn hint(step: &str, error: &io::Error) -> &'static str {
    let code = error.raw_os_error();
    if step == "namespaces" && matches!(code, Some(libc::EPERM | libc::ENOSPC | libc::EACCES)) {
        return " (user namespaces are not allowed: see sysctl kernel.unprivileged_userns_clone, \
                user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns, or run \
                the server as root)";
    }
    if step == "exec" && code == Some(libc::ENOENT) {
        return " (the program, or the loader it names, is not visible inside the sandbox)";
    }
    if step == "processes" || code == Some(libc::EAGAIN) {
        return " (a limit on processes is reached)";
    }
    ""
}

/// How a confined process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It used more memory than it may and was killed.
    OutOfMemory {
        /// Its limit in bytes.
        limit_bytes: u64,
    },
    /// The launcher ended, and everything it had started with it.
    LauncherLost,
}
