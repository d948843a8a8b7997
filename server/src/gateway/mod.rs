//! The gateway: user traffic to functions.

pub mod body;
mod context;
pub mod response;
pub mod table;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;
use axum::http::{Method, Request, StatusCode, Uri};
use bytes::Bytes;
use dispatch_api::Endpoint;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Body;

use crate::app::App;
use crate::driver::front;
use crate::live::Function;
use crate::problem::Error;
use crate::runs::{self, Finished, Invocation};
use crate::trace::{REQUEST_ID, Trace};
use context::Contexts;
use response::{Answer, refusal};
use table::{Match, Table};

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

/// The answer where no endpoint fits; old clients compare it as a whole.
const NOTHING: &str = r#"{"message":"no API found with those values"}"#;

/// Answers one request.
pub async fn handle<B>(
    app: Arc<App>,
    scheme: Scheme,
    peer: SocketAddr,
    request: Request<B>,
) -> Answer
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let start = Instant::now();
    let trace = Trace::from_headers(request.headers());
    let request_id = trace.request_id.clone();
    let head = request.method() == Method::HEAD;
    let snapshot = app.live.load();
    let found = find(&snapshot.routes, &request);
    let function = match &found {
        Ok(Some(found)) => {
            snapshot.function(&found.endpoint.org, &found.endpoint.function).cloned()
        }
        _ => None,
    };
    // What it holds, secrets among them, need not outlive a change for as long as a call takes.
    drop(snapshot);
    let (endpoint, answer) = match found {
        Ok(Some(found)) => {
            let endpoint = Arc::clone(&found.endpoint);
            let answer = matched(&app, scheme, peer, request, found, function, trace).await;
            (Some(endpoint), answer)
        }
        Ok(None) if front::named(request.uri().path()).is_some() => {
            (None, front::forward(&app, request).await)
        }
        Ok(None) => (None, Ok(response::json(StatusCode::NOT_FOUND, NOTHING))),
        Err(error) => (None, Err(error)),
    };
    let mut answer = answer.unwrap_or_else(|error| refusal(error, &request_id));
    if endpoint.as_ref().is_some_and(|endpoint| endpoint.cors) {
        allow_origins(&mut answer);
    }
    set(&mut answer, HeaderName::from_static(REQUEST_ID), &request_id);
    if head {
        let length = HeaderValue::from(answer.body().size_hint().lower());
        answer.headers_mut().insert(header::CONTENT_LENGTH, length);
        *answer.body_mut() = Full::default();
    }
    let (org, name) = endpoint.as_ref().map_or(("", ""), |e| (e.org.as_str(), e.name.as_str()));
    app.metrics.gateway(org, name, answer.status().as_u16(), start.elapsed());
    answer
}

fn find<B>(routes: &Table, request: &Request<B>) -> Result<Option<Match>, Error> {
    let (uri, headers) = (request.uri(), request.headers());
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(Error::bad_request("the request has more than one Host header"));
    }
    let method = request.method().as_str();
    let find = |method: &str| {
        let found = routes.find(host(uri, headers), method, uri.path());
        found.map_err(|bad| Error::bad_request(bad.to_string()))
    };
    // A preflight is for the endpoint that would take what follows it.
    let follows = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    match follows.and_then(|method| method.to_str().ok()) {
        Some(follows) if method == "OPTIONS" => match find(follows)? {
            Some(found) => Ok(Some(found)),
            None => find(method),
        },
        _ => find(method),
    }
}

/// The host that is asked: the one in the request line, where there is one, before the header's.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let authority = uri.authority().map(Authority::as_str);
    let named = authority.map(|text| text.rsplit_once('@').map_or(text, |(_, host)| host));
    let header = || headers.get(header::HOST).and_then(|host| host.to_str().ok());
    named.or_else(header).unwrap_or_default()
}

fn set(answer: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
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

/// The answer to a request whose protocol its endpoint does not have: nothing runs.
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
        let host = table::host_name(host(request.uri(), request.headers()));
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
        if !host.is_empty() && host.bytes().all(plain) && path.starts_with('/') {
            let mut answer = Answer::default();
            *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
            set(&mut answer, header::LOCATION, &format!("https://{host}{path}"));
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
    function: Option<Arc<Function>>,
    trace: Trace,
) -> Result<Answer, Error>
where
    B: Body<Data = Bytes> + Send,
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
    let function = function.ok_or_else(|| Error::not_found("function", &endpoint.function))?;
    runs::serving(&function)?;
    let (parts, body) = request.into_parts();
    let query = body::fields(parts.uri.query().unwrap_or_default().as_bytes())?;
    let body = read(body, app.config.max_body).await?;
    let input = body::payload(&parts.method, query.clone(), &parts.headers, body).await?;
    let waits = parts
        .headers
        .get("x-dispatch-blocking")
        .is_none_or(|value| !value.as_bytes().eq_ignore_ascii_case(b"false"));
    let contexts = Contexts::of(&parts);
    let http = contexts.http(scheme, peer, &function.name, query, &found.parameters)?;
    let second = contexts.request()?;
    let request_id = trace.request_id.clone();
    let invocation = Invocation {
        org: endpoint.org.clone(),
        function,
        input,
        http_context: Some(http),
        request: Some(second),
        event: None,
        secrets: Vec::new(),
        services: Vec::new(),
        tags: Vec::new(),
        trace,
    };
    if !waits {
        let id = runs::accept(app, &invocation).await?;
        let body = serde_json::json!({ "runId": id, "status": "INITIALIZED" }).to_string();
        let mut answer = response::json(StatusCode::ACCEPTED, body);
        set(&mut answer, RUN_ID, &id);
        return Ok(answer);
    }
    let finished = runs::execute(app, Arc::new(invocation)).await;
    let answer = match &finished.result {
        Ok(output) => response::success(output),
        Err(failure) => Err(response::failure(failure, &finished.id)),
    };
    let mut answer = answer.unwrap_or_else(|error| refusal(error, &request_id));
    set(&mut answer, RUN_ID, &finished.id);
    if let Ok(timing) = HeaderValue::from_str(&server_timing(&finished)) {
        answer.headers_mut().append(SERVER_TIMING, timing);
    }
    Ok(answer)
}

/// Reads a body of at most `most` bytes.
async fn read<B>(body: B, most: usize) -> Result<Bytes, Error>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || {
        let text = format!("the request body is larger than {most} bytes");
        Error::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    // What says that it is too large is not asked to come.
    if usize::try_from(body.size_hint().lower()).map_or(true, |announced| announced > most) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Error::bad_request("the request body was cut off or is malformed")),
        Err(_) => {
            let seconds = BODY_TIMEOUT.as_secs();
            let text = format!("the request body did not arrive within {seconds} s");
            Err(Error::new(StatusCode::REQUEST_TIMEOUT, text))
        }
    }
}

/// Milliseconds, as <https://www.w3.org/TR/server-timing/> has them.
fn server_timing(finished: &Finished) -> String {
    let t = &finished.timings;
    let parts =
        [("queue", t.queue), ("start", t.start), ("function", t.function), ("total", t.total)];
    let mut text = String::with_capacity(96);
    for (index, (name, micros)) in parts.into_iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let _ = write!(text, "{comma}{name};dur={}.{:03}", micros / 1000, micros % 1000);
    }
    text
}
