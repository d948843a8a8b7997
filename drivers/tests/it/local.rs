//! Drivers that need nothing else: ticker, cron, file.

use std::fs;

use dispatch_api::cloud_event::Data;

use crate::support::{Ingest, Start, until};

#[tokio::test]
async fn the_ticker_ticks_and_waits_for_the_server() {
    let state = tempfile::tempdir().unwrap();
    let ingest = Ingest::start().await;
    ingest.answer(503);
    let driver = Start::new("ticker").arg("seconds", 1).to(&ingest, state.path()).run();
    ingest.wait_for_refusals(2).await;
    assert!(ingest.accepted().is_empty());
    ingest.answer(0);
    let events = ingest.wait_for(2).await;
    driver.stop().await;
    for event in events {
        assert_eq!(event.event_type, "ticker.tick");
        assert_eq!(event.source, "/drivers/ticker");
        assert_eq!(event.data, None);
    }
}

/// The token may be wrong, or the server be starting: nothing is lost by it.
#[tokio::test]
async fn what_is_not_the_events_fault_is_tried_again() {
    let state = tempfile::tempdir().unwrap();
    let ingest = Ingest::start().await;
    for status in [401, 404, 429, 500] {
        ingest.answer(status);
        let count = ingest.distinct().len();
        let driver = Start::new("ticker").arg("seconds", 1).to(&ingest, state.path()).run();
        ingest.wait_for_refusals(2).await;
        assert_eq!(ingest.distinct().len(), count, "{status}");
        ingest.answer(0);
        ingest.wait_for(count + 1).await;
        driver.stop().await;
    }
}

#[tokio::test]
async fn a_refused_event_is_skipped_or_stops_the_driver() {
    let state = tempfile::tempdir().unwrap();
    let ingest = Ingest::start().await;
    let start =
        || Start::new("ticker").arg("seconds", 1).arg("type", "poison").to(&ingest, state.path());
    let driver = start().run();
    ingest.wait_for_refusals(2).await;
    driver.stop().await;
    let failure = start().arg("refused", "stop").run().failure().await;
    assert!(failure.contains("refused") && failure.contains("poison"), "{failure}");
}

#[tokio::test]
async fn cron_emits_the_same_time_as_the_same_event() {
    let state = tempfile::tempdir().unwrap();
    let ingest = Ingest::start().await;
    let start = || {
        Start::new("cron")
            .arg("cron", "* * * * * *")
            .arg("data", r#"{"a": 1}"#)
            .env("DRIVER_NAME", "every-second")
            .to(&ingest, state.path())
    };
    // Two of them, as after a crash between sending and remembering.
    let (one, two) = (start().run(), start().run());
    until("times that came twice", || ingest.accepted().len() >= ingest.distinct().len() + 2).await;
    one.stop().await;
    two.stop().await;
    for event in ingest.distinct().into_values() {
        assert_eq!(event.event_type, "cron.tick");
        assert_eq!(event.source, "/drivers/every-second");
        assert_eq!(event.time.as_ref(), Some(&event.id));
        let Some(Data::Json(data)) = event.data else { panic!("no JSON") };
        assert_eq!(data.get(), r#"{"a": 1}"#);
    }
}

#[tokio::test]
async fn files_are_told_of_once_over_restarts() {
    let state = tempfile::tempdir().unwrap();
    let watched = tempfile::tempdir().unwrap();
    let ingest = Ingest::start().await;
    let start = || {
        Start::new("file")
            .arg("directory", watched.path().display())
            .arg("seconds", 1)
            .arg("suffix", ".json")
            .arg("content", "")
            .to(&ingest, state.path())
    };
    fs::write(watched.path().join("before.json"), "1").unwrap();
    let driver = start().run();
    until("a first look", || state.path().join("files.json").exists()).await;
    fs::write(watched.path().join("new.json"), r#"{"b":2}"#).unwrap();
    fs::write(watched.path().join("other.txt"), "no").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", watched.path().join("link.json")).unwrap();
    let events = ingest.wait_for(1).await;
    assert_eq!(events[0].event_type, "file.created");
    assert_eq!(events[0].subject.as_deref(), Some("new.json"));
    let Some(Data::Json(data)) = &events[0].data else { panic!("no JSON") };
    assert_eq!(data.get(), r#"{"b":2}"#);
    driver.stop().await;

    // While nobody looks, one file changes and one appears; the server refuses at first.
    fs::write(watched.path().join("before.json"), "changed").unwrap();
    fs::write(watched.path().join("later.json"), "3").unwrap();
    ingest.answer(503);
    let driver = start().run();
    ingest.wait_for_refusals(1).await;
    driver.crash().await;
    ingest.answer(0);
    let driver = start().run();
    let events = ingest.wait_for(3).await;
    driver.stop().await;
    let mut found: Vec<_> =
        events.iter().map(|e| (e.event_type.as_str(), e.subject.as_deref().unwrap())).collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("file.changed", "before.json"),
            ("file.created", "later.json"),
            ("file.created", "new.json")
        ]
    );
}
