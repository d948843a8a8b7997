//! `mqtt`: messages of topics, of MQTT 5; `mqtt-sink`: the other way.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use dispatch_api::CloudEvent;
use futures_util::future::BoxFuture;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{Packet, Publish, PublishProperties};
use rumqttc::{
    AckMode, AsyncClient, BrokerSessionResumePolicy, Event, EventLoop, MqttOptions, PublishOptions,
    SessionMode, TlsConfiguration, Transport,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::backoff::Backoff;
use crate::connect::{CA, FORMAT, Lost, PASSWORD, Session, USERNAME, lost, tls, url};
use crate::emitter::BATCH_EVENTS;
use crate::kind::Open;
use crate::message::{Format, Message, hex};
use crate::state::State;
use crate::{DriverType, Emitter, Error, Key, Settings, Sink, Unpublished};

const URL: Key = Key::addresses("url", "The broker", &[("mqtt", 1883), ("mqtts", 8883)]).required();
const CLIENT: Key = Key::text("client-id", "The client's id; default: the driver's name");

pub(crate) const SOURCE: DriverType = DriverType {
    name: "mqtt",
    about: "Emits the messages of MQTT topics, through a session that the broker keeps",
    exposed: false,
    keys: &[
        URL,
        USERNAME,
        PASSWORD,
        CA,
        CLIENT,
        Key::text("topic", "Topics, with `+` and `#`, and commas between them").required(),
        Key::number(
            "expiry",
            "Seconds that the broker keeps the session of a driver that is away",
            0,
            4_294_967_294,
        )
        .default("86400"),
        Key::text("type", "The events' `type`").default("mqtt.message"),
    ],
    open: Open::Source(|settings| {
        let topics = settings.get("topic").split(',').map(|topic| topic.trim().to_owned());
        Ok(Box::new(Messages {
            server: Server::of(settings)?,
            topics: topics.collect(),
            expiry: settings.number("expiry"),
            event_type: settings.get("type").to_owned(),
            state: settings.state()?,
            known: None,
        }))
    }),
};

pub(crate) const SINK: DriverType = DriverType {
    name: "mqtt-sink",
    about: "Publishes events to an MQTT topic, and waits until the broker has each",
    exposed: false,
    keys: &[
        URL,
        USERNAME,
        PASSWORD,
        CA,
        CLIENT,
        Key::text("topic", "The topic").required(),
        Key::flag("retain", "The broker keeps the last one for whoever comes later"),
        FORMAT,
    ],
    open: Open::Sink(|settings| {
        Ok(Box::new(Publisher {
            server: Server::of(settings)?,
            topic: settings.get("topic").to_owned(),
            retain: settings.is_on("retain"),
            format: Format::of(settings),
            connection: Mutex::default(),
        }))
    }),
};

/// Messages that the broker sends before one is acknowledged.
const IN_FLIGHT: u16 = 100;
const KEEP_ALIVE: u16 = 20;
const MAX_PACKET: u32 = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);
const UNSETTLED: &str = "mqtt.json";

struct Server {
    url: Url,
    name: String,
    credentials: Option<(String, String)>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Server {
    fn of(settings: &Settings) -> Result<Server, Error> {
        let url = url(settings, "url")?;
        let tls = if url.scheme() == "mqtts" { Some(Arc::new(tls(settings)?)) } else { None };
        let credentials = settings
            .maybe("username")
            .map(|name| (name.to_owned(), settings.get("password").to_owned()));
        let name = settings.maybe("client-id").unwrap_or(settings.name()).to_owned();
        Ok(Server { url, name, credentials, tls })
    }

    fn options(&self) -> MqttOptions {
        let host = self.url.host_str().unwrap_or_default().to_owned();
        let mut options = MqttOptions::new(&self.name, (host, self.url.port().unwrap_or(1883)));
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_connect_timeout(TIMEOUT)
            .set_max_packet_size(Some(MAX_PACKET))
            .set_receive_maximum(Some(IN_FLIGHT));
        if let Some((name, password)) = &self.credentials {
            options.set_credentials(name, password.clone());
        }
        if let Some(tls) = &self.tls {
            options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::clone(tls))));
        }
        options
    }
}

struct Messages {
    server: Server,
    topics: Vec<String>,
    expiry: u32,
    event_type: String,
    state: State,
    known: Option<Vec<Sent>>,
}

/// A message whose acknowledgement may be lost. MQTT has no names for messages: what comes again is known by
/// its number in the session and by what it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sent {
    number: u16,
    hash: String,
    id: String,
}

impl Session for Messages {
    const WHAT: &str = "mqtt";

    async fn session(&mut self, emitter: &Emitter, backoff: &mut Backoff) -> Result<(), Lost> {
        if self.known.is_none() {
            self.known = Some(self.state.read(UNSETTLED)?.unwrap_or_default());
        }
        let mut options = self.server.options();
        options
            .set_session_mode(SessionMode::Persistent)
            // The driver publishes nothing, so it has no state of its own that a session would go on with.
            .set_broker_session_resume_policy(BrokerSessionResumePolicy::AllowBrokerOnly)
            .set_session_expiry_interval(Some(self.expiry))
            .set_ack_mode(AckMode::Manual);
        let built = AsyncClient::builder(options).capacity(usize::from(IN_FLIGHT) * 2).try_build();
        let (client, events) = built.map_err(|error| Error::Failed(error.to_string()))?;
        let (to, mut messages) = tokio::sync::mpsc::channel(usize::from(IN_FLIGHT) * 2);
        let topics = self.topics.clone();
        let subscriber = client.clone();
        // Read on, whatever the server does: the broker wants signs of life. It sends no more than
        // `IN_FLIGHT` messages before one is acknowledged.
        let reader = AbortOnDropHandle::new(tokio::spawn(async move {
            read(events, &to, &subscriber, &topics).await
        }));
        let mut some: Vec<Publish> = Vec::new();
        while messages.recv_many(&mut some, BATCH_EVENTS).await > 0 {
            backoff.reset();
            let sent: Vec<Sent> =
                some.iter().map(|message| name(message, self.known.as_deref())).collect();
            self.state.write(UNSETTLED, &sent)?;
            let events: Vec<CloudEvent> = (some.iter().zip(&sent))
                .map(|(message, sent)| self.event(emitter, message, sent.id.clone()))
                .collect();
            emitter.emit_all(&events).await?;
            for message in some.drain(..) {
                client.ack(&message).await.map_err(lost)?;
            }
            self.known = Some(sent);
        }
        match reader.await {
            Ok(Err(lost)) => Err(lost),
            _ => Err(Lost::Connection("the connection is lost".into())),
        }
    }
}

impl Messages {
    fn event(&self, emitter: &Emitter, message: &Publish, id: String) -> CloudEvent {
        let properties = message.properties.as_ref();
        let content_type = properties.and_then(|all| all.content_type.as_deref());
        // In binary mode, attributes are user properties without a prefix.
        let own: Vec<(String, &str)> = (properties.iter())
            .flat_map(|all| &all.user_properties)
            .map(|(name, value)| (format!("ce-{name}"), value.as_str()))
            .collect();
        let is_event = own.iter().any(|(name, _)| name == "ce-specversion");
        let topic = String::from_utf8_lossy(&message.topic);
        Message {
            id,
            subject: Some(&topic),
            time: None,
            headers: if is_event {
                own.iter().map(|(name, value)| (name.as_str(), *value)).collect()
            } else {
                Vec::new()
            },
            content_type,
            body: &message.payload,
        }
        .into_event(emitter, &self.event_type)
    }
}

/// A message's id: the one it had, if it came before.
fn name(message: &Publish, known: Option<&[Sent]>) -> Sent {
    let mut text = digest::Context::new(&digest::SHA256);
    text.update(&message.topic);
    text.update(&[0]);
    text.update(&message.payload);
    let hash = hex(text.finish().as_ref());
    let before = known.into_iter().flatten().filter(|_| message.dup);
    let mut before = before.filter(|sent| sent.number == message.pkid && sent.hash == hash);
    let id = match before.next() {
        Some(sent) => sent.id.clone(),
        None => uuid::Uuid::now_v7().to_string(),
    };
    Sent { number: message.pkid, hash, id }
}

/// Serves a connection until it ends.
async fn read(
    mut events: EventLoop,
    to: &tokio::sync::mpsc::Sender<Publish>,
    client: &AsyncClient,
    topics: &[String],
) -> Result<(), Lost> {
    loop {
        match events.poll().await.map_err(lost)? {
            Event::Incoming(Packet::ConnAck(_)) => {
                tracing::info!("connected");
                for topic in topics {
                    client.subscribe(topic.as_str(), QoS::AtLeastOnce).await.map_err(lost)?;
                }
            }
            Event::Incoming(Packet::SubAck(answer)) => {
                use rumqttc::mqttbytes::v5::SubscribeReasonCode::Success;
                if !answer.return_codes.iter().all(|code| matches!(code, Success(_))) {
                    let why = format!("the broker refuses a topic: {:?}", answer.return_codes);
                    return Err(Error::Failed(why).into());
                }
            }
            Event::Incoming(Packet::Publish(message)) => {
                let sent = to.send(message).await;
                if sent.is_err() {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

struct Publisher {
    server: Server,
    topic: String,
    retain: bool,
    format: Format,
    connection: Mutex<Option<(AsyncClient, AbortOnDropHandle<()>)>>,
}

impl Publisher {
    async fn client(&self) -> Result<AsyncClient, Lost> {
        let mut held = self.connection.lock().await;
        if let Some((client, served)) = &*held
            && !served.is_finished()
        {
            return Ok(client.clone());
        }
        let mut options = self.server.options();
        options.set_session_mode(SessionMode::Clean);
        let built = AsyncClient::builder(options).capacity(usize::from(IN_FLIGHT)).try_build();
        let (client, mut events) = built.map_err(|error| Error::Failed(error.to_string()))?;
        let served = tokio::spawn(async move {
            loop {
                if let Err(error) = events.poll().await {
                    tracing::warn!("the connection ended: {error}");
                    return;
                }
            }
        });
        *held = Some((client.clone(), AbortOnDropHandle::new(served)));
        Ok(client)
    }

    async fn send(&self, event: &CloudEvent) -> Result<(), Lost> {
        let client = self.client().await?;
        let (kind, body) = self.format.write(event);
        let properties =
            PublishProperties { content_type: Some(kind), ..PublishProperties::default() };
        let options =
            PublishOptions::new(QoS::AtLeastOnce).retain(self.retain).properties(properties);
        let sent = client.publish_tracked(self.topic.as_str(), body, options);
        let confirmed =
            async { sent.await.map_err(lost)?.wait_completion_async().await.map_err(lost) };
        tokio::time::timeout(TIMEOUT, confirmed).await.map_err(lost)?
    }
}

impl Sink for Publisher {
    fn publish<'a>(&'a self, event: &'a CloudEvent) -> BoxFuture<'a, Result<(), Unpublished>> {
        Box::pin(async move { self.send(event).await.map_err(Unpublished::from) })
    }
}
