//! The store: everything that must survive a crash, and the only place with SQL.
//!
//! One method is one transaction; it answers when its writes are on disk. All writes go through one
//! writer, which commits many at a time; reads have their own connections and never wait for it.
//! Entities, the jobs they cause and the numbered change that announces them are written together.

mod change;
mod delivery;
mod dialect;
mod egress;
mod entity;
mod error;
mod event;
mod migrate;
mod queue;
mod retention;
mod revision;
mod run;
mod schedule;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;

use dispatch_api::{Kind, Status};
use futures_util::future::BoxFuture;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyPool, ConnectOptions as _, Executor as _};
use tokio::sync::{Notify, watch};

pub use change::{Change, Op};
pub use delivery::{DeliveryRow, NewDelivery, Share, Tried};
pub use egress::Seen;
pub use entity::{Entity, FIRST_REVISION, Page};
pub use error::Error;
pub use event::{EventRow, NewEvent, Stretch};
pub use queue::{Job, JobEnd, NewJob};
pub use revision::RevisionRow;
pub use run::{RunFilter, RunRow};
pub use schedule::Tick;

use dialect::Dialect;
use writer::{Effects, Tx, Writer};

/// Connections that read.
const READERS: u32 = 4;

/// The store. Clones are handles to the same one.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    reads: AnyPool,
    writer: Writer,
    signals: Arc<Signals>,
}

/// What is told to others after a commit.
struct Signals {
    change: watch::Sender<i64>,
    runs: watch::Sender<u64>,
    jobs: Arc<Notify>,
    deliveries: Arc<Notify>,
}

impl Signals {
    fn send(&self, effects: Effects) {
        if let Some(seq) = effects.change {
            self.change.send_replace(seq);
        }
        if effects.runs {
            self.runs.send_modify(|count| *count = count.wrapping_add(1));
        }
        if effects.jobs {
            self.jobs.notify_waiters();
        }
        if effects.deliveries {
            self.deliveries.notify_waiters();
        }
    }
}

/// A receiver whose first `changed()` returns at once, so that nothing is missed that was committed
/// just before.
fn follow<T>(sender: &watch::Sender<T>) -> watch::Receiver<T> {
    let mut receiver = sender.subscribe();
    receiver.mark_changed();
    receiver
}

impl Store {
    /// Opens the database file, creates it where there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the file cannot be opened or is of a newer program,
    /// [`Error::Corrupt`] when it is not a database of this program.
    pub async fn open(path: &Path) -> Result<Store, Error> {
        let url = prepare(path).map_err(|error| {
            let path = path.display();
            Error::Unavailable(format!("the database file {path} cannot be opened: {error}"))
        })?;
        Store::connect(&url).await
    }

    async fn connect(url: &str) -> Result<Store, Error> {
        sqlx::any::install_default_drivers();
        let dialect = Dialect::of(url);
        let options: AnyConnectOptions = url.parse()?;
        let options = options.disable_statement_logging();
        let signals = Arc::new(Signals {
            change: watch::Sender::new(0),
            runs: watch::Sender::new(0),
            jobs: Arc::default(),
            deliveries: Arc::default(),
        });
        let writer = Writer::start(options.clone(), dialect, Arc::clone(&signals)).await?;
        let reads = AnyPoolOptions::new()
            .max_connections(READERS)
            .after_connect(move |conn, _| {
                Box::pin(async move { conn.execute(dialect.reader).await.map(|_| ()) })
            })
            .connect_with(options)
            .await?;
        let store = Store(Arc::new(Inner { reads, writer, signals }));
        store.0.signals.change.send_replace(store.last_change().await?);
        Ok(store)
    }

    /// Runs one operation in the writer; answers when it is on disk.
    async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: for<'c> FnOnce(&'c mut Tx) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
        T: Send + 'static,
    {
        self.0.writer.run(work).await
    }

    /// Finishes the writes that wait, brings everything into the main file and closes it. Later
    /// operations are refused.
    pub async fn close(&self) {
        self.0.reads.close().await;
        self.0.writer.close().await;
    }

    /// The number of the last committed change, as it grows. The first `changed()` returns at once.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        follow(&self.0.signals.change)
    }

    /// Grows with every commit that wrote runs. The first `changed()` returns at once.
    pub fn runs_changed(&self) -> watch::Receiver<u64> {
        follow(&self.0.signals.runs)
    }

    /// Wakes everybody who waits when a job was committed that can be claimed, now or later. Take
    /// `notified()` before asking for jobs, so that none is missed in between.
    pub fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.0.signals.jobs)
    }

    /// The same for deliveries of events.
    pub fn wake_deliveries(&self) -> Arc<Notify> {
        Arc::clone(&self.0.signals.deliveries)
    }
}

/// Makes the file, for the server's user only, and answers its URL.
fn prepare(path: &Path) -> std::io::Result<String> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let path = path.canonicalize()?;
    let url = url::Url::from_file_path(&path).map_err(|()| std::io::ErrorKind::InvalidInput)?;
    Ok(format!("sqlite://{}", url.path()))
}

/// Now, in microseconds since 1970.
fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn status(word: &str) -> Result<Status, Error> {
    Status::parse(word).ok_or_else(|| Error::Corrupt(format!("{word:?} is not a status")))
}

fn kind(word: &str) -> Result<Kind, Error> {
    Kind::parse(word).ok_or_else(|| Error::Corrupt(format!("{word:?} is not a kind")))
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Corrupt(format!("unreadable JSON: {error}")))
}

fn words(reason: &[String]) -> String {
    serde_json::Value::from(reason).to_string()
}

/// A limit or a count as the database takes it.
fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
