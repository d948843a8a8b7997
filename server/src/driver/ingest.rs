//! Where drivers post their events: on the API with their token, and inside of their sandboxes, where
//! who connects is the driver.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use dispatch_api::Problem;
use dispatch_runner::service::Taker;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use utoipa::IntoParams;

use crate::app::App;
use crate::event;
use crate::problem::Error;

/// Connections of one driver at a time.
const CONNECTIONS: usize = 32;
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(30);

/// How a driver proves itself where it sends no header.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct IngestQuery {
    /// The value of its `AUTH_TOKEN`.
    auth_token: String,
}

#[utoipa::path(post, path = "/v1/event/ingest", tag = "event", params(IngestQuery),
    request_body(content = Object, description = "events, as for /v1/event",
        content_type = "application/cloudevents+json"),
    responses((status = 200, description = "accepted; an event of 0.1 is echoed"),
        (status = 202, description = "accepted"), (status = 401, body = Problem)))]
pub(crate) async fn ingest(
    State(app): State<Arc<App>>,
    Query(query): Query<IngestQuery>,
    headers: HeaderMap,
    request: axum::extract::Request,
) -> Result<Response, Error> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let token = if query.auth_token.is_empty() { bearer } else { &query.auth_token };
    let unknown = || Error::new(StatusCode::UNAUTHORIZED, "token not recognized");
    let org = app.drivers.whose(token).ok_or_else(unknown)?;
    event::api::take(&app, &org, request).await
}

/// Serves connections from inside of a driver's sandbox: whatever is posted there are its events.
pub(super) fn taker(app: &Arc<App>, org: &str) -> Taker {
    let (app, org) = (Arc::clone(app), Arc::<str>::from(org));
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    Arc::new(move |stream| {
        let (app, org) = (Arc::clone(&app), Arc::clone(&org));
        // A driver that opens too many is closed some.
        if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            tokio::spawn(async move {
                let _slot = slot;
                serve(app, org, stream).await;
            });
        }
    })
}

async fn serve(app: Arc<App>, org: Arc<str>, stream: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| {
        let (app, org) = (Arc::clone(&app), Arc::clone(&org));
        async move { Ok::<_, Infallible>(answer(&app, &org, request.map(Body::new)).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    // How a connection ends is the driver's business.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(app: &App, org: &str, request: Request<Body>) -> Response {
    if request.method() != Method::POST {
        let text = "events are posted here";
        return Error::new(StatusCode::METHOD_NOT_ALLOWED, text).into_response();
    }
    event::api::take(app, org, request).await.unwrap_or_else(Error::into_response)
}
