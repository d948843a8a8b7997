//! The server is killed at random moments while events pour in and are delivered: every event that
//! was accepted is delivered, and twice only what was under way.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::crash::request;
use crate::support::{Server, until};

const ROUNDS: u32 = 3;
/// Deliveries of the subscription at the same time.
const WIDTH: usize = 8;

fn event(id: &str) -> Value {
    json!({ "cloudEventsVersion": "0.1", "eventID": id, "eventType": "load", "source": "/load",
        "data": id })
}

/// Sends events one at a time and a few at once, and notes what was accepted.
fn publish(port: u16, name: &str, accepted: &Mutex<Vec<String>>, stop: &AtomicBool) {
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let ids: Vec<String> =
            (0..if n % 4 == 0 { 10 } else { 1 }).map(|k| format!("{name}-{n}-{k}")).collect();
        let events: Vec<Value> = ids.iter().map(|id| event(id)).collect();
        let body = if let [one] = events.as_slice() { one.clone() } else { json!(events) };
        if let Some((200, _)) = request(port, "POST", "/v1/event", Some(body)) {
            accepted.lock().unwrap().extend(ids);
        }
    }
}

/// All deliveries of a subscription, by the ids of their events.
fn deliveries(port: u16, subscription: &str) -> BTreeMap<String, Value> {
    let (mut all, mut after) = (BTreeMap::new(), String::new());
    loop {
        let path = format!("/v1/event/deliveries?subscription={subscription}&limit=1000{after}");
        let (status, page) = request(port, "GET", &path, None).unwrap();
        assert_eq!(status, 200, "{page}");
        let Some(last) = page.as_array().unwrap().last() else { return all };
        after = format!("&continue={}", last["id"].as_str().unwrap());
        for delivery in page.as_array().unwrap() {
            let id = delivery["eventId"].as_str().unwrap().to_owned();
            assert!(all.insert(id, delivery.clone()).is_none(), "one delivery for each event");
        }
    }
}

#[test]
fn every_accepted_event_is_delivered_when_the_server_is_killed() {
    // All runs are kept, to be counted.
    let flags = ["--run-retention-count", "1000000"];
    let mut s = Server::with(&flags);
    s.image("python3");
    s.python("note", "def handle(ctx, payload):\n    return payload\n", &[]);
    let body = json!({ "name": "all", "eventType": "load", "function": "note",
        "concurrency": WIDTH, "retry": { "attempts": 20, "backoff": 10, "maxBackoff": 100 },
        "reply": { "type": "noted" } });
    let made = request(s.port, "POST", "/v1/event/subscriptions", Some(body)).unwrap();
    assert_eq!(made.0, 201, "{made:?}");
    let body = json!({ "name": "again", "eventType": "noted", "function": "note" });
    request(s.port, "POST", "/v1/event/subscriptions", Some(body)).unwrap();
    let accepted = Mutex::new(Vec::new());
    for round in 0..ROUNDS {
        let stop = AtomicBool::new(false);
        let port = s.port;
        std::thread::scope(|scope| {
            let (accepted, stop) = (&accepted, &stop);
            for publisher in 0..2 {
                let name = format!("{round}-{publisher}");
                scope.spawn(move || publish(port, &name, accepted, stop));
            }
            let moment = 400 + u64::from(std::process::id()) * 97 % 500 + u64::from(round) * 111;
            std::thread::sleep(Duration::from_millis(moment));
            let pid = nix::unistd::Pid::from_raw(i32::try_from(s.pid()).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            stop.store(true, Ordering::Relaxed);
        });
        s = s.crash_and_restart(&flags);
    }
    let accepted = accepted.into_inner().unwrap();
    assert!(accepted.len() > 30, "the load was real: {}", accepted.len());
    let progress = |name: &str| {
        let path = format!("/v1/event/subscriptions/{name}");
        request(s.port, "GET", &path, None).unwrap().1["progress"].clone()
    };
    until("everything is delivered", || {
        progress("all")["lag"] == 0 && progress("again")["lag"] == 0
    });
    assert_eq!(progress("all")["dead"], 0, "{}", progress("all"));
    let found = deliveries(s.port, "all");
    for id in &accepted {
        let delivery = found.get(id).unwrap_or_else(|| panic!("event {id} was lost"));
        assert_eq!(delivery["state"], "delivered", "{delivery}");
    }
    // What a delivery led to is there once, however often it was made.
    assert_eq!(deliveries(s.port, "again").len(), found.len());
    // Twice is only what was under way when the server died.
    let (_, runs) = request(s.port, "GET", "/v1/runs?functionName=note", None).unwrap();
    let of_load = |run: &&Value| run["event"]["eventType"] == "load";
    let made = runs.as_array().unwrap().iter().filter(of_load).count();
    let twice = made.saturating_sub(found.len());
    assert!(made >= found.len() && twice <= WIDTH * ROUNDS as usize, "{made} of {}", found.len());
    assert_eq!(s.stop(), Some(0));
}
