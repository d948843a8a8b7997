//! One call of a function and how it ended.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dispatch_api::ErrorType;

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The run's id.
    pub id: String,
    /// The context handed to the handler: a JSON object. It may hold secrets, so it is never logged.
    pub context: Bytes,
    /// The payload: any JSON text.
    pub payload: Bytes,
    /// When the call must have ended. The work is killed after it.
    pub deadline: Option<Instant>,
    /// The limit in words for the message, such as 5 s.
    pub timeout: Option<Duration>,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The result as JSON text, or why there is none.
    pub result: Result<Bytes, Failure>,
    /// What exactly this call wrote.
    pub logs: Logs,
    /// Where the time went.
    pub timings: Timings,
}

impl Outcome {
    /// An outcome of a call that never reached a worker.
    pub fn failed(failure: Failure) -> Outcome {
        Outcome { result: Err(failure), logs: Logs::default(), timings: Timings::default() }
    }
}

/// Lines that a call wrote, bounded; what was beyond the bound is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// Lines of standard output.
    pub stdout: Vec<String>,
    /// Lines of standard error.
    pub stderr: Vec<String>,
    /// Bytes that were dropped.
    pub dropped: u64,
}

/// Where a call's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Waiting for a worker.
    pub queue: Duration,
    /// Starting a worker; zero when a warm one was there.
    pub start: Duration,
    /// In the worker.
    pub function: Duration,
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whose fault it was, as the run shows it.
    pub kind: ErrorType,
    /// What exactly happened.
    pub cause: Cause,
    /// What happened and what to do, for the function's owner.
    pub message: String,
    /// The language's own stack trace.
    pub stacktrace: Vec<String>,
}

/// What exactly ended a call. Each has its own HTTP status at the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The handler raised an error or refused its input.
    Handler,
    /// The deadline passed; the worker was killed.
    Timeout,
    /// The worker used more memory than it may; it was killed.
    OutOfMemory,
    /// The worker made a system call that is forbidden; it was killed.
    ForbiddenCall,
    /// The worker died of a signal.
    Signal(i32),
    /// The worker ended by itself.
    Exit(i32),
    /// The handler failed, or the worker ended, after it was refused further processes or threads.
    ProcessLimit,
    /// The worker broke the protocol; it was killed.
    Protocol,
    /// The queue of the function is full.
    Overload {
        /// When a new try makes sense.
        retry_after: Duration,
    },
    /// The handler could not be loaded.
    Load,
    /// The caller went away or the server stops.
    Cancelled,
    /// The worker is gone, and nobody can say how: what watched over it ended first.
    Lost,
    /// The platform failed.
    System,
}
