//! Every URL of the API, on one screen.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use dispatch_api::{Health, IsolationLayer, Version};
use dispatch_runner::Isolation;
use serde_json::json;
use tracing::Instrument as _;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::iam::Caller;
use crate::problem::Error;
use crate::trace::{REQUEST_ID, Trace};
use crate::{
    base_image, driver, egress, endpoint, event, function, gc, image, image_archive, runs, sbom,
    scale, schedule, secret, subscription,
};

#[derive(OpenApi)]
#[openapi(info(
    title = "Dispatch",
    description = "Functions, the images they run on, the endpoints that call them, and their runs.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Document;

fn resources() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(base_image::create, base_image::list))
        .routes(routes!(base_image::get, base_image::update, base_image::delete))
        .routes(routes!(base_image::logs))
        .routes(routes!(image_archive::put))
        .routes(routes!(image::create, image::list))
        .routes(routes!(image::get, image::update, image::delete))
        .routes(routes!(image::logs))
        .routes(routes!(sbom::get))
        .routes(routes!(function::create, function::list))
        .routes(routes!(function::get, function::update, function::delete))
        .routes(routes!(function::revisions))
        .routes(routes!(function::rollback))
        .routes(routes!(egress::get))
        .routes(routes!(scale::get))
        .routes(routes!(runs::api::create, runs::api::list))
        .routes(routes!(runs::api::get))
        .routes(routes!(runs::api::redrive))
        .routes(routes!(schedule::create, schedule::list))
        .routes(routes!(schedule::get, schedule::update, schedule::delete))
        .routes(routes!(secret::create, secret::list))
        .routes(routes!(secret::get, secret::update, secret::delete))
        .routes(routes!(endpoint::endpoints::create, endpoint::endpoints::list))
        .routes(routes!(
            endpoint::endpoints::get,
            endpoint::endpoints::update,
            endpoint::endpoints::delete
        ))
        .routes(routes!(endpoint::apis::create, endpoint::apis::list))
        .routes(routes!(endpoint::apis::get, endpoint::apis::update, endpoint::apis::delete))
        .routes(routes!(event::api::emit))
        .routes(routes!(event::api::log))
        .routes(routes!(event::api::deliveries))
        .routes(routes!(event::api::delivery))
        .routes(routes!(event::api::redrive))
        .routes(routes!(event::api::redrive_all))
        .routes(routes!(event::api::replay))
        .routes(routes!(driver::ingest::ingest))
        .routes(routes!(driver::types::create, driver::types::list))
        .routes(routes!(driver::types::get, driver::types::update, driver::types::delete))
        .routes(routes!(driver::resource::create, driver::resource::list))
        .routes(routes!(driver::resource::get, driver::resource::update, driver::resource::delete))
        .routes(routes!(driver::resource::logs))
        .routes(routes!(subscription::create, subscription::list))
        .routes(routes!(subscription::get, subscription::update, subscription::delete))
        .routes(routes!(gc::collect))
        .routes(routes!(version))
}

/// The OpenAPI document of the API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    resources().into_openapi()
}

/// The API.
pub fn router(app: Arc<App>) -> Router {
    let (resources, document) = resources().split_for_parts();
    let document = Arc::new(document);
    resources
        .route("/v1/openapi.json", get(move || async move { Json(document.as_ref().clone()) }))
        .route("/", get(async || Json(json!({ "message": "Default Root Page" }))))
        .route("/home", get(home))
        .route("/healthz", any(health))
        .route("/healthz/{*rest}", any(health))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(wrong_method)
        .fallback(nowhere)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), wrap))
        .with_state(app)
}

#[utoipa::path(get, path = "/v1/version", tag = "server", responses((status = 200, body = Version)))]
async fn version() -> Json<Version> {
    Json(Version::current())
}

async fn home(_caller: Caller) -> Json<serde_json::Value> {
    Json(json!({ "message": "Home Page, You have already logged in" }))
}

async fn health(State(app): State<Arc<App>>) -> Json<Health> {
    Json(health_of(app.runner.isolation()))
}

/// What is said about isolation, by `/healthz` and by `dispatch manage check`.
pub fn health_of(isolation: &Isolation) -> Health {
    let layers = isolation.layers.iter().map(|layer| IsolationLayer {
        name: layer.name.to_owned(),
        active: layer.active,
        detail: layer.detail.clone(),
    });
    Health {
        version: Version::current(),
        isolation: isolation.tier.to_string(),
        meaning: isolation.tier.meaning().to_owned(),
        warning: isolation.warning().map(str::to_owned),
        layers: layers.collect(),
        advice: isolation.advice.clone(),
    }
}

async fn metrics(State(app): State<Arc<App>>, _caller: Caller) -> Result<Response, Error> {
    let queues = app.store.queue_depths().await;
    let queues = queues.map_err(|error| Error::internal("the queues cannot be counted", &error))?;
    egress::write(&app).await;
    app.metrics.drivers(app.drivers.count());
    let stems: Vec<(String, usize)> = (app.runner.runtimes().into_iter())
        .map(|runtime| {
            let count = app.runner.waiting(&runtime.language);
            (runtime.language, count)
        })
        .collect();
    let unwritten = app.recorder.waiting();
    let page = app.metrics.page(&app.runner.pools(), &stems, &queues, unwritten);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], page).into_response())
}

async fn nowhere(request: Request) -> Error {
    let second = request.uri().path().trim_start_matches("/v1/").split('/').next();
    match second {
        Some("iam" | "application" | "serviceclass" | "serviceinstance") => Error::new(
            StatusCode::NOT_IMPLEMENTED,
            "Endpoint is not implemented in this version of Dispatch",
        ),
        _ => Error::new(StatusCode::NOT_FOUND, "resource does not exist"),
    }
}

async fn wrong_method(request: Request) -> Error {
    let text = format!("method {} is not allowed", request.method());
    Error::new(StatusCode::METHOD_NOT_ALLOWED, text)
}

/// Around every request: request id, span, latency, and the id in every answer.
async fn wrap(
    State(app): State<Arc<App>>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let trace = Trace::from_headers(request.headers());
    let id = HeaderValue::from_str(&trace.request_id).ok();
    if let Some(id) = &id {
        request.headers_mut().insert(REQUEST_ID, id.clone());
    }
    let method = request.method().clone();
    let route = path.as_ref().map_or("", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", id = trace.request_id, %method, route);
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, elapsed) = (response.status(), start.elapsed());
    app.metrics.api(&route, method.as_str(), status.as_u16(), elapsed);
    span.in_scope(|| {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(status = status.as_u16(), micros, "answered");
    });
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Takes a trailing slash off, as the old servers did. It stands around the router, since inside of
/// it the route is chosen already.
pub fn trim_slash<B>(mut request: axum::http::Request<B>) -> axum::http::Request<B> {
    let uri = request.uri();
    let path = uri.path();
    if path.len() > 1 && path.ends_with('/') {
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() { "/" } else { path };
        let trimmed = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        if let Ok(trimmed) = trimmed.parse() {
            *request.uri_mut() = trimmed;
        }
    }
    request
}
