//! The workers of one revision, and the calls that wait for them.
//!
//! All decisions are made under one short lock that is never held across an `await`; what follows
//! from them is collected in `Effects` and done without it. A worker in a call is represented by a
//! [`Lease`], a living worker by its task's [`Member`]; dropping them is what gives the place back,
//! so no path can forget it.

mod lease;
pub mod scale;
mod start;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dispatch_api::ErrorType;
use tokio::sync::{mpsc, oneshot};

pub use self::lease::{Lease, Member};
use self::scale::{History, Reason, Seen};
use crate::call::{Cause, Failure};
use crate::home;
use crate::process::Shared;
use crate::process::room::Place;
use crate::worker::{Order, failure};
use crate::{PoolState, Revision, Scale, ScaleSchedule, Settings};

/// When a caller that was refused should try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long a worker serves its own queue before it makes room for a function that has none.
const TURN: Duration = Duration::from_secs(1);
/// How often schedules are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Calls in a row from one other home after which a worker moves there: moving costs about as much
/// as two calls from afar.
const VISITS: u8 = 3;

/// Calls that a worker with short calls has at a time, all but the first of them waiting inside of it:
/// it goes from one to the next without being fed in between.
const AHEAD: usize = 8;

/// Locks `mutex`, also after a panic elsewhere: no state here is ever left half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pool of one revision.
pub struct Pool {
    revision: Arc<Revision>,
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// Workers that stand still.
    frozen: AtomicUsize,
}

#[derive(Default)]
struct State {
    workers: Vec<Slot>,
    queue: VecDeque<Waiter>,
    starting: usize,
    /// Whether `min_scale` workers are to be kept.
    kept: bool,
    retired: bool,
    /// Whether it was taken out of the table of pools: nothing may be added any more.
    closed: bool,
    /// Starts that failed in a row, and when the next one makes sense without a call that needs it.
    failures: u32,
    not_before: Option<Instant>,
    /// The handler, known once a worker was up.
    handler: String,
    /// The least workers that the schedules want, and when they are to be looked at again.
    scheduled: usize,
    look_at: Option<Instant>,
    history: History,
}

struct Slot {
    id: u64,
    orders: mpsc::UnboundedSender<Order>,
    busy: usize,
    born: Instant,
    idle_since: Instant,
    /// The home it lives in.
    home: Option<usize>,
    /// Calls in a row that came from other homes.
    visits: u8,
    /// Whether its calls are so short that others from its home wait for it rather than take another
    /// worker, which would have to share the core with it.
    brisk: bool,
    /// Whether it takes calls while it runs one.
    ahead: bool,
}

impl Slot {
    /// Calls that it takes at a time, where those that come from its home may wait inside of it or not.
    fn places(&self, concurrency: usize, home: Option<usize>, wait: bool) -> usize {
        let inside = wait && self.ahead && self.brisk && self.home == home;
        if inside { AHEAD } else { concurrency }
    }

    /// Counts a call from `here`, before it gets its place. Says where the worker is to move, if it
    /// is idle and called from elsewhere again and again.
    fn visit(&mut self, here: Option<usize>) -> Option<usize> {
        if here.is_none() || here == self.home {
            self.visits = 0;
            return None;
        }
        self.visits = self.visits.saturating_add(1);
        if self.visits < VISITS || self.busy > 0 {
            return None;
        }
        (self.home, self.visits) = (here, 0);
        here
    }
}

type Answer = oneshot::Sender<Result<Lease, Failure>>;

/// A call in the queue.
struct Waiter {
    answer: Answer,
    /// The home it came from.
    home: Option<usize>,
}

/// How a call gets its place.
pub enum Entry {
    /// A worker was free.
    Ready(Lease),
    /// It waits in the queue.
    Waiting(oneshot::Receiver<Result<Lease, Failure>>),
    /// The pool is gone from the table; ask the table again.
    Closed,
}

impl Pool {
    pub(crate) fn new(revision: Arc<Revision>, shared: Arc<Shared>) -> Arc<Pool> {
        let (state, frozen) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Pool { revision, shared, state, frozen })
    }

    /// Takes a place in a worker or in the queue.
    ///
    /// # Errors
    /// [`Cause::Overload`] when the queue is full.
    pub fn enter(self: &Arc<Pool>) -> Result<Entry, Failure> {
        let mut state = lock(&self.state);
        if state.closed {
            return Ok(Entry::Closed);
        }
        let here = home::here();
        let settings = &self.revision.settings;
        let lines_up = self.lines_up(&state, here) && state.queue.len() < settings.queue;
        if !lines_up && let Some(slot) = state.free(self.concurrency(), here, self.waits(here)) {
            let home = slot.visit(here);
            let lease = self.lease(slot, Duration::ZERO, home);
            return Ok(Entry::Ready(lease));
        }
        state.drop_closed();
        // A call for which a worker is about to start does not stand in line.
        let startable = settings.max_scale.max(1).saturating_sub(state.workers.len());
        if state.queue.len() >= settings.queue + startable * self.concurrency() {
            return Err(self.overloaded());
        }
        let (waiter, waiting) = oneshot::channel();
        state.queue.push_back(Waiter { answer: waiter, home: here });
        if lines_up {
            return Ok(Entry::Waiting(waiting));
        }
        let mut effects = Effects::default();
        self.start_for_calls(&mut state, &mut effects);
        drop(state);
        effects.apply(self);
        Ok(Entry::Waiting(waiting))
    }

    fn overloaded(&self) -> Failure {
        let settings = &self.revision.settings;
        let message = format!(
            "The function is overloaded: all {} workers are busy and {} calls wait already; raise \
             --max-scale or send less",
            settings.max_scale, settings.queue
        );
        let cause = Cause::Overload { retry_after: RETRY_AFTER };
        failure::failure(ErrorType::SystemError, cause, message)
    }

    fn concurrency(&self) -> usize {
        self.revision.settings.concurrency.max(1)
    }

    /// Takes a place in the worker.
    fn lease(self: &Arc<Pool>, slot: &mut Slot, start: Duration, home: Option<usize>) -> Lease {
        slot.busy += 1;
        let (worker, orders, ahead) = (slot.id, slot.orders.clone(), slot.ahead && slot.brisk);
        Lease { pool: Arc::clone(self), worker, orders, start, home, ahead, brisk: None }
    }

    /// Whether calls from `home` may wait for workers that are busy although there are others.
    fn waits(&self, home: Option<usize>) -> bool {
        self.concurrency() == 1
            && self.revision.settings.queue > 0
            && home.is_some_and(|home| self.shared.options.homes.shares_core(home))
            // Who waits for room gets it where a worker has nothing to do.
            && !self.shared.room.is_crowded()
    }

    /// Whether calls from `home` wait for the worker there, which has as many as it takes.
    fn lines_up(&self, state: &State, home: Option<usize>) -> bool {
        let full = |slot: &Slot| {
            slot.brisk && slot.home == home && slot.busy >= slot.places(1, home, true)
        };
        self.waits(home) && state.workers.iter().any(full)
    }

    /// Gives free places to those who wait.
    fn hand_out(
        self: &Arc<Pool>,
        state: &mut State,
        effects: &mut Effects,
        fresh: Option<(u64, Duration)>,
    ) {
        let mut at = 0;
        while let Some(waiter) = state.queue.get(at) {
            let home = waiter.home;
            if waiter.answer.is_closed() {
                state.queue.remove(at);
                continue;
            }
            if self.lines_up(state, home) {
                at += 1;
                continue;
            }
            let Some(slot) = state.free(self.concurrency(), home, self.waits(home)) else {
                break;
            };
            let start = fresh.filter(|(id, _)| *id == slot.id).map(|(_, start)| start);
            let lease = self.lease(slot, start.unwrap_or_default(), None);
            let waiter = state.queue.remove(at);
            effects.answers.extend(waiter.map(|waiter| (waiter.answer, Ok(lease))));
        }
        if state.retired && state.queue.is_empty() {
            let before = state.workers.len();
            state.workers.retain(|slot| slot.busy > 0);
            state.note_stopped(before, Reason::Retired);
        }
    }

    fn release(self: &Arc<Pool>, worker: u64, brisk: Option<bool>) {
        let mut effects = Effects::default();
        let mut state = lock(&self.state);
        let waiting = !state.queue.is_empty();
        let Some(slot) = state.workers.iter_mut().find(|slot| slot.id == worker) else { return };
        slot.busy -= 1;
        slot.idle_since = Instant::now();
        slot.brisk = brisk.unwrap_or(slot.brisk);
        if slot.busy == 0
            && self.shared.room.is_crowded()
            && self.shared.room.claim(&self.revision, waiting, slot.born.elapsed() > TURN)
        {
            state.stop(worker, Reason::Room);
            self.start_for_calls(&mut state, &mut effects);
        }
        self.hand_out(&mut state, &mut effects, None);
        drop(state);
        effects.apply(self);
    }

    /// Takes a worker out: it gets no further calls.
    fn leave(self: &Arc<Pool>, worker: u64) {
        let mut state = lock(&self.state);
        state.stop(worker, Reason::Ended);
        self.serve_queue(state);
    }

    /// No call waits for this worker any more as long as there are others.
    fn spread(self: &Arc<Pool>, worker: u64) {
        let mut state = lock(&self.state);
        if let Some(slot) = state.workers.iter_mut().find(|slot| slot.id == worker) {
            slot.brisk = false;
        }
        self.serve_queue(state);
    }

    /// Gives those who wait what is free, and starts what they lack.
    fn serve_queue(self: &Arc<Pool>, mut state: MutexGuard<'_, State>) {
        let mut effects = Effects::default();
        self.hand_out(&mut state, &mut effects, None);
        self.start_for_calls(&mut state, &mut effects);
        drop(state);
        effects.apply(self);
    }

    /// Keeps at least `min_scale` workers from now on. Returns the handler, which is known once a
    /// worker has been up.
    pub fn keep(&self) -> String {
        let mut state = lock(&self.state);
        (state.kept, state.retired) = (true, false);
        state.handler.clone()
    }

    /// The key in the table of pools.
    pub fn faas_id(&self) -> &str {
        &self.revision.faas_id
    }

    /// Stops idle workers now and the others when they are idle.
    pub fn retire(self: &Arc<Pool>) {
        let mut state = lock(&self.state);
        (state.kept, state.retired) = (false, true);
        let mut effects = Effects::default();
        self.hand_out(&mut state, &mut effects, None);
        drop(state);
        effects.apply(self);
    }

    /// Kills all workers, refuses all calls that wait, and lets none in any more.
    pub fn kill(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        for slot in state.workers.drain(..) {
            let _ = slot.orders.send(Order::Kill);
        }
        let waiting = std::mem::take(&mut state.queue);
        drop(state);
        for waiter in waiting {
            let _ = waiter.answer.send(Err(failure::stopping()));
        }
    }

    /// Stops workers that were idle for too long and starts those that are missing. Returns whether
    /// the pool was closed because nothing is left in it.
    pub fn tend(self: &Arc<Pool>, now: Instant) -> bool {
        let mut effects = Effects::default();
        let settings = &self.revision.settings;
        let mut state = lock(&self.state);
        state.drop_closed();
        if !settings.schedules.is_empty() && state.look_at.is_none_or(|instant| instant <= now) {
            let wanted = settings.schedules.iter().map(ScaleSchedule::least_now);
            state.scheduled = wanted.max().unwrap_or(0);
            state.look_at = Some(now + LOOK_EVERY);
        }
        let seen = self.seen(&state, now, self.shared.is_short());
        let decision = seen.decide();
        if decision.stop > 0 {
            let before = state.workers.len();
            state.workers.sort_by_key(|slot| slot.idle_since);
            let mut spare = decision.stop;
            state.workers.retain(|slot| {
                let stop = spare > 0 && slot.busy == 0;
                spare -= usize::from(stop);
                !stop
            });
            state.note_stopped(before, if seen.retired { Reason::Retired } else { Reason::Idle });
        }
        let reason = if seen.scheduled { Reason::Schedule } else { Reason::Minimum };
        for _ in 0..decision.spare {
            let Some(place) = self.shared.room.take(&self.revision) else { break };
            state.start(&mut effects, Some(place), reason);
        }
        let empty = state.workers.is_empty() && state.queue.is_empty() && state.starting == 0;
        let needed = state.kept && (seen.least > 0 || !settings.schedules.is_empty());
        state.closed = empty && !needed;
        let closed = state.closed;
        drop(state);
        effects.apply(self);
        closed
    }

    /// Since when its oldest idle worker is idle, and whether it is kept all the same.
    pub fn oldest_idle(&self) -> Option<(bool, Instant)> {
        let state = lock(&self.state);
        let kept = state.workers.len() <= state.least(&self.revision.settings);
        let idle = state.workers.iter().filter(|slot| slot.busy == 0);
        idle.map(|slot| (kept, slot.idle_since)).min()
    }

    /// Stops the oldest idle worker, if there is one.
    pub fn evict(&self, reason: Reason) -> bool {
        let mut state = lock(&self.state);
        let idle = state.workers.iter().filter(|slot| slot.busy == 0);
        let oldest = idle.min_by_key(|slot| slot.idle_since).map(|slot| slot.id);
        oldest.is_some_and(|id| state.stop(id, reason))
    }

    /// The revision whose workers these are.
    pub fn revision(&self) -> &Arc<Revision> {
        &self.revision
    }

    /// How many workers it has and wants, and why.
    pub fn scale(&self) -> Scale {
        let mut state = lock(&self.state);
        state.drop_closed();
        let now = Instant::now();
        let next_try = state.not_before.filter(|instant| *instant > now);
        Scale {
            seen: self.seen(&state, now, self.shared.is_short()),
            frozen: self.frozen.load(Ordering::Relaxed).min(state.workers.len()),
            failures: state.failures,
            next_try: next_try.map(|instant| instant - now),
            room: self.shared.room.usage(&self.revision),
            steps: state.history.steps(),
        }
    }

    /// What it looks like now.
    pub fn snapshot(&self) -> PoolState {
        let state = lock(&self.state);
        let busy = state.workers.iter().filter(|slot| slot.busy > 0).count();
        PoolState {
            organization: self.revision.organization.clone(),
            function: self.revision.function.clone(),
            faas_id: self.revision.faas_id.clone(),
            idle: state.workers.len() - busy,
            busy,
            starting: state.starting,
            queued: state.queue.iter().filter(|waiter| !waiter.answer.is_closed()).count(),
        }
    }

    fn seen(&self, state: &State, now: Instant, short: bool) -> Seen {
        let settings = &self.revision.settings;
        let idle = state.workers.iter().filter(|slot| slot.busy == 0);
        let expired = idle.clone().filter(|slot| slot.idle_since + settings.idle <= now);
        let idle_count = idle.clone().count();
        let lined = state.queue.iter().filter(|waiter| self.lines_up(state, waiter.home)).count();
        let concurrency = self.concurrency();
        let calls = state.workers.iter().map(|slot| slot.busy.min(concurrency)).sum();
        let inside: usize =
            state.workers.iter().map(|slot| slot.busy.saturating_sub(concurrency)).sum();
        Seen {
            idle: idle_count,
            expired: expired.count(),
            busy: state.workers.len() - idle_count,
            starting: state.starting,
            calls,
            queued: state.queue.len() + inside,
            lined: lined + inside,
            concurrency,
            least: state.least(settings),
            scheduled: state.kept && state.scheduled > settings.min_scale,
            most: settings.max_scale.max(1),
            retired: state.retired,
            failing: state.not_before.is_some_and(|instant| instant > now),
            short,
        }
    }
}

impl State {
    /// The worker to take: the fullest that has a place, so that others can become idle; among
    /// equals one that is at home here, then the one used last, whose memory is warm.
    fn free(&mut self, concurrency: usize, here: Option<usize>, wait: bool) -> Option<&mut Slot> {
        let has_place = |slot: &&mut Slot| slot.busy < slot.places(concurrency, here, wait);
        let free = self.workers.iter_mut().filter(has_place);
        free.max_by_key(|slot| (slot.busy, slot.home == here, slot.idle_since))
    }

    /// Workers that are kept although nothing needs them.
    fn least(&self, settings: &Settings) -> usize {
        if self.kept { settings.min_scale.max(self.scheduled) } else { 0 }
    }

    /// Forgets those who wait no more.
    fn drop_closed(&mut self) {
        self.queue.retain(|waiter| !waiter.answer.is_closed());
    }

    fn start(&mut self, effects: &mut Effects, place: Option<Place>, reason: Reason) {
        self.starting += 1;
        effects.starts.push(place);
        self.history.note(1, self.workers.len() + self.starting, reason);
    }

    /// Takes a worker out, if it is there still: without its slot it ends.
    fn stop(&mut self, worker: u64, reason: Reason) -> bool {
        let before = self.workers.len();
        self.workers.retain(|slot| slot.id != worker);
        self.note_stopped(before, reason)
    }

    fn note_stopped(&mut self, before: usize, reason: Reason) -> bool {
        let count = before - self.workers.len();
        if count > 0 {
            let change = -i64::try_from(count).unwrap_or(i64::MAX);
            self.history.note(change, self.workers.len() + self.starting, reason);
        }
        count > 0
    }
}

/// What follows from a decision, done after the lock is given back: a waiter that left in between
/// drops its lease, which takes the lock to free the place again.
#[derive(Default)]
struct Effects {
    answers: Vec<(Answer, Result<Lease, Failure>)>,
    /// Workers to start, counted as starting already, some with their place.
    starts: Vec<Option<Place>>,
}

impl Effects {
    fn apply(self, pool: &Arc<Pool>) {
        for (waiter, answer) in self.answers {
            let _ = waiter.send(answer);
        }
        for place in self.starts {
            pool.spawn_start(place);
        }
    }
}
