//! The gateway: user traffic to functions.

pub mod body;
mod context;
pub mod response;
pub mod table;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, Request, StatusCode};
use bytes::Bytes;
use dispatch_api::{Endpoint, Problem};
use http_body_util::{BodyExt as _, Full, Limited};

use crate::app::App;
use crate::problem::Error;
use crate::runs::{self, Finished, Invocation};
use crate::trace::{REQUEST_ID, Trace};
use response::Answer;
use table::Match;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The word in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// How long a request body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

const RUN_ID: HeaderName = HeaderName::from_static("x-dispatch-run-id");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Answers one request.
pub async fn handle<B>(
    app: Arc<App>,
    scheme: Scheme,
    peer: SocketAddr,
    request: Request<B>,
) -> Answer
where
    B: http_body_util::BodyExt<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let start = Instant::now();
    let trace = Trace::from_headers(request.headers());
    let request_id = trace.request_id.clone();
    let head = request.method() == Method::HEAD;
    let snapshot = app.live.load();
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().host()).unwrap_or_default();
    let found = snapshot.routes.find(host, request.method().as_str(), request.uri().path());
    let (org, name, mut answer) = match found {
        Ok(Some(found)) => {
            let endpoint = Arc::clone(&found.endpoint);
            let answer = matched(&app, scheme, peer, request, found, trace).await;
            let mut answer = answer.unwrap_or_else(|error| refusal(&error));
            if endpoint.cors {
                allow_origins(&mut answer);
            }
            (endpoint.org.clone(), endpoint.name.clone(), answer)
        }
        Ok(None) => {
            let body = Problem::new(0, "no API found with those values");
            (String::new(), String::new(), response::problem(StatusCode::NOT_FOUND, &body))
        }
        Err(bad) => {
            let error = Error::bad_request(bad.to_string());
            (String::new(), String::new(), refusal(&error))
        }
    };
    app.metrics.gateway(&org, &name, answer.status().as_u16(), start.elapsed());
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        answer.headers_mut().insert(REQUEST_ID, id);
    }
    if head {
        *answer.body_mut() = Full::default();
    }
    answer
}

fn refusal(error: &Error) -> Answer {
    let mut answer = response::problem(error.status, &error.problem);
    if let Some(after) = error.retry_after {
        let seconds = HeaderValue::from(after.as_secs().max(1));
        answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    answer
}

fn allow_origins(answer: &mut Answer) {
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "*"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
}

/// A request to an endpoint whose protocols do not have the request's: nothing runs.
fn wrong_protocol<B>(
    app: &App,
    scheme: Scheme,
    endpoint: &Endpoint,
    request: &Request<B>,
) -> Option<Result<Answer, Error>> {
    let [only] = endpoint.protocols.as_slice() else { return None };
    if only == scheme.as_str() {
        return None;
    }
    if app.config.gateway_redirect && only == "https" {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let host = table::host_name(host.unwrap_or_default());
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        if let Ok(location) = HeaderValue::from_str(&format!("https://{host}{path}")) {
            let mut answer = Answer::default();
            *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
            answer.headers_mut().insert(header::LOCATION, location);
            return Some(Ok(answer));
        }
    }
    let text = format!("Please use {} protocol", only.to_ascii_uppercase());
    Some(Err(Error::bad_request(text)))
}

async fn matched<B>(
    app: &Arc<App>,
    scheme: Scheme,
    peer: SocketAddr,
    request: Request<B>,
    found: Match,
    trace: Trace,
) -> Result<Answer, Error>
where
    B: http_body_util::BodyExt<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let endpoint = &found.endpoint;
    if let Some(answer) = wrong_protocol(app, scheme, endpoint, &request) {
        return answer;
    }
    let preflight = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let lists_options = endpoint.methods.iter().any(|method| method == "OPTIONS");
    if request.method() == Method::OPTIONS && (preflight || !lists_options) {
        return Ok(Answer::default());
    }
    let function = app.live.load().function(&endpoint.org, &endpoint.function).cloned();
    let function = function.ok_or_else(|| Error::not_found("function", &endpoint.function))?;
    runs::serving(&function)?;
    let (parts, body) = request.into_parts();
    let most = app.config.max_body;
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, most).collect());
    let body = body.await.map_err(|_| {
        let text = format!("the request body did not arrive within {} s", BODY_TIMEOUT.as_secs());
        Error::new(StatusCode::REQUEST_TIMEOUT, text)
    })?;
    let body = body.map_err(|_| {
        let text = format!("the request body could not be read, or is larger than {most} bytes");
        Error::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    })?;
    let query = parts.uri.query().unwrap_or_default();
    let input = body::payload(&parts.method, query, &parts.headers, body.to_bytes()).await?;
    let waits = parts
        .headers
        .get("x-dispatch-blocking")
        .is_none_or(|value| !value.as_bytes().eq_ignore_ascii_case(b"false"));
    let http = context::http(&parts, scheme, peer, &function.name, &found.parameters);
    let invocation = Invocation {
        org: endpoint.org.clone(),
        function,
        input,
        http_context: Some(http),
        request: Some(context::request(&parts)),
        event: None,
        secrets: Vec::new(),
        services: Vec::new(),
        tags: Vec::new(),
        trace,
    };
    if !waits {
        let id = runs::accept(app, invocation).await?;
        let body = serde_json::json!({ "runId": id, "status": "INITIALIZED" }).to_string();
        let mut answer = response::json(StatusCode::ACCEPTED, body);
        name_run(&mut answer, &id);
        return Ok(answer);
    }
    let finished = runs::execute(app, invocation).await;
    let mut answer = match &finished.result {
        Ok(output) => response::success(output),
        Err(failure) => response::failure(failure, &finished.id),
    };
    name_run(&mut answer, &finished.id);
    if let Ok(timing) = HeaderValue::from_str(&server_timing(&finished)) {
        answer.headers_mut().insert(SERVER_TIMING, timing);
    }
    Ok(answer)
}

fn name_run(answer: &mut Answer, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        answer.headers_mut().insert(RUN_ID, id);
    }
}

/// Milliseconds, as <https://www.w3.org/TR/server-timing/> has them.
fn server_timing(finished: &Finished) -> String {
    let t = &finished.timings;
    let part = |name, micros: u64| format!("{name};dur={}.{:03}", micros / 1000, micros % 1000);
    [
        part("queue", t.queue),
        part("start", t.start),
        part("function", t.function),
        part("total", t.total),
    ]
    .join(", ")
}
