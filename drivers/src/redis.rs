//! `redis`: entries of a stream, through a consumer group; `redis-sink`: events added to a stream.

use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::streams::{StreamAutoClaimReply, StreamId, StreamReadReply};
use ::redis::{Client, FromRedisValue, Value, cmd};
use dispatch_api::CloudEvent;
use dispatch_api::cloud_event::Data;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::Mutex;
use url::Url;

use crate::backoff::Backoff;
use crate::connect::{CA, FORMAT, Lost, PASSWORD, Session, USERNAME, lost, tls, url};
use crate::emitter::BATCH_EVENTS;
use crate::kind::Open;
use crate::message::{Format, Message};
use crate::{DriverType, Emitter, Error, Key, Settings, Sink, Unpublished};

const URL: Key =
    Key::addresses("url", "The server", &[("redis", 6379), ("rediss", 6380)]).required();
const STREAM: Key = Key::text("stream", "The key of the stream").required();

pub(crate) const SOURCE: DriverType = DriverType {
    name: "redis",
    about: "Emits the entries of a Redis stream, as a member of a consumer group",
    exposed: false,
    keys: &[
        URL,
        USERNAME,
        PASSWORD,
        CA,
        STREAM,
        Key::text("group", "The consumer group; made if it is not there").default("dispatch"),
        Key::text("from", "Where a group that is made begins")
            .one_of(&["new", "all"])
            .default("new"),
        Key::text("field", "The field that is the data; default: all of them, as an object"),
        Key::number(
            "idle",
            "Seconds after which another member's entries are taken over",
            1,
            86_400,
        )
        .default("300"),
        Key::text("type", "The events' `type`").default("redis.entry"),
    ],
    open: Open::Source(|settings| {
        Ok(Box::new(Entries {
            server: Server::of(settings)?,
            stream: settings.get("stream").to_owned(),
            group: settings.get("group").to_owned(),
            member: settings.name().to_owned(),
            start: if settings.get("from") == "all" { "0" } else { "$" },
            field: settings.maybe("field").map(str::to_owned),
            idle: settings.seconds("idle"),
            event_type: settings.get("type").to_owned(),
        }))
    }),
};

pub(crate) const SINK: DriverType = DriverType {
    name: "redis-sink",
    about: "Adds events to a Redis stream, in the fields `event` or `data`, and `content-type`",
    exposed: false,
    keys: &[
        URL,
        USERNAME,
        PASSWORD,
        CA,
        STREAM,
        Key::number("length", "About how many entries the stream keeps; default: all", 1, 1 << 40),
        FORMAT,
    ],
    open: Open::Sink(|settings| {
        Ok(Box::new(Adder {
            server: Server::of(settings)?,
            stream: settings.get("stream").to_owned(),
            length: settings.maybe("length").map(str::to_owned),
            format: Format::of(settings),
            connection: Mutex::default(),
        }))
    }),
};

/// How long one read waits for entries.
const BLOCK: Duration = Duration::from_secs(2);
/// How long anything else may take, and a read beyond its waiting.
const TIMEOUT: Duration = Duration::from_secs(10);

struct Server(Client);

impl Server {
    fn of(settings: &Settings) -> Result<Server, Error> {
        let url: Url = url(settings, "url")?;
        let wrong = |error: ::redis::RedisError| settings.wrong("url", &error.to_string());
        let client = if url.scheme() == "rediss" {
            let root_cert = settings.maybe("ca").map(|pem| pem.as_bytes().to_vec());
            // Looked at here, for what is wrong with it.
            tls(settings)?;
            let certificates = ::redis::TlsCertificates { client_tls: None, root_cert };
            Client::build_with_tls(url.as_str(), certificates).map_err(wrong)?
        } else {
            Client::open(url.as_str()).map_err(wrong)?
        };
        Ok(Server(client))
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Lost> {
        let config = ::redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(BLOCK + TIMEOUT));
        self.0.get_multiplexed_async_connection_with_config(&config).await.map_err(lost)
    }
}

struct Entries {
    server: Server,
    stream: String,
    group: String,
    member: String,
    start: &'static str,
    field: Option<String>,
    idle: Duration,
    event_type: String,
}

impl Session for Entries {
    const WHAT: &str = "redis";

    async fn session(&mut self, emitter: &Emitter, backoff: &mut Backoff) -> Result<(), Lost> {
        let mut to = self.server.connect().await?;
        let mut make = cmd("XGROUP");
        make.arg("CREATE").arg(&self.stream).arg(&self.group).arg(self.start).arg("MKSTREAM");
        match make.query_async::<()>(&mut to).await {
            Err(error) if error.code() != Some("BUSYGROUP") => return Err(lost(error)),
            _ => backoff.reset(),
        }
        tracing::info!("reading {:?} as {:?} of group {:?}", self.stream, self.member, self.group);
        // What was given to us before and never acknowledged.
        let mut after = "0".to_owned();
        loop {
            let entries = self.read(&mut to, &after).await?;
            let Some(last) = entries.last() else { break };
            after.clone_from(&last.id);
            self.settle(&mut to, emitter, &entries).await?;
        }
        let mut looked: Option<Instant> = None;
        loop {
            if looked.is_none_or(|looked| looked.elapsed() > self.idle) {
                looked = Some(Instant::now());
                self.take_over(&mut to, emitter).await?;
            }
            let entries = self.read(&mut to, ">").await?;
            self.settle(&mut to, emitter, &entries).await?;
        }
    }
}

impl Entries {
    async fn read(
        &self,
        to: &mut MultiplexedConnection,
        after: &str,
    ) -> Result<Vec<StreamId>, Lost> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.member).arg("COUNT").arg(BATCH_EVENTS);
        read.arg("BLOCK").arg(u64::try_from(BLOCK.as_millis()).unwrap_or(1));
        read.arg("STREAMS").arg(&self.stream).arg(after);
        let reply: Option<StreamReadReply> = read.query_async(to).await.map_err(lost)?;
        Ok(reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids).collect())
    }

    /// Entries of members that are gone.
    async fn take_over(
        &self,
        to: &mut MultiplexedConnection,
        emitter: &Emitter,
    ) -> Result<(), Lost> {
        let idle = u64::try_from(self.idle.as_millis()).unwrap_or(u64::MAX);
        let mut next = "0-0".to_owned();
        loop {
            let mut claim = cmd("XAUTOCLAIM");
            claim.arg(&self.stream).arg(&self.group).arg(&self.member).arg(idle).arg(&next);
            let reply: StreamAutoClaimReply =
                claim.arg("COUNT").arg(BATCH_EVENTS).query_async(to).await.map_err(lost)?;
            self.settle(to, emitter, &reply.claimed).await?;
            if reply.next_stream_id == "0-0" {
                return Ok(());
            }
            next = reply.next_stream_id;
        }
    }

    async fn settle(
        &self,
        to: &mut MultiplexedConnection,
        emitter: &Emitter,
        entries: &[StreamId],
    ) -> Result<(), Lost> {
        if entries.is_empty() {
            return Ok(());
        }
        // An entry without fields was removed from the stream meanwhile.
        let there = entries.iter().filter(|entry| !entry.map.is_empty());
        let events: Vec<CloudEvent> = there.map(|entry| self.event(emitter, entry)).collect();
        emitter.emit_all(&events).await?;
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        let mut ack = cmd("XACK");
        ack.arg(&self.stream).arg(&self.group).arg(ids).query_async::<()>(to).await.map_err(lost)
    }

    fn event(&self, emitter: &Emitter, entry: &StreamId) -> CloudEvent {
        let time = entry.id.split('-').next().and_then(|millis| millis.parse().ok());
        let time = time.and_then(|millis| Timestamp::from_millisecond(millis).ok());
        let text = |value: &Value| String::from_redis_value_ref(value).ok();
        let id = format!("{}/{}", self.stream, entry.id);
        let field = self.field.as_ref().and_then(|name| entry.map.get(name));
        if let Some(Value::BulkString(body)) = field {
            let texts: Vec<(&String, String)> =
                entry.map.iter().filter_map(|(name, value)| Some((name, text(value)?))).collect();
            let content_type = texts.iter().find(|(name, _)| *name == "content-type");
            return Message {
                id,
                subject: Some(&self.stream),
                time,
                headers: texts
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect(),
                content_type: content_type.map(|(_, value)| value.as_str()),
                body,
            }
            .into_event(emitter, &self.event_type);
        }
        let fields: serde_json::Map<String, serde_json::Value> = (entry.map.iter())
            .map(|(name, value)| (name.clone(), text(value).unwrap_or_default().into()))
            .collect();
        let time = time.unwrap_or_else(Timestamp::now);
        let mut event = emitter.event(
            crate::message::short(id),
            &self.event_type,
            time,
            Data::json(&fields).ok(),
        );
        event.subject = Some(self.stream.clone());
        event
    }
}

struct Adder {
    server: Server,
    stream: String,
    length: Option<String>,
    format: Format,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Adder {
    async fn add(&self, event: &CloudEvent) -> Result<(), Lost> {
        let known = self.connection.lock().await.clone();
        let mut to = match known {
            Some(known) => known,
            None => self.server.connect().await?,
        };
        let (kind, body) = self.format.write(event);
        let mut add = cmd("XADD");
        add.arg(&self.stream);
        if let Some(length) = &self.length {
            add.arg("MAXLEN").arg("~").arg(length);
        }
        let field = match self.format {
            Format::Event => "event",
            Format::Data => "data",
        };
        add.arg("*").arg(field).arg(body).arg("content-type").arg(kind);
        let added = add.query_async::<()>(&mut to).await;
        *self.connection.lock().await = added.is_ok().then_some(to);
        added.map_err(lost)
    }
}

impl Sink for Adder {
    fn publish<'a>(&'a self, event: &'a CloudEvent) -> BoxFuture<'a, Result<(), Unpublished>> {
        Box::pin(async move { self.add(event).await.map_err(Unpublished::from) })
    }
}
