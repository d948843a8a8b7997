//! The conversation with one launcher process, from its start to its end.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::sync::{oneshot, watch};

use crate::cgroup;
use crate::error::{Error, Exit};
use crate::launcher::Ground;
use crate::probe::Tier;
use crate::wire::{self, Event, Request};

/// Tells the program that it is to be the launcher.
pub(crate) const MARKER: &str = "DISPATCH_LAUNCHER";

/// The launcher's socket, in the launcher.
pub(crate) const CONTROL: i32 = 3;

/// How long a program may take to become the launcher, on a machine that is very busy, in milliseconds.
const READY_WITHIN: u16 = 30_000;

/// One launcher process. When the last handle is dropped it ends, with all it has started.
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    pub(crate) next: AtomicU64,
    pub(crate) waiting: Arc<Mutex<Waiting>>,
    pub(crate) ground: Ground,
}

/// The process id, or the step that failed and its error number.
pub(crate) type Started = Result<i32, (String, i32)>;

/// What was asked for, or the step that failed and its error number.
pub(crate) type Sockets = Result<Vec<OwnedFd>, (String, i32)>;

#[derive(Default)]
pub(crate) struct Waiting {
    /// Who asks how a process of a sandbox ended.
    pub(crate) asking: HashMap<(u64, i32), oneshot::Sender<bool>>,
    pub(crate) starting: HashMap<u64, oneshot::Sender<Started>>,
    pub(crate) attaching: HashMap<u64, oneshot::Sender<Option<(String, i32)>>>,
    /// By request: the sandbox it is for comes along.
    pub(crate) listening: HashMap<u64, (u64, oneshot::Sender<Sockets>)>,
    pub(crate) running: HashMap<u64, Running>,
    /// Bytes of memory that each may use.
    pub(crate) limits: HashMap<u64, u64>,
    pub(crate) lost: bool,
}

impl Waiting {
    /// Nothing will be heard of this one any more.
    pub(crate) fn forget(&mut self, id: u64) -> Option<oneshot::Sender<Started>> {
        self.running.remove(&id);
        self.limits.remove(&id);
        self.attaching.remove(&id);
        self.starting.remove(&id)
    }
}

/// Where the end of a sandbox is told.
pub(crate) struct Running {
    exit: watch::Sender<Option<Exit>>,
    refused: Arc<AtomicU64>,
}

/// Where it is heard of.
#[derive(Clone)]
pub(crate) struct Ended {
    exit: watch::Receiver<Option<Exit>>,
    /// How often it was refused a process, known at its end.
    refused: Arc<AtomicU64>,
}

/// Both ends of it.
pub(crate) fn end() -> (Running, Ended) {
    let ((told, heard), refused) = (watch::channel(None), Arc::default());
    (Running { exit: told, refused: Arc::clone(&refused) }, Ended { exit: heard, refused })
}

impl Ended {
    pub(crate) fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    pub(crate) async fn wait(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Lost),
            Err(_) => Exit::Lost,
        }
    }

    /// How often the sandbox `id` was refused a process until now.
    pub(crate) fn refused(&self, connection: &Connection, id: u64) -> u64 {
        let now = connection.ground.counters.as_deref().map(|all| cgroup::refused(all, id));
        // Its end may come, and its groups go, between the two looks.
        now.unwrap_or(0).max(self.refused.load(Ordering::Relaxed))
    }
}

impl Connection {
    /// Starts a launcher, and waits until it serves.
    pub(crate) fn start(at_most: Tier) -> Result<Connection, Error> {
        if std::env::var_os(MARKER).is_some() {
            // Otherwise a program that forgot to serve would start itself without end.
            return Err(Error::NoLauncher(io::ErrorKind::Unsupported.into()));
        }
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(io::Error::from)?;
        let mut process = spawn_launcher(theirs, at_most).map_err(Error::NoLauncher)?;
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
        Ok(Connection { socket, next: AtomicU64::new(1), waiting, ground })
    }

    /// Sends what needs no answer. Without a launcher nothing is left that it could be for.
    pub(crate) fn tell(&self, request: &Request) {
        let _ = wire::send(self.socket.as_raw_fd(), request, &[]);
    }

    /// Whether nothing will be heard from it any more.
    pub(crate) fn is_lost(&self) -> bool {
        lock(&self.waiting).lost
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

impl Drop for Connection {
    fn drop(&mut self) {
        // The listening thread holds a copy: only this ends the conversation.
        let _ =
            nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            Event::Exited { id, status, out_of_memory, refused } => {
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
                    running.refused.store(refused, Ordering::Relaxed);
                    running.exit.send_replace(Some(exit));
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
        running.exit.send_replace(Some(Exit::Lost));
    }
}
