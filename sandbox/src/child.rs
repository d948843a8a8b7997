//! The owner's handle of a sandbox.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;
use tokio::sync::oneshot;

use crate::connection::{Connection, Ended, lock};
use crate::error::{Error, Exit};
use crate::member::Member;
use crate::network::Socket;
use crate::plain;
use crate::spec::{Attachment, Limits, Rule};
use crate::wire::{self, Request};

/// A confined process. Dropping it kills it, with everything in its sandbox.
pub struct Child {
    pub(crate) connection: Arc<Connection>,
    pub(crate) id: u64,
    pub(crate) pid: u32,
    pub(crate) ended: Ended,
    /// Our end of the stream that is descriptor 3 inside; non-blocking.
    pub channel: OwnedFd,
    /// What it writes to its standard output; non-blocking.
    pub stdout: OwnedFd,
    /// What it writes to its standard error; non-blocking.
    pub stderr: OwnedFd,
}

impl Child {
    /// The process id, outside, of the sandbox's first process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where a path inside is for its processes: elsewhere than asked for where sandboxes have no view
    /// of their own.
    pub fn inside(&self, path: &Path) -> PathBuf {
        match &self.connection.ground.base {
            Some(base) => plain::inside(&plain::root(base, self.id), path),
            None => path.to_owned(),
        }
    }

    /// Makes more visible, at the mount points the sandbox was made with, and sets its limits. What
    /// was started in it goes on meanwhile and sees it at once.
    ///
    /// # Errors
    /// [`Error::Setup`] names the step that failed; the sandbox is then of no use any more.
    pub async fn attach(&self, attachment: &Attachment) -> Result<(), Error> {
        let (attached, done) = oneshot::channel();
        let connection = &self.connection;
        {
            let mut waiting = lock(&connection.waiting);
            if waiting.lost {
                return Err(Error::LauncherLost);
            }
            if self.has_ended() {
                return Err(Error::Ended);
            }
            waiting.attaching.insert(self.id, attached);
            waiting.limits.insert(self.id, attachment.limits.memory_bytes);
        }
        let request = Request::Attach { id: self.id, attachment: attachment.clone() };
        wire::send(connection.socket.as_raw_fd(), &request, &[])?;
        match done.await {
            Ok(None) => Ok(()),
            Ok(Some((step, errno))) => {
                Err(Error::Setup { step, source: io::Error::from_raw_os_error(errno) })
            }
            Err(_) => Err(Error::Ended),
        }
    }

    /// Sockets that listen on these ports of the sandbox's own 127.0.0.1; non-blocking. They stay
    /// there, and keep its network, for as long as they are held.
    ///
    /// # Errors
    /// [`Error::Setup`] names the step that failed, such as `port 5432` where something in the
    /// sandbox has the port already; also where the sandbox shares the host's network.
    pub async fn listen(&self, ports: &[u16]) -> Result<Vec<OwnedFd>, Error> {
        let listening =
            |port: &u16| Socket::Listening(SocketAddrV4::new(Ipv4Addr::LOCALHOST, *port));
        self.sockets(ports.iter().map(listening).collect()).await
    }

    /// Sockets in the sandbox's own network; non-blocking. They stay there, and keep it, for as long
    /// as they are held.
    ///
    /// # Errors
    /// As [`Child::listen`].
    pub async fn sockets(&self, sockets: Vec<Socket>) -> Result<Vec<OwnedFd>, Error> {
        if sockets.is_empty() {
            return Ok(Vec::new());
        }
        if sockets.len() > wire::MAX_PORTS {
            return Err(Error::TooLarge(sockets.len()));
        }
        self.ask(|id, request| Request::Sockets { id, request, sockets }).await
    }

    /// Leads out of the sandbox's own network, made with [`Network::Full`](crate::Network::Full): to
    /// all that the host reaches by IPv4, except where the first of `rules` that has an address says
    /// otherwise, and never to the host's loopback. It ends with the sandbox.
    ///
    /// # Errors
    /// [`Error::Setup`] names the program that is missing or failed.
    pub async fn uplink(&self, rules: &[Rule]) -> Result<(), Error> {
        let rules = rules.to_vec();
        self.ask(|id, request| Request::Uplink { id, request, rules }).await.map(|_| ())
    }

    /// Asks for something in the sandbox's network.
    async fn ask(&self, request: impl FnOnce(u64, u64) -> Request) -> Result<Vec<OwnedFd>, Error> {
        let connection = &self.connection;
        let number = connection.next.fetch_add(1, Ordering::Relaxed);
        let (listening, made) = oneshot::channel();
        {
            let mut waiting = lock(&connection.waiting);
            if waiting.lost {
                return Err(Error::LauncherLost);
            }
            if self.has_ended() {
                return Err(Error::Ended);
            }
            waiting.listening.insert(number, (self.id, listening));
        }
        wire::send(connection.socket.as_raw_fd(), &request(self.id, number), &[])?;
        match made.await {
            Ok(Ok(sockets)) => Ok(sockets),
            Ok(Err((step, errno))) => {
                Err(Error::Setup { step, source: io::Error::from_raw_os_error(errno) })
            }
            Err(_) => Err(Error::Ended),
        }
    }

    /// A process of this sandbox that one of its processes has forked, by its number inside.
    pub fn member(&self, pid: i32) -> Member {
        let (connection, ended) = (Arc::clone(&self.connection), self.ended.clone());
        Member { connection, id: self.id, init: self.pid, ended, pid }
    }

    /// Whether it is known to have ended.
    pub fn has_ended(&self) -> bool {
        self.ended.exit().is_some()
    }

    /// Keeps what runs in the sandbox on one core, or lets it run on all again.
    pub fn keep_on(&self, core: Option<usize>) {
        crate::affinity::keep_on(self.pid.cast_signed(), core);
    }

    /// Kills everything in the sandbox.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Changes what all its processes may use together; see [`Limits`] for what is kept where.
    pub fn limit(&self, limits: Limits) {
        let mut waiting = lock(&self.connection.waiting);
        if let Some(limit) = waiting.limits.get_mut(&self.id) {
            *limit = limits.memory_bytes;
        }
        drop(waiting);
        self.tell(&Request::Limit { id: self.id, limits });
    }

    /// Stops all its processes where the machine's control groups can do that; elsewhere they go on.
    /// A signal to the sandbox continues them.
    pub fn freeze(&self) {
        self.tell(&Request::Freeze { id: self.id, frozen: true });
    }

    /// Continues what was stopped.
    pub fn thaw(&self) {
        self.tell(&Request::Freeze { id: self.id, frozen: false });
    }

    /// Bytes of memory its processes hold now, without copies of files on disk; shared memory is
    /// counted once. Reads files of `/proc`: not for the path of a call.
    pub fn memory_bytes(&self) -> u64 {
        crate::memory::held(self.pid.cast_signed())
    }

    /// How often it was refused a process or thread because it had as many as it may; counted by its
    /// control group, so always 0 where it has none for that.
    pub fn refused_processes(&self) -> u64 {
        self.ended.refused(&self.connection, self.id)
    }

    fn tell(&self, request: &Request) {
        // Without a launcher the sandbox is gone too.
        if !self.has_ended() {
            self.connection.tell(request);
        }
    }

    /// Asks the process to end.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Waits until it, and everything else in its sandbox, has ended. May be called again.
    pub async fn wait(&mut self) -> Exit {
        self.ended.wait().await
    }

    fn signal(&self, signal: Signal) {
        self.tell(&Request::Signal { id: self.id, signal: signal as i32 });
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
