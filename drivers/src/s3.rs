//! `s3`: objects that appear or change below a prefix; `s3-sink`: events as objects.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_api::CloudEvent;
use dispatch_api::cloud_event::Data;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::{Client, Response};
use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::connect::{CA, FORMAT, Lost, Session, client, lost, url};
use crate::kind::Open;
use crate::message::{self, Format};
use crate::seen::{MOST, Seen};
use crate::state::State;
use crate::{DriverType, Emitter, Error, Key, Settings, Sink, Unpublished};

const ENDPOINT: Key = Key::addresses("endpoint", "The service", &[("https", 443), ("http", 80)])
    .default("https://s3.{region}.amazonaws.com");
const REGION: Key = Key::text("region", "Its region").default("us-east-1");
const BUCKET: Key = Key::text("bucket", "The bucket").required();
const KEY_ID: Key =
    Key::text("aws-access-key-id", "The id of the access key").or_secret().required();
const KEY: Key = Key::text("aws-secret-access-key", "The access key").secret().required();
const SESSION: Key = Key::text("aws-session-token", "The token of a temporary access key").secret();

pub(crate) const SOURCE: DriverType = DriverType {
    name: "s3",
    about: "Emits `s3.object.created` and `s3.object.changed` for the objects of a bucket",
    exposed: false,
    keys: &[
        ENDPOINT,
        REGION,
        BUCKET,
        KEY_ID,
        KEY,
        SESSION,
        CA,
        Key::text("prefix", "Only objects whose names begin so"),
        Key::number("seconds", "Seconds between two looks", 1, 86_400).default("60"),
        Key::flag("existing", "With objects that are there at the first start"),
    ],
    open: Open::Source(|settings| {
        Ok(Box::new(Watcher {
            store: Store::of(settings)?,
            prefix: settings.get("prefix").to_owned(),
            every: settings.seconds("seconds"),
            existing: settings.is_on("existing"),
            state: settings.state()?,
        }))
    }),
};

pub(crate) const SINK: DriverType = DriverType {
    name: "s3-sink",
    about: "Writes each event as an object; the same event is the same object",
    exposed: false,
    keys: &[
        ENDPOINT,
        REGION,
        BUCKET,
        KEY_ID,
        KEY,
        SESSION,
        CA,
        Key::text("prefix", "What the objects' names begin with"),
        FORMAT,
    ],
    open: Open::Sink(|settings| {
        Ok(Box::new(Writer {
            store: Store::of(settings)?,
            prefix: settings.get("prefix").to_owned(),
            format: Format::of(settings),
        }))
    }),
};

const POSITION: &str = "s3.json";
/// How long a signature is valid.
const VALID: Duration = Duration::from_secs(300);
/// Bytes of an answer.
const MOST_ANSWER: usize = 8 << 20;

struct Store {
    client: Client,
    bucket: Bucket,
    credentials: Credentials,
}

impl Store {
    fn of(settings: &Settings) -> Result<Store, Error> {
        let endpoint = url(settings, "endpoint")?;
        let (name, region) = (settings.get("bucket").to_owned(), settings.get("region").to_owned());
        // By path: the bucket's own host would be another address to reach.
        let bucket = Bucket::new(endpoint, UrlStyle::Path, name, region)
            .map_err(|error| settings.wrong("endpoint", &error.to_string()))?;
        let (id, key) = (settings.get("aws-access-key-id"), settings.get("aws-secret-access-key"));
        let credentials = match settings.maybe("aws-session-token") {
            Some(token) => Credentials::new_with_token(id, key, token),
            None => Credentials::new(id, key),
        };
        Ok(Store { client: client(settings, Duration::from_secs(30))?, bucket, credentials })
    }

    /// The objects below a prefix.
    async fn list(&self, prefix: &str) -> Result<Objects, Lost> {
        let mut found = Objects::new();
        let mut token: Option<String> = None;
        loop {
            let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
            if !prefix.is_empty() {
                action.with_prefix(prefix);
            }
            if let Some(token) = &token {
                action.with_continuation_token(token.as_str());
            }
            let sent = self.client.get(action.sign(VALID)).send().await;
            let text = answer(sent.map_err(|error| lost(error.without_url()))?).await?;
            let list = ListObjectsV2::parse_response(&text)
                .map_err(|error| Lost::Connection(format!("no list of objects: {error}")))?;
            for object in list.contents {
                if found.len() == MOST {
                    tracing::warn!("only {MOST} objects are watched: choose a prefix with fewer");
                    return Ok(found);
                }
                let mark = Mark {
                    etag: object.etag.unwrap_or_default().trim_matches('"').to_owned(),
                    modified: object.last_modified.unwrap_or_default(),
                    bytes: object.size.unwrap_or_default(),
                };
                found.insert(object.key, mark);
            }
            match list.next_continuation_token {
                Some(next) => token = Some(next),
                None => return Ok(found),
            }
        }
    }
}

/// What the service answers, if it is no error.
async fn answer(mut response: Response) -> Result<String, Lost> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| lost(error.without_url()))? {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_ANSWER {
            return Err(Lost::Connection("the answer is too long".into()));
        }
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() {
        return Ok(text);
    }
    let code = text.split("<Code>").nth(1).and_then(|rest| rest.split('<').next());
    Err(Lost::Connection(format!("{status} {}", code.unwrap_or_default())))
}

/// What tells whether an object has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Mark {
    etag: String,
    modified: String,
    bytes: u64,
}

type Objects = BTreeMap<String, Mark>;

struct Watcher {
    store: Store,
    prefix: String,
    every: Duration,
    existing: bool,
    state: State,
}

impl Session for Watcher {
    const WHAT: &str = "s3";

    async fn session(&mut self, emitter: &Emitter, backoff: &mut Backoff) -> Result<(), Lost> {
        let mut seen = match Seen::read(&self.state, POSITION)? {
            Some(seen) => seen,
            None => {
                let first = if self.existing {
                    Objects::new()
                } else {
                    self.store.list(&self.prefix).await?
                };
                Seen::begin(&self.state, POSITION, first)?
            }
        };
        loop {
            let now = self.store.list(&self.prefix).await?;
            backoff.reset();
            let fresh: Vec<(String, Mark)> = (now.iter())
                .filter(|(name, mark)| !seen.has(name, mark))
                .map(|(name, mark)| (name.clone(), mark.clone()))
                .collect();
            let event = |name: &str, mark: &Mark, new| self.event(emitter, name, mark, new);
            seen.tell(emitter, &fresh, event).await?;
            seen.keep(&now)?;
            tokio::time::sleep(self.every).await;
        }
    }
}

impl Watcher {
    fn event(&self, emitter: &Emitter, name: &str, mark: &Mark, new: bool) -> CloudEvent {
        let bucket = self.store.bucket.name();
        let event_type = if new { "s3.object.created" } else { "s3.object.changed" };
        let id = message::short(format!("{bucket}/{name}@{}+{}", mark.etag, mark.modified));
        let data = serde_json::json!({
            "bucket": bucket, "key": name, "bytes": mark.bytes, "etag": mark.etag,
            "modified": mark.modified,
        });
        let time = mark.modified.parse().unwrap_or_else(|_| Timestamp::now());
        let mut event = emitter.event(id, event_type, time, Data::json(&data).ok());
        event.subject = Some(name.chars().filter(|letter| !letter.is_control()).collect());
        event
    }
}

struct Writer {
    store: Store,
    prefix: String,
    format: Format,
}

impl Writer {
    async fn put(&self, event: &CloudEvent) -> Result<(), Lost> {
        let Store { client, bucket, credentials } = &self.store;
        let name = format!("{}{}", self.prefix, message::file_name(event));
        let url = bucket.put_object(Some(credentials), &name).sign(VALID);
        let (kind, body) = self.format.write(event);
        // Said even of nothing, which services insist on.
        let length = body.len();
        let request = client.put(url).header("content-type", kind).header("content-length", length);
        let sent = request.body(body).send().await;
        answer(sent.map_err(|error| lost(error.without_url()))?).await.map(drop)
    }
}

impl Sink for Writer {
    fn publish<'a>(&'a self, event: &'a CloudEvent) -> BoxFuture<'a, Result<(), Unpublished>> {
        Box::pin(async move { self.put(event).await.map_err(Unpublished::from) })
    }
}
