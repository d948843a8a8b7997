//! Sending events to the server, until it has them.

use std::sync::Arc;
use std::time::Duration;

use dispatch_api::CloudEvent;
use dispatch_api::cloud_event::{BATCH, Data, STRUCTURED};
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::{Error, Settings};

/// Events in one request.
pub(crate) const BATCH_EVENTS: usize = 100;
/// Bytes of data in one request, unless one event alone has more.
const BATCH_BYTES: usize = 512 << 10;
/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest pause that is taken from the server's `Retry-After`.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Bytes of a refusal that are read and shown.
const REASON: usize = 300;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server has it, durably.
    Accepted,
    /// The server never will have it. It is in the log.
    Refused,
}

/// Sends events to the server. Clones are the same sender.
#[derive(Clone, Debug)]
pub struct Emitter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    /// Nothing in a dry run.
    url: Option<Url>,
    token: Option<String>,
    source: String,
    stops_at_refusal: bool,
    stop: CancellationToken,
}

/// What one answer means.
enum Answer {
    Accepted,
    Refused(String),
    Later(String, Duration),
}

impl Emitter {
    /// A sender to what the settings name: `--sink`, `--dispatch-api-endpoint`, `K_SINK`.
    ///
    /// # Errors
    /// They name nothing, or no URL.
    pub(crate) fn new(settings: &Settings, stop: CancellationToken) -> Result<Emitter, Error> {
        let given = settings.maybe("sink").or(settings.env("K_SINK")).map(str::to_owned);
        let old = settings.maybe("dispatch-api-endpoint");
        let given = given.or_else(|| old.map(|place| format!("http://{place}/v1/event/ingest")));
        let url = match given {
            _ if settings.is_on("dry-run") => None,
            None => {
                return Err(Error::Config(
                    "nowhere to send events to: set K_SINK, or give --sink=URL".into(),
                ));
            }
            Some(text) => Some(Url::parse(&text).ok().filter(Url::has_host).ok_or_else(|| {
                Error::Config(format!("{text:?}, where events go, should be an http URL"))
            })?),
        };
        let token = settings.env("AUTH_TOKEN").map(str::to_owned);
        let url = url.map(|mut url| {
            if let Some(token) = &token {
                url.query_pairs_mut().append_pair("authToken", token);
            }
            url
        });
        // The server is no place that a proxy leads to.
        let client = Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| Error::Failed(format!("no HTTP client: {error}")))?;
        Ok(Emitter(Arc::new(Inner {
            client,
            url,
            token,
            source: settings.source(),
            stops_at_refusal: settings.get("refused") == "stop",
            stop,
        })))
    }

    /// An event of this driver.
    pub fn event(
        &self,
        id: impl std::fmt::Display,
        event_type: &str,
        time: Timestamp,
        data: Option<Data>,
    ) -> CloudEvent {
        CloudEvent::new(id, self.0.source.clone(), event_type, time, data)
    }

    /// Sends one event; as [`Emitter::emit_all`].
    ///
    /// # Errors
    /// As [`Emitter::emit_all`].
    pub async fn emit(&self, event: CloudEvent) -> Result<Verdict, Error> {
        let verdicts = self.emit_all(&[event]).await?;
        Ok(verdicts.first().copied().unwrap_or(Verdict::Refused))
    }

    /// Sends events in their order and waits until each is settled, however long the server is away.
    /// Afterwards, and not before, they may be acknowledged to where they come from.
    ///
    /// # Errors
    /// The driver is to stop; or an event was refused, where that is to stop the driver.
    pub async fn emit_all(&self, events: &[CloudEvent]) -> Result<Vec<Verdict>, Error> {
        let mut verdicts = Vec::with_capacity(events.len());
        let mut rest = events;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            match self.send(now).await? {
                None => verdicts.extend(now.iter().map(|_| Verdict::Accepted)),
                Some(why) if now.len() == 1 => verdicts.push(self.refused(&now[0], &why)?),
                // Which one is it?
                Some(_) => {
                    for event in now {
                        verdicts.push(match self.send(std::slice::from_ref(event)).await? {
                            None => Verdict::Accepted,
                            Some(why) => self.refused(event, &why)?,
                        });
                    }
                }
            }
            rest = later;
        }
        Ok(verdicts)
    }

    fn refused(&self, event: &CloudEvent, why: &str) -> Result<Verdict, Error> {
        let what =
            format!("event {:?} of type {:?} was refused: {why}", event.id, event.event_type);
        if self.0.stops_at_refusal {
            return Err(Error::Failed(what));
        }
        tracing::error!("{what}; it is skipped");
        Ok(Verdict::Refused)
    }

    /// Sends events until they are accepted or refused; nothing, or why they were refused.
    async fn send(&self, events: &[CloudEvent]) -> Result<Option<String>, Error> {
        let Some(url) = &self.0.url else {
            for event in events {
                let text = event.to_http_structured().unwrap_or_default();
                tracing::info!("would send {}", String::from_utf8_lossy(&text));
            }
            return Ok(None);
        };
        let (kind, body) = match events {
            [one] => (STRUCTURED, one.to_http_structured()),
            several => (BATCH, CloudEvent::to_http_batch(several)),
        };
        let body = match body {
            Ok(body) => bytes::Bytes::from(body),
            Err(error) => return Ok(Some(error.to_string())),
        };
        let mut backoff = Backoff::endless();
        loop {
            let mut request = self.0.client.post(url.clone()).header(CONTENT_TYPE, kind);
            if let Some(token) = &self.0.token {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let answered = tokio::select! {
                answered = request.body(body.clone()).send() => answered,
                () = self.0.stop.cancelled() => return Err(Error::Stopped),
            };
            let (why, pause) = match answered {
                Ok(response) => match read(response).await {
                    Answer::Accepted => {
                        tracing::debug!("sent {} events", events.len());
                        return Ok(None);
                    }
                    Answer::Refused(why) => return Ok(Some(why)),
                    Answer::Later(why, pause) => (why, pause),
                },
                // Without the URL: the token is in it.
                Err(error) => (crate::chain(&error.without_url()), Duration::ZERO),
            };
            backoff.wait(&self.0.stop, "the server takes no events now", &why, pause).await?;
        }
    }
}

/// How many of the first events fit into one request; at least one.
fn fitting(events: &[CloudEvent]) -> usize {
    let mut bytes = 0;
    let fits = |event: &&CloudEvent| {
        bytes += match &event.data {
            Some(Data::Json(raw)) => raw.get().len(),
            Some(Data::Text(text)) => text.len(),
            Some(Data::Binary(data)) => data.len() * 4 / 3,
            None => 0,
        };
        bytes <= BATCH_BYTES
    };
    events.iter().take(BATCH_EVENTS).take_while(fits).count().max(1)
}

/// A refusal is about these events only where the server knows the driver and looked at them: what is said
/// of tokens and paths is a mistake that others can mend, so nothing is lost meanwhile.
async fn read(mut response: Response) -> Answer {
    let status = response.status();
    if status.is_success() {
        return Answer::Accepted;
    }
    let pause = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs)
        .min(LONGEST_WAIT);
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        text.extend_from_slice(&chunk);
        if text.len() >= REASON {
            text.truncate(REASON);
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let why = format!("{status}: {}", line.trim());
    let later = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::CONFLICT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if status.is_client_error() && !later.contains(&status) {
        Answer::Refused(why)
    } else {
        Answer::Later(why, pause)
    }
}
