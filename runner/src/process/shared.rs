//! What all pools of a runner have in common, and who gets room for a worker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dispatch_sandbox::Launcher;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::room::{Place, Room};
use super::stems::Stems;
use super::uid::Uids;
use super::zygotes::Zygotes;
use crate::Revision;
use crate::egress::Gate;
use crate::language::Languages;
use crate::pool::Pool;
use crate::pool::scale::Reason;

/// How often pools are looked after.
const TEND_EVERY: Duration = Duration::from_millis(100);
/// Processes that come to life at a time, for each core.
const GATES: usize = 2;
/// How often the memory that is left is looked at, as long as there is enough.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// How much memory is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supply {
    /// Less than is to be left.
    Short,
    /// What is there is for workers.
    Enough,
    /// There is some for what only makes starts quick.
    Ample,
}

/// What all pools have in common.
pub(crate) struct Shared {
    pub(crate) launcher: Launcher,
    pub(crate) languages: Languages,
    pub(crate) options: Options,
    pub(crate) uids: Uids,
    pub(crate) stems: Stems,
    pub(crate) zygotes: Zygotes,
    pub(crate) gate: Arc<Gate>,
    /// Cancelled when the last workers are to go.
    pub(crate) stopped: CancellationToken,
    pools: RwLock<HashMap<String, Arc<Pool>>>,
    pub(crate) room: Arc<Room>,
    /// Processes that come to life at a time.
    pub(crate) gates: Semaphore,
    /// How much memory the machine has left.
    supply: RwLock<Supply>,
    workers: AtomicU64,
    pub(super) draining: AtomicBool,
}

impl Shared {
    pub(super) fn new(launcher: Launcher, languages: Languages, options: Options) -> Arc<Shared> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Shared {
            launcher,
            languages,
            uids: Uids::default(),
            stems: Stems::default(),
            zygotes: Zygotes::default(),
            gate: Gate::new(options.operator.clone(), Arc::clone(&options.resolver)),
            stopped: CancellationToken::new(),
            pools: RwLock::default(),
            room: Room::new(options.max_workers, options.organization_workers),
            supply: RwLock::new(Supply::Ample),
            gates: Semaphore::new(GATES * cpus),
            workers: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            options,
        })
    }

    /// Kills all workers and forgets all pools, which know this in turn.
    pub(super) fn close(&self) {
        self.draining.store(true, Ordering::Release);
        self.stopped.cancel();
        self.stems.clear();
        self.zygotes.clear();
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        let pools = std::mem::take(&mut *pools);
        pools.values().for_each(|pool| pool.kill());
    }

    pub(super) fn find(&self, faas_id: &str) -> Option<Arc<Pool>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.get(faas_id).cloned()
    }

    pub(super) fn pool(self: &Arc<Shared>, revision: &Arc<Revision>) -> Arc<Pool> {
        if let Some(pool) = self.find(&revision.faas_id) {
            return pool;
        }
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        let make = || Pool::new(Arc::clone(revision), Arc::clone(self));
        Arc::clone(pools.entry(revision.faas_id.clone()).or_insert_with(make))
    }

    pub(super) fn pools(&self) -> Vec<Arc<Pool>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.values().cloned().collect()
    }

    pub(crate) fn next_worker(&self) -> u64 {
        self.workers.fetch_add(1, Ordering::Relaxed)
    }

    /// A place for one more worker, maybe made by stopping one that is idle; none when the server
    /// stops.
    pub(crate) async fn place(&self, revision: &Arc<Revision>) -> Option<Place> {
        let coming = self.room.wait(revision);
        if self.room.is_crowded() {
            self.make_room();
        }
        coming.await.ok()
    }

    /// Stops idle workers, those that are idle longest first, for those who wait for a place.
    fn make_room(&self) {
        let mut idle = self.idle();
        for to in self.room.unserved() {
            let may = |(pool, (kept, _)): &(Arc<Pool>, (bool, Instant))| {
                self.room.may_evict(pool.revision(), *kept, &to)
            };
            if let Some(index) = idle.iter().position(may) {
                let (pool, _) = idle.remove(index);
                if pool.evict(Reason::Room) {
                    self.room.promise(pool.revision(), &to);
                }
            } else if !self.zygotes.evict() {
                return;
            }
        }
    }

    /// Pools with idle workers, and since when the oldest one is: those that are to go first come
    /// first, those that are kept although they are idle last.
    fn idle(&self) -> Vec<(Arc<Pool>, (bool, Instant))> {
        let pools = self.pools().into_iter();
        let mut idle: Vec<_> =
            pools.filter_map(|pool| pool.oldest_idle().map(|since| (pool, since))).collect();
        idle.sort_by_key(|(_, since)| *since);
        idle
    }

    /// Whether the machine is short of memory.
    pub(crate) fn is_short(&self) -> bool {
        self.supply() == Supply::Short
    }

    /// How much memory the machine had left a moment ago.
    pub(crate) fn supply(&self) -> Supply {
        *self.supply.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees how much memory is left. While it is too little, one process goes each time: a worker
    /// that is idle, the one that is idle longest first, then what only makes starts quick.
    fn mind_memory(&self) {
        let reserve = self.options.memory_reserve;
        let Some(available) = self.options.memory.available().filter(|_| reserve > 0) else {
            return;
        };
        let before = self.supply();
        let now = supply(before, available, reserve);
        let short = now == Supply::Short;
        if now != before {
            *self.supply.write().unwrap_or_else(PoisonError::into_inner) = now;
            if short || before == Supply::Short {
                tracing::warn!(available, reserve, short, "memory of the machine");
            }
        }
        if short {
            let gone = self.idle().first().is_some_and(|(pool, _)| pool.evict(Reason::Pressure));
            if !gone && !self.zygotes.evict() {
                self.stems.clear();
            }
        }
    }
}

/// What `available` bytes are where `reserve` are to be left.
fn supply(before: Supply, available: u64, reserve: u64) -> Supply {
    // What was given back must last for a while.
    let enough = match before {
        Supply::Short => reserve.saturating_add(reserve / 4),
        Supply::Enough | Supply::Ample => reserve,
    };
    if available < enough {
        Supply::Short
    } else if available < reserve.saturating_mul(4) {
        Supply::Enough
    } else {
        Supply::Ample
    }
}

/// Looks after the pools for as long as the runner lives.
pub(super) async fn tend(shared: Arc<Shared>) {
    let mut measure_at = Instant::now();
    loop {
        sleep(TEND_EVERY).await;
        let now = Instant::now();
        // A worker may have become idle without a call: its caller left while it started.
        if shared.room.is_crowded() {
            shared.make_room();
        }
        if shared.is_short() || now >= measure_at {
            shared.mind_memory();
            measure_at = now + MEASURE_EVERY;
        }
        shared.zygotes.tend(now);
        for pool in shared.pools() {
            if pool.tend(now) {
                let mut pools = shared.pools.write().unwrap_or_else(PoisonError::into_inner);
                let faas_id = pool.faas_id();
                if pools.get(faas_id).is_some_and(|other| Arc::ptr_eq(other, &pool)) {
                    pools.remove(faas_id);
                }
            }
        }
    }
}
