//! Confined processes.
//!
//! A single-threaded *launcher*, the same program executed once more, makes every process: in
//! namespaces of its own, with a read-only view of the machine, without capabilities, under limits.
//! The *owner* talks to it over one socket. This is the only crate with `unsafe` code and the only
//! one that creates processes.

mod affinity;
mod attach;
mod cgroup;
mod child;
mod connection;
mod error;
mod init;
mod inside;
mod landlock;
mod launcher;
mod member;
mod memory;
mod mounts;
mod network;
mod owner;
mod plain;
mod probe;
mod rootfs;
mod seccomp;
mod setup;
mod spec;
mod sys;
mod uplink;
mod wire;

pub use affinity::{cores, keep_this_thread_on};
pub use child::Child;
pub use error::{Error, Exit};
pub use init::INSIDE;
pub use member::Member;
pub use network::Socket;
pub use owner::{Launcher, Wish, open_files};
pub use probe::{Layer, Report, Tier};
pub use seccomp::check_call;
pub use spec::{Attachment, Bind, Limits, Network, Rule, Spec};
pub use uplink::NAMESERVER;
pub use wire::MAX_PORTS;

/// Serves as the launcher, and never returns, where this process was started to be it. To be called
/// first in `main`, before any thread exists.
pub fn run_if_launcher() {
    if std::env::var_os(connection::MARKER).is_none() || !sys::is_seqpacket(connection::CONTROL) {
        return;
    }
    #[expect(unsafe_code, reason = "the descriptor the owner put there")]
    // SAFETY: the owner placed our socket at this number, and nobody else here knows it.
    let control = unsafe {
        <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(connection::CONTROL)
    };
    sys::close_from(4, false);
    let at_most = std::env::var(connection::MARKER).ok().and_then(|tier| tier.parse().ok());
    sys::exit(i32::from(launcher::serve(control, at_most.unwrap_or(Tier::A)).is_err()));
}

/// The channel to the owner of a sandbox, for a program that is the process in it. It is moved out of
/// the way of what this program starts, and those do not inherit it. To be called once.
///
/// # Errors
/// There is none.
pub fn inherited_channel() -> std::io::Result<std::os::fd::OwnedFd> {
    #[expect(unsafe_code, reason = "the descriptor that `init` put there")]
    // SAFETY: who calls this is the process that the descriptor was made for, and nothing else in it
    // knows the number; the owned one is closed when the copy is made.
    let inherited = unsafe {
        <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(connection::CONTROL)
    };
    // Where it is not open, that must not be closed a second time.
    match inherited.try_clone() {
        Ok(channel) => Ok(channel),
        Err(error) => {
            std::mem::forget(inherited);
            Err(error)
        }
    }
}

/// Makes a test binary able to be the launcher: it has no `main` of its own to say so.
#[cfg(feature = "testing")]
mod testing {
    #[ctor::ctor(unsafe)]
    fn before_main() {
        super::run_if_launcher();
    }
}
