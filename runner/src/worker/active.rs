//! A call in its worker.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::logs::LogBuffer;
use super::{Reply, failure};
use crate::call::{Call, Failure, Outcome, Timings};
use crate::frame::Stream;
use crate::pool::Lease;

/// A call that was sent to the worker and has not ended.
pub struct Active {
    pub id: u64,
    pub call: Call,
    pub reply: oneshot::Sender<Reply>,
    /// Frees the place in the pool when it is dropped.
    pub lease: Lease,
    pub logs: LogBuffer,
    pub result: Option<BytesMut>,
    pub begun: Instant,
    /// When the worker will no longer begin it, where it was sent while another one ran.
    pub by: Option<Instant>,
    /// Whether the worker showed that it has the call, or was told more about it.
    pub touched: bool,
    pub cancelled: Option<Cancelled>,
}

pub struct Cancelled {
    /// When the worker is killed.
    pub until: Instant,
    /// Whether it was for the deadline, and not because the caller left.
    pub late: bool,
}

impl Active {
    pub fn new(
        id: u64,
        call: Call,
        lease: Lease,
        reply: oneshot::Sender<Reply>,
        begun: Instant,
    ) -> Active {
        Active {
            id,
            call,
            reply,
            lease,
            logs: LogBuffer::default(),
            result: None,
            begun,
            by: None,
            touched: false,
            cancelled: None,
        }
    }

    /// Answers the caller; who was too late gets that as the answer, whatever came.
    pub fn finish(self, mut result: Result<Bytes, Failure>) {
        if self.cancelled.is_some_and(|cancelled| cancelled.late) {
            result = Err(failure::timed_out(self.call.timeout));
        }
        let timings = Timings { function: self.begun.elapsed(), ..Timings::default() };
        let outcome = Outcome { result, logs: self.logs.finish(), timings };
        // First the place, then the answer: who calls again at once finds the worker free.
        drop(self.lease);
        let _ = self.reply.send(Reply::Ended(outcome));
    }
}

/// Sends a call back: another worker may have it.
pub fn decline(call: Call, lease: Lease, reply: oneshot::Sender<Reply>) {
    drop(lease);
    let _ = reply.send(Reply::NotStarted(call));
}

/// Takes a call back that the worker will not begin.
pub fn take_back(active: Active) {
    let Active { call, lease, reply, .. } = active;
    drop(lease);
    let _ = reply.send(Reply::Again(call));
}

/// Where bytes from the pipes belong: to the one call that runs, or to none.
pub fn sink<'a>(
    calls: &'a mut [Active],
    function: &'a str,
    exclusive: bool,
) -> impl FnMut(Stream, &[u8]) + Send + 'a {
    move |stream, bytes| match calls.first_mut() {
        Some(active) if exclusive => active.logs.write(stream, bytes),
        _ => background(function, stream, bytes),
    }
}

/// Output that belongs to no call.
pub fn background(function: &str, stream: Stream, bytes: &[u8]) {
    tracing::debug!(function, ?stream, "{}", String::from_utf8_lossy(bytes).trim_end());
}
