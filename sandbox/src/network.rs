//! Sockets inside the network of a sandbox that runs already, for who serves it from outside.
//!
//! A socket belongs for life to the network it was made in, whoever holds it. Who may come back goes
//! there and makes them. An ordinary user may not, so a helper goes, hands them over, and ends.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::sched::{CloneFlags, setns};

use crate::setup::{Failure, Step as _};
use crate::sys;
use crate::wire::{self, Event};

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

/// Makes listening sockets in the network `there` and sends them to the owner, whose `request` it is.
///
/// # Errors
/// When there is no helper to be had, or the owner is gone.
pub(crate) fn listen(
    home: Option<&Home>,
    control: RawFd,
    request: u64,
    there: &File,
    ports: &[u16],
) -> io::Result<()> {
    if let Some(Home(home)) = home {
        let opened = open(there, ports);
        if setns(home, CloneFlags::CLONE_NEWNET).is_err() {
            // Whatever came next would happen there; the owner starts another launcher.
            sys::exit(1);
        }
        return hand_over(control, request, opened);
    }
    if sys::fork_into(0)? > 0 {
        return Ok(());
    }
    let sent = hand_over(control, request, open(there, ports));
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

fn open(there: &File, ports: &[u16]) -> Result<Vec<OwnedFd>, Failure> {
    setns(there, CloneFlags::CLONE_NEWNET).step("network namespace")?;
    let open = |port: &u16| -> Result<OwnedFd, Failure> {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, *port);
        let listener = TcpListener::bind(address).step(format!("port {port}"))?;
        listener.set_nonblocking(true).step(format!("port {port}"))?;
        Ok(listener.into())
    };
    ports.iter().map(open).collect()
}
