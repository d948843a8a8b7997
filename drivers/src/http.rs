//! Answering HTTP, with bounds on everything.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// Bytes of a request's body.
pub(crate) const MAX_BODY: usize = 1 << 20;
/// Connections at once; more wait.
const CONNECTIONS: usize = 256;
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an event may take to be accepted before the caller is told to come again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long open requests have at the end.
const GRACE: Duration = Duration::from_secs(5);

/// A status with a line of text.
pub(crate) type Reply = (StatusCode, String);

/// Answers POST requests on a port until `stop` fires. GET and HEAD answer 200: a sign of life.
///
/// # Errors
/// The port cannot be listened on.
pub(crate) async fn serve<F, R>(port: u16, stop: CancellationToken, answer: F) -> Result<(), Error>
where
    F: Fn(Parts, Bytes) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    let listener = TcpListener::bind(("0.0.0.0", port)).await.map_err(|error| {
        Error::Failed(format!("cannot listen on port {port}: {error}; another is chosen by PORT"))
    })?;
    tracing::info!("listening on port {port}");
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answer = answer.clone();
            async move { Ok::<_, Infallible>(one(request, answer).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(64)
            .keep_alive_interval(Duration::from_secs(30));
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(error) = watched.await {
                tracing::debug!("a connection ended badly: {error}");
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    Ok(())
}

async fn one<F, R>(request: Request<Incoming>, answer: F) -> Response<Body>
where
    F: Fn(Parts, Bytes) -> R,
    R: Future<Output = Reply>,
{
    let (parts, body) = request.into_parts();
    if parts.method == Method::GET || parts.method == Method::HEAD {
        return response((StatusCode::OK, String::new()));
    }
    if parts.method != Method::POST {
        return response((StatusCode::METHOD_NOT_ALLOWED, "only POST is answered here".into()));
    }
    let body =
        match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                let text = format!("the body has more than {MAX_BODY} bytes");
                return response((StatusCode::PAYLOAD_TOO_LARGE, text));
            }
            Ok(Err(_)) => return response((StatusCode::BAD_REQUEST, "the body is broken".into())),
            Err(_) => {
                let text = "the body did not come in time".into();
                return response((StatusCode::REQUEST_TIMEOUT, text));
            }
        };
    match tokio::time::timeout(ANSWER_TIMEOUT, answer(parts, body)).await {
        Ok(reply) => response(reply),
        Err(_) => response((StatusCode::SERVICE_UNAVAILABLE, "not accepted in time".into())),
    }
}

fn response((status, text): Reply) -> Response<Body> {
    let text = if text.is_empty() { text } else { text + "\n" };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
    }
    response
}

/// Whether the request carries the token: as `Authorization: Bearer`, or as the query's `authToken`.
/// Takes the same time for every wrong one of the same length.
pub(crate) fn has_token(parts: &Parts, token: &str) -> bool {
    let same = |given: &str| {
        aws_lc_rs::constant_time::verify_slices_are_equal(given.as_bytes(), token.as_bytes())
            .is_ok()
    };
    let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = header.and_then(|value| value.strip_prefix("Bearer "));
    let query = parts.uri.query().unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    bearer.is_some_and(same) || pairs.any(|(name, value)| name == "authToken" && same(&value))
}

/// The events of a request.
pub(crate) fn events(parts: &Parts, body: &[u8]) -> Result<Vec<dispatch_api::CloudEvent>, Reply> {
    let headers = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    dispatch_api::CloudEvent::from_http(headers, body).map_err(|error| {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        (status, error.to_string())
    })
}
