//! RabbitMQ. It takes half a minute to start, so one test does everything.

use std::process::Command;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tempfile::TempDir;

use crate::support::{Broker, Ingest, Start, free_port, publish, until_async};

/// The broker, and the name server of its language, which would stay.
struct Rabbit {
    broker: Option<Broker>,
    _names: Broker,
    names_port: u16,
    home: TempDir,
}

/// The broker itself. What is in the path of Debian is a script that becomes another user.
fn program() -> Option<std::path::PathBuf> {
    let own = std::path::PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server");
    if own.exists() { Some(own) } else { Broker::find("rabbitmq-server") }
}

async fn start() -> Option<Rabbit> {
    let names = Broker::find("epmd")?;
    program()?;
    let names_port = free_port();
    let mut command = Command::new(names);
    command.args(["-address", "127.0.0.1", "-port", &names_port.to_string()]);
    let names = Broker::start(&mut command, names_port, tempfile::tempdir().unwrap()).await;
    let home = tempfile::tempdir().unwrap();
    let mut rabbit = Rabbit { broker: None, _names: names, names_port, home };
    rabbit.run(free_port()).await;
    Some(rabbit)
}

impl Rabbit {
    async fn run(&mut self, port: u16) {
        let home = self.home.path();
        let mut command = Command::new(program().unwrap());
        command
            .env("HOME", home)
            .env("RABBITMQ_NODENAME", format!("drivers{port}@localhost"))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", port.to_string())
            .env("RABBITMQ_DIST_PORT", free_port().to_string())
            .env("RABBITMQ_MNESIA_BASE", home.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", home.join("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", home.join("plugins"))
            .env("RABBITMQ_PID_FILE", home.join("pid"))
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.names_port.to_string())
            // One process, so that its end is the broker's.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1");
        let data = tempfile::tempdir().unwrap();
        self.broker = Some(Broker::start_group(&mut command, port, data).await);
        until_async("it takes connections", async || connect(port).await.is_some()).await;
    }

    fn port(&self) -> u16 {
        self.broker.as_ref().unwrap().port
    }
}

async fn connect(port: u16) -> Option<Connection> {
    let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    Connection::connect(&url, ConnectionProperties::default()).await.ok()
}

async fn waiting(port: u16, queue: &str) -> u32 {
    let connection = connect(port).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
    found.message_count()
}

async fn add(port: u16, bodies: impl Iterator<Item = String>) {
    let connection = connect(port).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    for body in bodies {
        let is_event = body.starts_with('{');
        let kind = if is_event { "application/cloudevents+json" } else { "text/plain" };
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type(kind.into())
            .with_message_id(body.as_str().into());
        let options = BasicPublishOptions::default();
        channel
            .basic_publish("".into(), "q".into(), options, body.as_bytes(), properties)
            .await
            .unwrap()
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn messages_are_acknowledged_when_the_server_has_them() {
    let Some(mut rabbit) = start().await else { return };
    let (state, ingest, port) =
        (tempfile::tempdir().unwrap(), Ingest::start().await, rabbit.port());
    // A queue of the user's own, with a place for what is rejected.
    let connection = connect(port).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare("parked".into(), durable, FieldTable::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-dead-letter-routing-key".into(), AMQPValue::LongString("parked".into()));
    channel.queue_declare("q".into(), durable, arguments).await.unwrap();
    drop(connection);
    add(port, (0..120).map(|n| n.to_string())).await;

    let run = || {
        Start::new("rabbitmq")
            .arg("url", format!("amqp://127.0.0.1:{port}"))
            .arg("username", "guest")
            .arg("queue", "q")
            .arg("park", "")
            .env("PASSWORD", "guest")
            .to(&ingest, state.path())
            .run()
    };
    ingest.answer(503);
    let running = run();
    ingest.wait_for_refusals(2).await;
    running.crash().await;
    until_async("nothing was acknowledged", async || waiting(port, "q").await == 120).await;
    ingest.answer(0);
    let running = run();
    ingest.wait_for(120).await;

    // Poison, between two others.
    let poison = r#"{"specversion":"1.0","id":"1","source":"/a","type":"poison"}"#;
    add(port, ["before".to_owned(), poison.to_owned(), "after".to_owned()].into_iter()).await;
    ingest.wait_for(122).await;
    until_async("poison is parked", async || waiting(port, "parked").await == 1).await;

    let sink = Start::new("rabbitmq-sink")
        .arg("url", format!("amqp://guest@127.0.0.1:{port}"))
        .arg("routing-key", "q")
        .env("PASSWORD", "guest")
        .run()
        .listening()
        .await;
    publish(&sink, "sent", 202).await;
    ingest.wait_for(123).await;

    // The broker goes away and comes back.
    rabbit.broker.take().unwrap().kill();
    publish(&sink, "away", 503).await;
    rabbit.run(port).await;
    add(port, ["back".to_owned()].into_iter()).await;
    let events = ingest.wait_for(124).await;
    until_async("published again", async || publish(&sink, "sent again", 0).await == 202).await;
    ingest.wait_for(125).await;
    running.stop().await;
    sink.stop().await;
    assert!(
        events.iter().any(|event| event.id == "q/119" && event.event_type == "rabbitmq.message")
    );
    assert!(events.iter().any(|event| event.id == "sent" && event.source == "/test"));
}
