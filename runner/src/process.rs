//! The default backend: the machine's own interpreters in sandboxed processes.

mod demand;
mod memory;
pub(crate) mod room;
mod shared;
pub(crate) mod source;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod stems;
mod tenant;
pub(crate) mod uid;
pub(crate) mod zygotes;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use dispatch_api::ErrorType;
pub use dispatch_sandbox::{Launcher, Wish};
use futures_util::future::BoxFuture;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::memory::Memory;
pub(crate) use self::shared::Shared;
use self::tenant::Tenant;
use crate::archive::Limits;
use crate::build;
use crate::call::{Call, Cause, Failure, Outcome};
use crate::egress::resolve::System;
use crate::egress::{News, Operator, Resolve};
use crate::home::Homes;
use crate::image::{ImageOptions, ImageStore, PullRequest, Pulled};
use crate::language::{Languages, Pack};
use crate::layer::{LayerLimits, LayerStore};
use crate::packages;
use crate::pool::{Entry, Lease, Pool};
use crate::service::{Service, Watcher};
use crate::worker::{Reply, failure};
use crate::{
    BuildError, Isolation, Layer, LayerRequest, Package, PoolState, Revision, Runner, Runtime,
    Scale, SourceRequest, SystemRequest,
};

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
    /// The most of them that one organization has, at least 1.
    pub organization_workers: usize,
    /// How much memory the machine has left.
    pub memory: Memory,
    /// Bytes of it that are to be left; while there are fewer, idle workers are stopped. 0 means
    /// that nobody looks.
    pub memory_reserve: u64,
    /// How long a worker is idle before it stands still until the next call, where the machine can
    /// do that; none means never.
    pub freeze: Option<Duration>,
    /// Processes of each language that wait, sandbox and interpreter ready, for a function.
    pub stems: usize,
    /// The most of them that wait where so many were needed at once a while ago, if there is ample
    /// memory.
    pub most_stems: usize,
    /// How long a worker may take until its handler is loaded.
    pub start_timeout: Duration,
    /// Bytes that context and payload of a call may have together.
    pub payload_limit: usize,
    /// Bytes a result may have.
    pub result_limit: usize,
    /// The threads that workers live in, beside the gateway's connections; none means the runtime
    /// that calls.
    pub homes: Homes,
    /// What building a dependency layer may take.
    pub layer_limits: LayerLimits,
    /// What a source archive may hold.
    pub source_limits: Limits,
    /// What the operator says about container images.
    pub images: ImageOptions,
    /// What the operator says about the network of functions.
    pub operator: Operator,
    /// Finds the addresses of what functions name.
    pub resolver: Arc<dyn Resolve>,
}

impl Options {
    /// The defaults.
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            data_dir: data_dir.into(),
            languages_dir: None,
            max_workers: 32.max(8 * cpus),
            organization_workers: usize::MAX,
            memory: Memory::default(),
            memory_reserve: 0,
            freeze: None,
            stems: 2,
            most_stems: 2,
            start_timeout: Duration::from_secs(30),
            payload_limit: 64 * 1024 * 1024,
            result_limit: 64 * 1024 * 1024,
            homes: Homes::default(),
            layer_limits: LayerLimits::default(),
            source_limits: Limits::default(),
            images: ImageOptions::default(),
            operator: Operator::default(),
            resolver: Arc::new(System),
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
    images: ImageStore,
    sources: PathBuf,
    isolation: Isolation,
    tenant: Tenant,
    _tending: DropGuard,
}

impl ProcessRunner {
    /// Finds the languages of this machine and what isolation it allows.
    ///
    /// # Errors
    /// When the data directory, a language pack or the sandbox cannot be used.
    pub async fn start(launcher: Launcher, mut options: Options) -> Result<ProcessRunner, Error> {
        let sources = source::prepare(&options.data_dir)?;
        // Each takes some of our files, and so do workers.
        let files = dispatch_sandbox::open_files().unwrap_or(1024) / 32;
        options.most_stems = options.most_stems.min(usize::try_from(files).unwrap_or(usize::MAX));
        if !launcher.has_views() {
            // Nothing can be attached to a process that waits.
            options.stems = 0;
        }
        if launcher.has_users() && !launcher.has_views() {
            source::let_pass(&options.data_dir)?;
        }
        let languages = Languages::load(
            &launcher,
            &options.data_dir.join("languages"),
            options.languages_dir.as_deref(),
        )
        .await?;
        let isolation = launcher.probe().await;
        let path = options.data_dir.join("layers");
        let limits = options.layer_limits;
        let layers = LayerStore::new(path.clone(), languages.clone(), launcher.clone(), limits)
            .map_err(|source| Error::DataDir { path, source })?;
        let path = options.data_dir.join("images");
        let (from, known) = (options.images.clone(), languages.clone());
        let images = ImageStore::open(&path, from, known, launcher.clone())
            .map_err(|source| Error::DataDir { path, source })?;
        let tenant = Tenant::new(!isolation.tier.separates_tenants());
        let shared = Shared::new(launcher, languages, options);
        let token = CancellationToken::new();
        tokio::spawn(token.clone().run_until_cancelled_owned(shared::tend(Arc::clone(&shared))));
        tokio::spawn(token.clone().run_until_cancelled_owned(stems::keep(Arc::clone(&shared))));
        Ok(ProcessRunner {
            shared,
            layers,
            images,
            sources,
            isolation,
            tenant,
            _tending: token.drop_guard(),
        })
    }

    async fn lease(&self, revision: &Arc<Revision>) -> Result<Lease, Failure> {
        self.tenant
            .admit(&revision.organization)
            .map_err(|message| failure::failure(ErrorType::FunctionError, Cause::Load, message))?;
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
        let mut tries = 0;
        while tries < TRIES {
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
                    Ok(Reply::NotStarted(again)) => {
                        tries += 1;
                        call = again;
                    }
                    Ok(Reply::Again(again)) => call = again,
                    Err(_) => {
                        return Outcome::failed(failure::system("The worker's task was lost"));
                    }
                },
                Err(again) => {
                    tries += 1;
                    call = again;
                }
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

    fn serves_itself(&self, language: &str) -> bool {
        self.shared.languages.pack(language).is_some_and(|pack| pack.runtime.image_only)
    }

    fn build_layer<'a>(
        &'a self,
        request: &'a LayerRequest,
        log: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Layer, BuildError>> {
        Box::pin(async move {
            self.tenant.admit(&request.organization).map_err(BuildError::Rejected)?;
            self.layers.build(request, log).await
        })
    }

    fn unpack_source<'a>(
        &'a self,
        digest: &'a str,
        archive: &'a Path,
    ) -> BoxFuture<'a, Result<PathBuf, BuildError>> {
        Box::pin(source::unpack(&self.sources, digest, archive, &self.shared.options.source_limits))
    }

    fn build_source<'a>(
        &'a self,
        request: &'a SourceRequest,
    ) -> BoxFuture<'a, Result<Option<String>, BuildError>> {
        Box::pin(async move {
            self.tenant.admit(&request.organization).map_err(BuildError::Rejected)?;
            build::source::build(&self.shared, &self.sources, request).await
        })
    }

    fn pull_image<'a>(
        &'a self,
        request: &'a PullRequest,
        log: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Pulled, BuildError>> {
        Box::pin(async move {
            self.tenant.admit(&request.organization).map_err(BuildError::Rejected)?;
            self.images.pull(request, log).await
        })
    }

    fn add_packages<'a>(
        &'a self,
        request: &'a SystemRequest,
        log: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Pulled, BuildError>> {
        Box::pin(async move {
            self.tenant.admit(&request.organization).map_err(BuildError::Rejected)?;
            let limits = &self.shared.options.layer_limits;
            self.images.add(request, &self.shared.gate, limits, log).await
        })
    }

    fn packages(&self, language: &str, layer: Option<&Path>) -> BTreeSet<Package> {
        let installed = self.shared.languages.installed(language);
        let root = installed.as_ref().and_then(|installed| installed.root.as_ref());
        let trees: Vec<&Path> =
            root.map(|root| root.path.as_path()).into_iter().chain(layer).collect();
        let mut found = packages::find(&trees);
        found.extend(installed.map(|installed| Package {
            kind: "generic",
            name: crate::language::name_of(language).to_owned(),
            version: installed.runtime.version.clone(),
            licence: String::new(),
        }));
        found
    }

    fn image_archive(&self, digest: &str) -> Result<PathBuf, String> {
        Ok(self.images.archive(&format!("sha256:{digest}").parse()?))
    }

    fn collect_images(
        &self,
        used: &HashSet<String>,
        age: Duration,
        dry_run: bool,
    ) -> std::io::Result<Vec<(String, u64, SystemTime)>> {
        self.images.collect(used, age, dry_run)
    }

    fn prepare_language<'a>(&'a self, language: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.shared.languages.prepare(&self.shared.launcher, language))
    }

    fn prepare<'a>(
        &'a self,
        revision: &'a Arc<Revision>,
    ) -> BoxFuture<'a, Result<String, BuildError>> {
        Box::pin(async move {
            let lease = self.lease(revision).await.map_err(|failed| match failed.cause {
                Cause::System | Cause::Lost | Cause::Overload { .. } | Cause::Cancelled => {
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

    fn run_service<'a>(
        &'a self,
        service: &'a Service,
        watcher: &'a dyn Watcher,
        stop: CancellationToken,
    ) -> BoxFuture<'a, Result<String, BuildError>> {
        Box::pin(async move {
            self.tenant.admit(&service.organization).map_err(BuildError::Rejected)?;
            crate::service::run(&self.shared, service, watcher, stop).await
        })
    }

    fn retire(&self, faas_id: &str) {
        if let Some(pool) = self.shared.find(faas_id) {
            pool.retire();
        }
        self.shared.zygotes.forget(faas_id);
    }

    fn pools(&self) -> Vec<PoolState> {
        self.shared.pools().iter().map(|pool| pool.snapshot()).collect()
    }

    fn scale(&self, revision: &Arc<Revision>) -> Scale {
        match self.shared.find(&revision.faas_id) {
            Some(pool) => pool.scale(),
            None => Pool::new(Arc::clone(revision), Arc::clone(&self.shared)).scale(),
        }
    }

    fn expect(&self, language: &str) {
        self.shared.stems.expect(language);
    }

    fn waiting(&self, language: &str) -> usize {
        self.shared.stems.waiting(language)
    }

    fn egress(&self) -> HashMap<(String, String), News> {
        self.shared.gate.ledger.take()
    }

    fn isolation(&self) -> &Isolation {
        &self.isolation
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
            self.shared.close();
            if timeout(LAST_WORKERS, self.shared.room.empty()).await.is_err() {
                tracing::error!("some workers did not end");
            }
        })
    }
}

impl Drop for ProcessRunner {
    fn drop(&mut self) {
        self.shared.close();
    }
}
