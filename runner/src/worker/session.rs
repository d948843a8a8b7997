//! The state machine of one worker.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dispatch_api::ErrorType;
use dispatch_sandbox::Launcher;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, sleep_until, timeout};

use super::failure;
use super::link::{Gone, Link, Sink};
use super::logs::LogBuffer;
use super::{Job, Order, Plan, Reply};
use crate::call::{Call, Cause, Failure, Outcome, Timings};
use crate::frame::{Fault, FromWorker, PROTOCOL, Stream, ToWorker};
use crate::pool::{Lease, Member};

/// How long a call may take to end after it was cancelled; the worker is killed after that.
const CANCEL_GRACE: Duration = Duration::from_millis(50);
/// How often an idle worker is asked whether it still answers.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const PING_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of what a worker wrote while it loaded that are shown when it does not come up.
const TAIL: usize = 2048;

pub struct Session {
    link: Link,
    calls: Vec<Active>,
    function: String,
    exclusive: bool,
    result_limit: usize,
    next_id: u64,
    /// When it was last found idle and well, and whether a `ping` is under way.
    checked: Instant,
    pinged: bool,
    timer: Pin<Box<Sleep>>,
}

enum Event {
    Frame(FromWorker, Bytes),
    Gone(Gone),
    Order(Order),
    /// No further orders come.
    Dismissed,
    /// Nobody waits for a call any more.
    Abandoned(usize),
    Timer,
}

/// Why a session ends.
enum End {
    /// The worker is not needed any more and healthy.
    Dismissed,
    /// The worker is to be killed; its calls fail with this, but the late ones with a timeout.
    Kill(Failure),
    /// The worker is gone or must go.
    Gone(Gone),
}

impl Session {
    pub async fn serve(mut self, orders: mpsc::UnboundedReceiver<Order>, mut member: Member) {
        let mut orders = Some(orders);
        self.checked = Instant::now();
        let end = loop {
            let step = match poll_fn(|cx| self.poll_event(cx, &mut orders)).await {
                Event::Frame(frame, body) => self.on_frame(&frame, &body, &mut member),
                Event::Gone(gone) => Err(End::Gone(gone)),
                Event::Order(Order::Run(job)) => {
                    match member.left() {
                        false => self.begin(job),
                        true => decline(job.call, job.lease, job.reply),
                    }
                    Ok(())
                }
                Event::Order(Order::Kill) => Err(End::Kill(failure::stopping())),
                Event::Dismissed => {
                    orders = None;
                    Ok(())
                }
                Event::Abandoned(index) => {
                    self.cancel(index, false);
                    Ok(())
                }
                Event::Timer => self.on_timer(&mut member),
            };
            if let Err(end) = step {
                break end;
            }
            if orders.is_none() && self.calls.is_empty() {
                break End::Dismissed;
            }
        };
        member.leave();
        self.finish(end).await;
        // Orders that came in the meantime were given to a worker that is no more.
        if let Some(mut orders) = orders {
            orders.close();
            while let Ok(Order::Run(job)) = orders.try_recv() {
                decline(job.call, job.lease, job.reply);
            }
        }
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        orders: &mut Option<mpsc::UnboundedReceiver<Order>>,
    ) -> Poll<Event> {
        let Session { link, calls, function, exclusive, .. } = self;
        let frame = link.poll(cx, &mut sink(calls, function, *exclusive));
        match frame {
            Poll::Ready(Ok((frame, body))) => return Poll::Ready(Event::Frame(frame, body)),
            Poll::Ready(Err(gone)) => return Poll::Ready(Event::Gone(gone)),
            Poll::Pending => {}
        }
        if let Some(orders) = orders
            && let Poll::Ready(order) = orders.poll_recv(cx)
        {
            return Poll::Ready(order.map_or(Event::Dismissed, Event::Order));
        }
        for (index, active) in self.calls.iter_mut().enumerate() {
            if active.cancelled.is_none() && active.reply.poll_closed(cx).is_ready() {
                return Poll::Ready(Event::Abandoned(index));
            }
        }
        // A timer that is set too early costs one vain wake-up, setting it anew costs each call.
        let due = self.due();
        if self.timer.deadline().into_std() > due {
            self.timer.as_mut().reset(due.into());
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.due() <= Instant::now() {
                return Poll::Ready(Event::Timer);
            }
            self.timer.set(sleep_until(self.due().into()));
        }
        Poll::Pending
    }

    /// When something must be done if nothing happens before.
    fn due(&self) -> Instant {
        if self.calls.is_empty() {
            return self.checked + if self.pinged { PING_LIMIT } else { PING_EVERY };
        }
        let calls = self.calls.iter().filter_map(|active| match &active.cancelled {
            Some(cancelled) => Some(cancelled.until),
            None => active.call.deadline,
        });
        calls.min().unwrap_or_else(|| Instant::now() + PING_EVERY)
    }

    fn begin(&mut self, job: Job) {
        let Job { call, lease, reply } = job;
        if self.exclusive {
            // What was written since the last call belongs to none.
            self.link.drain(&mut |stream, bytes| background(&self.function, stream, bytes));
        }
        let (id, begun) = (self.next_id, Instant::now());
        self.next_id += 1;
        let left = call.deadline.map(|deadline| deadline.saturating_duration_since(begun));
        let deadline_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        self.link.send_call(id, deadline_ms, &call.context, &call.payload);
        self.calls.push(Active {
            id,
            call,
            reply,
            lease,
            logs: LogBuffer::default(),
            result: None,
            begun,
            touched: false,
            cancelled: None,
        });
    }

    fn cancel(&mut self, index: usize, late: bool) {
        let active = &mut self.calls[index];
        active.touched = true;
        active.cancelled = Some(Cancelled { until: Instant::now() + CANCEL_GRACE, late });
        let id = active.id;
        self.link.send(&ToWorker::Cancel { id });
    }

    fn on_timer(&mut self, member: &mut Member) -> Result<(), End> {
        let now = Instant::now();
        if self.calls.is_empty() {
            if self.pinged {
                tracing::warn!(function = self.function, "an idle worker does not answer");
                return Err(End::Kill(failure::stopping()));
            }
            (self.pinged, self.checked) = (true, now);
            self.link.send(&ToWorker::Ping);
            return Ok(());
        }
        for index in 0..self.calls.len() {
            let active = &self.calls[index];
            match &active.cancelled {
                Some(cancelled) if cancelled.until <= now => {
                    return Err(End::Kill(failure::neighbour_timed_out()));
                }
                None if active.call.deadline.is_some_and(|deadline| deadline <= now) => {
                    // Whatever such a worker still does, it must not do it to another call.
                    member.leave();
                    self.cancel(index, true);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn on_frame(
        &mut self,
        frame: &FromWorker,
        body: &Bytes,
        member: &mut Member,
    ) -> Result<(), End> {
        if let FromWorker::Pong = frame
            && self.pinged
        {
            (self.pinged, self.checked) = (false, Instant::now());
            return Ok(());
        }
        let (FromWorker::Head { id }
        | FromWorker::Chunk { id }
        | FromWorker::End { id }
        | FromWorker::Error { id, .. }
        | FromWorker::Log { id, .. }) = *frame
        else {
            return Err(End::Kill(unexpected(frame)));
        };
        let Some(index) = self.calls.iter().position(|active| active.id == id) else {
            let what = format!("it answered call {id}, which is not running");
            return Err(End::Kill(failure::protocol(&what)));
        };
        let active = &mut self.calls[index];
        active.touched = true;
        let size = active.result.as_ref().map_or(0, BytesMut::len) + body.len();
        if size > self.result_limit && !matches!(frame, FromWorker::Log { .. }) {
            let what = format!("a result has more than {} bytes", self.result_limit);
            return Err(End::Kill(failure::protocol(&what)));
        }
        match (frame, &mut active.result) {
            (FromWorker::Log { stream, .. }, _) => active.logs.write(*stream, body),
            (FromWorker::Head { .. }, result @ None) => *result = Some(BytesMut::from(&body[..])),
            (FromWorker::Chunk { .. }, Some(result)) => result.extend_from_slice(body),
            (FromWorker::End { .. }, result) => {
                let result = match result.take() {
                    Some(mut whole) => {
                        whole.extend_from_slice(body);
                        whole.freeze()
                    }
                    None => body.clone(),
                };
                return self.conclude(index, check(result));
            }
            (FromWorker::Error { last, .. }, _) => {
                let fault = serde_json::from_slice::<Fault>(body).map_err(|error| {
                    End::Kill(failure::protocol(&format!("bad `error`: {error}")))
                })?;
                if *last {
                    member.leave();
                }
                let Fault { kind, message, stacktrace } = fault;
                let failed = Failure { kind, cause: Cause::Handler, message, stacktrace };
                return self.conclude(index, Ok(Err(failed)));
            }
            _ => return Err(End::Kill(unexpected(frame))),
        }
        Ok(())
    }

    /// Ends a call whose worker goes on.
    fn conclude(
        &mut self,
        index: usize,
        result: Result<Result<Bytes, Failure>, End>,
    ) -> Result<(), End> {
        let result = result?;
        if self.exclusive {
            let Session { link, calls, function, .. } = self;
            link.drain(&mut sink(calls, function, true));
        }
        self.calls.swap_remove(index).finish(result);
        self.checked = Instant::now();
        Ok(())
    }

    /// Brings the process to its end, then all calls.
    async fn finish(mut self, end: End) {
        let Session { link, calls, function, exclusive, .. } = &mut self;
        let failed = match end {
            End::Dismissed => {
                return link.stop(&mut |stream, bytes| background(function, stream, bytes)).await;
            }
            End::Kill(failed) => {
                link.end().await;
                link.drain(&mut sink(calls, function, *exclusive));
                failed
            }
            End::Gone(gone) => {
                let unread = matches!(gone, Gone::Unread);
                let mut sink = sink(calls, function, *exclusive);
                let failed = post_mortem(link, gone, &mut sink).await;
                drop(sink);
                if unread && calls.len() == 1 && !calls[0].touched {
                    let Active { call, reply, lease, .. } = calls.remove(0);
                    decline(call, lease, reply);
                } else if calls.is_empty() {
                    tracing::warn!(function, "an idle worker ended: {}", failed.message);
                }
                failed
            }
        };
        for active in self.calls {
            active.finish(Err(failed.clone()));
        }
    }
}

/// What happened to a worker that is gone, or as good as gone.
async fn post_mortem(link: &mut Link, gone: Gone, sink: Sink<'_>) -> Failure {
    let exit = match gone {
        Gone::Violation(_) => None,
        Gone::Closed | Gone::Unread => link.exit(sink).await,
    };
    link.end().await;
    link.drain(sink);
    match (gone, exit) {
        (Gone::Violation(violation), _) => failure::protocol(&violation.to_string()),
        (_, Some(exit)) => failure::ended(&exit),
        (_, None) => failure::protocol("it closed its channel and went on"),
    }
}

/// A result is handed on as it is, so it must be what it says.
fn check(result: Bytes) -> Result<Result<Bytes, Failure>, End> {
    match serde_json::from_slice::<&serde_json::value::RawValue>(&result) {
        Ok(_) => Ok(Ok(result)),
        Err(error) => {
            let what = format!("a result is not JSON: {error}");
            Err(End::Kill(failure::protocol(&what)))
        }
    }
}

fn unexpected(frame: &FromWorker) -> Failure {
    let name = serde_json::to_value(frame).ok();
    let name = name.as_ref().and_then(|value| value["type"].as_str()).unwrap_or_default();
    failure::protocol(&format!("an unexpected `{name}` frame"))
}
