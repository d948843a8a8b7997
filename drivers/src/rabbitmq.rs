//! `rabbitmq`: messages of a queue; `rabbitmq-sink`: the other way.

use std::time::Duration;

use dispatch_api::CloudEvent;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};
use tokio::sync::Mutex;
use url::Url;

use crate::backoff::Backoff;
use crate::connect::{CA, FORMAT, Lost, PASSWORD, Session, USERNAME, lost, tls, url};
use crate::emitter::BATCH_EVENTS;
use crate::kind::Open;
use crate::message::{Format, Message};
use crate::{DriverType, Emitter, Error, Key, Settings, Sink, Unpublished, Verdict};

const URL: Key =
    Key::addresses("url", "The broker: `amqp://host/vhost`", &[("amqp", 5672), ("amqps", 5671)])
        .required();

pub(crate) const SOURCE: DriverType = DriverType {
    name: "rabbitmq",
    about: "Emits the messages of a RabbitMQ queue",
    exposed: false,
    keys: &[
        URL,
        USERNAME,
        PASSWORD,
        CA,
        Key::text("queue", "The queue; made, durable, if it is not there").required(),
        Key::text(
            "exchange",
            "A topic exchange to bind the queue to; made, durable, if it is not there",
        ),
        Key::text("routing-key", "What to bind it with").default("#"),
        Key::number("prefetch", "Messages at once that are not acknowledged", 1, 10_000)
            .default("100"),
        Key::flag("park", "Reject what the server refuses, to the queue's dead letter exchange"),
        Key::text("type", "The events' `type`").default("rabbitmq.message"),
    ],
    open: Open::Source(|settings| {
        Ok(Box::new(Messages {
            server: Server::of(settings)?,
            queue: settings.get("queue").to_owned(),
            exchange: settings.maybe("exchange").map(str::to_owned),
            routing_key: settings.get("routing-key").to_owned(),
            prefetch: settings.number("prefetch"),
            park: settings.is_on("park"),
            event_type: settings.get("type").to_owned(),
        }))
    }),
};

pub(crate) const SINK: DriverType = DriverType {
    name: "rabbitmq-sink",
    about: "Publishes events to a RabbitMQ exchange, and waits until the broker has each",
    exposed: false,
    keys: &[
        URL,
        USERNAME,
        PASSWORD,
        CA,
        Key::text(
            "exchange",
            "The exchange; default: the one that leads to the queue named by the routing key",
        ),
        Key::text("routing-key", "The routing key; default: the event's `type`"),
        FORMAT,
    ],
    open: Open::Sink(|settings| {
        Ok(Box::new(Publisher {
            server: Server::of(settings)?,
            exchange: settings.get("exchange").to_owned(),
            routing_key: settings.maybe("routing-key").map(str::to_owned),
            format: Format::of(settings),
            channel: Mutex::default(),
        }))
    }),
};

const TIMEOUT: Duration = Duration::from_secs(10);

struct Server {
    url: Url,
    name: String,
    ca: Option<String>,
}

impl Server {
    fn of(settings: &Settings) -> Result<Server, Error> {
        let mut url = url(settings, "url")?;
        // The usual virtual host is named "/".
        if ["", "/"].contains(&url.path()) {
            url.set_path("/%2f");
        }
        // Looked at here, for what is wrong with it.
        tls(settings)?;
        let ca = settings.maybe("ca").map(str::to_owned);
        Ok(Server { url, name: settings.name().to_owned(), ca })
    }

    async fn connect(&self) -> Result<(Connection, Channel), Lost> {
        let properties =
            ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let tls = OwnedTLSConfig { identity: None, cert_chain: self.ca.clone() };
        let runtime = lapin::runtime::default_runtime().map_err(lost)?;
        let connecting =
            Connection::connect_with_config(self.url.as_str(), properties, tls, runtime);
        let connection =
            tokio::time::timeout(TIMEOUT, connecting).await.map_err(lost)?.map_err(lost)?;
        let channel = connection.create_channel().await.map_err(lost)?;
        Ok((connection, channel))
    }
}

struct Messages {
    server: Server,
    queue: String,
    exchange: Option<String>,
    routing_key: String,
    prefetch: u16,
    park: bool,
    event_type: String,
}

impl Session for Messages {
    const WHAT: &str = "rabbitmq";

    async fn session(&mut self, emitter: &Emitter, backoff: &mut Backoff) -> Result<(), Lost> {
        let (_connection, mut channel) = self.server.connect().await?;
        let queue = self.queue.as_str();
        let there = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        if channel.queue_declare(queue.into(), there, FieldTable::default()).await.is_err() {
            // What is asked for in vain closes the channel.
            channel = _connection.create_channel().await.map_err(lost)?;
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            channel
                .queue_declare(queue.into(), durable, FieldTable::default())
                .await
                .map_err(lost)?;
        }
        if let Some(exchange) = &self.exchange {
            let durable =
                ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let (name, kind) = (exchange.as_str(), ExchangeKind::Topic);
            channel
                .exchange_declare(name.into(), kind, durable, FieldTable::default())
                .await
                .map_err(lost)?;
            let (key, options) = (self.routing_key.as_str(), QueueBindOptions::default());
            channel
                .queue_bind(queue.into(), name.into(), key.into(), options, FieldTable::default())
                .await
                .map_err(lost)?;
        }
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await.map_err(lost)?;
        let consumer = channel
            .basic_consume(
                queue.into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(lost)?;
        backoff.reset();
        tracing::info!("reading queue {queue:?}");
        let mut chunks = consumer.ready_chunks(BATCH_EVENTS);
        while let Some(chunk) = chunks.next().await {
            let some: Vec<Delivery> = chunk.into_iter().collect::<Result<_, _>>().map_err(lost)?;
            let events: Vec<CloudEvent> =
                some.iter().map(|message| self.event(emitter, message)).collect();
            let verdicts = emitter.emit_all(&events).await?;
            for (message, verdict) in some.iter().zip(verdicts) {
                let settled = if verdict == Verdict::Refused && self.park {
                    let options = BasicNackOptions { requeue: false, multiple: false };
                    message.nack(options).await
                } else {
                    message.ack(BasicAckOptions::default()).await
                };
                settled.map_err(lost)?;
            }
        }
        Err(Lost::Connection("the connection is lost".into()))
    }
}

impl Messages {
    fn event(&self, emitter: &Emitter, message: &Delivery) -> CloudEvent {
        let properties = &message.properties;
        let header = |value: &AMQPValue| match value {
            AMQPValue::LongString(text) => Some(text.to_string()),
            AMQPValue::ShortString(text) => Some(text.to_string()),
            _ => None,
        };
        let headers: Vec<(String, String)> = (properties.headers().iter())
            .flat_map(FieldTable::inner)
            .filter_map(|(name, value)| Some((name.to_string(), header(value)?)))
            .collect();
        // The publisher's id, if it gave one. Queues have no positions: without it, what comes again
        // after a crash is another event.
        let id = match properties.message_id() {
            Some(id) => format!("{}/{id}", self.queue),
            None => uuid::Uuid::now_v7().to_string(),
        };
        let time = properties.timestamp().and_then(|second| i64::try_from(second).ok());
        Message {
            id,
            subject: Some(message.routing_key.as_str()),
            time: time.and_then(|second| Timestamp::from_second(second).ok()),
            headers: headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            content_type: properties.content_type().as_ref().map(ShortString::as_str),
            body: &message.data,
        }
        .into_event(emitter, &self.event_type)
    }
}

struct Publisher {
    server: Server,
    exchange: String,
    routing_key: Option<String>,
    format: Format,
    channel: Mutex<Option<(Connection, Channel)>>,
}

impl Publisher {
    async fn channel(&self) -> Result<Channel, Lost> {
        let mut held = self.channel.lock().await;
        if let Some((_, channel)) = &*held
            && channel.status().connected()
        {
            return Ok(channel.clone());
        }
        let (connection, channel) = self.server.connect().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(lost)?;
        *held = Some((connection, channel.clone()));
        Ok(channel)
    }

    async fn send(&self, event: &CloudEvent) -> Result<(), Unpublished> {
        let channel = self.channel().await?;
        let (kind, body) = self.format.write(event);
        let properties = BasicProperties::default()
            .with_content_type(kind.into())
            .with_message_id(crate::message::file_name(event).into())
            .with_delivery_mode(2);
        let key = self.routing_key.as_deref().unwrap_or(&event.event_type);
        // What leads to no queue comes back: nobody would have it.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirmed = async {
            let exchange = self.exchange.as_str();
            let sent =
                channel.basic_publish(exchange.into(), key.into(), options, &body, properties);
            sent.await?.await
        };
        let confirmed = tokio::time::timeout(TIMEOUT, confirmed).await.map_err(lost)?;
        match confirmed.map_err(lost)? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => {
                Err(Unpublished::Later(format!("no queue is bound for routing key {key:?}")))
            }
            _ => Err(Unpublished::Later("the broker does not take it".into())),
        }
    }
}

impl Sink for Publisher {
    fn publish<'a>(&'a self, event: &'a CloudEvent) -> BoxFuture<'a, Result<(), Unpublished>> {
        Box::pin(self.send(event))
    }
}
