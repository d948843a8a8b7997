//! Events posted to URLs, as the HTTP binding of CloudEvents has it, under the operator's rules for
//! what may be reached.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dispatch_api::CloudEvent;
use dispatch_api::cloud_event::{BATCH, Extension, STRUCTURED};
use dispatch_runner::egress::{Operator, Outside};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};

use super::deliver::Outcome;
use super::{HOPS, MAX_EVENT};
use crate::app::App;
use crate::driver::front;

/// How long a place may take to answer where the subscription does not say.
const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// The longest pause that an answer may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// Bytes of an answer that are shown when it is an error.
const SHOWN: usize = 200;

/// Posts events.
pub struct Poster {
    outside: Arc<Outside>,
    /// Made when it is needed: it reads the machine's certificates.
    client: OnceLock<Result<Client, String>>,
}

/// Names are resolved under the same rules.
struct Names(Arc<Outside>);

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let outside = Arc::clone(&self.0);
        Box::pin(async move {
            let found = outside.find(name.as_str(), 0).await.map_err(std::io::Error::other)?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

impl Poster {
    /// What the operator allows.
    pub fn new(operator: Operator) -> Poster {
        Poster { outside: Arc::new(Outside::new(operator)), client: OnceLock::new() }
    }

    fn client(&self) -> Result<&Client, String> {
        let client = self.client.get_or_init(|| {
            Client::builder()
                .user_agent(concat!("dispatch/", env!("CARGO_PKG_VERSION")))
                // Another place than the one that was looked at.
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .connect_timeout(CONNECT)
                .dns_resolver(Arc::new(Names(Arc::clone(&self.outside))))
                .build()
                .map_err(|error| error.to_string())
        });
        client.as_ref().map_err(Clone::clone)
    }

    /// Posts one event in binary mode, or several as a batch. `timeout` in milliseconds; 0 means 30 s.
    pub(super) async fn post(
        &self,
        uri: &str,
        events: &[CloudEvent],
        hops: i64,
        timeout: i64,
    ) -> Outcome {
        let again = |error: String, again| Outcome::Failed { error, again, after: Duration::ZERO };
        let request = match self.request(uri, events, hops).await {
            Ok(request) => request.timeout(patience(timeout)),
            Err(error) => return again(error, true),
        };
        match request.send().await {
            Ok(response) => answered(uri, response).await,
            Err(error) => again(format!("POST {uri}: {}", cause(&error)), true),
        }
    }

    async fn request(
        &self,
        uri: &str,
        events: &[CloudEvent],
        hops: i64,
    ) -> Result<reqwest::RequestBuilder, String> {
        let url = Url::parse(uri).map_err(|error| format!("{uri} is not a URL: {error}"))?;
        // Addresses are not resolved, so nobody else looks at them.
        let port = url.port_or_known_default().unwrap_or_default();
        if let Some(url::Host::Ipv4(_) | url::Host::Ipv6(_)) = url.host() {
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
            self.outside.find(host, port).await?;
        }
        let (headers, body) = message(events, hops)?;
        let mut request = self.client()?.post(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        Ok(request.body(body))
    }
}

type Message = (Vec<(String, String)>, Vec<u8>);

/// One event in binary mode, or several as a batch: headers and body.
fn message(events: &[CloudEvent], hops: i64) -> Result<Message, String> {
    let mut events = events.to_vec();
    for event in &mut events {
        *event = event.to_v1();
        let hops = i32::try_from(hops).unwrap_or(i32::MAX);
        event.extensions.insert(HOPS.to_owned(), Extension::Integer(hops));
    }
    if let [event] = events.as_slice() {
        return Ok(event.to_http_binary());
    }
    let body = CloudEvent::to_http_batch(&events).map_err(|error| error.to_string())?;
    Ok((vec![(CONTENT_TYPE.to_string(), BATCH.to_owned())], body))
}

/// Posts events to an event driver that runs.
pub(super) async fn to_driver(
    app: &App,
    org: &str,
    name: &str,
    events: &[CloudEvent],
    hops: i64,
    timeout: i64,
) -> Outcome {
    let (headers, body) = match message(events, hops) {
        Ok(message) => message,
        Err(error) => return Outcome::Failed { error, again: false, after: Duration::ZERO },
    };
    let mut request = axum::http::Request::post("/");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let Ok(request) = request.body(http_body_util::Full::new(Bytes::from(body))) else {
        let error = "the event cannot be sent by HTTP".to_owned();
        return Outcome::Failed { error, again: false, after: Duration::ZERO };
    };
    match front::exchange(app, org, name, request, patience(timeout)).await {
        Ok(answer) => {
            let (parts, body) = answer.into_parts();
            outcome(&format!("driver:{name}"), parts.status, &parts.headers, &body)
        }
        // One that does not run will run again.
        Err(error) if error.status == StatusCode::SERVICE_UNAVAILABLE => {
            Outcome::NotMade { error: error.problem.message, after: None }
        }
        Err(error) => {
            Outcome::Failed { error: error.problem.message, again: true, after: Duration::ZERO }
        }
    }
}

fn patience(timeout: i64) -> Duration {
    let timeout = u64::try_from(timeout).ok().filter(|millis| *millis > 0);
    timeout.map_or(TIMEOUT, Duration::from_millis)
}

/// What an answer means, as the data plane of Knative Eventing has it
/// (<https://github.com/knative/specs/blob/main/specs/eventing/data-plane.md>).
fn again(status: StatusCode) -> bool {
    status.is_server_error()
        || status.is_redirection()
        || matches!(status.as_u16(), 404 | 408 | 409 | 425 | 429)
}

async fn answered(uri: &str, mut response: Response) -> Outcome {
    match body(&mut response).await {
        Ok(body) => outcome(uri, response.status(), response.headers(), &body),
        Err(error) => {
            let error = format!("POST {uri}: {error}");
            Outcome::Failed { error, again: true, after: Duration::ZERO }
        }
    }
}

fn outcome(uri: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Outcome {
    let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let after = after.and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
    if status.is_success() {
        // An answer that is an event is a reply; any other is only an answer.
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_event =
            headers.contains_key("ce-id") || kind.is_some_and(|kind| kind.starts_with(STRUCTURED));
        let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let reply = CloudEvent::from_http(pairs, body).ok().filter(|_| is_event);
        return Outcome::Done(reply.and_then(|mut events| events.pop()).map(Box::new));
    }
    let said = String::from_utf8_lossy(body);
    let said: String = said.trim().chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    let error = format!("POST {uri}: {status} {said}").trim_end().to_owned();
    Outcome::Failed { error, again: again(status), after: after.unwrap_or_default().min(MAX_PAUSE) }
}

/// The body, as far as it is bounded.
async fn body(response: &mut Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| cause(&error))? {
        if body.len() + chunk.len() > MAX_EVENT {
            return Err(format!("the answer is longer than {MAX_EVENT} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The innermost reason of an error, which says most.
fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
