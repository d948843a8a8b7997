//! Sockets inside the network of a sandbox that runs already, for who serves it from outside.
//!
//! A socket belongs for life to the network it was made in, whoever holds it. So a helper goes
//! there, makes them, hands them over, and ends: an ordinary user could not come back.

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

/// Lets a helper make listening sockets in the network `there` and send them to the owner, whose
/// `request` it is.
///
/// # Errors
/// When there is no helper to be had.
pub(crate) fn listen(control: RawFd, request: u64, there: &File, ports: &[u16]) -> io::Result<()> {
    if sys::fork_into(0)? > 0 {
        return Ok(());
    }
    let (sockets, failed) = match open(there, ports) {
        Ok(sockets) => (sockets, None),
        Err(Failure { step, error }) => {
            (Vec::new(), Some((step, error.raw_os_error().unwrap_or(libc::EIO))))
        }
    };
    let fds: Vec<RawFd> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
    let sent = wire::send(control, &Event::Listening { request, failed }, &fds);
    sys::exit(i32::from(sent.is_err()))
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
