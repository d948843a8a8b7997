//! MQTT, with Mosquitto.

use std::process::Command;

use tempfile::TempDir;

use crate::support::{Broker, Driver, Ingest, Start, free_port, publish, until_async};

async fn start(data: TempDir, port: u16) -> Option<Broker> {
    let program = Broker::find("mosquitto")?;
    let place = data.path().display();
    // Saved at every change, since it will be killed.
    let text = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\nuser root\n\
         persistence_location {place}/\nautosave_interval 1\nautosave_on_changes true\n"
    );
    let config = data.path().join("conf");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(config);
    Some(Broker::start(&mut command, port, data).await)
}

async fn sink(port: u16) -> Driver {
    let start = Start::new("mqtt-sink")
        .arg("url", format!("mqtt://127.0.0.1:{port}"))
        .arg("topic", "a/b")
        .arg("format", "data");
    start.run().listening().await
}

#[tokio::test]
async fn messages_are_acknowledged_when_the_server_has_them() {
    let (state, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(broker) = start(tempfile::tempdir().unwrap(), port).await else { return };
    let ingest = Ingest::start().await;
    let run = || {
        Start::new("mqtt")
            .arg("url", format!("127.0.0.1:{port}"))
            .arg("topic", "a/+")
            .arg("client-id", "driver")
            .to(&ingest, state.path())
            .run()
    };
    let sink = sink(port).await;
    // A session is there once the first message has come.
    let running = run();
    until_async("the driver has subscribed", async || {
        publish(&sink, "first", 202).await;
        !ingest.accepted().is_empty()
    })
    .await;
    let first = ingest.distinct().len();

    ingest.answer(503);
    for n in 0..20 {
        publish(&sink, &n.to_string(), 202).await;
    }
    ingest.wait_for_refusals(2).await;
    running.crash().await;
    // Nothing was acknowledged, so all of it comes again; what was sent before has its old id.
    ingest.answer(0);
    let running = run();
    let known = |wanted: &str| {
        let all = ingest.accepted().into_iter();
        all.filter(|event| event.payload().get() == format!(r#"{{"id":"{wanted}"}}"#)).count()
    };
    until_async("all messages", async || (0..20).all(|n| known(&n.to_string()) > 0)).await;

    let _data = broker.kill();
    publish(&sink, "away", 503).await;
    let _broker = start(tempfile::tempdir().unwrap(), port).await.unwrap();
    // A broker that has forgotten everything: the driver subscribes again.
    until_async("it goes on", async || {
        publish(&sink, "back", 0).await;
        known("back") > 0
    })
    .await;
    running.stop().await;
    sink.stop().await;
    assert!(first >= 1);
    for event in ingest.accepted() {
        assert_eq!(
            (event.event_type.as_str(), event.subject.as_deref()),
            ("mqtt.message", Some("a/b"))
        );
    }
}

/// MQTT has no names for messages; what comes again after a crash must have the id it had.
#[tokio::test]
async fn what_comes_again_has_the_same_id() {
    let (state, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(_broker) = start(tempfile::tempdir().unwrap(), port).await else { return };
    let ingest = Ingest::start().await;
    let run = || {
        Start::new("mqtt")
            .arg("url", format!("127.0.0.1:{port}"))
            .arg("topic", "a/b")
            .to(&ingest, state.path())
            .run()
    };
    let sink = sink(port).await;
    let running = run();
    until_async("the driver has subscribed", async || {
        publish(&sink, "first", 202).await;
        !ingest.accepted().is_empty()
    })
    .await;
    ingest.answer(503);
    publish(&sink, "twice", 202).await;
    ingest.wait_for_refusals(1).await;
    let remembered = || std::fs::read_to_string(state.path().join("mqtt.json")).unwrap();
    let before = remembered();
    running.crash().await;
    let running = run();
    ingest.wait_for_refusals(1).await;
    assert_eq!(remembered(), before);
    ingest.answer(0);
    until_async("it is accepted", async || {
        ingest.accepted().iter().any(|event| event.payload().get().contains("twice"))
    })
    .await;
    running.stop().await;
    sink.stop().await;
}
