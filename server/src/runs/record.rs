//! Records of runs: what is kept of a call, and the writer that keeps it behind the caller's back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dispatch_api::{Logs, Run, RunError, Status, run};
use dispatch_runner::Failure;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Finished, Invocation};
use crate::app::App;
use crate::resource::seconds;
use crate::store::RunRow;

/// Ended runs that may wait to be written. Beyond it callers wait: nothing is dropped silently.
const BACKLOG: usize = 4096;
/// Runs written in one transaction.
const BATCH: usize = 512;
/// Bytes of an input or an output that are kept in the history.
const MAX_KEPT: usize = 256 << 10;

/// A run and where it belongs.
#[derive(Clone, Debug)]
pub(crate) struct RunRecord {
    org: String,
    run: Run,
    created: i64,
    finished: Option<i64>,
}

impl RunRecord {
    /// The record of a call that is still to be made; it holds all that making it needs.
    pub(crate) fn accepted(invocation: &Invocation, id: &str, at: Timestamp) -> RunRecord {
        let serving = invocation.function.serving.as_ref();
        let mut secrets = serving.map(|serving| serving.secrets.clone()).unwrap_or_default();
        secrets.extend(invocation.secrets.iter().cloned());
        let run = Run {
            event: invocation.event.clone(),
            executed_time: seconds(at.as_microsecond()),
            executed_at: precise(at),
            faas_id: serving.map(|s| s.revision.faas_id.clone()).unwrap_or_default(),
            finished_time: run::NEVER,
            function_id: invocation.function.id.clone(),
            function_name: invocation.function.name.clone(),
            http_context: invocation.http_context.clone().unwrap_or_default().into_iter().collect(),
            input: serde_json::from_slice(&invocation.input).ok().filter(|v: &Value| !v.is_null()),
            name: id.to_owned(),
            secrets,
            services: invocation.services.clone(),
            status: Status::Initialized,
            tags: invocation.tags.clone(),
            ..Run::default()
        };
        let org = invocation.org.clone();
        RunRecord { org, run, created: at.as_microsecond(), finished: None }
    }

    /// The record of a call that ended.
    pub(crate) fn ended(
        invocation: &Invocation,
        finished: &Finished,
        blocking: bool,
        attempts: i64,
    ) -> RunRecord {
        let mut record = RunRecord::accepted(invocation, &finished.id, finished.accepted);
        record.run.blocking = blocking;
        record.end(finished, attempts);
        record
    }

    /// Adds the end to the record of an accepted call.
    pub(crate) fn end(&mut self, finished: &Finished, attempts: i64) {
        let run = &mut self.run;
        forget_credentials(&mut run.http_context);
        run.attempts = attempts;
        run.finished_time = seconds(finished.finished.as_microsecond());
        run.finished_at = precise(finished.finished);
        run.timings = Some(finished.timings);
        run.logs = Some(Logs {
            stdout: finished.logs.stdout.clone(),
            stderr: finished.logs.stderr.clone(),
        });
        match &finished.result {
            Ok(output) => {
                run.status = Status::Ready;
                run.error = None;
                run.reason.clear();
                run.output = serde_json::from_slice(output).ok().filter(|v: &Value| !v.is_null());
            }
            Err(failure) => {
                run.status = Status::Error;
                run.output = None;
                run.reason = vec![reason(&run.function_name, failure)];
                run.error = Some(RunError {
                    message: failure.message.clone(),
                    stacktrace: failure.stacktrace.clone(),
                    kind: failure.kind,
                });
            }
        }
        self.finished = Some(finished.finished.as_microsecond());
    }

    /// The run as it is answered to the caller who waited for it.
    pub(crate) fn into_run(self) -> Run {
        self.run
    }

    /// The row that is stored. Of ended runs only moderate inputs and outputs are kept.
    pub(crate) fn into_row(self) -> RunRow {
        let RunRecord { org, mut run, created, finished } = self;
        if finished.is_some() {
            for value in [&mut run.input, &mut run.output] {
                if value.as_ref().is_some_and(|value| value.to_string().len() > MAX_KEPT) {
                    *value = None;
                    run.truncated = true;
                }
            }
        }
        RunRow {
            id: run.name.clone(),
            org,
            function: run.function_name.clone(),
            function_id: run.function_id.clone(),
            faas_id: run.faas_id.clone(),
            status: run.status,
            created,
            modified: Timestamp::now().as_microsecond(),
            finished,
            attempts: run.attempts,
            dead: run.dead,
            body: serde_json::to_string(&run).unwrap_or_else(|_| "{}".to_owned()),
        }
    }

    /// A stored run, to go on with it.
    pub(crate) fn from_row(row: &RunRow) -> RunRecord {
        RunRecord {
            org: row.org.clone(),
            run: shown(row),
            created: row.created,
            finished: row.finished,
        }
    }

    /// Marks a run whose last try failed.
    pub(crate) fn bury(&mut self) {
        self.run.dead = true;
    }

    /// Puts a run whose try failed back into the queue.
    pub(crate) fn again(&mut self) {
        self.run.status = Status::Initialized;
        self.finished = None;
        self.run.finished_time = run::NEVER;
        self.run.finished_at.clear();
    }
}

/// Takes out of a record what callers prove themselves with: it was for the function alone.
fn forget_credentials(context: &mut BTreeMap<String, Value>) {
    const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "x-api-key"];
    for name in CREDENTIALS {
        if let Some(value) = context.get_mut(name) {
            *value = Value::from("***");
        }
        if let Some(value) = context.get_mut("headers").and_then(|headers| headers.get_mut(name)) {
            *value = Value::from("***");
        }
    }
}

/// The run of a stored row.
pub(crate) fn shown(row: &RunRow) -> Run {
    let mut run: Run = serde_json::from_str(&row.body).unwrap_or_default();
    run.name.clone_from(&row.id);
    run.status = row.status;
    run.attempts = row.attempts;
    run.dead = row.dead;
    if row.finished.is_none() {
        // Of an earlier try.
        run.finished_time = run::NEVER;
        run.finished_at.clear();
        (run.error, run.output, run.logs, run.timings) = (None, None, None, None);
        run.reason.clear();
    }
    run
}

fn reason(function: &str, failure: &Failure) -> String {
    format!("error running function: {function}: {}", failure.message)
}

/// RFC 3339 with nanoseconds, always nine digits.
fn precise(at: Timestamp) -> String {
    format!("{at:.9}")
}

enum Message {
    Record(Box<RunRecord>),
    Flush(oneshot::Sender<()>),
}

/// Takes records of ended runs.
pub struct Recorder {
    sender: mpsc::Sender<Message>,
    closing: CancellationToken,
}

/// The other end of a [`Recorder`].
pub struct Records(mpsc::Receiver<Message>);

impl Recorder {
    pub(crate) fn new() -> (Recorder, Records) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        (Recorder { sender, closing: CancellationToken::new() }, Records(receiver))
    }

    /// Hands over a record; waits when too many wait already.
    pub(crate) async fn put(&self, record: RunRecord) {
        if self.sender.send(Message::Record(Box::new(record))).await.is_err() {
            tracing::error!("a run ended after the store was closed and is not recorded");
        }
    }

    /// Waits until everything handed over so far is stored.
    pub async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.sender.send(Message::Flush(done)).await.is_ok() {
            let _ = wait.await;
        }
    }

    /// Records that wait to be written.
    pub fn waiting(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// Lets the writer end once everything is stored.
    pub fn close(&self) {
        self.closing.cancel();
    }
}

/// Writes records in batches until the recorder is closed and empty.
pub async fn record(app: Arc<App>, records: Records) {
    let mut receiver = records.0;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let received = tokio::select! {
            received = receiver.recv_many(&mut batch, BATCH) => received,
            () = app.recorder.closing.cancelled(), if !receiver.is_closed() => {
                receiver.close();
                continue;
            }
        };
        if received == 0 {
            return;
        }
        let snapshot = app.live.load();
        let mut rows = Vec::new();
        let mut waiting = Vec::new();
        for message in batch.drain(..) {
            match message {
                Message::Record(record) => {
                    // A function that was deleted meanwhile took its runs with it.
                    let function = snapshot.function(&record.org, &record.run.function_name);
                    if function.is_some_and(|function| function.id == record.run.function_id) {
                        rows.push(record.into_row());
                    }
                }
                Message::Flush(done) => waiting.push(done),
            }
        }
        write(&app, rows).await;
        for done in waiting {
            let _ = done.send(());
        }
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
        tokio::time::sleep(Duration::from_millis(100 * pause.min(20))).await;
    }
}
