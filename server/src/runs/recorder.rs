//! Keeps records of ended runs behind the callers' backs.
//!
//! Handing one over moves two pointers; what it takes to write it is done here, at most once a
//! second, and only for runs that would be kept: of a function that ends more runs in a second than
//! its history holds, the older ones never reach the store.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Finished, Invocation, RunRecord};
use crate::app::App;
use crate::store::RunRow;

/// KiB of ended runs that may wait to be written. Beyond it callers wait: nothing that is to be kept
/// is dropped.
const BACKLOG_KIB: u32 = 64 << 10;
/// Runs written in one transaction.
const BATCH: usize = 512;
/// How far apart writes are while runs keep ending.
const WRITE_EVERY: Duration = Duration::from_secs(1);

struct Ended {
    invocation: Arc<Invocation>,
    finished: Arc<Finished>,
    _room: OwnedSemaphorePermit,
}

/// Takes records of ended runs.
pub struct Recorder {
    waiting: Mutex<Waiting>,
    /// Runs of each function that its history holds.
    kept: usize,
    room: Arc<Semaphore>,
    /// Something waits to be written, or to be told that it is.
    news: Notify,
    /// Somebody waits for what was handed over, or for room.
    hurry: Notify,
    unwritten: AtomicUsize,
    closing: CancellationToken,
}

/// What was handed over and is still to be written: of each function the newest, as many as its
/// history holds.
#[derive(Default)]
struct Waiting {
    by_function: HashMap<String, VecDeque<Ended>>,
    flushes: Vec<oneshot::Sender<()>>,
    /// Whether nothing more is written.
    closed: bool,
}

impl Recorder {
    /// A recorder that keeps so many runs of each function.
    pub(crate) fn new(kept: i64) -> Recorder {
        Recorder {
            waiting: Mutex::default(),
            kept: usize::try_from(kept).unwrap_or(usize::MAX).max(1),
            room: Arc::new(Semaphore::new(BACKLOG_KIB as usize)),
            news: Notify::new(),
            hurry: Notify::new(),
            unwritten: AtomicUsize::new(0),
            closing: CancellationToken::new(),
        }
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
        let mut waiting = self.lock();
        if waiting.closed {
            tracing::error!("a run ended after the store was closed and is not recorded");
            return;
        }
        let first = waiting.by_function.is_empty();
        let old = waiting.add(Ended { invocation, finished, _room: room }, self.kept);
        self.unwritten.fetch_add(usize::from(old.is_none()), Ordering::Relaxed);
        drop(waiting);
        // Here, where its memory came from, and without the lock.
        drop(old);
        if first {
            self.news.notify_one();
        }
    }

    /// Waits until everything handed over so far is stored.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        {
            let mut waiting = self.lock();
            if waiting.closed {
                return;
            }
            waiting.flushes.push(done);
        }
        self.news.notify_one();
        self.hurry.notify_one();
        let _ = wait.await;
    }

    /// Records that wait to be written.
    pub fn waiting(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// Lets the writer end once everything is stored.
    pub fn close(&self) {
        self.closing.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Adds a run; returns the one that no history will hold any more.
    fn add(&mut self, ended: Ended, kept: usize) -> Option<Ended> {
        let id = ended.invocation.function.id.as_str();
        let runs = match self.by_function.get_mut(id) {
            Some(runs) => runs,
            None => self.by_function.entry(id.to_owned()).or_default(),
        };
        runs.push_back(ended);
        if runs.len() > kept { runs.pop_front() } else { None }
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

/// Writes records until the recorder is closed and empty.
pub async fn record(app: Arc<App>) {
    let recorder = &app.recorder;
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = recorder.news.notified() => {}
            () = recorder.closing.cancelled() => {}
        }
        tokio::select! {
            () = sleep_until(due) => {}
            () = recorder.hurry.notified() => {}
            () = recorder.closing.cancelled() => {}
        }
        let waiting = {
            let mut waiting = recorder.lock();
            waiting.closed = recorder.closing.is_cancelled();
            let closed = waiting.closed;
            std::mem::replace(&mut *waiting, Waiting { closed, ..Waiting::default() })
        };
        let last = waiting.closed;
        write_all(&app, waiting).await;
        if last {
            return;
        }
        due = Instant::now() + WRITE_EVERY;
    }
}

async fn write_all(app: &App, waiting: Waiting) {
    let snapshot = app.live.load();
    // A function that was deleted meanwhile took its runs with it.
    let lives = |ended: &Ended| {
        let Invocation { org, function, .. } = &*ended.invocation;
        snapshot.function(org, &function.name).is_some_and(|other| other.id == function.id)
    };
    let mut all: Vec<Ended> = waiting.by_function.into_values().flatten().collect();
    all.sort_by_key(|ended| ended.finished.finished);
    for batch in all.chunks(BATCH) {
        let living = batch.iter().filter(|ended| lives(ended));
        let record = |ended: &Ended| {
            RunRecord::ended(&ended.invocation, &ended.finished, true, 1).into_row()
        };
        write(app, living.map(record).collect()).await;
        app.recorder.unwritten.fetch_sub(batch.len(), Ordering::Relaxed);
    }
    for done in waiting.flushes {
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
