//! The words for the ways a call can fail other than by its handler's own error.

use std::time::Duration;

use dispatch_api::ErrorType;
use dispatch_sandbox::Exit;

use crate::call::{Cause, Failure};
use crate::frame::{Fault, FromWorker};
use crate::process::spec::PROCESSES;

const MIB: u64 = 1024 * 1024;
/// Bytes of a message, lines of a stack trace, and bytes of each of them that are kept.
const MAX_MESSAGE: usize = 16 * 1024;
const MAX_LINES: usize = 256;
const MAX_LINE: usize = 4096;

/// A failure without a stack trace.
pub fn failure(kind: ErrorType, cause: Cause, message: impl Into<String>) -> Failure {
    Failure { kind, cause, message: message.into(), stacktrace: Vec::new() }
}

/// The worker reported an error. A worker is not trusted to be brief.
pub fn reported(fault: Fault, cause: Cause) -> Failure {
    let Fault { kind, message, stacktrace } = fault;
    let cut = |text: String, limit| match text.len() > limit {
        true => text[..text.floor_char_boundary(limit)].to_owned(),
        false => text,
    };
    let stacktrace = stacktrace.into_iter().take(MAX_LINES).map(|line| cut(line, MAX_LINE));
    Failure { kind, cause, message: cut(message, MAX_MESSAGE), stacktrace: stacktrace.collect() }
}

/// The worker ended during a call, by itself.
pub fn ended(exit: &Exit) -> Failure {
    let (kind, cause, message) = match *exit {
        Exit::OutOfMemory { limit_bytes } => (
            ErrorType::FunctionError,
            Cause::OutOfMemory,
            format!(
                "The function used more than its {} MiB of memory and was killed; raise --memory \
                 or let it use less",
                limit_bytes / MIB
            ),
        ),
        Exit::ForbiddenCall => (
            ErrorType::FunctionError,
            Cause::ForbiddenCall,
            "The function's process was killed because it made a system call that functions may not \
             make, such as mounting or making namespaces; see docs/errors/forbidden-call.md"
                .to_owned(),
        ),
        Exit::Signal(number) => (
            ErrorType::FunctionError,
            Cause::Signal(number),
            format!("The function's process was killed by signal {}", signal(number)),
        ),
        Exit::Code(code) => (
            ErrorType::FunctionError,
            Cause::Exit(code),
            format!(
                "The function's process ended with exit code {code}; a handler must return or \
                 raise an error, and not end the process"
            ),
        ),
        Exit::Lost => (
            ErrorType::SystemError,
            Cause::Lost,
            "The function's worker was lost: the process that started it ended first, and it with \
             that; send the call again, if doing twice what it did so far does no harm"
                .to_owned(),
        ),
    };
    failure(kind, cause, message)
}

/// The same failure of a worker that was refused processes meanwhile.
pub fn short_of_processes(failed: Failure) -> Failure {
    let message = format!(
        "The function reached its limit of {PROCESSES} processes and threads at a time; start fewer, \
         and wait for those that were started. What came of it: {}",
        failed.message
    );
    Failure { cause: Cause::ProcessLimit, message, ..failed }
}

fn signal(number: i32) -> String {
    let name = match number {
        4 => "SIGILL: an illegal instruction",
        6 => "SIGABRT: the process aborted itself",
        7 => "SIGBUS: a bad memory access",
        8 => "SIGFPE: an arithmetic error",
        9 => "SIGKILL",
        11 => "SIGSEGV: a bad memory access, most likely in native code",
        15 => "SIGTERM",
        24 => "SIGXCPU: too much processor time",
        25 => "SIGXFSZ: a file grew too large",
        _ => return number.to_string(),
    };
    format!("{number} ({name})")
}

/// The worker broke the protocol.
pub fn protocol(what: &str) -> Failure {
    let message = format!(
        "The function's worker was killed because it broke the worker protocol: {what}; a handler \
         must not use the file descriptors of its worker"
    );
    failure(ErrorType::FunctionError, Cause::Protocol, message)
}

/// The worker sent a frame at a time when it may not.
pub fn unexpected(frame: &FromWorker) -> Failure {
    let header = serde_json::to_value(frame).unwrap_or_default();
    let name = header["type"].as_str().unwrap_or_default();
    protocol(&format!("an unexpected `{name}` frame"))
}

/// The deadline passed while the handler ran.
pub fn timed_out(limit: Option<Duration>) -> Failure {
    let message = format!(
        "Function execution exceeded the timeout{}; raise --timeout or let it do less",
        of(limit)
    );
    failure(ErrorType::FunctionError, Cause::Timeout, message)
}

/// The deadline passed before a worker was free.
pub fn timed_out_waiting(limit: Option<Duration>, max_scale: usize) -> Failure {
    let message = format!(
        "Did not invoke, already exceeded timeout{}: all workers ({max_scale} at most) were busy or \
         starting; raise --timeout or --max-scale",
        of(limit)
    );
    failure(ErrorType::SystemError, Cause::Timeout, message)
}

fn of(limit: Option<Duration>) -> String {
    limit.map_or_else(String::new, |limit| format!(" of {} ms", limit.as_millis()))
}

/// Another call of the same worker ran over its deadline and could not be stopped alone.
pub fn neighbour_timed_out() -> Failure {
    failure(
        ErrorType::FunctionError,
        Cause::Signal(9),
        "The function's process was killed because another call in it exceeded its timeout and did \
         not react to being cancelled; lower --concurrency to keep calls apart",
    )
}

/// The server stops.
pub fn stopping() -> Failure {
    failure(
        ErrorType::SystemError,
        Cause::Cancelled,
        "The server is stopping; send the call again when it is back",
    )
}

/// The platform failed.
pub fn system(message: impl Into<String>) -> Failure {
    failure(ErrorType::SystemError, Cause::System, message)
}
