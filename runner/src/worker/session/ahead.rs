//! Calls that are sent to a worker while it runs another one.
//!
//! A worker that begins its next call by itself spares itself and the server a switch for each. What
//! would be lost by that is kept so:
//!
//! * A call that waits in the worker is taken back when the one before it takes long. The worker must
//!   not begin it later all the same: it is told until when it may, by the clock that both have. Once
//!   that has passed and the one before it had still not ended, the worker is bound to decline it.
//! * What a call writes is its own: the worker begins no call while something is in the pipes, and
//!   while calls wait in it nobody reads them before it has said whose it is.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::Session;
use crate::worker::active::{Active, take_back};

/// For how long after it was sent a worker may begin a call that was sent while another one ran.
pub(super) const BEGIN_WITHIN: Duration = Duration::from_millis(3);

/// After what time that is looked at again where the worker has just said something.
const ASK_AGAIN: Duration = Duration::from_millis(1);

impl Session {
    /// While calls wait in the worker, only it knows which of them it is at: what they write stays in
    /// the pipes until the worker says whose it is.
    pub(super) fn rest_pipes(&mut self) {
        self.link.pipes_rest = self.exclusive && self.calls.len() > 1;
    }

    /// Takes calls back that the worker will not begin any more: their time has passed, and after that
    /// the one before them had still not ended.
    pub(super) fn take_back(&mut self, now: Instant) {
        let late = |active: &Active| active.by.is_some_and(|by| by <= now);
        if !self.exclusive || !self.calls.iter().skip(1).any(late) {
            return;
        }
        if !self.link.is_silent() {
            // What it said comes first; it may have ended the one that they wait for.
            let waiting = self.calls.iter_mut().skip(1);
            return waiting.for_each(|active| active.by = Some(now + ASK_AGAIN));
        }
        let mut index = 1;
        while let Some(active) = self.calls.get(index) {
            if late(active) {
                let mut active = self.calls.remove(index);
                self.withdrawn.push(active.id);
                active.lease.brisk = Some(false);
                take_back(active);
            } else {
                index += 1;
            }
        }
        self.rest_pipes();
    }

    /// The first call was not begun: something was in the pipes, or it was too late for it.
    pub(super) fn decline(&mut self) {
        let mut active = self.calls.remove(0);
        self.pace.give_up();
        active.lease.brisk = Some(false);
        self.next_begins();
        take_back(active);
    }

    /// The worker is now at the call that is the first one.
    pub(super) fn next_begins(&mut self) {
        if self.exclusive
            && let Some(next) = self.calls.first_mut()
        {
            next.begun = Instant::now();
        }
        self.rest_pipes();
    }
}

/// This long from now, in microseconds of the clock that workers have too.
pub(super) fn within(time: Duration) -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from((now + time).as_micros()).unwrap_or(u64::MAX)
}
