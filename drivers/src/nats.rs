//! `nats`: messages of a JetStream stream, or of plain NATS; `nats-sink`: the other way.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{self, AckKind};
use async_nats::{Client, ConnectOptions, HeaderMap, ServerAddr};
use dispatch_api::CloudEvent;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::OnceCell;

use crate::backoff::Backoff;
use crate::connect::{CA, FORMAT, Lost, PASSWORD, Session, USERNAME, lost, tls, urls};
use crate::emitter::BATCH_EVENTS;
use crate::kind::Open;
use crate::message::{Format, Message};
use crate::{DriverType, Emitter, Error, Key, Settings, Sink, Unpublished, Verdict};

const URL: Key = Key::addresses("url", "The servers", &[("nats", 4222), ("tls", 4222)]).required();
const TOKEN: Key = Key::text("nats-token", "A token, instead of a password").secret();
const CREDENTIALS: Key = Key::text("credentials", "What a `.creds` file holds").secret();

pub(crate) const SOURCE: DriverType = DriverType {
    name: "nats",
    about: "Emits messages of NATS: of a JetStream stream if one is named, else as they come by",
    exposed: false,
    keys: &[
        URL,
        USERNAME,
        PASSWORD,
        TOKEN,
        CREDENTIALS,
        CA,
        Key::text("subject", "The subject, with `*` and `>`; with a stream: only these messages"),
        Key::text("stream", "The stream; it must be there"),
        Key::text("consumer", "The stream's durable consumer; made if it is not there")
            .default("dispatch"),
        Key::text("from", "Where a consumer that is made begins")
            .one_of(&["new", "all"])
            .default("new"),
        Key::number("wait", "Seconds until a message that is not settled comes again", 5, 3600)
            .default("60"),
        Key::text("queue", "Without a stream: the queue group"),
        Key::text("type", "The events' `type`").default("nats.message"),
    ],
    open: Open::Source(|settings| {
        let stream = settings.maybe("stream").map(str::to_owned);
        if stream.is_none() && settings.maybe("subject").is_none() {
            return Err(settings.wrong("subject", "is missing: name a subject or a stream"));
        }
        Ok(Box::new(Messages {
            server: Server::of(settings)?,
            stream,
            subject: settings.maybe("subject").map(str::to_owned),
            consumer: settings.get("consumer").to_owned(),
            all: settings.get("from") == "all",
            wait: settings.seconds("wait"),
            queue: settings.maybe("queue").map(str::to_owned),
            event_type: settings.get("type").to_owned(),
        }))
    }),
};

pub(crate) const SINK: DriverType = DriverType {
    name: "nats-sink",
    about: "Publishes events to NATS; with `jetstream`, a stream has to confirm each",
    exposed: false,
    keys: &[
        URL,
        USERNAME,
        PASSWORD,
        TOKEN,
        CREDENTIALS,
        CA,
        Key::text("subject", "The subject").required(),
        Key::flag("jetstream", "Wait for a stream; the same event twice is then written once"),
        FORMAT,
    ],
    open: Open::Sink(|settings| {
        Ok(Box::new(Publisher {
            server: Server::of(settings)?,
            subject: settings.get("subject").to_owned(),
            jetstream: settings.is_on("jetstream"),
            format: Format::of(settings),
            client: OnceCell::new(),
        }))
    }),
};

/// How long the server may take for anything.
const TIMEOUT: Duration = Duration::from_secs(10);

struct Server {
    addresses: Vec<ServerAddr>,
    options: ConnectOptions,
}

impl Server {
    fn of(settings: &Settings) -> Result<Server, Error> {
        let urls = urls(settings, "url")?;
        let addresses: Result<Vec<ServerAddr>, _> =
            urls.iter().map(|url| url.as_str().parse()).collect();
        let addresses = addresses.map_err(|error| settings.wrong("url", &error.to_string()))?;
        let mut options = ConnectOptions::new()
            .name(settings.name())
            .connection_timeout(TIMEOUT)
            .request_timeout(Some(TIMEOUT))
            // Only what was named can be reached.
            .ignore_discovered_servers()
            .tls_client_config(tls(settings)?);
        if let (Some(name), Some(password)) =
            (settings.maybe("username"), settings.maybe("password"))
        {
            options = options.user_and_password(name.to_owned(), password.to_owned());
        }
        if let Some(token) = settings.maybe("nats-token") {
            options = options.token(token.to_owned());
        }
        if let Some(text) = settings.maybe("credentials") {
            options = options
                .credentials(text)
                .map_err(|error| settings.wrong("credentials", &error.to_string()))?;
        }
        Ok(Server { addresses, options })
    }

    async fn connect(&self) -> Result<Client, Lost> {
        self.options.clone().connect(self.addresses.as_slice()).await.map_err(lost)
    }
}

struct Messages {
    server: Server,
    stream: Option<String>,
    subject: Option<String>,
    consumer: String,
    all: bool,
    wait: Duration,
    queue: Option<String>,
    event_type: String,
}

impl Session for Messages {
    const WHAT: &str = "nats";

    async fn session(&mut self, emitter: &Emitter, backoff: &mut Backoff) -> Result<(), Lost> {
        match &self.stream {
            Some(stream) => self.stream(stream, emitter, backoff).await,
            None => self.plain(emitter, backoff).await,
        }
    }
}

impl Messages {
    async fn stream(
        &self,
        name: &str,
        emitter: &Emitter,
        backoff: &mut Backoff,
    ) -> Result<(), Lost> {
        let context = jetstream::new(self.server.connect().await?);
        let stream = context.get_stream(name).await.map_err(lost)?;
        let config = pull::Config {
            durable_name: Some(self.consumer.clone()),
            filter_subject: self.subject.clone().unwrap_or_default(),
            deliver_policy: if self.all { DeliverPolicy::All } else { DeliverPolicy::New },
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.wait,
            ..pull::Config::default()
        };
        let consumer = stream.get_or_create_consumer(&self.consumer, config).await.map_err(lost)?;
        tracing::info!("reading stream {name:?} as consumer {:?}", self.consumer);
        loop {
            let fetch = consumer.fetch().max_messages(BATCH_EVENTS).expires(Duration::from_secs(2));
            let mut batch = fetch.messages().await.map_err(lost)?;
            let mut messages = Vec::new();
            while let Some(message) = batch.next().await {
                messages.push(message.map_err(|error| Lost::Connection(error.to_string()))?);
            }
            backoff.reset();
            if messages.is_empty() {
                // Where the server is away, this comes at once.
                if context.client().connection_state() != async_nats::connection::State::Connected {
                    return Err(Lost::Connection("the connection is lost".into()));
                }
                continue;
            }
            let mut events = Vec::with_capacity(messages.len());
            for message in &messages {
                let info = message.info().map_err(|error| Lost::Connection(error.to_string()))?;
                let id = format!("{name}/{}", info.stream_sequence);
                let time = Timestamp::from_nanosecond(info.published.unix_timestamp_nanos()).ok();
                events.push(self.event(emitter, &message.message, id, time));
            }
            let verdicts = emitter.emit_all(&events).await?;
            for (message, verdict) in messages.iter().zip(verdicts) {
                let kind = match verdict {
                    Verdict::Accepted => AckKind::Ack,
                    Verdict::Refused => AckKind::Term,
                };
                message
                    .ack_with(kind)
                    .await
                    .map_err(|error| Lost::Connection(error.to_string()))?;
            }
        }
    }

    /// Nobody keeps these: what comes by while the driver is away is not seen.
    async fn plain(&self, emitter: &Emitter, backoff: &mut Backoff) -> Result<(), Lost> {
        let client = self.server.connect().await?;
        let subject = self.subject.clone().unwrap_or_default();
        let subscribed = match &self.queue {
            Some(queue) => client.queue_subscribe(subject, queue.clone()).await,
            None => client.subscribe(subject).await,
        };
        let mut messages = subscribed.map_err(lost)?.ready_chunks(BATCH_EVENTS);
        client.flush().await.map_err(lost)?;
        backoff.reset();
        tracing::info!("listening to {:?}", self.subject);
        while let Some(some) = messages.next().await {
            let events: Vec<CloudEvent> = (some.iter())
                .map(|message| {
                    let given = message.headers.as_ref().and_then(|all| all.get("Nats-Msg-Id"));
                    let id = given.map_or_else(
                        || uuid::Uuid::now_v7().to_string(),
                        |id| id.as_str().to_owned(),
                    );
                    self.event(emitter, message, id, None)
                })
                .collect();
            emitter.emit_all(&events).await?;
        }
        Err(Lost::Connection("the subscription ended".into()))
    }

    fn event(
        &self,
        emitter: &Emitter,
        message: &async_nats::Message,
        id: String,
        time: Option<Timestamp>,
    ) -> CloudEvent {
        let headers: Vec<(&str, &str)> = (message.headers.iter())
            .flat_map(HeaderMap::iter)
            .filter_map(|(name, values)| Some((name.as_ref(), values.first()?.as_str())))
            .collect();
        let content_type =
            headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        Message {
            id,
            subject: Some(message.subject.as_str()),
            time,
            content_type: content_type.map(|(_, value)| *value),
            headers,
            body: &message.payload,
        }
        .into_event(emitter, &self.event_type)
    }
}

struct Publisher {
    server: Server,
    subject: String,
    jetstream: bool,
    format: Format,
    /// It connects again by itself.
    client: OnceCell<Client>,
}

impl Publisher {
    async fn send(&self, event: &CloudEvent) -> Result<(), Lost> {
        let client = self.client.get_or_try_init(|| self.server.connect()).await?;
        let (kind, body) = self.format.write(event);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", kind.as_str());
        if self.jetstream {
            headers.insert("Nats-Msg-Id", crate::message::file_name(event).as_str());
            let context = jetstream::new(client.clone());
            let sent =
                context.publish_with_headers(self.subject.clone(), headers, body.into()).await;
            sent.map_err(lost)?.await.map(drop).map_err(lost)
        } else {
            let sent =
                client.publish_with_headers(self.subject.clone(), headers, body.into()).await;
            sent.map_err(lost)?;
            let flushed = tokio::time::timeout(TIMEOUT, client.flush()).await.map_err(lost)?;
            flushed.map_err(lost)
        }
    }
}

impl Sink for Publisher {
    fn publish<'a>(&'a self, event: &'a CloudEvent) -> BoxFuture<'a, Result<(), Unpublished>> {
        Box::pin(async move { self.send(event).await.map_err(Unpublished::from) })
    }
}
