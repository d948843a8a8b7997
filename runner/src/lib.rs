//! Where functions run.
//!
//! [`Runner`] is the one seam between the control plane and a backend. This crate holds the default
//! backend, [`process::ProcessRunner`]: the machine's own interpreters in sandboxed processes.

pub mod adapter;
pub mod archive;
mod build;
pub mod call;
pub mod egress;
pub mod frame;
pub mod home;
pub mod image;
pub mod language;
pub mod layer;
pub mod packages;
pub mod pool;
pub mod process;
pub mod service;
pub mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use dispatch_sandbox::{Report as Isolation, Tier};
use futures_util::future::BoxFuture;

pub use call::{Call, Cause, Failure, Logs, Outcome, Timings};
pub use dispatch_api::ScaleSchedule;
pub use egress::Egress;
pub use image::{PullRequest, Pulled};
pub use packages::Package;
pub use pool::scale::{Reason, Seen, Step};
pub use process::room::Use;
pub use service::{Inside, Service};

/// One immutable revision of a function: all a backend needs to run it.
#[derive(Clone, Debug)]
pub struct Revision {
    /// The organization it belongs to. Nothing is ever shared between organizations.
    pub organization: String,
    /// The function's name, for messages.
    pub function: String,
    /// UUID of this revision: the key of its workers.
    pub faas_id: String,
    /// The language, by the name of its pack: `python3`.
    pub language: String,
    /// The directory of the dependency layer, if the image has dependencies.
    pub layer: Option<PathBuf>,
    /// The directory of the unpacked source.
    pub source: PathBuf,
    /// The handler; empty when it is to be inferred from a single file.
    pub handler: String,
    /// The settings.
    pub settings: Settings,
}

/// A revision's settings, with the server's defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of memory a worker may use; 0 means no limit.
    pub memory_bytes: u64,
    /// Thousandths of a core a worker may use; 0 means no limit.
    pub cpu_millis: u64,
    /// Calls one worker takes at a time; at least 1.
    pub concurrency: usize,
    /// Workers kept ready at all times.
    pub min_scale: usize,
    /// Times at which more are kept ready.
    pub schedules: Vec<ScaleSchedule>,
    /// The most workers; at least 1.
    pub max_scale: usize,
    /// Calls that may wait for a worker; beyond it calls are refused with [`Cause::Overload`].
    pub queue: usize,
    /// How long an idle worker is kept.
    pub idle: Duration,
    /// Environment variables of the workers.
    pub environment: Vec<(String, String)>,
    /// Whether workers are forked from a process that has loaded the source, where the language can.
    pub preload: bool,
    /// What the workers may reach.
    pub egress: Egress,
}

/// A language that this machine can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// The language pack's name: `python3`.
    pub language: String,
    /// The interpreter's version: `3.11.7`.
    pub version: String,
    /// The interpreter's own path on the host.
    pub executable: PathBuf,
    /// The language of which this is a further version, with a name of its own: `python3` for
    /// `python3.9`.
    pub version_of: Option<String>,
}

/// What a dependency layer is built from. Its [`layer::key`] names the layer.
#[derive(Clone, Debug)]
pub struct LayerRequest {
    /// The organization whose image asks for it.
    pub organization: String,
    /// The language pack's name.
    pub language: String,
    /// The text of the language's manifest.
    pub manifest: String,
    /// What the installer learns besides.
    pub secrets: BuildSecrets,
}

/// What only an installer learns, and neither its log nor the layer: how to get at packages of a
/// private index.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BuildSecrets {
    /// Says whose they are and which, for the key of the layer: what is installed with them is shared
    /// with nobody else. Empty without them.
    pub scope: String,
    /// Variables such as `PIP_INDEX_URL`, and files such as `.npmrc`.
    pub values: BTreeMap<String, String>,
}

impl std::fmt::Debug for BuildSecrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BuildSecrets").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// Packages to be added to a container image by its own package manager.
#[derive(Clone, Debug)]
pub struct SystemRequest {
    /// The organization whose image asks for them.
    pub organization: String,
    /// The name of a language in the image, as [`image::Pulled`] has it.
    pub runtime: String,
    /// Their names, each with a version or an empty one.
    pub packages: Vec<(String, String)>,
}

/// A source to be built.
#[derive(Clone, Debug)]
pub struct SourceRequest {
    /// The organization it is for.
    pub organization: String,
    /// The function, for the log.
    pub function: String,
    /// The name of a language of this machine.
    pub language: String,
    /// The digest that the source was unpacked under.
    pub digest: String,
    /// The directory of the image's layer.
    pub layer: Option<PathBuf>,
    /// As it was given; maybe empty.
    pub handler: String,
}

/// A finished dependency layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Hex SHA-256 of what it was built from.
    pub key: String,
    /// Its read-only directory.
    pub path: PathBuf,
    /// Whether it was there already.
    pub reused: bool,
}

/// Why something could not be built or loaded; the text is for the function's owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The owner's mistake: a bad archive, a missing handler, an unknown package. Final.
    #[error("{0}")]
    Rejected(String),
    /// The machine's trouble: a full disk, a lost launcher. Worth another try.
    #[error("{0}")]
    Failed(String),
}

/// The workers of one revision, as seen at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolState {
    /// The organization.
    pub organization: String,
    /// The function's name.
    pub function: String,
    /// UUID of the revision.
    pub faas_id: String,
    /// Workers that wait for a call.
    pub idle: usize,
    /// Workers that are in a call.
    pub busy: usize,
    /// Workers that are being started.
    pub starting: usize,
    /// Calls that wait for a worker.
    pub queued: usize,
}

/// How many workers a revision has and wants, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// What there is, and what the settings ask for.
    pub seen: Seen,
    /// Idle workers that stand still until the next call.
    pub frozen: usize,
    /// Starts that failed in a row.
    pub failures: u32,
    /// When the next one is tried without a call that needs it.
    pub next_try: Option<Duration>,
    /// The places of all workers.
    pub room: Use,
    /// The last changes, the oldest first.
    pub steps: Vec<Step>,
}

/// A backend that runs functions. Dropping a returned future cancels the work it stands for.
pub trait Runner: Send + Sync + 'static {
    /// The languages that can run here, found when the backend was started.
    fn runtimes(&self) -> Vec<Runtime>;

    /// The language pack that a base image reference or a language name means, if it is one of the
    /// built-in ones: `dispatchframework/python3-base:0.0.13` means `python3`. The pack's runtime
    /// may still be missing on this machine; see [`Runner::runtimes`].
    fn resolve_language(&self, reference: &str) -> Option<String>;

    /// Whether functions in a language, of those in images too, need no source: the image serves.
    fn serves_itself(&self, language: &str) -> bool;

    /// Builds a dependency layer, or finds it. Lines of the installer go to `log` as they come.
    fn build_layer<'a>(
        &'a self,
        request: &'a LayerRequest,
        log: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Layer, BuildError>>;

    /// Unpacks a source archive under its digest, or finds it unpacked. Returns its directory.
    fn unpack_source<'a>(
        &'a self,
        digest: &'a str,
        archive: &'a std::path::Path,
    ) -> BoxFuture<'a, Result<PathBuf, BuildError>>;

    /// Builds an unpacked source in the language's way, or finds it built. Returns the name, in place
    /// of the digest, of what workers run; none where the language runs sources as they are.
    fn build_source<'a>(
        &'a self,
        request: &'a SourceRequest,
    ) -> BoxFuture<'a, Result<Option<String>, BuildError>>;

    /// Gets a container image and finds the language that functions on it are in. Lines about how far
    /// it is go to `log`.
    fn pull_image<'a>(
        &'a self,
        request: &'a PullRequest,
        log: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Pulled, BuildError>>;

    /// Makes an image of a container image and packages of its own manager, or finds it, and the
    /// language in it. Lines of the manager go to `log` as they come.
    fn add_packages<'a>(
        &'a self,
        request: &'a SystemRequest,
        log: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Pulled, BuildError>>;

    /// The packages of a language's runtime, of the container image it lives in, and of a layer. Takes
    /// a while: it walks through their files.
    fn packages(&self, language: &str, layer: Option<&std::path::Path>) -> BTreeSet<Package>;

    /// Where the archive of an image is to be put, by the hex SHA-256 of it.
    fn image_archive(&self, digest: &str) -> Result<PathBuf, String>;

    /// Removes images whose languages are none of `used` and that nobody asked for longer than `age`,
    /// or only says which: their names, bytes, and when they were last asked for.
    fn collect_images(
        &self,
        used: &HashSet<String>,
        age: Duration,
        dry_run: bool,
    ) -> std::io::Result<Vec<(String, u64, SystemTime)>>;

    /// Makes what workers of a language need, once; otherwise the first one waits for it.
    fn prepare_language<'a>(&'a self, language: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// Starts a worker of the revision and lets it load and check the handler. The worker stays
    /// ready for the first call. Returns the handler, inferred where it was empty.
    fn prepare<'a>(
        &'a self,
        revision: &'a Arc<Revision>,
    ) -> BoxFuture<'a, Result<String, BuildError>>;

    /// Runs one call.
    fn invoke<'a>(&'a self, revision: &'a Arc<Revision>, call: Call) -> BoxFuture<'a, Outcome>;

    /// Runs a program beside functions to its end, which it answers with in words for its owner.
    /// Dropping the future kills it; `stop` asks it to end, and it has some time to do so.
    fn run_service<'a>(
        &'a self,
        service: &'a Service,
        watcher: &'a dyn service::Watcher,
        stop: tokio_util::sync::CancellationToken,
    ) -> BoxFuture<'a, Result<String, BuildError>>;

    /// Keeps no workers for a revision any more: calls that run, wait, or were on their way to it
    /// still finish, then its workers are stopped.
    fn retire(&self, faas_id: &str);

    /// The workers of every revision.
    fn pools(&self) -> Vec<PoolState>;

    /// How many workers a revision has and wants, and why.
    fn scale(&self, revision: &Arc<Revision>) -> Scale;

    /// Says that there are functions of `language`, or will be: processes wait for them from now on.
    fn expect(&self, language: &str);

    /// How many processes wait, sandbox and interpreter ready, for a function of `language`.
    fn waiting(&self, language: &str) -> usize;

    /// What functions reached, and were refused, on the network since the last time somebody asked:
    /// by organization and function.
    fn egress(&self) -> HashMap<(String, String), egress::News>;

    /// The isolation in force, for `/healthz` and the start of the log.
    fn isolation(&self) -> &Isolation;

    /// Lets calls that run finish until `grace` is over, then stops all workers.
    fn drain(&self, grace: Duration) -> BoxFuture<'_, ()>;
}
