//! Processes that have loaded a function's source and fork its workers: for functions that ask for
//! it with `preload`. Each is inside the function's own sandbox and runs no calls.

use std::collections::HashMap;
use std::future::poll_fn;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use dispatch_sandbox::{Exit, Member};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::sync::{mpsc, oneshot, watch};

use super::room::Place;
use super::uid::Uid;
use super::{Shared, start};
use crate::Revision;
use crate::call::Failure;
use crate::frame::FromWorker;
use crate::pool::lock;
use crate::worker::active::background;
use crate::worker::link::Link;
use crate::worker::process::{Ends, Forked, Process};
use crate::worker::{Plan, Worker, failure};

/// How long one is kept after its function's last start: longer than workers, since it is what makes
/// the next start quick.
const KEEP: Duration = Duration::from_secs(3600);

/// The zygotes of all revisions that want one.
#[derive(Default)]
pub(crate) struct Zygotes(Mutex<HashMap<String, Entry>>);

struct Entry {
    place: Arc<tokio::sync::Mutex<State>>,
    used: Instant,
}

impl Entry {
    /// Whether it runs and none of its workers do.
    fn is_unused(&self) -> bool {
        let Ok(state) = self.place.try_lock() else { return false };
        matches!(&*state, State::Running(zygote) if Arc::strong_count(zygote) == 1)
    }
}

#[derive(Default)]
enum State {
    #[default]
    None,
    /// What the source does when it is loaded cannot be shared by forked copies.
    Impossible,
    Running(Arc<Zygote>),
}

/// One of them. It ends when this is dropped, with all workers it has forked.
struct Zygote {
    asks: mpsc::Sender<Ask>,
    handler: String,
    uid: Arc<Uid>,
    memory_bytes: u64,
    _place: Place,
}

/// The wish for a fork: the worker's ends of its streams, and where the answer goes.
struct Ask {
    ends: [OwnedFd; 3],
    answer: oneshot::Sender<(Member, watch::Receiver<Option<Exit>>)>,
}

impl Zygotes {
    fn entry(&self, faas_id: &str) -> Arc<tokio::sync::Mutex<State>> {
        let mut entries = lock(&self.0);
        let fresh = || Entry { place: Arc::default(), used: Instant::now() };
        let entry = entries.entry(faas_id.to_owned()).or_insert_with(fresh);
        entry.used = Instant::now();
        Arc::clone(&entry.place)
    }

    /// Gives up the one of this revision: it ends with its last worker.
    pub fn forget(&self, faas_id: &str) {
        lock(&self.0).remove(faas_id);
    }

    /// Gives up those that were of no use for long.
    pub fn tend(&self, now: Instant) {
        lock(&self.0).retain(|_, entry| entry.used + KEEP > now);
    }

    /// Gives up the one without workers whose last use is longest ago; false when there is none.
    pub fn evict(&self) -> bool {
        let mut entries = lock(&self.0);
        let unused = entries.iter().filter(|(_, entry)| entry.is_unused());
        let oldest = unused.min_by_key(|(_, entry)| entry.used).map(|(id, _)| id.clone());
        oldest.is_some_and(|id| entries.remove(&id).is_some())
    }

    /// Gives up all.
    pub fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// A worker that was forked; none where this revision's cannot be.
///
/// # Errors
/// As when a worker is started.
pub(crate) async fn worker(
    shared: &Shared,
    revision: &Arc<Revision>,
    plan: &Plan,
) -> Result<Option<(Worker, Arc<Uid>)>, Failure> {
    let place = shared.zygotes.entry(&revision.faas_id);
    let mut state = place.lock().await;
    let zygote = match &*state {
        State::Impossible => return Ok(None),
        State::Running(zygote) if !zygote.asks.is_closed() => Arc::clone(zygote),
        State::Running(_) | State::None => {
            let Some(place) = shared.room.take(revision) else { return Ok(None) };
            let wanted = plan.of_zygote(revision.settings.max_scale);
            let (link, loaded, uid) = start::process(shared, revision, &wanted).await?;
            let uid = Arc::new(uid);
            if !loaded.forks {
                *state = State::Impossible;
                let reason = loaded.not_forking.unwrap_or_default();
                tracing::info!(function = plan.function, reason, "workers are not forked");
                return Ok(None);
            }
            let (asks, asked) = mpsc::channel(64);
            let (handler, memory_bytes) = (loaded.handler, plan.sandbox.memory_bytes);
            tokio::spawn(serve(link, asked, plan.function.clone(), memory_bytes));
            let zygote = Zygote { asks, handler, uid, memory_bytes, _place: place };
            let zygote = Arc::new(zygote);
            *state = State::Running(Arc::clone(&zygote));
            zygote
        }
    };
    drop(state);
    zygote.fork(plan).await.map(|worker| Some((worker, Arc::clone(&zygote.uid))))
}

impl Zygote {
    async fn fork(self: &Arc<Zygote>, plan: &Plan) -> Result<Worker, Failure> {
        let system = |error: &dyn std::fmt::Display| {
            failure::system(format!("A worker could not be forked: {error}"))
        };
        let (ours, theirs) = streams().map_err(|error| system(&error))?;
        let (answer, forked) = oneshot::channel();
        let _ = self.asks.send(Ask { ends: theirs, answer }).await;
        let (member, exit) = forked.await.map_err(|_| {
            system(&"the process that has loaded the source has ended or can have no more children")
        })?;
        if self.memory_bytes > 0 {
            member.limit_memory(self.memory_bytes);
        }
        let zygote = Arc::clone(self);
        let process = Process::Forked(Forked::new(member, exit, self.memory_bytes, zygote));
        Worker::forked(process, ours, self.handler.clone(), plan).await
    }
}

/// Both ends of a worker's streams; ours do not block.
fn streams() -> nix::Result<(Ends, [OwnedFd; 3])> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (channel, their_channel) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
    let (stdout, their_stdout) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let (stderr, their_stderr) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    for fd in [&channel, &stdout, &stderr] {
        fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok((Ends { channel, stdout, stderr }, [their_channel, their_stdout, their_stderr]))
}

enum Event {
    Frame(FromWorker),
    Asked(Ask),
    End,
}

/// Passes wishes on to the process, and what it says of its children to those who want to know.
async fn serve(mut link: Link, mut asked: mpsc::Receiver<Ask>, function: String, limit_bytes: u64) {
    let mut asking: Option<oneshot::Sender<_>> = None;
    let mut children: HashMap<i32, (Member, watch::Sender<Option<Exit>>)> = HashMap::new();
    loop {
        let event = poll_fn(|cx| {
            let mut sink = |stream, bytes: &[u8]| background(&function, stream, bytes);
            if let Poll::Ready(next) = link.poll(cx, &mut sink) {
                return Poll::Ready(next.map_or(Event::End, |(frame, _)| Event::Frame(frame)));
            }
            if asking.is_some() {
                return Poll::Pending;
            }
            asked.poll_recv(cx).map(|ask| ask.map_or(Event::End, Event::Asked))
        });
        match event.await {
            Event::Asked(Ask { ends, answer }) => {
                let fds = [&ends[0], &ends[1], &ends[2]].map(AsRawFd::as_raw_fd);
                match link.send_fork(&fds).await {
                    Ok(()) => asking = Some(answer),
                    Err(_) => break,
                }
            }
            Event::Frame(FromWorker::Forked { pid }) => {
                let Some(answer) = asking.take() else { break };
                let member = (pid > 0).then(|| link.member(pid)).flatten();
                if let Some(member) = member {
                    let (exited, exit) = watch::channel(None);
                    children.insert(pid, (member.clone(), exited));
                    let _ = answer.send((member, exit));
                }
            }
            Event::Frame(FromWorker::Exited { pid, status }) => {
                if let Some((member, exited)) = children.remove(&pid) {
                    tokio::spawn(ended(member, Exit::from_status(status), exited, limit_bytes));
                }
            }
            Event::Frame(frame) => {
                tracing::warn!(function, ?frame, "a preloaded process broke the worker protocol");
                break;
            }
            Event::End => break,
        }
    }
    link.end().await;
}

/// Tells the end of a forked worker, and whether it was killed for its memory.
async fn ended(member: Member, exit: Exit, exited: watch::Sender<Option<Exit>>, limit_bytes: u64) {
    let killed = exit == Exit::Signal(nix::libc::SIGKILL);
    let exit = match killed && member.was_out_of_memory().await {
        true => Exit::OutOfMemory { limit_bytes },
        false => exit,
    };
    exited.send_replace(Some(exit));
}
