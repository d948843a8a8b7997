//! `webhook`: signed requests of other services as events.

mod signature;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::signature::{Generic, Scheme, Verifier};
use crate::cloudevents::accept;
use crate::kind::Open;
use crate::{DriverType, Emitter, Error, Key, Settings, Source, http, message};

pub(crate) const SOURCE: DriverType = DriverType {
    name: "webhook",
    about: "Emits the requests that another service makes, once their signatures are checked",
    exposed: true,
    keys: &[
        Key::text("signature", "Who signs, and how")
            .one_of(&["github", "stripe", "slack", "hmac", "none"])
            .default("hmac"),
        Key::text("secret", "What the signatures are made with").secret(),
        Key::text("previous-secret", "The secret before it, while both are in use").secret(),
        Key::number("window", "Seconds that a signed time may be off", 1, 86_400).default("300"),
        Key::text("type", "The events' `type`; default: from the service, else `webhook.received`"),
        Key::text("header", "`hmac`: the header with the signature").default("x-signature-256"),
        Key::text("prefix", "`hmac`: what stands before the signature, as `sha256=`"),
        Key::text("algorithm", "`hmac`: the hash")
            .one_of(&["sha256", "sha512", "sha1"])
            .default("sha256"),
        Key::text("encoding", "`hmac`: how the signature is written")
            .one_of(&["hex", "base64"])
            .default("hex"),
        Key::text(
            "timestamp-header",
            "`hmac`: the header with a time in Unix seconds; `TIME.BODY` is signed then",
        ),
        Key::text("id-header", "`hmac` and `none`: the header with the event's id"),
    ],
    open: Open::Source(open),
};

struct Webhook {
    port: u16,
    asked: Arc<Asked>,
}

struct Asked {
    scheme: Scheme,
    /// Nothing: whoever reaches the port is believed.
    verifier: Option<Verifier>,
    event_type: Option<String>,
    id_header: Option<String>,
}

fn open(settings: &Settings) -> Result<Box<dyn Source>, Error> {
    let name = settings.get("signature");
    let scheme = match name {
        "github" => Scheme::GitHub,
        "stripe" => Scheme::Stripe,
        "slack" => Scheme::Slack,
        _ => Scheme::Generic(Generic {
            header: settings.get("header").to_ascii_lowercase(),
            prefix: settings.get("prefix").to_owned(),
            base64: settings.get("encoding") == "base64",
            timestamp: settings.maybe("timestamp-header").map(str::to_ascii_lowercase),
        }),
    };
    let verifier = if name == "none" {
        None
    } else {
        let secret = settings.maybe("secret").filter(|secret| !secret.is_empty()).ok_or_else(|| {
            settings.wrong(
                "secret",
                "is missing: give the driver a secret with the key secret, or believe everybody with \
                 signature=none",
            )
        })?;
        let secrets = [Some(secret), settings.maybe("previous-secret")].into_iter().flatten();
        // The named services use SHA-256.
        let algorithm = if name == "hmac" { settings.get("algorithm") } else { "sha256" };
        Some(Verifier::new(algorithm, secrets, Duration::from_secs(settings.number("window"))))
    };
    let asked = Arc::new(Asked {
        scheme,
        verifier,
        event_type: settings.maybe("type").map(str::to_owned),
        id_header: settings.maybe("id-header").map(str::to_ascii_lowercase),
    });
    Ok(Box::new(Webhook { port: settings.port()?, asked }))
}

impl Source for Webhook {
    fn run(
        self: Box<Self>,
        emitter: Emitter,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), Error>> {
        let Webhook { port, asked } = *self;
        Box::pin(http::serve(port, stop, move |parts, body| {
            let (emitter, asked) = (emitter.clone(), Arc::clone(&asked));
            async move { asked.answer(&emitter, &parts, &body).await }
        }))
    }
}

impl Asked {
    async fn answer(&self, emitter: &Emitter, parts: &Parts, body: &Bytes) -> http::Reply {
        let now = Timestamp::now();
        let signature = match &self.verifier {
            None => None,
            Some(verifier) => match verifier.verify(&self.scheme, &parts.headers, body, now) {
                Ok(signature) => Some(signature),
                Err(why) => {
                    tracing::warn!("a request was refused: {why}");
                    return (StatusCode::UNAUTHORIZED, why.to_owned());
                }
            },
        };
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        if matches!(self.scheme, Scheme::Slack)
            && json["type"] == "url_verification"
            && let Some(challenge) = json["challenge"].as_str()
        {
            return (StatusCode::OK, challenge.to_owned());
        }
        // What is signed tells events apart, so that a request that is sent again, by its service or by
        // somebody who overheard it, is the same event. Where a signed time makes every try another one,
        // the service's own signed id does.
        let id = match self.scheme {
            Scheme::Stripe => json["id"].as_str().map(str::to_owned),
            Scheme::Slack => json["event_id"].as_str().map(str::to_owned),
            _ => None,
        };
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let given = self.id_header.as_deref().and_then(header).map(str::to_owned);
        let id = id.or(given).or_else(|| signature.map(|bytes| message::hex(&bytes)));
        let id = message::short(id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()));
        let event_type = self.event_type.clone().unwrap_or_else(|| match self.scheme {
            Scheme::GitHub => named("github", header("x-github-event")),
            Scheme::Stripe => named("stripe", json["type"].as_str()),
            Scheme::Slack => {
                named("slack", json["event"]["type"].as_str().or(json["type"].as_str()))
            }
            Scheme::Generic(_) => "webhook.received".to_owned(),
        });
        let content_type = header("content-type");
        let mut event = emitter.event(id, &event_type, now, message::data(content_type, body));
        if let Some(kind) = content_type.filter(|_| event.data.is_some()) {
            event.data_content_type = Some(kind.to_owned());
        }
        if let Err(error) = event.validate() {
            return (StatusCode::BAD_REQUEST, error.to_string());
        }
        let (status, text) = accept(emitter, &[event]).await;
        if status.is_success() { (StatusCode::OK, text) } else { (status, text) }
    }
}

fn named(service: &str, event: Option<&str>) -> String {
    let event = event.filter(|event| !event.is_empty()).unwrap_or("received");
    format!("{service}.{event}")
}
