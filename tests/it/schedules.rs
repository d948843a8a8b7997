//! Schedules, while the server is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::{Server, until};

const ECHO: &str = "def handle(ctx, payload):\n    return [ctx['event']['time'], payload]\n";
/// Milliseconds after the full second, at which ticks are made.
const MOMENTS: [u32; 5] = [0, 4, 10, 30, 120];

/// The runs of a function by their ticks, when all have ended.
fn runs(s: &Server, function: &str) -> BTreeMap<String, Vec<Value>> {
    let list = || s.dispatch(&["get", "runs", function, "-o", "json"]).json();
    let list = || list().as_array().unwrap().clone();
    until("all runs have ended", || list().iter().all(|run| run["status"] != "INITIALIZED"));
    let mut ticks: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for run in list() {
        let tick = run["event"]["time"].as_str().unwrap().to_owned();
        ticks.entry(tick).or_default().push(run);
    }
    ticks
}

fn schedule(s: &Server, name: &str) -> Value {
    s.dispatch(&["get", "schedule", name, "-o", "json"]).json()
}

#[test]
fn no_tick_is_lost_or_doubled_when_the_server_is_killed() {
    let mut s = Server::start();
    s.image("python3");
    s.python("tick", ECHO, &["--retries", "3", "--retry-backoff", "10"]);
    let args = ["--cron", "* * * * * *", "--missed", "all", "--input", "{\"n\": 1}"];
    s.dispatch(&[&["create", "schedule", "s", "tick"], &args[..]].concat()).ok();
    until("it has ticked", || schedule(&s, "s")["lastTick"].is_string());
    for moment in MOMENTS {
        // Right at a tick.
        let into = Timestamp::now().subsec_nanosecond().unsigned_abs();
        let wait = 1_000_000_000 - into + moment * 1_000_000;
        std::thread::sleep(Duration::from_nanos(wait.into()));
        s = s.crash_and_restart(&[]);
    }
    let before = schedule(&s, "s")["lastTick"].clone();
    until("it goes on", || schedule(&s, "s")["lastTick"] != before);
    s.dispatch(&["update", "schedule", "s", "--paused"]).ok();
    let last: Timestamp = schedule(&s, "s")["lastTick"].as_str().unwrap().parse().unwrap();
    let ticks = runs(&s, "tick");
    let first: Timestamp = ticks.first_key_value().unwrap().0.parse().unwrap();
    assert!(ticks.len() > MOMENTS.len());
    for second in first.as_second()..=last.as_second() {
        let tick = Timestamp::from_second(second).unwrap().to_string();
        let runs = ticks.get(&tick).map_or(&[][..], Vec::as_slice);
        assert_eq!(runs.len(), 1, "{tick} has {} runs", runs.len());
        assert_eq!(runs[0]["output"], json!([tick, { "n": 1 }]), "{}", runs[0]);
    }
    s.dispatch(&["delete", "schedule", "s"]).ok();
    assert_eq!(s.stop(), Some(0));
}
