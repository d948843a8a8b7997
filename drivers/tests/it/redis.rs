//! Redis streams.

use std::process::Command;

use dispatch_api::cloud_event::Data;
use redis::AsyncCommands as _;
use tempfile::TempDir;

use crate::support::{Broker, Ingest, Start, free_port, publish, until_async};

const PASSWORD: &str = "p:a@s/s";

async fn start(data: TempDir, port: u16) -> Option<Broker> {
    let program = Broker::find("redis-server")?;
    let mut command = Command::new(program);
    command
        .args(["--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always"])
        .args(["--requirepass", PASSWORD, "--port", &port.to_string(), "--dir"])
        .arg(data.path());
    Some(Broker::start(&mut command, port, data).await)
}

async fn connect(broker: &Broker) -> redis::aio::MultiplexedConnection {
    let (host, port) = ("127.0.0.1", broker.port);
    let client = redis::Client::open((host, port)).unwrap();
    let mut info = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("AUTH").arg(PASSWORD).query_async::<()>(&mut info).await.unwrap();
    info
}

async fn add(to: &mut redis::aio::MultiplexedConnection, from: usize, count: usize) {
    for n in from..from + count {
        let _: String = to.xadd("s", "*", &[("n", n.to_string())]).await.unwrap();
    }
}

/// How many entries are given to members and not acknowledged.
async fn pending(to: &mut redis::aio::MultiplexedConnection) -> usize {
    let all: Vec<redis::Value> =
        redis::cmd("XPENDING").arg("s").arg("g").query_async(to).await.unwrap();
    match all[0] {
        redis::Value::Int(count) => usize::try_from(count).unwrap(),
        ref other => panic!("{other:?}"),
    }
}

fn driver<'a>(broker: &Broker, ingest: &Ingest, state: &TempDir) -> Start<'a> {
    Start::new("redis")
        .arg("url", format!("redis://127.0.0.1:{}", broker.port))
        .arg("stream", "s")
        .arg("group", "g")
        .arg("from", "all")
        .env("PASSWORD", PASSWORD)
        .to(ingest, state.path())
}

#[tokio::test]
async fn entries_are_acknowledged_when_the_server_has_them() {
    let (state, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(broker) = start(tempfile::tempdir().unwrap(), port).await else { return };
    let ingest = Ingest::start().await;
    let mut to = connect(&broker).await;
    add(&mut to, 0, 250).await;

    // The server is away; the driver takes entries, and is killed with them.
    ingest.answer(503);
    let running = driver(&broker, &ingest, &state).run();
    ingest.wait_for_refusals(2).await;
    assert!(pending(&mut to).await > 0);
    running.crash().await;
    assert!(ingest.accepted().is_empty());
    assert!(pending(&mut to).await > 0, "nothing may be acknowledged");

    ingest.answer(0);
    let running = driver(&broker, &ingest, &state).run();
    ingest.wait_for(250).await;

    // The broker goes away and comes back.
    drop(to);
    let data = broker.kill();
    let broker = start(data, port).await.unwrap();
    let mut to = connect(&broker).await;
    add(&mut to, 250, 50).await;
    let events = ingest.wait_for(300).await;
    until_async("all is acknowledged", async || pending(&mut connect(&broker).await).await == 0)
        .await;
    running.stop().await;
    assert_eq!(events.len(), 300);
    for event in events {
        assert_eq!(event.event_type, "redis.entry");
        assert!(event.id.starts_with("s/"));
        let Some(Data::Json(data)) = event.data else { panic!("no JSON") };
        assert!(data.get().starts_with(r#"{"n":""#));
    }
}

#[tokio::test]
async fn what_another_member_left_is_taken_over() {
    let (state, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(broker) = start(tempfile::tempdir().unwrap(), port).await else { return };
    let ingest = Ingest::start().await;
    let mut to = connect(&broker).await;
    add(&mut to, 0, 5).await;
    ingest.answer(503);
    let gone = driver(&broker, &ingest, &state).env("DRIVER_NAME", "gone").run();
    ingest.wait_for_refusals(1).await;
    gone.crash().await;
    ingest.answer(0);
    let running = driver(&broker, &ingest, &state).arg("idle", 1).run();
    ingest.wait_for(5).await;
    until_async("all is acknowledged", async || pending(&mut connect(&broker).await).await == 0)
        .await;
    running.stop().await;
}

#[tokio::test]
async fn events_go_out_and_come_back() {
    let (state, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(broker) = start(tempfile::tempdir().unwrap(), port).await else { return };
    let ingest = Ingest::start().await;
    let sink = Start::new("redis-sink")
        .arg("url", format!("127.0.0.1:{port}"))
        .arg("stream", "s")
        .env("PASSWORD", PASSWORD)
        .run()
        .listening()
        .await;
    let source = driver(&broker, &ingest, &state).arg("field", "event").run();
    publish(&sink, "1", 202).await;
    let events = ingest.wait_for(1).await;
    assert_eq!((events[0].id.as_str(), events[0].source.as_str()), ("1", "/test"));
    // Away: to be tried again; back: it goes on.
    let data = broker.kill();
    publish(&sink, "2", 503).await;
    let _broker = start(data, port).await.unwrap();
    until_async("published again", async || publish(&sink, "3", 0).await == 202).await;
    ingest.wait_for(2).await;
    source.stop().await;
    sink.stop().await;
}
