//! What every part of the server shares, and the order in which it starts and stops.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use dispatch_api::Kind;
use dispatch_runner::Runner;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::driver::Drivers;
use crate::event::Poster;
use crate::iam::Tokens;
use crate::live::Tables;
use crate::metrics::Metrics;
use crate::runs::Recorder;
use crate::store::Store;
use crate::vault::Vault;
use crate::{egress, live, runs, tasks};

/// The server without its listeners.
pub struct App {
    /// The configuration in force.
    pub config: Config,
    /// Everything durable.
    pub store: Store,
    /// Seals and opens secrets.
    pub vault: Vault,
    /// Where functions run.
    pub runner: Arc<dyn Runner>,
    /// What the request path reads instead of the store.
    pub live: Tables,
    /// Counters.
    pub metrics: Metrics,
    /// Who may call the API.
    pub tokens: Tokens,
    /// Writes ended runs behind the callers' backs.
    pub recorder: Recorder,
    /// The event drivers that run.
    pub drivers: Drivers,
    /// Posts events to places outside.
    pub poster: Poster,
    /// Fires when the server begins to stop.
    pub stopping: CancellationToken,
    background: TaskTracker,
    _lock: Lock,
}

impl App {
    /// Opens the data directory and starts the background work.
    ///
    /// # Errors
    /// A data directory that is in use or unusable, a store or key that cannot be opened.
    pub async fn start(
        config: Config,
        lock: Lock,
        runner: Arc<dyn Runner>,
    ) -> anyhow::Result<Arc<App>> {
        let store = Store::open(&config.data_dir.join("dispatch.db"))
            .await
            .context("cannot open the database")?;
        let secrets_exist = !store.all(Kind::Secret).await?.is_empty();
        let key_file = &config.master_key_file;
        let key_file = (!key_file.as_os_str().is_empty()).then_some(key_file.as_path());
        let vault = Vault::open(&config.data_dir, key_file, secrets_exist)
            .context("cannot open the master key of secrets")?;
        for dir in ["archives", "logs"] {
            make_dir(&config.data_dir.join(dir))?;
        }
        let recorder = Recorder::new(config.run_retention_count);
        let app = Arc::new(App {
            tokens: Tokens::load(&config)?,
            live: Tables::default(),
            metrics: Metrics::default(),
            recorder,
            drivers: Drivers::default(),
            poster: Poster::new(egress::operator(&config)),
            stopping: CancellationToken::new(),
            background: TaskTracker::new(),
            _lock: lock,
            config,
            store,
            vault,
            runner,
        });
        let seq = live::load(&app).await?;
        let spawn = &app.background;
        spawn.spawn(live::follow(Arc::clone(&app), seq));
        spawn.spawn(runs::record(Arc::clone(&app)));
        spawn.spawn(egress::keep(Arc::clone(&app)));
        for task in tasks::start(&app).await? {
            spawn.spawn(task);
        }
        spawn.close();
        Ok(app)
    }

    /// Finishes what runs, requeues what does not end in time, and closes the store. The listeners
    /// must have stopped.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.runner.drain(self.config.drain()).await;
        self.recorder.close();
        self.background.wait().await;
        egress::write(self).await;
        self.store.close().await;
    }

    /// Waits until the in-memory tables show everything that is committed by now, so that a caller
    /// finds what it has just been told is there.
    pub async fn settle(&self) {
        match self.store.last_change().await {
            Ok(seq) => self.live.reached(seq, &self.stopping).await,
            Err(error) => tracing::warn!(%error, "cannot read the change feed"),
        }
    }

    /// Where a source archive is kept.
    pub fn archive(&self, digest: &str) -> PathBuf {
        self.config.data_dir.join("archives").join(crate::function::hex(digest))
    }

    /// Where the build log of an image is kept.
    pub fn build_log(&self, image_id: &str) -> PathBuf {
        self.config.data_dir.join("logs").join(format!("image-{image_id}.log"))
    }
}

/// The claim on a data directory; released when it is dropped, and by the kernel if the process dies.
pub struct Lock {
    _file: std::fs::File,
}

impl Lock {
    /// Makes the data directory where it is missing and claims it.
    ///
    /// # Errors
    /// It cannot be made, or another server uses it.
    pub fn claim(data_dir: &Path) -> anyhow::Result<Lock> {
        make_dir(data_dir)?;
        let path = data_dir.join("lock");
        let file = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => anyhow::bail!(
                "the data directory {} is in use by another dispatch server: stop that one, or \
                 choose another directory with --data-dir",
                data_dir.display()
            ),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }
}

/// Makes a directory that only its owner may enter.
fn make_dir(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}
