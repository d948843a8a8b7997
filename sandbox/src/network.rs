//! Sockets inside the network of a sandbox that runs already, for who serves it from outside.
//!
//! A socket belongs for life to the network it was made in, whoever holds it. Who may come back goes
//! there and makes them. An ordinary user may not, so a helper goes, hands them over, and ends.

use std::fs::File;
use std::io;
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde::{Deserialize, Serialize};

use crate::setup::{Failure, Step as _};
use crate::sys;
use crate::wire::{self, Event};

/// A socket in the network of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Socket {
    /// It listens there, on an address of the sandbox's loopback.
    Listening(SocketAddrV4),
    /// It is for TCP over IPv4 and not connected yet: what it connects to is inside.
    Free,
}

/// The network that the process `pid` is in. To be asked for before it gives up its rights: then
/// nobody may look at it any more.
pub(crate) fn of(pid: i32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/ns/net"))
}

/// The network to come back to.
pub(crate) struct Home(File);

impl Home {
    /// The one we are in; none where we could leave it only for good.
    pub(crate) fn here() -> Option<Home> {
        let home = File::open("/proc/self/ns/net").ok()?;
        setns(&home, CloneFlags::CLONE_NEWNET).ok().map(|()| Home(home))
    }
}

/// Makes sockets in the network `there` and sends them to the owner, whose `request` it is.
///
/// # Errors
/// When there is no helper to be had, or the owner is gone.
pub(crate) fn make(
    home: Option<&Home>,
    control: RawFd,
    request: u64,
    there: &File,
    sockets: &[Socket],
) -> io::Result<()> {
    if let Some(Home(home)) = home {
        let opened = open(there, sockets);
        if setns(home, CloneFlags::CLONE_NEWNET).is_err() {
            // Whatever came next would happen there; the owner starts another launcher.
            sys::exit(1);
        }
        return hand_over(control, request, opened);
    }
    if sys::fork_into(0)? > 0 {
        return Ok(());
    }
    let sent = hand_over(control, request, open(there, sockets));
    sys::exit(i32::from(sent.is_err()))
}

fn hand_over(
    control: RawFd,
    request: u64,
    opened: Result<Vec<OwnedFd>, Failure>,
) -> io::Result<()> {
    let (sockets, failed) = match opened {
        Ok(sockets) => (sockets, None),
        Err(Failure { step, error }) => {
            (Vec::new(), Some((step, error.raw_os_error().unwrap_or(libc::EIO))))
        }
    };
    let fds: Vec<RawFd> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
    wire::send(control, &Event::Listening { request, failed }, &fds)
}

fn open(there: &File, sockets: &[Socket]) -> Result<Vec<OwnedFd>, Failure> {
    setns(there, CloneFlags::CLONE_NEWNET).step("network namespace")?;
    let open = |wanted: &Socket| -> Result<OwnedFd, Failure> {
        let Socket::Listening(address) = wanted else {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            return socket(AddressFamily::Inet, SockType::Stream, flags, None).step("socket");
        };
        let name = || format!("port {}", address.port());
        let listener = TcpListener::bind(address).step(name())?;
        listener.set_nonblocking(true).step(name())?;
        Ok(listener.into())
    };
    sockets.iter().map(open).collect()
}
