//! Starting workers, which takes long and can fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::scale::Reason;
use super::{Effects, Member, Pool, Slot, State, lock};
use crate::call::Failure;
use crate::home;
use crate::process::room::Place;
use crate::process::start;
use crate::process::uid::Uid;
use crate::worker::Worker;

/// The pause after a failed start of a worker that no call waits for; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Its bound.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Pool {
    /// Starts what the calls that wait need.
    pub(super) fn start_for_calls(&self, state: &mut State, effects: &mut Effects) {
        let seen = self.seen(state, Instant::now(), false);
        for _ in 0..seen.decide().start {
            state.start(effects, None, Reason::Demand);
        }
    }

    pub(super) fn spawn_start(self: &Arc<Pool>, place: Option<Place>) {
        let starting = Starting { pool: Arc::clone(self), counted: true };
        let stopped = self.shared.stopped.clone();
        // Without a runtime the program is ending, and dropping the start is all there is to do.
        let next = || self.shared.options.homes.next().map(|home| home.runtime.clone());
        let elsewhere = home::here().is_none().then(next).flatten();
        if let Some(runtime) = elsewhere.or_else(|| Handle::try_current().ok()) {
            runtime.spawn(stopped.run_until_cancelled_owned(begin(starting, place)));
        }
    }
}

/// A start under way, counted in the pool's state until it is dropped.
struct Starting {
    pool: Arc<Pool>,
    counted: bool,
}

impl Starting {
    fn end(&mut self, state: &mut State) {
        state.starting -= usize::from(std::mem::take(&mut self.counted));
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if self.counted {
            let pool = Arc::clone(&self.pool);
            self.end(&mut lock(&pool.state));
        }
    }
}

async fn begin(mut starting: Starting, place: Option<Place>) {
    let pool = Arc::clone(&starting.pool);
    let place = match place {
        Some(place) => place,
        None => {
            let Some(place) = pool.shared.place(&pool.revision).await else { return };
            let mut state = lock(&pool.state);
            state.drop_closed();
            if state.queue.is_empty() {
                // All who waited left or were served by others in the meantime.
                return starting.end(&mut state);
            }
            drop(state);
            place
        }
    };
    let begun = Instant::now();
    match start::worker(&pool.shared, &pool.revision).await {
        Ok((worker, uid)) => pool.admit(worker, uid, begun.elapsed(), place, &mut starting),
        Err(failed) => {
            drop(place);
            pool.start_failed(&failed, &mut starting);
        }
    }
}

impl Pool {
    fn admit(
        self: &Arc<Pool>,
        worker: Worker,
        uid: Arc<Uid>,
        took: Duration,
        place: Place,
        starting: &mut Starting,
    ) {
        let id = self.shared.next_worker();
        let (orders, inbox) = mpsc::unbounded_channel();
        let member =
            Member { pool: Arc::clone(self), worker: id, left: false, _place: place, _uid: uid };
        let now = Instant::now();
        let mut state = lock(&self.state);
        starting.end(&mut state);
        (state.failures, state.not_before) = (0, None);
        state.handler.clone_from(&worker.handler);
        let home = home::here();
        let (busy, visits, brisk, ahead) = (0, 0, false, worker.ahead);
        let slot =
            Slot { id, orders, busy, born: now, idle_since: now, home, visits, brisk, ahead };
        state.workers.push(slot);
        let mut effects = Effects::default();
        self.hand_out(&mut state, &mut effects, Some((id, took)));
        drop(state);
        tracing::debug!(function = self.revision.function, ?took, "worker ready");
        tokio::spawn(worker.serve(inbox, member));
        effects.apply(self);
    }

    /// A failed start fails one call; where no worker is up or coming, all that wait.
    fn start_failed(self: &Arc<Pool>, failed: &Failure, starting: &mut Starting) {
        tracing::info!(function = self.revision.function, "worker not started: {}", failed.message);
        let mut state = lock(&self.state);
        starting.end(&mut state);
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(state.failures));
        state.failures = state.failures.saturating_add(1);
        state.not_before = Some(Instant::now() + pause.min(LONGEST_PAUSE));
        let workers = state.workers.len() + state.starting;
        state.history.note(-1, workers, Reason::Failing);
        state.drop_closed();
        let alone = state.workers.is_empty() && state.starting == 0;
        let count = if alone { state.queue.len() } else { state.queue.len().min(1) };
        let mut effects = Effects::default();
        effects
            .answers
            .extend(state.queue.drain(..count).map(|waiter| (waiter.answer, Err(failed.clone()))));
        self.start_for_calls(&mut state, &mut effects);
        drop(state);
        effects.apply(self);
    }
}
