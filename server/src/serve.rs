//! Listeners: accepting, limits, and stopping without dropping a request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::cores::Cores;

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;

/// Binds a listener.
///
/// # Errors
/// Names the port that is in use and the flag that chooses another.
pub async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::AddrInUse {
            anyhow::anyhow!(
                "port {} on {} is in use: stop the program that uses it, or choose another port \
                 with {flag}",
                address.port(),
                address.ip()
            )
        } else {
            anyhow::Error::new(error).context(format!("cannot listen on {address}"))
        }
    })
}

/// Answers connections until `stopping` fires, then lets open requests finish for `grace`. They are
/// spread over `cores`, if there are any, or stay in this runtime.
pub async fn serve<F, R>(
    listener: TcpListener,
    cores: Option<Arc<Cores>>,
    max_connections: usize,
    stopping: CancellationToken,
    grace: Duration,
    answer: F,
) where
    F: Fn(SocketAddr, Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(max_connections));
    loop {
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            () = stopping.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most often no file descriptor is free: one will be.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (answer, watcher) = (answer.clone(), graceful.watcher());
        let serve = move |stream| async move {
            let _slot = slot;
            if let Err(error) = watcher.watch(connection(stream, peer, answer)).await {
                tracing::debug!(%error, %peer, "a connection ended badly");
            }
        };
        let Some(cores) = &cores else {
            tokio::spawn(serve(stream));
            continue;
        };
        let (place, there) = cores.place();
        if place.is_here() {
            tokio::spawn(async move {
                let _place = place;
                serve(stream).await;
            });
        } else if let Ok(stream) = stream.into_std() {
            there.spawn(async move {
                let _place = place;
                match TcpStream::from_std(stream) {
                    Ok(stream) => serve(stream).await,
                    Err(error) => tracing::warn!(%error, %peer, "a connection was lost"),
                }
            });
        }
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests that did not finish in time were cut off");
    }
}

fn connection<F, R>(
    stream: TcpStream,
    peer: SocketAddr,
    answer: F,
) -> impl hyper_util::server::graceful::GracefulConnection<
    Error = Box<dyn std::error::Error + Send + Sync>,
> + Send
+ 'static
where
    F: Fn(SocketAddr, Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps Nagle's algorithm");
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(128)
        .keep_alive_interval(Duration::from_secs(30));
    let service = service_fn(move |request| {
        let answer = answer(peer, request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned()
}

/// Fires when the process is asked to end: SIGTERM or SIGINT.
///
/// # Errors
/// The signals cannot be watched.
pub fn stop_signal() -> anyhow::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
