//! `cloudevents`: events that others post; `cloudevents-sink`: events posted to others.

use std::sync::Arc;

use axum::http::StatusCode;
use dispatch_api::CloudEvent;
use dispatch_api::cloud_event::STRUCTURED;
use futures_util::future::BoxFuture;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use tokio_util::sync::CancellationToken;

use crate::connect::{CA, client, url};
use crate::kind::Open;
use crate::{DriverType, Emitter, Error, Key, Settings, Sink, Source, Unpublished, Verdict, http};

pub(crate) const SOURCE: DriverType = DriverType {
    name: "cloudevents",
    about: "Emits the CloudEvents that others post to it",
    exposed: true,
    keys: &[
        Key::text("token", "What callers must send as `Authorization: Bearer`").secret(),
        Key::flag("anonymous", "Anybody may post: without a token"),
    ],
    open: Open::Source(|settings| {
        let token = settings.maybe("token").map(Into::into);
        if token.is_none() && !settings.is_on("anonymous") {
            return Err(settings.wrong(
                "token",
                "is missing: give the driver a secret with the key token, or let anybody post with \
                 anonymous",
            ));
        }
        Ok(Box::new(Receiver { port: settings.port()?, token }))
    }),
};

pub(crate) const SINK: DriverType = DriverType {
    name: "cloudevents-sink",
    about: "Posts events to a URL, as CloudEvents",
    exposed: false,
    keys: &[
        Key::addresses("url", "Where to post to", &[("https", 443), ("http", 80)]).required(),
        CA,
        Key::text("mode", "Attributes in headers, or all in the body")
            .one_of(&["binary", "structured"])
            .default("binary"),
        Key::text("authorization", "The header `Authorization`").secret(),
        Key::number("timeout", "Seconds that an answer may take", 1, 50).default("30"),
    ],
    open: Open::Sink(poster),
};

struct Receiver {
    port: u16,
    token: Option<Arc<str>>,
}

impl Source for Receiver {
    fn run(
        self: Box<Self>,
        emitter: Emitter,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), Error>> {
        let Receiver { port, token } = *self;
        Box::pin(http::serve(port, stop, move |parts, body| {
            let (emitter, token) = (emitter.clone(), token.clone());
            async move {
                if token.is_some_and(|token| !http::has_token(&parts, &token)) {
                    return (StatusCode::UNAUTHORIZED, "token not recognized".into());
                }
                match http::events(&parts, &body) {
                    Ok(events) => accept(&emitter, &events).await,
                    Err(reply) => reply,
                }
            }
        }))
    }
}

/// Emits, and answers for it: 202 when the server has the events.
pub(crate) async fn accept(emitter: &Emitter, events: &[CloudEvent]) -> http::Reply {
    match emitter.emit_all(events).await {
        Ok(verdicts) if verdicts.iter().all(|verdict| *verdict == Verdict::Accepted) => {
            (StatusCode::ACCEPTED, String::new())
        }
        Ok(_) => (StatusCode::UNPROCESSABLE_ENTITY, "the server refuses this event".into()),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the driver is stopping".into()),
    }
}

struct Poster {
    client: Client,
    url: Url,
    authorization: Option<String>,
    structured: bool,
}

fn poster(settings: &Settings) -> Result<Box<dyn Sink>, Error> {
    let (url, client) = (url(settings, "url")?, client(settings, settings.seconds("timeout"))?);
    Ok(Box::new(Poster {
        client,
        url,
        authorization: settings.maybe("authorization").map(str::to_owned),
        structured: settings.get("mode") == "structured",
    }))
}

impl Sink for Poster {
    fn publish<'a>(&'a self, event: &'a CloudEvent) -> BoxFuture<'a, Result<(), Unpublished>> {
        Box::pin(async move {
            let mut request = self.client.post(self.url.clone());
            if let Some(value) = &self.authorization {
                request = request.header("authorization", value);
            }
            request = if self.structured {
                let body = event.to_http_structured();
                let body = body.map_err(|error| Unpublished::Never(error.to_string()))?;
                request.header(CONTENT_TYPE, STRUCTURED).body(body)
            } else {
                let (headers, body) = event.to_http_binary();
                headers
                    .iter()
                    .fold(request, |request, (name, value)| request.header(name, value))
                    .body(body)
            };
            let later =
                |error: reqwest::Error| Unpublished::Later(crate::chain(&error.without_url()));
            let status = request.send().await.map_err(later)?.status();
            // As the data plane of Knative Eventing has it.
            match status.as_u16() {
                200..=299 => Ok(()),
                404 | 408 | 409 | 425 | 429 | 500.. => Err(Unpublished::Later(status.to_string())),
                _ => Err(Unpublished::Never(status.to_string())),
            }
        })
    }
}
