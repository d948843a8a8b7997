//! The one writer: it owns the only connection that writes and commits whatever is waiting in one
//! transaction, so that one sync to disk serves many operations.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::any::AnyConnectOptions;
use sqlx::{AnyConnection, ConnectOptions as _, Connection as _};
use tokio::sync::{mpsc, oneshot};

use super::dialect::Dialect;
use super::{Error, Signals, migrate};

/// Operations in one transaction, so that the first does not wait too long for the last.
const MAX_BATCH: usize = 256;
/// Operations that wait for the next transaction.
const BACKLOG: usize = 1024;
/// How long an operation waits for a place in the backlog.
const PATIENCE: Duration = Duration::from_secs(30);

/// The transaction an operation runs in.
pub(super) struct Tx {
    pub conn: AnyConnection,
    pub dialect: &'static Dialect,
    /// Microseconds since 1970, the same for the whole operation and later than any before, so that
    /// "modified later than what I saw" misses nothing.
    pub now: i64,
    pub effects: Effects,
    /// Waiting runs by function, as far as they were counted in this transaction.
    pub waiting: HashMap<String, i64>,
}

/// What others are told once the transaction is committed.
#[derive(Clone, Copy, Default)]
pub(super) struct Effects {
    /// The number of the last change.
    pub change: Option<i64>,
    /// Runs were written.
    pub runs: bool,
    /// A job can be claimed now or later.
    pub jobs: bool,
    /// A delivery can be claimed now or later.
    pub deliveries: bool,
}

/// One operation: run inside a savepoint, answered after the commit.
trait Operation: Send {
    fn run<'c>(&'c mut self, tx: &'c mut Tx) -> BoxFuture<'c, bool>;
    fn answer(self: Box<Self>, failure: Option<&str>);
}

struct Call<F, T> {
    work: Option<F>,
    result: Option<Result<T, Error>>,
    answer: oneshot::Sender<Result<T, Error>>,
}

impl<F, T> Operation for Call<F, T>
where
    F: for<'c> FnOnce(&'c mut Tx) -> BoxFuture<'c, Result<T, Error>> + Send,
    T: Send,
{
    fn run<'c>(&'c mut self, tx: &'c mut Tx) -> BoxFuture<'c, bool> {
        Box::pin(async move {
            let Some(work) = self.work.take() else { return false };
            // A change is somebody else's code: its panic must not end the writer.
            let result = AssertUnwindSafe(async { work(tx).await }).catch_unwind().await;
            let result = result.unwrap_or_else(|_| {
                Err(Error::Unavailable("the change stopped with a panic".to_owned()))
            });
            self.result.insert(result).is_ok()
        })
    }

    fn answer(self: Box<Self>, failure: Option<&str>) {
        let result = match failure {
            Some(cause) => Err(Error::Unavailable(cause.to_owned())),
            None => self.result.unwrap_or_else(|| Err(closed())),
        };
        // Nobody listening means that the caller is gone; the operation is done all the same.
        let _ = self.answer.send(result);
    }
}

enum Message {
    Run(Box<dyn Operation>),
    Close(oneshot::Sender<()>),
}

/// The way to the writer.
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
}

impl Writer {
    /// Connects, brings the schema up to date and starts the writer.
    ///
    /// # Errors
    /// The database cannot be opened or is of a newer program.
    pub async fn start(
        options: AnyConnectOptions,
        dialect: &'static Dialect,
        signals: Arc<Signals>,
    ) -> Result<Writer, Error> {
        let mut tx = connect(&options, dialect).await?;
        migrate::migrate(&mut tx.conn, dialect).await?;
        let (queue, messages) = mpsc::channel(BACKLOG);
        let task = Task { options, dialect, signals, tx: Some(tx) };
        tokio::spawn(task.serve(messages));
        Ok(Writer { queue })
    }

    /// Runs one operation; answers when it is on disk.
    ///
    /// # Errors
    /// What the operation says; [`Error::Unavailable`] when its transaction could not be committed.
    pub async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: for<'c> FnOnce(&'c mut Tx) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let call = Call { work: Some(work), result: None, answer };
        self.queue.send_timeout(Message::Run(Box::new(call)), PATIENCE).await.map_err(|error| {
            match error {
                mpsc::error::SendTimeoutError::Closed(_) => closed(),
                mpsc::error::SendTimeoutError::Timeout(_) => Error::Unavailable(format!(
                    "the database did not keep up: an operation waited {} seconds for its turn",
                    PATIENCE.as_secs()
                )),
            }
        })?;
        result.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Finishes what waits and closes the connection.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.queue.send(Message::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".to_owned())
}

async fn connect(options: &AnyConnectOptions, dialect: &'static Dialect) -> Result<Tx, Error> {
    let mut conn = options.connect().await?;
    sqlx::raw_sql(dialect.writer).execute(&mut conn).await?;
    Ok(Tx {
        conn,
        dialect,
        now: super::now(),
        effects: Effects::default(),
        waiting: HashMap::new(),
    })
}

struct Task {
    options: AnyConnectOptions,
    dialect: &'static Dialect,
    signals: Arc<Signals>,
    /// None after a failure: a new connection knows nothing of the transaction that failed.
    tx: Option<Tx>,
}

impl Task {
    async fn serve(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut waiting = Vec::with_capacity(MAX_BATCH);
        let mut closers = Vec::new();
        while messages.recv_many(&mut waiting, MAX_BATCH).await > 0 {
            let mut batch = Vec::with_capacity(waiting.len());
            for message in waiting.drain(..) {
                match message {
                    Message::Run(operation) => batch.push(operation),
                    Message::Close(done) => {
                        // Whoever comes later is refused, whoever waits is served.
                        messages.close();
                        closers.push(done);
                    }
                }
            }
            if !batch.is_empty() {
                self.commit(batch).await;
            }
        }
        if let Some(mut tx) = self.tx.take() {
            if let Err(error) = sqlx::raw_sql(self.dialect.checkpoint).execute(&mut tx.conn).await {
                tracing::warn!(%error, "the database was closed without a checkpoint");
            }
            let _ = tx.conn.close().await;
        }
        for done in closers {
            let _ = done.send(());
        }
    }

    async fn commit(&mut self, mut batch: Vec<Box<dyn Operation>>) {
        let failure = match self.transact(&mut batch).await {
            Ok(effects) => {
                self.signals.send(effects);
                None
            }
            Err(error) => {
                let cause = error.to_string();
                tracing::error!(%cause, operations = batch.len(), "nothing was written");
                if let Some(tx) = self.tx.take() {
                    let _ = tx.conn.close().await;
                }
                Some(cause)
            }
        };
        for operation in batch {
            operation.answer(failure.as_deref());
        }
    }

    async fn transact(&mut self, batch: &mut [Box<dyn Operation>]) -> Result<Effects, Error> {
        let tx = match &mut self.tx {
            Some(tx) => tx,
            none => none.insert(connect(&self.options, self.dialect).await?),
        };
        tx.effects = Effects::default();
        tx.waiting.clear();
        tx.execute(self.dialect.begin).await?;
        for operation in batch {
            let before = tx.effects;
            tx.now = super::now().max(tx.now + 1);
            tx.execute("SAVEPOINT operation").await?;
            if !operation.run(tx).await {
                tx.effects = before;
                tx.waiting.clear();
                // Fails where the database has rolled back everything: then all operations fail.
                tx.execute("ROLLBACK TO SAVEPOINT operation").await?;
            }
            tx.execute("RELEASE SAVEPOINT operation").await?;
        }
        tx.execute("COMMIT").await?;
        Ok(tx.effects)
    }
}

impl Tx {
    async fn execute(&mut self, statement: &'static str) -> Result<(), Error> {
        sqlx::query(statement).execute(&mut self.conn).await?;
        Ok(())
    }
}
