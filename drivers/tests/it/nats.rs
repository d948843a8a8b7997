//! NATS and JetStream.

use std::process::Command;

use async_nats::jetstream;
use tempfile::TempDir;

use crate::support::{Broker, Ingest, Start, free_port, publish, until_async};

async fn start(data: TempDir, port: u16) -> Option<Broker> {
    let program = Broker::find("nats-server")?;
    let mut command = Command::new(program);
    command
        .args(["-js", "-a", "127.0.0.1", "-p", &port.to_string()])
        .args(["--user", "u", "--pass", "p", "-sd"])
        .arg(data.path());
    Some(Broker::start(&mut command, port, data).await)
}

async fn connect(broker: &Broker) -> async_nats::Client {
    async_nats::ConnectOptions::new()
        .user_and_password("u".into(), "p".into())
        .connect(format!("127.0.0.1:{}", broker.port))
        .await
        .unwrap()
}

async fn add(broker: &Broker, from: usize, count: usize) {
    let context = jetstream::new(connect(broker).await);
    let stream = jetstream::stream::Config {
        name: "orders".into(),
        subjects: vec!["orders.>".into()],
        ..Default::default()
    };
    context.get_or_create_stream(stream).await.unwrap();
    for n in from..from + count {
        context.publish(format!("orders.{n}"), n.to_string().into()).await.unwrap().await.unwrap();
    }
}

async fn pending(broker: &Broker) -> usize {
    let context = jetstream::new(connect(broker).await);
    let stream = context.get_stream("orders").await.unwrap();
    let consumer: Result<jetstream::consumer::PullConsumer, _> = stream.get_consumer("c").await;
    let Ok(mut consumer) = consumer else { return usize::MAX };
    let info = consumer.info().await.unwrap();
    info.num_ack_pending + usize::try_from(info.num_pending).unwrap()
}

fn driver<'a>(broker: &Broker, ingest: &Ingest, state: &TempDir) -> Start<'a> {
    Start::new("nats")
        .arg("url", format!("nats://127.0.0.1:{}", broker.port))
        .arg("username", "u")
        .env("PASSWORD", "p")
        .to(ingest, state.path())
}

#[tokio::test]
async fn a_streams_messages_are_acknowledged_when_the_server_has_them() {
    let (state, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(broker) = start(tempfile::tempdir().unwrap(), port).await else { return };
    let ingest = Ingest::start().await;
    add(&broker, 0, 120).await;
    let run = || {
        driver(&broker, &ingest, &state)
            .arg("stream", "orders")
            .arg("consumer", "c")
            .arg("from", "all")
            .arg("wait", 5)
            .run()
    };
    ingest.answer(503);
    let running = run();
    ingest.wait_for_refusals(2).await;
    assert_eq!(pending(&broker).await, 120);
    running.crash().await;
    assert_eq!(pending(&broker).await, 120, "nothing may be acknowledged");
    ingest.answer(0);
    let running = run();
    ingest.wait_for(120).await;

    let data = broker.kill();
    let broker = start(data, port).await.unwrap();
    add(&broker, 120, 30).await;
    let events = ingest.wait_for(150).await;
    until_async("all is acknowledged", async || pending(&broker).await == 0).await;
    running.stop().await;
    assert_eq!(events.len(), 150);
    for event in events {
        assert_eq!(event.event_type, "nats.message");
        assert!(event.id.starts_with("orders/"));
        assert!(event.subject.unwrap().starts_with("orders."));
    }
}

#[tokio::test]
async fn events_go_out_and_come_back() {
    let (state, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(broker) = start(tempfile::tempdir().unwrap(), port).await else { return };
    let ingest = Ingest::start().await;
    add(&broker, 0, 0).await;
    let sink = |jetstream: bool| {
        let start = Start::new("nats-sink")
            .arg("url", format!("127.0.0.1:{port}"))
            .arg("subject", "orders.out")
            .arg("username", "u")
            .env("PASSWORD", "p");
        let start = if jetstream { start.arg("jetstream", "") } else { start };
        start.run()
    };
    let source = driver(&broker, &ingest, &state).arg("subject", "orders.>").run();
    let client = connect(&broker).await;
    // Plain NATS keeps nothing for whoever is not there yet.
    until_async("the driver listens", async || {
        client.publish("orders.probe", "probe".into()).await.unwrap();
        client.flush().await.unwrap();
        !ingest.accepted().is_empty()
    })
    .await;
    let before = ingest.distinct().len();
    let (plain, stream) = (sink(false).listening().await, sink(true).listening().await);
    publish(&plain, "1", 202).await;
    publish(&stream, "2", 202).await;
    // The same event twice is in the stream once.
    publish(&stream, "2", 202).await;
    ingest.wait_for(before + 2).await;
    let context = jetstream::new(client);
    let found = context.get_stream("orders").await.unwrap();
    let subjects = found.info_with_subjects("orders.out").await.unwrap();
    let counts: Vec<_> = futures_util::StreamExt::collect::<Vec<_>>(subjects).await;
    assert_eq!(counts[0].as_ref().unwrap().1, 2);
    let ids: Vec<_> =
        ingest.distinct().into_keys().filter(|(source, _)| source == "/test").collect();
    assert_eq!(ids.len(), 2, "events stay what they are");

    broker.kill();
    publish(&stream, "3", 503).await;
    source.stop().await;
    plain.stop().await;
    stream.stop().await;
}
