//! What all pools of a runner have in common, and who gets room for a worker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dispatch_sandbox::Launcher;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::stems::Stems;
use super::uid::Uids;
use super::zygotes::Zygotes;
use crate::Revision;
use crate::egress::Gate;
use crate::language::Languages;
use crate::pool::Pool;

/// How often pools are looked after.
const TEND_EVERY: Duration = Duration::from_millis(100);

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
    pub(super) permits: Arc<Semaphore>,
    /// Workers that others wait for to go away.
    evictions: AtomicUsize,
    workers: AtomicU64,
    pub(super) draining: AtomicBool,
}

impl Shared {
    pub(super) fn new(launcher: Launcher, languages: Languages, options: Options) -> Arc<Shared> {
        Arc::new(Shared {
            launcher,
            languages,
            uids: Uids::default(),
            stems: Stems::default(),
            zygotes: Zygotes::default(),
            gate: Gate::new(options.operator.clone(), Arc::clone(&options.resolver)),
            stopped: CancellationToken::new(),
            pools: RwLock::default(),
            permits: Arc::new(Semaphore::new(options.max_workers.max(1))),
            evictions: AtomicUsize::new(0),
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

    /// Room for one more worker, made by stopping the one that is idle longest, or, where none is
    /// idle, the next that would be.
    pub(crate) async fn permit(&self) -> OwnedSemaphorePermit {
        if let Some(permit) = self.spare_permit() {
            return permit;
        }
        if !self.evict() {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        let permits = Arc::clone(&self.permits);
        permits.acquire_owned().await.expect("the permits are never closed")
    }

    /// Room for one more worker, if there is any.
    pub(crate) fn spare_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Whether a worker that has become idle must go for another's sake.
    pub(crate) fn claim_eviction(&self) -> bool {
        let one_less = |count: usize| count.checked_sub(1);
        self.evictions.load(Ordering::Relaxed) > 0
            && self.evictions.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    fn evict(&self) -> bool {
        let pools = self.pools();
        let idle = pools.iter().filter_map(|pool| Some((pool.oldest_idle()?, pool)));
        idle.min_by_key(|(key, _)| *key).is_some_and(|(_, pool)| pool.evict())
            || self.zygotes.evict()
    }
}

/// Looks after the pools for as long as the runner lives.
pub(super) async fn tend(shared: Arc<Shared>) {
    loop {
        sleep(TEND_EVERY).await;
        let now = Instant::now();
        // A worker may have become idle without a call: its caller left while it started.
        if shared.evictions.load(Ordering::Relaxed) > 0 && shared.evict() {
            shared.claim_eviction();
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
