//! Messages between the owner and the launcher: one JSON document a datagram, with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::spec::Spec;

/// Bytes of one message.
pub const MAX_MESSAGE: usize = 128 << 10;

/// From the owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Start a process; comes with three descriptors: channel, standard output, standard error.
    Spawn { id: u64, spec: Box<Spec> },
    /// Send a signal to a sandbox.
    Signal { id: u64, signal: i32 },
}

/// From the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The process runs; `pid` is its sandbox's init, seen from outside.
    Spawned { id: u64, pid: i32 },
    /// It could not be started.
    Failed { id: u64, step: String, errno: i32 },
    /// It, and every other process of its sandbox, has ended.
    Exited { id: u64, status: i32, out_of_memory: bool },
}

pub(crate) fn send<T: Serialize>(socket: RawFd, message: &T, fds: &[RawFd]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > MAX_MESSAGE {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let rights = [ControlMessage::ScmRights(fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    let sent =
        sendmsg::<UnixAddr>(socket, &[IoSlice::new(&text)], rights, MsgFlags::MSG_NOSIGNAL, None);
    sent.map(|_| ()).map_err(io::Error::from)
}

/// Receives a message; none at the end of the conversation.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: &OwnedFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; MAX_MESSAGE];
    let mut space = nix::cmsg_space!([RawFd; 3]);
    let mut fds = Vec::new();
    let length = {
        let mut parts = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        for control in message.cmsgs().map_err(io::Error::from)? {
            if let ControlMessageOwned::ScmRights(received) = control {
                for fd in received {
                    #[expect(unsafe_code, reason = "descriptors that the kernel just gave us")]
                    // SAFETY: recvmsg installed this descriptor for us; nobody else owns it.
                    fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
        if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        message.bytes
    };
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&text[..length])?, fds)))
}
