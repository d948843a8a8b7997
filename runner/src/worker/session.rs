//! The state machine of one worker that serves calls.

mod ahead;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dispatch_api::ErrorType;
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};

use self::ahead::{BEGIN_WITHIN, within};
use super::active::{Active, Cancelled, background, decline, sink, take_back};
use super::failure;
use super::link::{Gone, Link};
use super::pace::Pace;
use super::process::Process;
use super::{Job, Order, Plan};
use crate::call::{Cause, Failure};
use crate::frame::{Fault, FromWorker, ToWorker};
use crate::home::{self, Home};
use crate::pool::Member;

/// How long a call may take to end after it was cancelled; the worker is killed after that.
const CANCEL_GRACE: Duration = Duration::from_millis(50);
/// How often an idle worker is asked whether it still answers.
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const PING_LIMIT: Duration = Duration::from_secs(10);

/// How long a call may take while others wait for its worker although there may be more workers.
const PATIENCE: Duration = Duration::from_millis(2);

/// What is written so soon after a call that another one follows, nobody can tell from what is written
/// when that has begun: the pipes were read at the first one's end.
const AT_ONCE: Duration = Duration::from_micros(500);

/// Calls that take less are spared the look at what was refused to them: they do not start as many
/// processes as they may.
const QUICK: Duration = Duration::from_millis(5);

pub struct Session {
    link: Link,
    calls: Vec<Active>,
    function: String,
    exclusive: bool,
    /// The home it lives in.
    home: Option<usize>,
    pace: Pace,
    result_limit: usize,
    next_id: u64,
    /// Calls that were taken back and that the worker has not declined yet.
    withdrawn: Vec<u64>,
    /// When it was last found idle and well, and whether a `ping` is under way.
    checked: Instant,
    pinged: bool,
    /// How often it had been refused a process when this was looked at last.
    refused: u64,
    /// How long it is idle before it is frozen, since when it is, and whether it was.
    freeze: Option<Duration>,
    idle_since: Instant,
    frozen: bool,
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
    pub fn new(link: Link, plan: &Plan) -> Session {
        Session {
            link,
            calls: Vec::new(),
            function: plan.function.clone(),
            exclusive: plan.concurrency == 1,
            home: home::here(),
            pace: Pace::default(),
            result_limit: plan.result_limit,
            next_id: 0,
            withdrawn: Vec::new(),
            checked: Instant::now(),
            pinged: false,
            refused: 0,
            freeze: plan.freeze,
            idle_since: Instant::now(),
            frozen: false,
            timer: Box::pin(sleep(PING_EVERY)),
        }
    }

    pub async fn serve(mut self, orders: mpsc::UnboundedReceiver<Order>, mut member: Member) {
        let mut orders = Some(orders);
        self.checked = Instant::now();
        self.idle_since = self.checked;
        let end = loop {
            let step = match poll_fn(|cx| self.poll_event(cx, &mut orders)).await {
                Event::Frame(frame, body) => self.on_frame(&frame, &body, &mut member),
                Event::Gone(gone) => Err(End::Gone(gone)),
                Event::Order(Order::Run(job)) => {
                    self.thaw(&member);
                    if member.left() {
                        decline(job.call, job.lease, job.reply);
                    } else if let Some(home) = self.elsewhere(&job, &member) {
                        return self.move_to(&home, job, orders, member);
                    } else {
                        self.begin(job);
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
        self.thaw(&member);
        if let Some(mut orders) = orders {
            // Orders that came in the meantime were given to a worker that is no more.
            orders.close();
            while let Ok(Order::Run(job)) = orders.try_recv() {
                decline(job.call, job.lease, job.reply);
            }
        }
        self.finish(end).await;
    }

    /// The home that this worker is to move to before it takes the call.
    fn elsewhere(&self, job: &Job, member: &Member) -> Option<Home> {
        let number = job.lease.home()?;
        let moves = self.home != Some(number) && self.calls.is_empty();
        moves.then(|| member.homes().get(number).cloned()).flatten()
    }

    /// Goes on in another home, where it takes the call first.
    fn move_to(
        self,
        home: &Home,
        job: Job,
        orders: Option<mpsc::UnboundedReceiver<Order>>,
        member: Member,
    ) {
        let Session {
            link,
            function,
            exclusive,
            pace,
            result_limit,
            next_id,
            withdrawn,
            refused,
            freeze,
            ..
        } = self;
        let Some(orders) = orders else { return };
        let moved = async move {
            let link = match link.detach().and_then(Link::attach) {
                Ok(link) => link,
                // Out of memory in the kernel, at worst; the worker's end says so to its pool.
                Err(error) => return tracing::error!(function, %error, "a worker was lost"),
            };
            let mut session = Session {
                link,
                calls: Vec::new(),
                function,
                exclusive,
                home: home::here(),
                pace,
                result_limit,
                next_id,
                withdrawn,
                checked: Instant::now(),
                pinged: false,
                refused,
                freeze,
                idle_since: Instant::now(),
                frozen: false,
                timer: Box::pin(sleep(PING_EVERY)),
            };
            session.begin(job);
            session.serve(orders, member).await;
        };
        let moved: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(moved);
        home.runtime.spawn(moved);
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        orders: &mut Option<mpsc::UnboundedReceiver<Order>>,
    ) -> Poll<Event> {
        // Frames come last: a worker that sends them without end must not escape its deadline.
        let due = self.due();
        if due <= Instant::now() {
            return Poll::Ready(Event::Timer);
        }
        if let Some(orders) = orders
            && let Poll::Ready(order) = orders.poll_recv(cx)
        {
            return Poll::Ready(order.map_or(Event::Dismissed, Event::Order));
        }
        // Those that wait in the worker leave when they are begun or taken back.
        let running = if self.exclusive { 1 } else { usize::MAX };
        for (index, active) in self.calls.iter_mut().take(running).enumerate() {
            if active.cancelled.is_none() && active.reply.poll_closed(cx).is_ready() {
                return Poll::Ready(Event::Abandoned(index));
            }
        }
        let Session { link, calls, function, exclusive, .. } = self;
        match link.poll(cx, &mut sink(calls, function, *exclusive)) {
            Poll::Ready(Ok((frame, body))) => return Poll::Ready(Event::Frame(frame, body)),
            Poll::Ready(Err(gone)) => return Poll::Ready(Event::Gone(gone)),
            Poll::Pending => {}
        }
        // A timer that is set too early costs one vain wake-up, setting it anew costs each call.
        if self.timer.deadline().into_std() > due || self.timer.is_elapsed() {
            self.timer.as_mut().reset(due.into());
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(Event::Timer);
            }
            self.timer.as_mut().reset(due.into());
        }
        Poll::Pending
    }

    /// When something must be done if nothing happens before.
    fn due(&self) -> Instant {
        if self.calls.is_empty() {
            let limit = if self.pinged { PING_LIMIT } else { PING_EVERY };
            return match self.freeze.filter(|_| !self.pinged) {
                _ if self.frozen => Instant::now() + PING_EVERY,
                Some(after) => (self.idle_since + after).min(self.checked + limit),
                None => self.checked + limit,
            };
        }
        let running = if self.exclusive { 1 } else { usize::MAX };
        let calls = self.calls.iter().take(running).filter_map(|active| match &active.cancelled {
            Some(cancelled) => Some(cancelled.until),
            None => active.call.deadline,
        });
        let first = self.calls.first().filter(|_| self.pace.is_brisk());
        let waiting = self.calls.iter().skip(1).filter_map(|active| active.by);
        calls
            .chain(first.map(|active| active.begun + PATIENCE))
            .chain(waiting)
            .min()
            .unwrap_or_else(|| Instant::now() + PING_EVERY)
    }

    /// Lets it go on, if it stands still.
    fn thaw(&mut self, member: &Member) {
        if std::mem::take(&mut self.frozen) {
            self.link.process().thaw();
            member.freezes(false);
        }
    }

    fn begin(&mut self, job: Job) {
        let Job { call, lease, reply } = job;
        if self.exclusive && self.calls.is_empty() && self.idle_since.elapsed() > AT_ONCE {
            // What was written since the last call belongs to none.
            self.link.drain(&mut |stream, bytes| background(&self.function, stream, bytes));
        }
        let ahead = !self.calls.is_empty();
        let by = self.exclusive.then(|| if ahead { within(BEGIN_WITHIN) } else { 0 });
        let by = by.filter(|_| lease.ahead());
        // After what the worker was told, so never before it.
        let (id, begun) = (self.next_id, Instant::now());
        self.next_id += 1;
        let left = call.deadline.map(|deadline| deadline.saturating_duration_since(begun));
        let deadline_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        self.link.send_call(id, deadline_ms, by, &call.context, &call.payload);
        let mut active = Active::new(id, call, lease, reply, begun);
        active.by = (self.exclusive && ahead).then(|| begun + BEGIN_WITHIN);
        self.calls.push(active);
        self.rest_pipes();
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
            if self.freeze.is_some_and(|after| self.idle_since + after <= now) {
                self.link.process().freeze();
                member.freezes(true);
                self.frozen = true;
                return Ok(());
            }
            (self.pinged, self.checked) = (true, now);
            self.link.send(&ToWorker::Ping);
            return Ok(());
        }
        if self.pace.is_brisk() && self.calls.iter().any(|active| active.begun + PATIENCE <= now) {
            self.pace.give_up();
            member.spread();
        }
        self.take_back(now);
        let neighbours = self.calls.iter().filter(|active| active.cancelled.is_none()).count();
        let running = if self.exclusive { 1 } else { self.calls.len() };
        for index in 0..running {
            let active = &mut self.calls[index];
            let late = active.call.deadline.is_some_and(|deadline| deadline <= now);
            match &mut active.cancelled {
                Some(cancelled) if cancelled.until <= now => {
                    if late || neighbours == 0 {
                        return Err(End::Kill(failure::neighbour_timed_out()));
                    }
                    // That one caller left must not cost the others their calls.
                    cancelled.until = now + CANCEL_GRACE;
                }
                None if late => {
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
        | FromWorker::End { id, .. }
        | FromWorker::Declined { id }
        | FromWorker::Error { id, .. }
        | FromWorker::Log { id, .. }) = *frame
        else {
            return Err(End::Kill(failure::unexpected(frame)));
        };
        if let FromWorker::Declined { .. } = frame
            && let Some(index) = self.withdrawn.iter().position(|other| *other == id)
        {
            self.withdrawn.swap_remove(index);
            return Ok(());
        }
        let Some(index) = self.calls.iter().position(|active| active.id == id) else {
            let what = format!("it answered call {id}, which is not running");
            return Err(End::Kill(failure::protocol(&what)));
        };
        if self.exclusive && index > 0 {
            return Err(End::Kill(failure::protocol(
                "it answered a call before the one before it",
            )));
        }
        let active = &mut self.calls[index];
        if let FromWorker::Declined { .. } = frame
            && active.by.is_some()
        {
            self.decline();
            return Ok(());
        }
        active.touched = true;
        let size = active.result.as_ref().map_or(0, BytesMut::len) + body.len();
        let part_of_result = !matches!(frame, FromWorker::Log { .. } | FromWorker::Error { .. });
        if part_of_result && size > self.result_limit {
            let what = format!("a result has more than {} bytes", self.result_limit);
            return Err(End::Kill(failure::protocol(&what)));
        }
        match (frame, &mut active.result) {
            (FromWorker::Log { stream, .. }, _) => active.logs.write(*stream, body),
            (FromWorker::Head { .. }, result @ None) => *result = Some(BytesMut::from(&body[..])),
            (FromWorker::Chunk { .. }, Some(result)) => result.extend_from_slice(body),
            (FromWorker::End { wrote, .. }, result) => {
                let result = match result.take() {
                    Some(mut whole) => {
                        whole.extend_from_slice(body);
                        whole.freeze()
                    }
                    None => body.clone(),
                };
                return self.conclude(index, *wrote, check(result), member);
            }
            (FromWorker::Error { last, wrote, .. }, _) => {
                let fault = serde_json::from_slice::<Fault>(body).map_err(|error| {
                    End::Kill(failure::protocol(&format!("bad `error`: {error}")))
                })?;
                if *last {
                    member.leave();
                }
                let failed = failure::reported(fault, Cause::Handler);
                let failed = with_reason(failed, &mut self.refused, self.link.process());
                return self.conclude(index, *wrote, Ok(Err(failed)), member);
            }
            _ => return Err(End::Kill(failure::unexpected(frame))),
        }
        Ok(())
    }

    /// Ends a call whose worker goes on. What it wrote is in the pipes unless the worker denies it.
    fn conclude(
        &mut self,
        index: usize,
        wrote: bool,
        result: Result<Result<Bytes, Failure>, End>,
        member: &Member,
    ) -> Result<(), End> {
        let result = result?;
        if self.exclusive && (wrote || self.calls.len() == 1) {
            let Session { link, calls, function, .. } = self;
            link.drain(&mut sink(calls, function, true));
        }
        let mut active = self.calls.remove(index);
        self.checked = Instant::now();
        self.idle_since = self.checked;
        let took = self.checked - active.begun;
        if self.exclusive && took > QUICK {
            self.refused = self.link.process().refused_processes();
        }
        if let Some(home) = self.home
            && let Some(core) = self.pace.after(took, || member.homes().core(home))
        {
            self.link.process().keep_on(core);
        }
        active.lease.brisk = Some(self.pace.is_brisk());
        self.next_begins();
        active.finish(result);
        Ok(())
    }

    /// Brings the process to its end, then all calls.
    async fn finish(mut self, end: End) {
        let Session { link, calls, function, exclusive, refused, withdrawn, .. } = &mut self;
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
                let broke = matches!(gone, Gone::Violation(_));
                // Otherwise it may be others that it did not read.
                let alone = calls.len() == 1 && withdrawn.is_empty();
                let mut sink = sink(calls, function, *exclusive);
                let failed = link.post_mortem(gone, &mut sink).await;
                let failed = with_reason(failed, refused, link.process());
                drop(sink);
                if *exclusive && !broke {
                    // Those that waited in the worker behind the one that it was at.
                    calls.drain(1.min(calls.len())..).for_each(take_back);
                }
                if unread && alone && !calls[0].touched {
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

/// Says so when a failure may come of a process or thread that was refused since the last one.
fn with_reason(failed: Failure, refused: &mut u64, process: &Process) -> Failure {
    let own = matches!(failed.cause, Cause::Handler | Cause::Signal(_) | Cause::Exit(_));
    if !own || failed.kind != ErrorType::FunctionError {
        return failed;
    }
    let before = std::mem::replace(refused, process.refused_processes());
    if *refused > before { failure::short_of_processes(failed) } else { failed }
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
