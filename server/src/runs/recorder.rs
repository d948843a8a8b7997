//! Keeps records of ended runs behind the callers' backs.
//!
//! Handing one over moves two pointers; what it takes to write it is done here, at most once a
//! second, and only for runs that would be kept: of a function that ends more runs in a second than
//! its history holds, the older ones never reach the store.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Finished, Invocation, RunRecord};
use crate::app::App;
use crate::store::RunRow;

/// KiB of ended runs that may wait to be written. Beyond it callers wait: nothing that is to be kept
/// is dropped.
const BACKLOG_KIB: u32 = 64 << 10;
/// Runs written in one transaction.
const BATCH: usize = 512;
/// How far apart writes are while runs keep ending, and how often they are collected.
const WRITE_EVERY: Duration = Duration::from_secs(1);
const COLLECT_EVERY: Duration = Duration::from_millis(50);

struct Ended {
    invocation: Arc<Invocation>,
    finished: Arc<Finished>,
    _room: OwnedSemaphorePermit,
}

enum Message {
    Ended(Ended),
    Flush(oneshot::Sender<()>),
}

/// Takes records of ended runs.
pub struct Recorder {
    sender: mpsc::UnboundedSender<Message>,
    room: Arc<Semaphore>,
    /// Somebody waits for what was handed over, or for room.
    hurry: Notify,
    unwritten: AtomicUsize,
    closing: CancellationToken,
}

/// The other end of a [`Recorder`].
pub struct Records(mpsc::UnboundedReceiver<Message>);

impl Recorder {
    pub(crate) fn new() -> (Recorder, Records) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let recorder = Recorder {
            sender,
            room: Arc::new(Semaphore::new(BACKLOG_KIB as usize)),
            hurry: Notify::new(),
            unwritten: AtomicUsize::new(0),
            closing: CancellationToken::new(),
        };
        (recorder, Records(receiver))
    }

    /// Hands over a run that ended; waits when too many wait already.
    pub(crate) async fn put(&self, invocation: Arc<Invocation>, finished: Arc<Finished>) {
        let size = size(&invocation, &finished);
        let room = match Arc::clone(&self.room).try_acquire_many_owned(size) {
            Ok(room) => Ok(room),
            Err(_) => {
                self.hurry.notify_one();
                Arc::clone(&self.room).acquire_many_owned(size).await
            }
        };
        let Ok(room) = room else { return };
        self.unwritten.fetch_add(1, Ordering::Relaxed);
        if self.sender.send(Message::Ended(Ended { invocation, finished, _room: room })).is_err() {
            tracing::error!("a run ended after the store was closed and is not recorded");
        }
    }

    /// Waits until everything handed over so far is stored.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.sender.send(Message::Flush(done)).is_ok() {
            self.hurry.notify_one();
            let _ = wait.await;
        }
    }

    /// Records that wait to be written.
    pub fn waiting(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// Lets the writer end once everything is stored.
    pub fn close(&self) {
        self.closing.cancel();
        self.hurry.notify_one();
    }
}

/// KiB of memory that a record takes, about.
fn size(invocation: &Invocation, finished: &Finished) -> u32 {
    let output = finished.result.as_ref().map_or(0, bytes::Bytes::len);
    let context = invocation.http_context.as_ref().map_or(0, |context| 2 * context.get().len());
    let lines = finished.logs.stdout.iter().chain(&finished.logs.stderr);
    let logs: usize = lines.map(|line| line.len() + size_of::<String>()).sum();
    let bytes = invocation.input.len() + output + context + logs;
    u32::try_from(bytes / 1024 + 1).unwrap_or(BACKLOG_KIB).min(BACKLOG_KIB)
}

/// What was handed over and is still to be written: of each function the newest, as many as its
/// history holds.
#[derive(Default)]
struct Collected {
    by_function: HashMap<String, VecDeque<Ended>>,
    flushes: Vec<oneshot::Sender<()>>,
}

impl Collected {
    fn take(&mut self, message: Message, kept: usize) -> usize {
        let ended = match message {
            Message::Flush(done) => {
                self.flushes.push(done);
                return 0;
            }
            Message::Ended(ended) => ended,
        };
        let id = ended.invocation.function.id.as_str();
        let runs = match self.by_function.get_mut(id) {
            Some(runs) => runs,
            None => self.by_function.entry(id.to_owned()).or_default(),
        };
        runs.push_back(ended);
        if runs.len() <= kept {
            return 0;
        }
        runs.pop_front();
        1
    }
}

/// Writes records until the recorder is closed and empty.
pub async fn record(app: Arc<App>, records: Records) {
    let (recorder, mut receiver) = (&app.recorder, records.0);
    let kept = usize::try_from(app.config.run_retention_count).unwrap_or(usize::MAX).max(1);
    let mut collected = Collected::default();
    let mut last: Option<Instant> = None;
    loop {
        let first = tokio::select! {
            first = receiver.recv() => first,
            () = recorder.closing.cancelled(), if !receiver.is_closed() => {
                receiver.close();
                continue;
            }
        };
        let Some(first) = first else { return };
        let mut next = Some(first);
        let due = last.map_or_else(Instant::now, |last| last + WRITE_EVERY);
        let mut hurry = recorder.closing.is_cancelled();
        loop {
            while let Some(message) = next.take().or_else(|| receiver.try_recv().ok()) {
                let dropped = collected.take(message, kept);
                recorder.unwritten.fetch_sub(dropped, Ordering::Relaxed);
            }
            if hurry || !collected.flushes.is_empty() || Instant::now() >= due {
                break;
            }
            tokio::select! {
                () = sleep(COLLECT_EVERY) => {}
                () = recorder.hurry.notified() => hurry = true,
            }
        }
        write_all(&app, &mut collected).await;
        last = Some(Instant::now());
    }
}

async fn write_all(app: &App, collected: &mut Collected) {
    let snapshot = app.live.load();
    // A function that was deleted meanwhile took its runs with it.
    let lives = |ended: &Ended| {
        let Invocation { org, function, .. } = &*ended.invocation;
        snapshot.function(org, &function.name).is_some_and(|other| other.id == function.id)
    };
    let mut all: Vec<Ended> = collected.by_function.drain().flat_map(|(_, runs)| runs).collect();
    all.sort_by_key(|ended| ended.finished.finished);
    for batch in all.chunks(BATCH) {
        let living = batch.iter().filter(|ended| lives(ended));
        let record = |ended: &Ended| {
            RunRecord::ended(&ended.invocation, &ended.finished, true, 1).into_row()
        };
        write(app, living.map(record).collect()).await;
        app.recorder.unwritten.fetch_sub(batch.len(), Ordering::Relaxed);
    }
    for done in collected.flushes.drain(..) {
        let _ = done.send(());
    }
}

/// Tries until the store takes the rows; once the server stops, a few times only.
async fn write(app: &App, rows: Vec<RunRow>) {
    if rows.is_empty() {
        return;
    }
    for pause in 1.. {
        match app.store.record_runs(rows.clone()).await {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, runs = rows.len(), "runs cannot be recorded"),
        }
        if app.recorder.closing.is_cancelled() && pause > 3 {
            tracing::error!(runs = rows.len(), "the server stops without having recorded runs");
            return;
        }
        sleep(Duration::from_millis(100 * pause.min(20))).await;
    }
}
