//! The owner's side: starting the launcher, and asking it for processes.

use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::sync::oneshot;

use crate::child::Child;
use crate::connection::{self, Connection, lock};
use crate::error::Error;
use crate::launcher::Ground;
use crate::plain;
use crate::probe::{self, Report, Tier};
use crate::spec::Spec;
use crate::wire::{self, Request};

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

/// A handle of the launcher process. When the last one is dropped, and the last [`Child`], the
/// launcher ends, and every process it has started with it. Should it end before, all of these do, and
/// the next [`Launcher::spawn`] starts another one.
#[derive(Clone)]
pub struct Launcher(Arc<Owner>);

struct Owner {
    connection: Mutex<Arc<Connection>>,
    /// Held by who starts another launcher.
    starting: tokio::sync::Mutex<()>,
    /// What kind of sandboxes the first launcher found. All others must find the same.
    ground: Ground,
    wish: Wish,
    probed: tokio::sync::OnceCell<Report>,
}

/// Files that a process with many sandboxes wants to have open.
const FILES: u64 = 1 << 16;

/// How many files this process may have open. The limit is raised as far as it is ours to raise.
///
/// # Errors
/// The limit cannot be read.
pub fn open_files() -> io::Result<u64> {
    let (files, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = files.max(most.min(FILES));
    Ok(setrlimit(Resource::RLIMIT_NOFILE, wanted, most).map_or(files, |()| wanted))
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
        // Each sandbox takes some of ours.
        let _ = open_files();
        let connection = Connection::start(wish.at_most)?;
        Ok(Launcher(Arc::new(Owner {
            ground: connection.ground.clone(),
            connection: Mutex::new(Arc::new(connection)),
            starting: tokio::sync::Mutex::default(),
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
        match spawn(self.connection().await?, spec).await {
            // It ended just now, and nothing of the sandbox is left.
            Err(Error::LauncherLost) => spawn(self.connection().await?, spec).await,
            spawned => spawned,
        }
    }

    /// The launcher that serves, if need be a new one.
    async fn connection(&self) -> Result<Arc<Connection>, Error> {
        let current = || Arc::clone(&lock(&self.0.connection));
        if !current().is_lost() {
            return Ok(current());
        }
        let _starting = self.0.starting.lock().await;
        let lost = current();
        if !lost.is_lost() {
            return Ok(lost);
        }
        tracing::error!(
            "the launcher of sandboxes has ended, and all workers with it; a new one starts"
        );
        let at_most = self.0.wish.at_most;
        let started = tokio::task::spawn_blocking(move || Connection::start(at_most)).await;
        let fresh = started.map_err(|error| Error::NoLauncher(io::Error::other(error)))??;
        if let Some(base) = &lost.ground.base {
            plain::remove(base);
        }
        let (before, now) = (&self.0.ground, &fresh.ground);
        if (before.tier, before.base.is_some()) != (now.tier, now.base.is_some()) {
            // Nobody may get less than was promised.
            let what =
                format!("it finds isolation tier {} where {} was before", now.tier, before.tier);
            return Err(Error::NoLauncher(io::Error::other(what)));
        }
        let fresh = Arc::new(fresh);
        *lock(&self.0.connection) = Arc::clone(&fresh);
        Ok(fresh)
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

    /// Whether there are sandboxes that change images; see [`Spec::installs`].
    pub fn can_install(&self) -> bool {
        self.has_views() && self.0.ground.user_namespaces
    }

    /// Whether sandboxes can be made to stand still; see [`Child::freeze`].
    pub fn can_freeze(&self) -> bool {
        self.0.ground.freezes
    }

    /// What separates sandboxes on this machine, found out by making one.
    pub async fn probe(&self) -> Report {
        self.0
            .probed
            .get_or_init(|| probe::probe(self, &self.0.ground, self.0.wish.without_isolation))
            .await
            .clone()
    }
}

async fn spawn(connection: Arc<Connection>, spec: &Spec) -> Result<Child, Error> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (channel, inner_channel) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, flags).map_err(io::Error::from)?;
    let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from);
    let (stdout, inner_stdout) = pipe()?;
    let (stderr, inner_stderr) = pipe()?;
    for fd in [&channel, &stdout, &stderr] {
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(flags)).map_err(io::Error::from)?;
    }
    let id = connection.next.fetch_add(1, Ordering::Relaxed);
    let (started, start) = oneshot::channel();
    let (running, ended) = connection::end();
    {
        let mut waiting = lock(&connection.waiting);
        if waiting.lost {
            return Err(Error::LauncherLost);
        }
        waiting.starting.insert(id, started);
        waiting.running.insert(id, running);
        waiting.limits.insert(id, spec.memory_bytes);
    }
    let socket = connection.socket.as_raw_fd();
    let mut child = Child { connection, id, pid: 0, ended, channel, stdout, stderr };
    let request = Request::Spawn { id, spec: Box::new(spec.clone()) };
    let fds = [&inner_channel, &inner_stdout, &inner_stderr].map(|fd| fd.as_raw_fd());
    wire::send(socket, &request, &fds).map_err(|error| {
        let mut waiting = lock(&child.connection.waiting);
        waiting.forget(id);
        match error.raw_os_error() {
            Some(libc::EMSGSIZE) => {
                Error::TooLarge(serde_json::to_vec(spec).map(|text| text.len()).unwrap_or_default())
            }
            Some(libc::EPIPE | libc::ECONNRESET) => {
                waiting.lost = true;
                Error::LauncherLost
            }
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
