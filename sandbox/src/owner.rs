//! The owner's side: starting the launcher, asking it for processes, hearing how they end.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::sync::{oneshot, watch};

use crate::error::{Error, Exit};
use crate::launcher::Ground;
use crate::member::Member;
use crate::plain;
use crate::probe::{self, Report, Tier};
use crate::spec::{Attachment, Limits, Rule, Spec};
use crate::wire::{self, Event, Request};

/// Tells the program that it is to be the launcher.
pub(crate) const MARKER: &str = "DISPATCH_LAUNCHER";

/// The launcher's socket, in the launcher.
pub(crate) const CONTROL: i32 = 3;

/// How long a program may take to become the launcher, on a machine that is very busy, in milliseconds.
const READY_WITHIN: u16 = 30_000;

/// What kind of sandboxes the owner of a launcher wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// No better ones than these, to see what a worse machine allows.
    pub at_most: Tier,
    /// Processes are to run even where nothing keeps them in.
    pub without_isolation: bool,
}

impl Default for Wish {
    fn default() -> Wish {
        Wish { at_most: Tier::A, without_isolation: false }
    }
}

/// A handle of the launcher process. When the last one is dropped the launcher ends, and every
/// process it has started with it.
#[derive(Clone)]
pub struct Launcher(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) socket: OwnedFd,
    next: AtomicU64,
    pub(crate) waiting: Arc<Mutex<Waiting>>,
    ground: Ground,
    wish: Wish,
    probed: tokio::sync::OnceCell<Report>,
}

/// The process id, or the step that failed and its error number.
type Started = Result<i32, (String, i32)>;

/// What was asked for, or the step that failed and its error number.
type Sockets = Result<Vec<OwnedFd>, (String, i32)>;

#[derive(Default)]
pub(crate) struct Waiting {
    /// Who asks how a process of a sandbox ended.
    pub(crate) asking: HashMap<(u64, i32), oneshot::Sender<bool>>,
    starting: HashMap<u64, oneshot::Sender<Started>>,
    attaching: HashMap<u64, oneshot::Sender<Option<(String, i32)>>>,
    /// By request: the sandbox it is for comes along.
    listening: HashMap<u64, (u64, oneshot::Sender<Sockets>)>,
    running: HashMap<u64, watch::Sender<Option<Exit>>>,
    limits: HashMap<u64, u64>,
    lost: bool,
}

impl Waiting {
    /// Nothing will be heard of this one any more.
    fn forget(&mut self, id: u64) -> Option<oneshot::Sender<Started>> {
        self.running.remove(&id);
        self.limits.remove(&id);
        self.attaching.remove(&id);
        self.starting.remove(&id)
    }
}

impl Launcher {
    /// Starts the launcher: the same program once more, with [`crate::run_if_launcher`] as the first
    /// thing in its `main`. Blocks for as long as an exec takes; call it before other threads and
    /// runtimes exist where you can.
    ///
    /// # Errors
    /// The program cannot be started again.
    pub fn start() -> Result<Launcher, Error> {
        Launcher::start_with(Wish::default())
    }

    /// The same, with a wish.
    ///
    /// # Errors
    /// The program cannot be started again.
    pub fn start_with(wish: Wish) -> Result<Launcher, Error> {
        if std::env::var_os(MARKER).is_some() {
            // Otherwise a program that forgot to serve would start itself without end.
            return Err(Error::NoLauncher(io::ErrorKind::Unsupported.into()));
        }
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(io::Error::from)?;
        let mut process = spawn_launcher(theirs, wish.at_most).map_err(Error::NoLauncher)?;
        let ground = match ready(&ours) {
            Ok(ground) => ground,
            Err(error) => {
                let _ = process.kill().and_then(|()| process.wait());
                return Err(Error::NoLauncher(error));
            }
        };
        // It ends when its socket is closed; somebody has to hear of it then.
        std::thread::Builder::new()
            .name("launcher-end".to_owned())
            .spawn(move || process.wait())?;
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let socket = ours.try_clone()?;
        let heard = Arc::clone(&waiting);
        std::thread::Builder::new()
            .name("launcher-events".to_owned())
            .spawn(move || listen(&ours, &heard))?;
        Ok(Launcher(Arc::new(Inner {
            socket,
            next: AtomicU64::new(1),
            waiting,
            ground,
            wish,
            probed: tokio::sync::OnceCell::new(),
        })))
    }

    /// Starts one confined process.
    ///
    /// # Errors
    /// [`Error::Setup`] names the step that failed and what to do about it.
    pub async fn spawn(&self, spec: &Spec) -> Result<Child, Error> {
        if self.tier() == Tier::D && !self.0.wish.without_isolation {
            return Err(Error::NoIsolation(self.0.ground.refused.join("; ")));
        }
        let flags = SockFlag::SOCK_CLOEXEC;
        let (channel, inner_channel) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, flags)
                .map_err(io::Error::from)?;
        let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from);
        let (stdout, inner_stdout) = pipe()?;
        let (stderr, inner_stderr) = pipe()?;
        for fd in [&channel, &stdout, &stderr] {
            let flags = nix::fcntl::OFlag::O_NONBLOCK;
            nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(flags)).map_err(io::Error::from)?;
        }
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (started, start) = oneshot::channel();
        let (exited, exit) = watch::channel(None);
        {
            let mut waiting = lock(&self.0.waiting);
            if waiting.lost {
                return Err(Error::LauncherLost);
            }
            waiting.starting.insert(id, started);
            waiting.running.insert(id, exited);
            waiting.limits.insert(id, spec.memory_bytes);
        }
        let mut child = Child { launcher: self.clone(), id, pid: 0, exit, channel, stdout, stderr };
        let request = Request::Spawn { id, spec: Box::new(spec.clone()) };
        let fds = [&inner_channel, &inner_stdout, &inner_stderr].map(|fd| fd.as_raw_fd());
        wire::send(self.0.socket.as_raw_fd(), &request, &fds).map_err(|error| {
            lock(&self.0.waiting).forget(id);
            match error.raw_os_error() {
                Some(libc::EMSGSIZE) => Error::TooLarge(
                    serde_json::to_vec(spec).map(|text| text.len()).unwrap_or_default(),
                ),
                Some(libc::EPIPE | libc::ECONNRESET) => Error::LauncherLost,
                _ => Error::Io(error),
            }
        })?;
        drop((inner_channel, inner_stdout, inner_stderr));
        match start.await {
            Ok(Ok(pid)) => {
                child.pid = pid.unsigned_abs();
                Ok(child)
            }
            Ok(Err((step, errno))) => {
                Err(Error::Setup { step, source: io::Error::from_raw_os_error(errno) })
            }
            Err(_) => Err(Error::LauncherLost),
        }
    }

    /// How well sandboxes are separated here.
    pub fn tier(&self) -> Tier {
        self.0.ground.tier
    }

    /// Whether sandboxes run as users of their own: those must be able to read what they run.
    pub fn has_users(&self) -> bool {
        nix::unistd::geteuid().is_root()
    }

    /// Whether sandboxes see a file tree of their own. Without one they have the host's paths, and
    /// nothing can be attached to them.
    pub fn has_views(&self) -> bool {
        self.0.ground.base.is_none()
    }

    /// What separates sandboxes on this machine, found out by making one.
    pub async fn probe(&self) -> Report {
        self.0
            .probed
            .get_or_init(|| probe::probe(self, &self.0.ground, self.0.wish.without_isolation))
            .await
            .clone()
    }

    fn signal(&self, id: u64, signal: Signal) {
        let request = Request::Signal { id, signal: signal as i32 };
        // Without a launcher nothing is left that could be signalled.
        let _ = wire::send(self.0.socket.as_raw_fd(), &request, &[]);
    }
}

fn spawn_launcher(theirs: OwnedFd, at_most: Tier) -> io::Result<std::process::Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("dispatch-launcher")
        .env_clear()
        .env(MARKER, format!("{at_most:?}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let fd = theirs.as_raw_fd();
    #[expect(unsafe_code, reason = "the one descriptor the launcher inherits")]
    // SAFETY: between fork and exec only dup2 and fcntl are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if fd == CONTROL {
                libc::fcntl(fd, libc::F_SETFD, 0);
                return Ok(());
            }
            crate::sys::place(fd, CONTROL)
        });
    }
    // Our copy of its end goes, so that we hear when it has none any more.
    let spawned = command.spawn();
    drop(theirs);
    spawned
}

/// Waits until the launcher serves; says what kind of sandboxes it makes.
fn ready(socket: &OwnedFd) -> io::Result<Ground> {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::from(READY_WITHIN))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match wire::receive::<Event>(socket)? {
        Some((Event::Ready(ground), _)) => Ok(ground),
        Some(_) => Err(io::ErrorKind::InvalidData.into()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The listening thread holds a copy: only this ends the conversation.
        let _ =
            nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

pub(crate) fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(socket: &OwnedFd, waiting: &Mutex<Waiting>) {
    while let Ok(Some((event, fds))) = wire::receive::<Event>(socket) {
        let mut waiting = lock(waiting);
        match event {
            Event::Ready(_) => {}
            Event::Spawned { id, pid } => {
                if let Some(starting) = waiting.starting.remove(&id) {
                    let _ = starting.send(Ok(pid));
                }
            }
            Event::Failed { id, step, errno } => {
                if let Some(starting) = waiting.forget(id) {
                    let _ = starting.send(Err((step, errno)));
                }
            }
            Event::Attached { id, failed } => {
                if let Some(attaching) = waiting.attaching.remove(&id) {
                    let _ = attaching.send(failed);
                }
            }
            Event::Listening { request, failed } => {
                if let Some((_, listening)) = waiting.listening.remove(&request) {
                    let _ = listening.send(failed.map_or(Ok(fds), Err));
                }
            }
            Event::OutOfMemory { id, pid, killed } => {
                if let Some(asking) = waiting.asking.remove(&(id, pid)) {
                    let _ = asking.send(killed);
                }
            }
            Event::Exited { id, status, out_of_memory } => {
                waiting.asking.retain(|(sandbox, _), _| *sandbox != id);
                waiting.listening.retain(|_, (sandbox, _)| *sandbox != id);
                waiting.attaching.remove(&id);
                let limit_bytes = waiting.limits.remove(&id).unwrap_or_default();
                let exit = if out_of_memory {
                    Exit::OutOfMemory { limit_bytes }
                } else {
                    Exit::from_status(status)
                };
                if let Some(running) = waiting.running.remove(&id) {
                    running.send_replace(Some(exit));
                }
            }
        }
    }
    let mut waiting = lock(waiting);
    waiting.lost = true;
    waiting.starting.clear();
    waiting.attaching.clear();
    waiting.listening.clear();
    for (_, running) in waiting.running.drain() {
        running.send_replace(Some(Exit::LauncherLost));
    }
}

/// A confined process. Dropping it kills it, with everything in its sandbox.
pub struct Child {
    launcher: Launcher,
    id: u64,
    pid: u32,
    exit: watch::Receiver<Option<Exit>>,
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
        match &self.launcher.0.ground.base {
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
        let inner = &self.launcher.0;
        {
            let mut waiting = lock(&inner.waiting);
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
        wire::send(inner.socket.as_raw_fd(), &request, &[])?;
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
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        if ports.len() > wire::MAX_PORTS {
            return Err(Error::TooLarge(ports.len()));
        }
        let ports = ports.to_vec();
        self.ask(|id, request| Request::Listen { id, request, ports }).await
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
        let inner = &self.launcher.0;
        let number = inner.next.fetch_add(1, Ordering::Relaxed);
        let (listening, made) = oneshot::channel();
        {
            let mut waiting = lock(&inner.waiting);
            if waiting.lost {
                return Err(Error::LauncherLost);
            }
            if self.has_ended() {
                return Err(Error::Ended);
            }
            waiting.listening.insert(number, (self.id, listening));
        }
        wire::send(inner.socket.as_raw_fd(), &request(self.id, number), &[])?;
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
        let (launcher, id, exit) = (self.launcher.clone(), self.id, self.exit.clone());
        Member { launcher, id, init: self.pid, exit, pid }
    }

    /// Whether it is known to have ended.
    pub fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Keeps what runs in the sandbox on one core, or lets it run on all again.
    pub fn keep_on(&self, core: Option<usize>) {
        crate::affinity::keep_on(self.pid.cast_signed(), core);
    }

    /// Kills everything in the sandbox.
    pub fn kill(&self) {
        if self.exit.borrow().is_none() {
            self.launcher.signal(self.id, Signal::SIGKILL);
        }
    }

    /// Changes what all its processes may use together; see [`Limits`] for what is kept where.
    pub fn limit(&self, limits: Limits) {
        let mut waiting = lock(&self.launcher.0.waiting);
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

    fn tell(&self, request: &Request) {
        // Without a launcher the sandbox is gone too.
        if !self.has_ended() {
            let _ = wire::send(self.launcher.0.socket.as_raw_fd(), request, &[]);
        }
    }

    /// Asks the process to end.
    pub fn terminate(&self) {
        if self.exit.borrow().is_none() {
            self.launcher.signal(self.id, Signal::SIGTERM);
        }
    }

    /// Waits until it, and everything else in its sandbox, has ended. May be called again.
    pub async fn wait(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::LauncherLost),
            Err(_) => Exit::LauncherLost,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
