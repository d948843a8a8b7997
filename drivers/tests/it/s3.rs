//! S3, with Moto.

use std::path::Path;
use std::process::{Command, Stdio};

use dispatch_api::cloud_event::Data;
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};

use crate::support::{Broker, Ingest, Start, free_port, publish, until_async};

/// `None`, after a printed reason, where it is not installed.
async fn start(port: u16) -> Option<Broker> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-tools");
    let python = || {
        let mut command = Command::new("python3");
        if tools.join("moto").exists() {
            command.env("PYTHONPATH", &tools);
        }
        command
    };
    let has = python().args(["-c", "import moto.server"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        eprintln!("skipped: moto[server] is not installed (scripts/setup test installs it)");
        return None;
    }
    let mut command = python();
    command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
    Some(Broker::start(&mut command, port, tempfile::tempdir().unwrap()).await)
}

fn driver<'a>(kind: &'a str, port: u16) -> Start<'a> {
    Start::new(kind)
        .arg("endpoint", format!("http://127.0.0.1:{port}"))
        .arg("bucket", "bucket")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "key")
}

/// Puts an object, or makes the bucket if it has no name.
async fn put(port: u16, name: &str, body: &str) {
    let endpoint = format!("http://127.0.0.1:{port}").parse().unwrap();
    let bucket = Bucket::new(endpoint, UrlStyle::Path, "bucket", "us-east-1").unwrap();
    let (credentials, valid) = (Credentials::new("id", "key"), std::time::Duration::from_secs(60));
    let url = if name.is_empty() {
        bucket.create_bucket(&credentials).sign(valid)
    } else {
        bucket.put_object(Some(&credentials), name).sign(valid)
    };
    let request = reqwest::Client::new().put(url).header("content-length", body.len());
    let sent = request.body(body.to_owned()).send().await.unwrap();
    let status = sent.status();
    assert!(status.is_success(), "{name:?}: {status} {}", sent.text().await.unwrap());
}

#[tokio::test]
async fn objects_are_told_of_once() {
    let (state, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(broker) = start(port).await else { return };
    let ingest = Ingest::start().await;
    put(port, "", "").await;
    put(port, "in/old", "old").await;
    put(port, "out/other", "other").await;
    let run = || {
        driver("s3", port).arg("prefix", "in/").arg("seconds", 1).to(&ingest, state.path()).run()
    };
    let running = run();
    until_async("a first look", async || state.path().join("s3.json").exists()).await;
    ingest.answer(503);
    // More than one page of the list.
    for n in 0..120 {
        put(port, &format!("in/{n} ü"), &n.to_string()).await;
    }
    ingest.wait_for_refusals(2).await;
    running.crash().await;
    ingest.answer(0);
    let running = run();
    ingest.wait_for(120).await;
    put(port, "in/old", "changed").await;
    let events = ingest.wait_for(121).await;
    let changed: Vec<_> =
        events.iter().filter(|event| event.event_type == "s3.object.changed").collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].subject.as_deref(), Some("in/old"));
    let Some(Data::Json(data)) = &changed[0].data else { panic!("no JSON") };
    let data: serde_json::Value = serde_json::from_str(data.get()).unwrap();
    assert_eq!((data["bucket"].as_str(), data["bytes"].as_u64()), (Some("bucket"), Some(7)));

    // The same event twice is one object.
    let sink = driver("s3-sink", port).arg("prefix", "in/events/").run().listening().await;
    for id in ["1", "2", "1"] {
        publish(&sink, id, 202).await;
    }
    let events = ingest.wait_for(123).await;
    broker.kill();
    publish(&sink, "3", 503).await;
    running.stop().await;
    sink.stop().await;
    let written = events.iter().filter(|event| {
        event.subject.as_deref().is_some_and(|name| name.starts_with("in/events/"))
    });
    assert_eq!(written.count(), 2);
}
