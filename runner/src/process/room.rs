//! Who gets room for a worker, of what all workers together may have.
//!
//! Free places go, one by one, to the waiting organization that has the fewest, then to its function
//! that has the fewest: everybody gets what they need as long as nobody has to have less for it. A
//! place that is in use is given up for somebody who waits only if that evens things out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};

use crate::Revision;
use crate::pool::lock;

/// The room for the workers of all functions.
pub(crate) struct Room {
    most: usize,
    /// The most places of one organization.
    share: usize,
    state: Mutex<State>,
    /// Those who wait for a place that nobody makes room for yet.
    unserved: AtomicUsize,
    emptied: Notify,
}

#[derive(Default)]
struct State {
    taken: usize,
    organizations: HashMap<String, Count>,
    revisions: HashMap<String, Count>,
    waiting: Vec<Waiting>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    taken: usize,
    /// Those of them whose worker was told to go.
    leaving: usize,
    /// Those that others leave for this one's sake.
    promised: usize,
}

impl Count {
    /// What it will have when all that was promised is done.
    fn soon(self) -> usize {
        (self.taken + self.promised).saturating_sub(self.leaving)
    }
}

struct Waiting {
    revision: Arc<Revision>,
    place: oneshot::Sender<Place>,
    promised: bool,
}

/// Room for one worker. Dropping it gives it back.
pub(crate) struct Place {
    room: Option<Arc<Room>>,
    revision: Arc<Revision>,
}

/// How much of the room for workers is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// By all.
    pub taken: usize,
    /// What all may have.
    pub most: usize,
    /// By the organization.
    pub organization: usize,
    /// What the organization may have.
    pub share: usize,
    /// How many workers of the revision wait for a place.
    pub waiting: usize,
}

impl Room {
    /// Room for `most` workers, of which one organization has at most `share`.
    pub fn new(most: usize, share: usize) -> Arc<Room> {
        let most = most.max(1);
        Arc::new(Room {
            most,
            share: share.clamp(1, most),
            state: Mutex::default(),
            unserved: AtomicUsize::new(0),
            emptied: Notify::new(),
        })
    }

    /// A place, where one is free.
    pub fn take(self: &Arc<Room>, revision: &Arc<Revision>) -> Option<Place> {
        let mut state = lock(&self.state);
        self.is_free(&state, revision).then(|| self.place(&mut state, revision))
    }

    /// Where a place comes as soon as there is one.
    pub fn wait(self: &Arc<Room>, revision: &Arc<Revision>) -> oneshot::Receiver<Place> {
        let (place, coming) = oneshot::channel();
        let mut state = lock(&self.state);
        let revision = Arc::clone(revision);
        state.waiting.push(Waiting { revision, place, promised: false });
        self.settle(&mut state);
        coming
    }

    /// Whether somebody waits whom nobody makes room for yet: one look, for the path of every call.
    pub fn is_crowded(&self) -> bool {
        self.unserved.load(Ordering::Relaxed) > 0
    }

    /// Those who wait and whom nobody makes room for yet, who comes first first.
    pub fn unserved(self: &Arc<Room>) -> Vec<Arc<Revision>> {
        let mut state = lock(&self.state);
        self.settle(&mut state);
        let waiting = state.waiting.iter().filter(|waiting| !waiting.promised);
        let mut all: Vec<_> = waiting.map(|waiting| &waiting.revision).collect();
        all.sort_by_key(|revision| state.rank(revision));
        all.into_iter().map(Arc::clone).collect()
    }

    /// Whether an idle worker of `from` goes for one of `to`. One that is `kept` although it is idle
    /// goes only for who has less.
    pub fn may_evict(&self, from: &Revision, kept: bool, to: &Revision) -> bool {
        let state = lock(&self.state);
        let same = from.organization == to.organization;
        let fewer = || state.soon(&to.organization) < state.soon(&from.organization);
        (same || state.soon(&to.organization) < self.share) && (same || !kept || fewer())
    }

    /// Notes that a worker of `from` goes for one of `to`.
    pub fn promise(&self, from: &Revision, to: &Revision) {
        let mut state = lock(&self.state);
        self.pledge(&mut state, from, to);
    }

    /// Whether a worker of `from` that has just become idle must go for another's sake. Calls that
    /// wait for it are `wanting`; `turn` says that it has served these long enough for others to
    /// have their turn.
    pub fn claim(&self, from: &Revision, wanting: bool, turn: bool) -> bool {
        if !self.is_crowded() {
            return false;
        }
        let mut state = lock(&self.state);
        let evens = |from: Count, to: Count| {
            to.soon() + 1 < from.soon() || (turn && to.soon() == 0 && from.soon() > 0)
        };
        let counts = |revision: &Revision| {
            let count = |counts: &HashMap<_, Count>, key| counts.get(key).copied();
            (
                count(&state.organizations, &revision.organization).unwrap_or_default(),
                count(&state.revisions, &revision.faas_id).unwrap_or_default(),
            )
        };
        let (own, own_revision) = counts(from);
        let candidates = state.waiting.iter().filter(|waiting| {
            let (other, other_revision) = counts(&waiting.revision);
            let unserved = !waiting.promised && waiting.revision.faas_id != from.faas_id;
            let fair = if waiting.revision.organization == from.organization {
                !wanting || evens(own_revision, other_revision)
            } else {
                other.soon() < self.share && (!wanting || evens(own, other))
            };
            unserved && fair
        });
        let best = candidates.min_by_key(|waiting| state.rank(&waiting.revision));
        let Some(to) = best.map(|waiting| Arc::clone(&waiting.revision)) else { return false };
        self.pledge(&mut state, from, &to);
        true
    }

    /// What is in use, by all and by this one.
    pub fn usage(&self, revision: &Revision) -> Use {
        let state = lock(&self.state);
        let organization = state.organizations.get(&revision.organization);
        let waiting = state.waiting.iter().filter(|it| it.revision.faas_id == revision.faas_id);
        Use {
            taken: state.taken,
            most: self.most,
            organization: organization.map_or(0, |count| count.taken),
            share: self.share,
            waiting: waiting.filter(|waiting| !waiting.place.is_closed()).count(),
        }
    }

    /// Waits until all places were given back.
    pub async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if lock(&self.state).taken == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn is_free(&self, state: &State, revision: &Revision) -> bool {
        let taken = state.organizations.get(&revision.organization).map_or(0, |it| it.taken);
        state.taken < self.most && taken < self.share
    }

    fn place(self: &Arc<Room>, state: &mut State, revision: &Arc<Revision>) -> Place {
        state.taken += 1;
        state.count(revision, |count| count.taken += 1);
        Place { room: Some(Arc::clone(self)), revision: Arc::clone(revision) }
    }

    fn pledge(&self, state: &mut State, from: &Revision, to: &Revision) {
        let waits = |it: &&mut Waiting| !it.promised && it.revision.faas_id == to.faas_id;
        let Some(waiting) = state.waiting.iter_mut().find(waits) else { return };
        waiting.promised = true;
        state.count(from, |count| count.leaving += 1);
        state.count(to, |count| count.promised += 1);
        self.settle_unserved(state);
    }

    /// Gives free places to those who wait.
    fn settle(self: &Arc<Room>, state: &mut State) {
        let gone: Vec<_> = state.waiting.extract_if(.., |it| it.place.is_closed()).collect();
        for waiting in gone.iter().filter(|waiting| waiting.promised) {
            state.count(&waiting.revision, |count| count.promised -= 1);
        }
        loop {
            let free = state.waiting.iter().enumerate();
            let free = free.filter(|(_, waiting)| self.is_free(state, &waiting.revision));
            let best = free.min_by_key(|(_, waiting)| state.rank(&waiting.revision));
            let Some((index, _)) = best else { break };
            let waiting = state.waiting.remove(index);
            state.served(&waiting);
            let place = self.place(state, &waiting.revision);
            if let Err(mut unwanted) = waiting.place.send(place) {
                // The lock is held: its own way back would wait for it.
                unwanted.room = None;
                state.give_back(&unwanted.revision);
            }
        }
        self.settle_unserved(state);
    }

    fn settle_unserved(&self, state: &State) {
        let unserved = state.waiting.iter().filter(|waiting| !waiting.promised).count();
        self.unserved.store(unserved, Ordering::Relaxed);
    }
}

impl State {
    /// Who comes first is lowest.
    fn rank(&self, revision: &Revision) -> (usize, usize) {
        let taken = |counts: &HashMap<String, Count>, key| {
            counts.get(key).map_or(0, |count: &Count| count.taken)
        };
        let organization = taken(&self.organizations, &revision.organization);
        (organization, taken(&self.revisions, &revision.faas_id))
    }

    fn soon(&self, organization: &str) -> usize {
        self.organizations.get(organization).map_or(0, |count| count.soon())
    }

    fn count(&mut self, revision: &Revision, change: impl Fn(&mut Count)) {
        let counts = [
            (&mut self.organizations, &revision.organization),
            (&mut self.revisions, &revision.faas_id),
        ];
        for (counts, key) in counts {
            let count = counts.entry(key.clone()).or_default();
            change(count);
            if (count.taken, count.promised) == (0, 0) {
                counts.remove(key);
            }
        }
    }

    fn give_back(&mut self, revision: &Revision) {
        self.taken -= 1;
        self.count(revision, |count| {
            count.taken -= 1;
            count.leaving = count.leaving.saturating_sub(1);
        });
    }

    /// Somebody gets a place that was promised: maybe to another one, who waits on.
    fn served(&mut self, waiting: &Waiting) {
        let promised = match waiting.promised {
            true => Some(&waiting.revision),
            false => self.waiting.iter_mut().find(|other| other.promised).map(|other| {
                other.promised = false;
                &other.revision
            }),
        };
        if let Some(revision) = promised.map(Arc::clone) {
            self.count(&revision, |count| count.promised -= 1);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(room) = self.room.take() else { return };
        let mut state = lock(&room.state);
        state.give_back(&self.revision);
        room.settle(&mut state);
        if state.taken == 0 {
            room.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
