//! The one hallway: every call of a function, from whatever door, goes through [`execute`] or, when
//! nobody waits for it, [`accept`].

pub mod api;
mod context;
mod lasting;
mod record;
mod recorder;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dispatch_api::{ErrorType, Tag, Timings};
use dispatch_runner::{Call, Cause, Failure, Logs, Outcome};
use jiff::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::live::{Function, Serving};
use crate::problem::Error;
use crate::store::{NewJob, RunRow};
use crate::tasks;
use crate::trace::Trace;

use lasting::Lasting;
pub(crate) use record::{RunRecord, shown};
pub use recorder::{Recorder, record};

/// Bytes of an output that is not read as a whole where nothing asks for it.
const QUICK_OUTPUT: usize = 64 << 10;
/// Nesting that JSON may have: what the reader used everywhere here allows.
const MAX_DEPTH: usize = 128;

/// What the outcome of a run is called in the metrics.
pub const OUTCOMES: [&str; 13] = [
    "success",
    "input_error",
    "function_error",
    "timeout",
    "out_of_memory",
    "forbidden_call",
    "process_limit",
    "crash",
    "protocol",
    "worker_lost",
    "overload",
    "cancelled",
    "system_error",
];

/// A call that was let in by one of the doors.
#[derive(Clone)]
pub struct Invocation {
    /// The caller's organization.
    pub org: String,
    /// The function.
    pub function: Arc<Function>,
    /// The payload: JSON text.
    pub input: Bytes,
    /// The HTTP request behind it, for `context.httpContext`.
    pub http_context: Option<Box<RawValue>>,
    /// The same request as the second old generation described it, for `context.request`.
    pub request: Option<Box<RawValue>>,
    /// The event behind it, for `context.event`.
    pub event: Option<Value>,
    /// Secrets beyond the function's own.
    pub secrets: Vec<String>,
    /// Service instances beyond the function's own; only recorded.
    pub services: Vec<String>,
    /// Free labels of the run.
    pub tags: Vec<Tag>,
    /// The caller's trace.
    pub trace: Trace,
}

/// A call that ended.
pub struct Finished {
    /// The run's id.
    pub id: String,
    /// The result as JSON text, or why there is none.
    pub result: Result<Bytes, Failure>,
    /// What the call wrote.
    pub logs: Logs,
    /// Where the time went.
    pub timings: Timings,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

/// Runs a call to its end and hands the record to the writer behind the caller's back. The work goes
/// on when the caller goes away.
pub async fn execute(app: &Arc<App>, invocation: Arc<Invocation>) -> Arc<Finished> {
    let id = Uuid::now_v7().to_string();
    let call = {
        let (app, id) = (Arc::clone(app), id.clone());
        async move {
            let accepted = Timestamp::now();
            let finished = Arc::new(attempt(&app, id, accepted, &invocation).await);
            app.recorder.put(invocation, Arc::clone(&finished)).await;
            finished
        }
    };
    match Lasting::new(call).await {
        Some(finished) => finished,
        None => {
            tracing::error!(run = id, "a call was lost");
            let now = Timestamp::now();
            let result = Err(system("the server lost this call: its log says why".to_owned()));
            let (logs, timings) = (Logs::default(), Timings::default());
            Arc::new(Finished { id, result, logs, timings, accepted: now, finished: now })
        }
    }
}

/// Accepts a call that nobody waits for: once this returns the call will be made, also after a
/// crash of the server. Returns the run's id.
///
/// # Errors
/// 404 while nothing serves, 429 when too many wait already, 503 when nothing can be stored.
pub async fn accept(app: &Arc<App>, invocation: &Invocation) -> Result<String, Error> {
    serving(&invocation.function)?;
    let id = Uuid::now_v7().to_string();
    let (row, job) = accepted(invocation, &id);
    app.store.accept_run(row, job, app.config.max_queued_runs).await.map_err(|error| {
        Error::store(dispatch_api::Kind::Function, &invocation.function.name, error)
    })?;
    Ok(id)
}

/// What is stored of a call that nobody waits for, and the job that makes it. Both are to be written
/// together.
pub(crate) fn accepted(invocation: &Invocation, id: &str) -> (RunRow, NewJob) {
    let record = RunRecord::accepted(invocation, id, Timestamp::now());
    (record.into_row(), job(&invocation.org, id))
}

/// The job that makes an accepted call.
pub(crate) fn job(org: &str, id: &str) -> NewJob {
    NewJob {
        kind: tasks::RUN,
        key: id.to_owned(),
        org: org.to_owned(),
        payload: json!({ "id": id }),
        run_at: 0,
    }
}

/// The revision that takes calls.
///
/// # Errors
/// 404 in the old server's words while there is none.
pub fn serving(function: &Function) -> Result<&Serving, Error> {
    function.serving.as_ref().ok_or_else(|| {
        let text = format!("function {} is not READY", function.name);
        Error::new(axum::http::StatusCode::NOT_FOUND, text).page("function-not-ready")
    })
}

/// Makes one call: input check, secrets, the function, output check.
pub(crate) async fn attempt(
    app: &App,
    id: String,
    accepted: Timestamp,
    invocation: &Invocation,
) -> Finished {
    let start = Instant::now();
    let outcome = match prepare(app, &id, invocation) {
        Ok((serving, call)) => {
            let mut outcome = app.runner.invoke(&serving.revision, call).await;
            outcome.result = outcome.result.and_then(|output| check_output(serving, output));
            outcome
        }
        Err(failure) => Outcome::failed(failure),
    };
    let total = start.elapsed();
    let org = &invocation.org;
    app.metrics.run(org, &invocation.function.name, outcome_word(&outcome.result), total);
    app.metrics.dropped(outcome.logs.dropped);
    Finished {
        id,
        result: outcome.result,
        logs: outcome.logs,
        timings: Timings {
            queue: micros(outcome.timings.queue),
            start: micros(outcome.timings.start),
            function: micros(outcome.timings.function),
            total: micros(total),
        },
        accepted,
        finished: Timestamp::now(),
    }
}

fn prepare<'a>(
    app: &App,
    id: &str,
    invocation: &'a Invocation,
) -> Result<(&'a Serving, Call), Failure> {
    let Some(serving) = &invocation.function.serving else {
        return Err(system(format!("function {} is not READY", invocation.function.name)));
    };
    if let Some(schema) = &serving.input {
        let input: Value = serde_json::from_slice(&invocation.input)
            .map_err(|error| input_error(format!("the input is not JSON: {error}")))?;
        schema
            .check(&input)
            .map_err(|list| input_error(format!("Input invalid against schema: {list}")))?;
    }
    // The old server's kind of error, and nothing that a caller at the gateway can mend.
    let missing = |message| failure(ErrorType::InputError, Cause::System, message);
    let context = context::build(app, id, invocation, serving).map_err(missing)?;
    let call = Call {
        id: id.to_owned(),
        context,
        payload: invocation.input.clone(),
        deadline: serving.timeout.map(|timeout| Instant::now() + timeout),
        timeout: serving.timeout,
    };
    Ok((serving, call))
}

/// A worker is not to be trusted: what it sent goes into answers and records as JSON.
fn check_output(serving: &Serving, output: Bytes) -> Result<Bytes, Failure> {
    // The runner has seen that it is JSON. Too deep for a reader it can only be with many brackets.
    let opening = || output.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if serving.output.is_none() && output.len() <= QUICK_OUTPUT && opening() < MAX_DEPTH {
        return Ok(output);
    }
    let value: Value = serde_json::from_slice(&output).map_err(|error| {
        let text = format!("the function's result is not JSON: {error}");
        failure(ErrorType::FunctionError, Cause::Protocol, text)
    })?;
    let Some(schema) = &serving.output else { return Ok(output) };
    schema.check(&value).map(|()| output).map_err(|list| {
        let text = format!("Output invalid against schema: {list}");
        failure(ErrorType::FunctionError, Cause::Handler, text)
    })
}

fn failure(kind: ErrorType, cause: Cause, message: String) -> Failure {
    Failure { kind, cause, message, stacktrace: Vec::new() }
}

fn input_error(message: String) -> Failure {
    failure(ErrorType::InputError, Cause::Handler, message)
}

fn system(message: String) -> Failure {
    failure(ErrorType::SystemError, Cause::System, message)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn outcome_word(result: &Result<Bytes, Failure>) -> &'static str {
    let Err(failure) = result else { return "success" };
    match (&failure.cause, failure.kind) {
        (Cause::Handler | Cause::Load, ErrorType::InputError) => "input_error",
        (Cause::Handler | Cause::Load, _) => "function_error",
        (Cause::Timeout, _) => "timeout",
        (Cause::OutOfMemory, _) => "out_of_memory",
        (Cause::ForbiddenCall, _) => "forbidden_call",
        (Cause::Signal(_) | Cause::Exit(_), _) => "crash",
        (Cause::ProcessLimit, _) => "process_limit",
        (Cause::Protocol, _) => "protocol",
        (Cause::Lost, _) => "worker_lost",
        (Cause::Overload { .. }, _) => "overload",
        (Cause::Cancelled, _) => "cancelled",
        (Cause::System, _) => "system_error",
    }
}
