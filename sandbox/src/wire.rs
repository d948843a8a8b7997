//! Messages between the owner and the launcher: one JSON document a datagram, with descriptors.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::launcher::Ground;
use crate::network::Socket;
use crate::spec::{Attachment, Limits, Rule, Spec};

/// Bytes of one message.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Bytes of one that goes as it is; a longer one goes in a file, as the last descriptor.
const MAX_INLINE: usize = 32 << 10;
/// What is sent in place of one that goes in a file.
const IN_FILE: &[u8] = b"file";

/// Sockets that can be asked for at once.
pub const MAX_PORTS: usize = 32;

/// From the owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Start a process; comes with three descriptors: channel, standard output, standard error.
    Spawn { id: u64, spec: Box<Spec> },
    /// Send a signal to a sandbox.
    Signal { id: u64, signal: i32 },
    /// Make more visible in a sandbox that runs, and set its limits.
    Attach { id: u64, attachment: Attachment },
    /// Set the limits of a sandbox that runs.
    Limit { id: u64, limits: Limits },
    /// Stop all its processes, or continue them.
    Freeze { id: u64, frozen: bool },
    /// Send a signal to one process, named by its number inside.
    SignalInside { id: u64, pid: i32, signal: i32 },
    /// Watch the memory of one process and its children.
    WatchInside { id: u64, pid: i32, memory_bytes: u64 },
    /// Say whether a process that was watched was killed for its memory.
    WasOutOfMemory { id: u64, pid: i32 },
    /// Make sockets in its network.
    Sockets { id: u64, request: u64, sockets: Vec<Socket> },
    /// Lead out of its network, past a filter.
    Uplink { id: u64, request: u64, rules: Vec<Rule> },
}

/// From the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The launcher serves, with sandboxes of this kind.
    Ready(Ground),
    /// The process runs; `pid` is its sandbox's init, seen from outside.
    Spawned { id: u64, pid: i32 },
    /// It could not be started.
    Failed { id: u64, step: String, errno: i32 },
    /// What was to be attached is there, or the step that failed and its error number.
    Attached { id: u64, failed: Option<(String, i32)> },
    /// The sockets that were asked for come along, the way out is there, or the step that failed and its error number.
    Listening { request: u64, failed: Option<(String, i32)> },
    /// Whether a process was killed for its memory.
    OutOfMemory { id: u64, pid: i32, killed: bool },
    /// It, and every other process of its sandbox, has ended; it was refused a process so often.
    Exited { id: u64, status: i32, out_of_memory: bool, refused: u64 },
}

/// Sends a message with descriptors, of which there are at most [`MAX_PORTS`].
pub(crate) fn send<T: Serialize>(socket: RawFd, message: &T, fds: &[RawFd]) -> io::Result<()> {
    let mut text = serde_json::to_vec(message)?;
    if text.len() > MAX_MESSAGE {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let mut fds = fds.to_vec();
    let mut file = None;
    if text.len() > MAX_INLINE {
        let mut memory = File::from(memfd_create(c"message", MFdFlags::MFD_CLOEXEC)?);
        memory.write_all(&text)?;
        fds.push(file.insert(memory).as_raw_fd());
        text = IN_FILE.to_vec();
    }
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    let sent =
        sendmsg::<UnixAddr>(socket, &[IoSlice::new(&text)], rights, MsgFlags::MSG_NOSIGNAL, None);
    sent.map(|_| ()).map_err(io::Error::from)
}

/// Receives a message; none at the end of the conversation.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: &OwnedFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = vec![0; MAX_INLINE];
    let mut space = nix::cmsg_space!([RawFd; MAX_PORTS + 1]);
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
    text.truncate(length);
    if text == IN_FILE {
        let mut file = File::from(fds.pop().ok_or(io::ErrorKind::InvalidData)?);
        // Its position came along with it.
        file.seek(SeekFrom::Start(0))?;
        text.clear();
        file.take(MAX_MESSAGE as u64).read_to_end(&mut text)?;
    }
    Ok(Some((serde_json::from_slice(&text)?, fds)))
}
