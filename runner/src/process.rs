//! The default backend: the machine's own interpreters in sandboxed processes.

pub(crate) mod source;
pub(crate) mod spec;
pub(crate) mod uid;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use dispatch_api::ErrorType;
pub use dispatch_sandbox::Launcher;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::archive::Limits;
use crate::call::{Call, Cause, Failure, Outcome};
use crate::language::{Languages, Pack};
use crate::layer::{LayerLimits, LayerStore};
use crate::pool::{Entry, Lease, Pool};
use crate::worker::{Reply, failure};
use crate::{BuildError, Isolation, Layer, LayerRequest, PoolState, Revision, Runner, Runtime};

/// How often pools are looked after.
const TEND_EVERY: Duration = Duration::from_millis(100);
/// How often a call is tried anew because its worker had died before it got the call.
const TRIES: usize = 4;
/// How long killed workers may take to be gone when the server stops.
const LAST_WORKERS: Duration = Duration::from_secs(10);

/// What a [`ProcessRunner`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where sources, layers and language packs are kept.
    pub data_dir: PathBuf,
    /// A directory with further language packs.
    pub languages_dir: Option<PathBuf>,
    /// The most workers of all functions together, at least 1. When it is reached, the worker that
    /// has been idle longest makes room.
    pub max_workers: usize,
    /// How long a worker may take until its handler is loaded.
    pub start_timeout: Duration,
    /// Bytes that context and payload of a call may have together.
    pub payload_limit: usize,
    /// Bytes a result may have.
    pub result_limit: usize,
    /// What building a dependency layer may take.
    pub layer_limits: LayerLimits,
    /// What a source archive may hold.
    pub source_limits: Limits,
}

impl Options {
    /// The defaults.
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            data_dir: data_dir.into(),
            languages_dir: None,
            max_workers: 32.max(8 * cpus),
            start_timeout: Duration::from_secs(30),
            payload_limit: 64 * 1024 * 1024,
            result_limit: 64 * 1024 * 1024,
            layer_limits: LayerLimits::default(),
            source_limits: Limits::default(),
        }
    }
}

/// Why a [`ProcessRunner`] cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    DataDir {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A language pack is broken.
    #[error(transparent)]
    Language(#[from] crate::language::Error),
}

/// Runs functions as sandboxed processes of this machine.
pub struct ProcessRunner {
    shared: Arc<Shared>,
    layers: LayerStore,
    sources: PathBuf,
    isolation: Isolation,
    _tending: DropGuard,
}

/// What all pools have in common.
pub(crate) struct Shared {
    pub(crate) launcher: Launcher,
    pub(crate) languages: Languages,
    pub(crate) options: Options,
    pub(crate) uids: uid::Uids,
    /// Cancelled when the last workers are to go.
    pub(crate) stopped: CancellationToken,
    pools: RwLock<HashMap<String, Arc<Pool>>>,
    permits: Arc<Semaphore>,
    /// Workers that others wait for to go away.
    evictions: AtomicUsize,
    workers: AtomicU64,
    draining: AtomicBool,
}

impl ProcessRunner {
    /// Finds the languages of this machine and what isolation it allows.
    ///
    /// # Errors
    /// When the data directory, a language pack or the sandbox cannot be used.
    pub async fn start(launcher: Launcher, options: Options) -> Result<ProcessRunner, Error> {
        let sources = source::prepare(&options.data_dir)?;
        let languages = Languages::load(
            &launcher,
            &options.data_dir.join("languages"),
            options.languages_dir.as_deref(),
        )
        .await?;
        let report = launcher.probe().await;
        let lines = report.to_string().lines().skip(1).map(str::to_owned).collect();
        let isolation = Isolation { tier: format!("{:?}", report.tier), lines };
        let path = options.data_dir.join("layers");
        let limits = options.layer_limits;
        let layers = LayerStore::new(path.clone(), languages.clone(), launcher.clone(), limits)
            .map_err(|source| Error::DataDir { path, source })?;
        let shared = Arc::new(Shared {
            launcher,
            languages,
            uids: uid::Uids::default(),
            stopped: CancellationToken::new(),
            pools: RwLock::default(),
            permits: Arc::new(Semaphore::new(options.max_workers.max(1))),
            evictions: AtomicUsize::new(0),
            workers: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            options,
        });
        let token = CancellationToken::new();
        tokio::spawn(token.clone().run_until_cancelled_owned(tend(Arc::clone(&shared))));
        Ok(ProcessRunner { shared, layers, sources, isolation, _tending: token.drop_guard() })
    }

    async fn lease(&self, revision: &Arc<Revision>) -> Result<Lease, Failure> {
        loop {
            if self.shared.draining.load(Ordering::Acquire) {
                return Err(failure::stopping());
            }
            match self.shared.pool(revision).enter()? {
                Entry::Ready(lease) => return Ok(lease),
                Entry::Waiting(waiting) => {
                    return waiting.await.unwrap_or_else(|_| Err(failure::stopping()));
                }
                Entry::Closed => {}
            }
        }
    }

    async fn run(&self, revision: &Arc<Revision>, mut call: Call) -> Outcome {
        let limit = self.shared.options.payload_limit;
        let size = call.context.len() + call.payload.len();
        if size > limit {
            let message = format!(
                "The input has {size} bytes with its context, but may have at most {limit}; send \
                 less, or a reference to where the data is"
            );
            return Outcome::failed(failure::failure(
                ErrorType::InputError,
                Cause::Handler,
                message,
            ));
        }
        let begun = Instant::now();
        for _ in 0..TRIES {
            let waiting = self.lease(revision);
            let lease = match call.deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), waiting).await,
                None => Ok(waiting.await),
            };
            let lease = match lease {
                Ok(Ok(lease)) => lease,
                Ok(Err(failed)) => return waited(Outcome::failed(failed), begun, Duration::ZERO),
                Err(_) => {
                    let scale = revision.settings.max_scale;
                    let failed = failure::timed_out_waiting(call.timeout, scale);
                    return waited(Outcome::failed(failed), begun, Duration::ZERO);
                }
            };
            let start = lease.start;
            match lease.send(call) {
                Ok(answer) => match answer.await {
                    Ok(Reply::Ended(outcome)) => return waited(outcome, begun, start),
                    Ok(Reply::NotStarted(again)) => call = again,
                    Err(_) => {
                        return Outcome::failed(failure::system("The worker's task was lost"));
                    }
                },
                Err(again) => call = again,
            }
        }
        Outcome::failed(failure::system(
            "Worker after worker ended before it took the call; see the server's log",
        ))
    }
}

/// Fills in the times before the call was in its worker.
fn waited(mut outcome: Outcome, begun: Instant, start: Duration) -> Outcome {
    let waited = begun.elapsed().saturating_sub(outcome.timings.function);
    outcome.timings.start = start.min(waited);
    outcome.timings.queue = waited - outcome.timings.start;
    outcome
}

impl Runner for ProcessRunner {
    fn runtimes(&self) -> Vec<Runtime> {
        let languages = &self.shared.languages;
        let of = |pack: &Pack| languages.installed(&pack.name).map(|found| found.runtime.clone());
        languages.packs().iter().filter_map(of).collect()
    }

    fn resolve_language(&self, reference: &str) -> Option<String> {
        self.shared.languages.resolve(reference).map(|pack| pack.name.clone())
    }

    fn build_layer<'a>(
        &'a self,
        request: &'a LayerRequest,
        log: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Layer, BuildError>> {
        Box::pin(self.layers.build(request, log))
    }

    fn unpack_source<'a>(
        &'a self,
        digest: &'a str,
        archive: &'a Path,
    ) -> BoxFuture<'a, Result<PathBuf, BuildError>> {
        Box::pin(source::unpack(&self.sources, digest, archive, &self.shared.options.source_limits))
    }

    fn prepare<'a>(
        &'a self,
        revision: &'a Arc<Revision>,
    ) -> BoxFuture<'a, Result<String, BuildError>> {
        Box::pin(async move {
            let lease = self.lease(revision).await.map_err(|failed| match failed.cause {
                Cause::System | Cause::Overload { .. } | Cause::Cancelled => {
                    BuildError::Failed(failed.message)
                }
                _ => BuildError::Rejected(failed.message),
            })?;
            Ok(lease.pool().keep())
        })
    }

    fn invoke<'a>(&'a self, revision: &'a Arc<Revision>, call: Call) -> BoxFuture<'a, Outcome> {
        Box::pin(self.run(revision, call))
    }

    fn retire(&self, faas_id: &str) {
        let pools = self.shared.pools.read().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.get(faas_id).cloned();
        drop(pools);
        if let Some(pool) = pool {
            pool.retire();
        }
    }

    fn pools(&self) -> Vec<PoolState> {
        self.shared.pools().iter().map(|pool| pool.snapshot()).collect()
    }

    fn isolation(&self) -> Isolation {
        self.isolation.clone()
    }

    fn drain(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.shared.draining.store(true, Ordering::Release);
            let quiet = async {
                while self.pools().iter().any(|pool| pool.busy + pool.queued > 0) {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            let _ = timeout(grace, quiet).await;
            self.shared.stopped.cancel();
            self.shared.pools().iter().for_each(|pool| pool.kill());
            let all = u32::try_from(self.shared.options.max_workers.max(1)).unwrap_or(u32::MAX);
            if timeout(LAST_WORKERS, self.shared.permits.acquire_many(all)).await.is_err() {
                tracing::error!("some workers did not end");
            }
        })
    }
}

impl Shared {
    fn pool(self: &Arc<Shared>, revision: &Arc<Revision>) -> Arc<Pool> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&revision.faas_id) {
            return Arc::clone(pool);
        }
        drop(pools);
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        let make = || Pool::new(Arc::clone(revision), Arc::clone(self));
        Arc::clone(pools.entry(revision.faas_id.clone()).or_insert_with(make))
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
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
    }
}

/// Looks after the pools for as long as the runner lives.
async fn tend(shared: Arc<Shared>) {
    loop {
        sleep(TEND_EVERY).await;
        let now = Instant::now();
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
