//! `kafka`: records of topics, as a member of a consumer group; `kafka-sink`: the other way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dispatch_api::CloudEvent;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use krafka::auth::{AuthConfig, TlsConfig};
use krafka::consumer::{
    AutoOffsetReset, Consumer, ConsumerRecord, GroupProtocol, OffsetAndMetadata, TopicPartition,
};
use krafka::producer::Producer;
use krafka::{Kafka, Record};
use tokio::sync::OnceCell;

use crate::backoff::Backoff;
use crate::connect::{CA, FORMAT, Lost, PASSWORD, Session, USERNAME, lost, tls, urls};
use crate::emitter::BATCH_EVENTS;
use crate::kind::Open;
use crate::message::{Format, Message};
use crate::{DriverType, Emitter, Error, Key, Settings, Sink, Unpublished};

const BROKERS: Key = Key::addresses(
    "brokers",
    "The brokers, all of them; `kafkas` is with TLS",
    &[("kafka", 9092), ("kafkas", 9093)],
)
.required();
const SASL: Key = Key::text("sasl", "How the password is shown, where there is one")
    .one_of(&["plain", "scram-sha-256", "scram-sha-512"])
    .default("plain");

pub(crate) const SOURCE: DriverType = DriverType {
    name: "kafka",
    about: "Emits the records of Kafka topics, as a member of a consumer group",
    exposed: false,
    keys: &[
        BROKERS,
        USERNAME,
        PASSWORD,
        SASL,
        CA,
        Key::text("topic", "Topics, with commas between them").required(),
        Key::text("group", "The consumer group").default("dispatch"),
        Key::text("from", "Where a group without offsets begins")
            .one_of(&["new", "all"])
            .default("new"),
        Key::text("protocol", "How groups find together: `consumer` needs Kafka 4")
            .one_of(&["classic", "consumer"])
            .default("classic"),
        Key::text("type", "The events' `type`").default("kafka.record"),
    ],
    open: Open::Source(|settings| {
        let topics = settings.get("topic").split(',').map(|topic| topic.trim().to_owned());
        Ok(Box::new(Records {
            cluster: Cluster::of(settings)?,
            topics: topics.collect(),
            group: settings.get("group").to_owned(),
            all: settings.get("from") == "all",
            modern: settings.get("protocol") == "consumer",
            event_type: settings.get("type").to_owned(),
            consumer: None,
        }))
    }),
};

pub(crate) const SINK: DriverType = DriverType {
    name: "kafka-sink",
    about: "Writes events to a Kafka topic, and waits until all replicas in sync have each",
    exposed: false,
    keys: &[
        BROKERS,
        USERNAME,
        PASSWORD,
        SASL,
        CA,
        Key::text("topic", "The topic").required(),
        Key::text("key", "The attribute that is the record's key").default("subject"),
        FORMAT,
    ],
    open: Open::Sink(|settings| {
        Ok(Box::new(Writer {
            cluster: Cluster::of(settings)?,
            topic: settings.get("topic").to_owned(),
            key: settings.get("key").to_owned(),
            format: Format::of(settings),
            producer: OnceCell::new(),
        }))
    }),
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// How long one request waits for records.
const WAIT: Duration = Duration::from_secs(2);
/// How long leaving the group may take.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long nothing may be heard of the driver before the group goes on without it. After a loss of the
/// connection the driver comes back as somebody else, and waits that long for itself.
const SILENCE: Duration = Duration::from_secs(10);
/// How long the server may be away before the group gives the partitions to another member.
const PATIENCE: Duration = Duration::from_secs(1800);

struct Cluster {
    brokers: String,
    security: AuthConfig,
    name: String,
}

impl Cluster {
    fn of(settings: &Settings) -> Result<Cluster, Error> {
        let urls = urls(settings, "brokers")?;
        let with_tls = urls.iter().any(|url| url.scheme() == "kafkas");
        let place = |url: &url::Url| {
            Some(format!("{}:{}", url.host_str()?, url.port().unwrap_or_default()))
        };
        let brokers: Vec<String> = urls.iter().filter_map(place).collect();
        let mut security = match settings.maybe("username") {
            None => AuthConfig::plaintext(),
            Some(name) => {
                let password = settings.get("password");
                match settings.get("sasl") {
                    "scram-sha-256" => AuthConfig::sasl_scram_sha256(name, password),
                    "scram-sha-512" => AuthConfig::sasl_scram_sha512(name, password),
                    _ => AuthConfig::sasl_plain(name, password),
                }
            }
        };
        if with_tls {
            // Looked at here, for what is wrong with it.
            tls(settings)?;
            let mut config = TlsConfig::new();
            if let Some(pem) = settings.maybe("ca") {
                config = config.with_ca_cert_pem(pem);
            }
            security = match settings.maybe("username") {
                None => AuthConfig::ssl(config),
                Some(_) => security.with_tls(config),
            };
        }
        Ok(Cluster { brokers: brokers.join(","), security, name: settings.name().to_owned() })
    }

    async fn connect(&self) -> Result<Kafka, Lost> {
        let kafka = Kafka::builder(self.brokers.clone())
            .client_id(&self.name)
            .security(self.security.clone())
            .connect_timeout(TIMEOUT);
        tokio::time::timeout(TIMEOUT * 2, kafka.connect()).await.map_err(lost)?.map_err(lost)
    }
}

struct Records {
    cluster: Cluster,
    topics: Vec<String>,
    group: String,
    all: bool,
    modern: bool,
    event_type: String,
    consumer: Option<Arc<Consumer>>,
}

impl Session for Records {
    const WHAT: &str = "kafka";

    async fn session(&mut self, emitter: &Emitter, backoff: &mut Backoff) -> Result<(), Lost> {
        let kafka = self.cluster.connect().await?;
        let consumer = kafka
            .consumer(&self.group)
            .enable_auto_commit(false)
            .auto_offset_reset(if self.all {
                AutoOffsetReset::Earliest
            } else {
                AutoOffsetReset::Latest
            })
            .group_protocol(if self.modern {
                GroupProtocol::Consumer
            } else {
                GroupProtocol::Classic
            })
            .max_poll_records(i32::try_from(BATCH_EVENTS).unwrap_or(100))
            .max_poll_interval(PATIENCE)
            .session_timeout(SILENCE)
            .heartbeat_interval(SILENCE / 3)
            .build()
            .await
            .map_err(lost)?;
        consumer.subscribe(&self.topics).await.map_err(lost)?;
        tracing::info!("reading {:?} in group {:?}", self.topics, self.group);
        let consumer = self.consumer.insert(Arc::new(consumer)).clone();
        loop {
            let records = consumer.poll(WAIT).await.map_err(lost)?;
            backoff.reset();
            if records.is_empty() {
                continue;
            }
            let events: Vec<CloudEvent> =
                records.iter().map(|record| self.event(emitter, record)).collect();
            emitter.emit_all(&events).await?;
            let mut next = BTreeMap::new();
            for record in &records {
                next.insert((record.topic.as_ref(), record.partition), record.offset + 1);
            }
            let next = next.into_iter().map(|((topic, partition), offset)| {
                (TopicPartition::new(topic, partition), OffsetAndMetadata::new(offset))
            });
            consumer.commit_offsets(next.collect::<Vec<_>>()).await.map_err(lost)?;
        }
    }

    /// Leaves the group, so that another member can go on at once.
    async fn leave(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            // Where the connection is lost there is nobody to tell.
            let _ = tokio::time::timeout(FAREWELL, consumer.close()).await;
        }
    }
}

impl Records {
    fn event(&self, emitter: &Emitter, record: &ConsumerRecord) -> CloudEvent {
        let headers: Vec<(&str, String)> = (record.headers.iter())
            .filter_map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_ref()?).into_owned();
                Some((name.as_str(), value))
            })
            .collect();
        let content_type =
            headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let key = record.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned());
        Message {
            id: format!("{}/{}/{}", record.topic, record.partition, record.offset),
            subject: key.as_deref().or(Some(&record.topic)),
            time: Timestamp::from_millisecond(record.timestamp).ok(),
            content_type: content_type.map(|(_, value)| value.as_str()),
            headers: headers.iter().map(|(name, value)| (*name, value.as_str())).collect(),
            body: record.value.as_deref().unwrap_or_default(),
        }
        .into_event(emitter, &self.event_type)
    }
}

struct Writer {
    cluster: Cluster,
    topic: String,
    key: String,
    format: Format,
    /// It connects again by itself.
    producer: OnceCell<Producer>,
}

impl Writer {
    async fn send(&self, event: &CloudEvent) -> Result<(), Lost> {
        let producer = self
            .producer
            .get_or_try_init(|| async {
                self.cluster.connect().await?.producer().build().await.map_err(lost)
            })
            .await?;
        let (kind, body) = self.format.write(event);
        let mut record =
            Record::new(self.topic.as_str(), body).header("content-type", kind.into_bytes());
        if let Some(key) = event.attribute(&self.key) {
            record = record.key(key.into_owned());
        }
        let sent = tokio::time::timeout(TIMEOUT * 3, producer.send(record)).await;
        sent.map_err(lost)?.map_err(lost).map(drop)
    }
}

impl Sink for Writer {
    fn publish<'a>(&'a self, event: &'a CloudEvent) -> BoxFuture<'a, Result<(), Unpublished>> {
        Box::pin(async move { self.send(event).await.map_err(Unpublished::from) })
    }
}
