//! A whole server: application, API and gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::http::{Request, Response};
use dispatch_runner::image::Registries;
use dispatch_runner::process::{Launcher, Options, ProcessRunner};
use dispatch_runner::{Isolation, Runtime};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::app::{App, Lock};
use crate::config::Config;
use crate::cores::Cores;
use crate::gateway::{self, Scheme};
use crate::{egress, routes, serve};

/// A server that answers.
pub struct Server {
    app: Arc<App>,
    api: SocketAddr,
    gateway: SocketAddr,
    listeners: Vec<JoinHandle<()>>,
    closing: CancellationToken,
    /// They end last: the workers live there.
    _cores: Arc<Cores>,
}

impl Server {
    /// Claims the data directory, binds both ports and starts answering.
    ///
    /// # Errors
    /// A data directory or a port that is in use, and whatever the store or the runner cannot do.
    pub async fn start(config: Config, launcher: Launcher) -> anyhow::Result<Server> {
        // The ports first: the likeliest thing to be wrong, and cheap to find out.
        let api = serve::bind((config.host, config.port).into(), "--port").await?;
        let gate = serve::bind((config.host, config.gateway_port).into(), "--gateway-port").await?;
        let lock = Lock::claim(&config.data_dir)?;
        let cores = Arc::new(Cores::start(config.cores)?);
        let mut options = runner_options(&config);
        options.homes = cores.homes().clone();
        let runner =
            ProcessRunner::start(launcher, options).await.context("cannot start the runner")?;
        let addresses = (api.local_addr()?, gate.local_addr()?);
        let app = App::start(config, lock, Arc::new(runner)).await?;
        let closing = CancellationToken::new();
        let (most, grace) = (app.config.max_connections, app.config.drain());
        let router = routes::router(Arc::clone(&app));
        let answer_api = move |_, request: Request<Incoming>| {
            let router = router.clone();
            async move {
                match router.oneshot(routes::trim_slash(request).map(Body::new)).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        };
        let gateway_app = Arc::clone(&app);
        let answer_gateway = move |peer, request| {
            let app = Arc::clone(&gateway_app);
            async move { gateway::handle(app, Scheme::Http, peer, request).await.map(Body::new) }
        };
        let listeners = vec![
            tokio::spawn(serve::serve(api, None, most, closing.clone(), grace, answer_api)),
            spread(gate, &cores, most, closing.clone(), grace, answer_gateway)?,
        ];
        let (api, gateway) = addresses;
        Ok(Server { app, api, gateway, listeners, closing, _cores: cores })
    }

    /// The API's address.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// The gateway's address.
    pub fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// What everything in the server shares.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// The languages of this machine.
    pub fn runtimes(&self) -> Vec<Runtime> {
        self.app.runner.runtimes()
    }

    /// What separates functions here.
    pub fn isolation(&self) -> &Isolation {
        self.app.runner.isolation()
    }

    /// Stops accepting, lets requests and runs finish, requeues what does not end in time.
    pub async fn stop(self) {
        self.closing.cancel();
        // Streams that would never end by themselves.
        self.app.stopping.cancel();
        for listener in self.listeners {
            if let Err(error) = listener.await {
                tracing::error!(%error, "a listener ended badly");
            }
        }
        self.app.stop().await;
    }
}

/// Accepts on the first core: most of what it accepts can stay there without waking another.
fn spread<F, R>(
    listener: TcpListener,
    cores: &Arc<Cores>,
    most: usize,
    closing: CancellationToken,
    grace: Duration,
    answer: F,
) -> anyhow::Result<JoinHandle<()>>
where
    F: Fn(SocketAddr, Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let first = cores.homes().get(0).context("the gateway has no core")?.runtime.clone();
    let (listener, cores) = (listener.into_std()?, Arc::clone(cores));
    Ok(first.spawn(async move {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                serve::serve(listener, Some(cores), most, closing, grace, answer).await;
            }
            Err(error) => tracing::error!(%error, "the gateway cannot listen"),
        }
    }))
}

fn runner_options(config: &Config) -> Options {
    let mut options = Options::new(&config.data_dir);
    let languages = &config.languages_dir;
    options.languages_dir = (!languages.as_os_str().is_empty()).then(|| languages.clone());
    options.max_workers = config.max_workers;
    options.organization_workers = match config.organization_workers {
        0 => usize::MAX,
        most => most,
    };
    options.memory_reserve = config.memory_reserve << 20;
    options.freeze =
        (config.freeze_seconds > 0).then(|| Duration::from_secs(config.freeze_seconds));
    options.stems = config.stem_cells;
    options.most_stems = config.stem_cells_most.min(config.max_workers);
    options.operator = egress::operator(config);
    options.images.registries = Registries {
        insecure: config.insecure_registries.0.iter().map(|host| host.0.clone()).collect(),
        mirrors: config.registry_mirrors.0.iter().map(|mirror| mirror.0.clone()).collect(),
        accounts: Some(config.registry_accounts.clone()),
    };
    options.images.limits.bytes = config.max_image << 20;
    options.layer_limits.build_time = Duration::from_secs(config.build_timeout);
    options.layer_limits.layer_bytes = config.max_layer << 20;
    options.source_limits.total_bytes = (config.max_source << 20) * 10;
    options
}

/// `dispatch server`: runs until SIGTERM or SIGINT.
///
/// # Errors
/// What [`Server::start`] says.
pub fn run(config: Config, launcher: Launcher) -> anyhow::Result<()> {
    crate::log::init(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let signal = serve::stop_signal()?;
        let server = Server::start(config, launcher).await?;
        let isolation = server.isolation();
        for line in isolation.to_string().lines() {
            tracing::info!("isolation: {line}");
        }
        if let Some(warning) = isolation.warning() {
            tracing::warn!("ISOLATION IS WEAK: {warning}");
        }
        for runtime in server.runtimes() {
            tracing::info!(language = runtime.language, version = runtime.version, "language");
        }
        tracing::info!(api = %server.api(), gateway = %server.gateway(), "ready");
        let signal = signal.await;
        tracing::info!(signal, "stopping");
        server.stop().await;
        tracing::info!("stopped");
        anyhow::Ok(())
    })
}
