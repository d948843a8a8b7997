//! How many workers a pool is to have, and why.

use std::collections::VecDeque;
use std::time::SystemTime;

/// Changes that are remembered for each pool.
const REMEMBERED: usize = 16;

/// Why a pool has as many workers as it has, or got more or fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Calls run, or wait.
    Demand,
    /// The function's minimum.
    Minimum,
    /// The minimum that one of the function's schedules sets now.
    Schedule,
    /// The function's maximum is reached, and calls wait.
    Maximum,
    /// All workers that the server may have are in use, or another function needed one.
    Room,
    /// All workers that the organization may have are in use.
    Share,
    /// Workers cannot be started.
    Failing,
    /// The machine is short of memory.
    Pressure,
    /// Workers without calls are kept for a while, and stopped after it.
    Idle,
    /// A worker ended: it crashed, or was stopped after a call that took too long.
    Ended,
    /// Another revision serves.
    Retired,
    /// There is nothing to do.
    Zero,
}

impl Reason {
    /// Its name in answers of the API.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Demand => "demand",
            Reason::Minimum => "minimum",
            Reason::Schedule => "schedule",
            Reason::Maximum => "maximum",
            Reason::Room => "room",
            Reason::Share => "share",
            Reason::Failing => "failing",
            Reason::Pressure => "pressure",
            Reason::Idle => "idle",
            Reason::Ended => "ended",
            Reason::Retired => "retired",
            Reason::Zero => "zero",
        }
    }
}

/// What decisions about a pool are made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Workers without a call, and those of them that were without one for long enough.
    pub idle: usize,
    /// See `idle`.
    pub expired: usize,
    /// Workers in calls.
    pub busy: usize,
    /// Workers that are to come.
    pub starting: usize,
    /// Calls that run.
    pub calls: usize,
    /// Calls that wait.
    pub queued: usize,
    /// Those of them that wait for a worker with short calls and want no other.
    pub lined: usize,
    /// Calls that one worker takes at a time, at least 1.
    pub concurrency: usize,
    /// Workers that are kept although nothing needs them, and whether a schedule says so.
    pub least: usize,
    /// See `least`.
    pub scheduled: bool,
    /// The most workers, at least 1.
    pub most: usize,
    /// Whether another revision serves.
    pub retired: bool,
    /// Whether the last starts failed and the next one is not due.
    pub failing: bool,
    /// Whether the machine is short of memory.
    pub short: bool,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Workers to start for calls that wait.
    pub start: usize,
    /// Workers to start that no call waits for: only while there is room.
    pub spare: usize,
    /// Idle workers to stop.
    pub stop: usize,
}

impl Seen {
    /// Workers that there are.
    pub fn workers(&self) -> usize {
        self.idle + self.busy
    }

    /// Workers that it should have: for the calls that run and wait, and the least.
    pub fn wanted(&self) -> usize {
        let needed = (self.calls + self.wanting()).div_ceil(self.concurrency);
        needed.max(self.kept()).min(self.most)
    }

    /// Calls that want a further worker.
    fn wanting(&self) -> usize {
        self.queued.saturating_sub(self.lined)
    }

    fn kept(&self) -> usize {
        if self.retired { 0 } else { self.least.min(self.most) }
    }

    /// Decides.
    pub fn decide(&self) -> Decision {
        let waiting = self.wanting().div_ceil(self.concurrency).saturating_sub(self.starting);
        let start = waiting.min(self.most.saturating_sub(self.workers() + self.starting));
        let stop = if self.wanting() > 0 {
            0
        } else if self.retired {
            self.idle
        } else {
            self.expired.min(self.workers().saturating_sub(self.kept()))
        };
        let coming = self.workers() - stop + self.starting + start;
        let spare = if self.failing || self.short { 0 } else { self.kept().saturating_sub(coming) };
        Decision { start, spare, stop }
    }

    /// Why it has as many workers as it has now; `crowded` says why a start waits, if one does.
    pub fn reason(&self, crowded: Option<Reason>) -> Reason {
        let load = self.calls + self.queued;
        let lacking = self.workers() < self.wanted();
        let full = self.wanting() > 0 && self.workers() + self.starting >= self.most;
        if self.retired {
            Reason::Retired
        } else if lacking && self.failing {
            Reason::Failing
        } else if let Some(reason) = crowded.filter(|_| lacking) {
            reason
        } else if full {
            Reason::Maximum
        } else if lacking && load == 0 && self.short {
            Reason::Pressure
        } else if load > self.kept() * self.concurrency {
            Reason::Demand
        } else if self.workers() > self.kept() {
            Reason::Idle
        } else if self.kept() == 0 {
            Reason::Zero
        } else if self.scheduled {
            Reason::Schedule
        } else {
            Reason::Minimum
        }
    }
}

/// One change of how many workers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: SystemTime,
    /// How many more, or fewer.
    pub change: i64,
    /// How many there were then, with those that were to come.
    pub workers: usize,
    /// Why.
    pub reason: Reason,
}

/// The last changes, the oldest first.
#[derive(Debug, Default)]
pub struct History(VecDeque<Step>);

impl History {
    /// Remembers a change to `workers`. Those of the same kind within one second are one.
    pub fn note(&mut self, change: i64, workers: usize, reason: Reason) {
        let at = SystemTime::now();
        if let Some(last) = self.0.back_mut() {
            let same = last.reason == reason && (last.change > 0) == (change > 0);
            if same && at.duration_since(last.at).is_ok_and(|since| since.as_secs() == 0) {
                (last.change, last.workers) = (last.change + change, workers);
                return;
            }
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Step { at, change, workers, reason });
    }

    /// All of them.
    pub fn steps(&self) -> Vec<Step> {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests;
