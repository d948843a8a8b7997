//! Programs that run beside functions until they are stopped: event drivers. Each has a sandbox of its
//! own, ways out of it as a function has, and a directory that outlives it.

use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dispatch_api::egress::Target;
use dispatch_sandbox::{Child, Exit, Socket};
use tokio::net::unix::pipe::Receiver;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::build::run::Lines;
use crate::build::settle;
use crate::egress::Door;
use crate::layer::LayerLimits;
use crate::process::{Shared, spec};
use crate::{BuildError, Egress};

/// Where the directory is that a program's files outlive it in.
pub const STATE: &str = "/state";
/// Bytes that it may hold.
pub const STATE_BYTES: u64 = 64 << 20;
/// Files that it may hold.
const STATE_FILES: usize = 10_000;
/// How often it is measured.
const MEASURE: Duration = Duration::from_secs(5);
/// Connections into the sandbox that wait to be made.
const BACKLOG: usize = 64;

/// Takes a connection that the program made.
pub type Taker = Arc<dyn Fn(TcpStream) + Send + Sync>;

/// A program that runs beside functions.
#[derive(Clone)]
pub struct Service {
    /// The organization it belongs to.
    pub organization: String,
    /// What it is called where it is told of.
    pub name: String,
    /// What it runs in: the language `exec` for this program itself, or the name of a container
    /// image's, whose own command it is.
    pub language: String,
    /// Words after the command.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// Bytes of memory; 0 means no limit.
    pub memory_bytes: u64,
    /// Thousandths of a core; 0 means no limit.
    pub cpu_millis: u64,
    /// What it may reach.
    pub egress: Egress,
    /// Places of its loopback, and where they lead, beyond those of `egress`.
    pub links: Vec<(SocketAddrV4, Target)>,
    /// Names it knows, and where on its loopback they are.
    pub hosts: Vec<(String, Ipv4Addr)>,
    /// The directory on the host that it has as [`STATE`]. Beside it, with the extension `hosts`, is the
    /// file of its names.
    pub state: PathBuf,
    /// Directories of the host that it sees at their own paths, and may write to where their owner
    /// lets it.
    pub directories: Vec<PathBuf>,
    /// Ports of its 127.0.0.1 that are served by `taker`.
    pub ports: Vec<u16>,
    /// Serves them.
    pub taker: Taker,
    /// How long it may take to end when it is asked to.
    pub grace: Duration,
}

/// Who is told of a service.
pub trait Watcher: Send + Sync {
    /// It wrote a line.
    fn line(&self, line: &str);

    /// It runs.
    fn started(&self, inside: Inside);
}

/// A way to what the program serves on its own loopback.
#[derive(Clone, Debug)]
pub struct Inside(mpsc::Sender<Wish>);

type Wish = oneshot::Sender<io::Result<OwnedFd>>;

impl Inside {
    /// Connects to a port of its 127.0.0.1.
    ///
    /// # Errors
    /// It has ended, or does not listen.
    pub async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let gone = |_| io::Error::from(io::ErrorKind::NotConnected);
        let (wish, made) = oneshot::channel();
        self.0.send(wish).await.map_err(|_| io::Error::from(io::ErrorKind::NotConnected))?;
        let socket = std::net::TcpStream::from(made.await.map_err(gone)??);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpSocket::from_std_stream(socket).connect(address).await
    }
}

fn failed(error: impl std::fmt::Display) -> BuildError {
    BuildError::Failed(error.to_string())
}

/// Runs it to its end; answers how it ended.
///
/// # Errors
/// It cannot be started.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    service: &Service,
    watcher: &dyn Watcher,
    stop: CancellationToken,
) -> Result<String, BuildError> {
    if !spec::has_sockets(shared) {
        return Err(BuildError::Rejected(
            "event drivers need sandboxes with a network of their own, which this machine does not \
             allow (isolation tier C or D): dispatch manage check says how to get them"
                .to_owned(),
        ));
    }
    let uid = shared.uids.take();
    let (state, number) = (service.state.clone(), uid.number());
    spawn_blocking(move || open_state(&state, number)).await.map_err(failed)?.map_err(failed)?;
    let hosts = service.state.with_extension("hosts");
    write_hosts(&hosts, &service.hosts).map_err(failed)?;
    let spec = spec::service(shared, service, hosts, number);
    let spec = spec.map_err(BuildError::Rejected)?;
    let child = shared.launcher.spawn(&spec).await.map_err(failed)?;
    let _ways = ways(shared, service, &child).await?;
    nix::unistd::write(child.channel.as_fd(), b"!").map_err(failed)?;
    let (wishes, wished) = mpsc::channel(BACKLOG);
    watcher.started(Inside(wishes));
    watch(shared, service, child, watcher, wished, stop).await
}

/// Writes the file of names, for all to read.
fn write_hosts(path: &Path, names: &[(String, Ipv4Addr)]) -> io::Result<()> {
    let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (name, address) in names {
        text += &format!("{address} {name}\n");
    }
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o644))
}

fn open_state(path: &Path, uid: u32) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    settle::give_tree(path, uid)
}

/// Opens the ways out of the sandbox; they close with the guards.
async fn ways(
    shared: &Shared,
    service: &Service,
    child: &Child,
) -> Result<(DropGuard, Option<DropGuard>), BuildError> {
    if service.egress == Egress::Full {
        child.uplink(&shared.gate.filter()).await.map_err(failed)?;
    }
    let closed = CancellationToken::new();
    for socket in child.listen(&service.ports).await.map_err(failed)? {
        let listener = TcpListener::from_std(socket.into()).map_err(failed)?;
        let taker = Arc::clone(&service.taker);
        tokio::spawn(closed.clone().run_until_cancelled_owned(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => taker(stream),
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        }));
    }
    let door = Door::new(&shared.gate, &service.organization, &service.name, &service.egress);
    let door = match door {
        Some(door) => Some(door.with(&service.links).open(child, None).await.map_err(failed)?),
        None => None,
    };
    Ok((closed.drop_guard(), door))
}

async fn watch(
    shared: &Shared,
    service: &Service,
    mut child: Child,
    watcher: &dyn Watcher,
    mut wished: mpsc::Receiver<Wish>,
    stop: CancellationToken,
) -> Result<String, BuildError> {
    let pipe = |fd: &OwnedFd| {
        let pipe = fd.try_clone().and_then(Receiver::from_owned_fd);
        pipe.map(Lines::new).map_err(failed)
    };
    let (mut out, mut err) = (pipe(&child.stdout)?, pipe(&child.stderr)?);
    let (mut out_open, mut err_open) = (true, true);
    let mut measure = interval(MEASURE);
    measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let say = |line: Option<Vec<u8>>| {
        let line = line.map(|line| String::from_utf8_lossy(&line).trim_end().to_owned());
        line.is_some_and(|line| {
            watcher.line(&line);
            true
        })
    };
    loop {
        tokio::select! {
            line = out.next(), if out_open => out_open = say(line),
            line = err.next(), if err_open => err_open = say(line),
            // Whoever closes both may run on.
            exit = child.wait(), if !out_open && !err_open => return Ok(words(exit)),
            Some(wish) = wished.recv() => {
                let made = child.sockets(vec![Socket::Free]).await.map_err(io::Error::other);
                let _ = wish.send(made.and_then(|mut made| {
                    made.pop().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
                }));
            }
            _ = measure.tick() => {
                if let Err(error) = measured(&service.state).await {
                    child.kill();
                    child.wait().await;
                    return Ok(format!("it was stopped: {error}"));
                }
            }
            () = stop.cancelled() => return Ok(end(child, service.grace).await),
            () = shared.stopped.cancelled() => return Ok(end(child, Duration::ZERO).await),
        }
    }
}

/// Asks it to end, and kills it when it takes too long.
async fn end(mut child: Child, grace: Duration) -> String {
    child.terminate();
    if timeout(grace, child.wait()).await.is_err() {
        child.kill();
        child.wait().await;
    }
    "it was stopped".to_owned()
}

async fn measured(state: &Path) -> io::Result<()> {
    let state = state.to_owned();
    let limits =
        LayerLimits { layer_bytes: STATE_BYTES, files: STATE_FILES, ..LayerLimits::default() };
    spawn_blocking(move || settle::measure(&state, "the files in its state directory", &limits))
        .await
        .map_err(io::Error::other)?
}

fn words(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("it ended with exit code {code}"),
        Exit::Signal(signal) => format!("it was killed by signal {signal}"),
        Exit::OutOfMemory { limit_bytes } => {
            format!("it used more than {} MiB of memory", limit_bytes >> 20)
        }
        Exit::ForbiddenCall => "it made a system call that is not allowed".to_owned(),
        Exit::Lost => "what watched over it has ended".to_owned(),
    }
}
