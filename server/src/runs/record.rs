//! Records of runs: what is kept of a call.

use std::collections::BTreeMap;

use dispatch_api::{Logs, Run, RunError, Status, run};
use dispatch_runner::Failure;
use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Finished, Invocation};
use crate::resource::seconds;
use crate::store::RunRow;

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
            http_context: invocation.http_context.as_deref().map(object).unwrap_or_default(),
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

/// The keys and values of an object that was kept as text.
fn object(text: &RawValue) -> BTreeMap<String, Value> {
    serde_json::from_str(text.get()).unwrap_or_default()
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
