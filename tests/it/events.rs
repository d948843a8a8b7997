//! Events, as the guide tells it: subscriptions, filters, order, batches, dead letters, replays, chains.

use serde_json::{Value, json};

use crate::support::{Server, until};

const ECHO: &str =
    "def handle(ctx, payload):\n    return {'event': ctx['event'], 'payload': payload}\n";

impl Server {
    fn subscribe(&self, name: &str, function: &str, flags: &[&str]) {
        let args = ["create", "subscription", function, "--name", name];
        let out = self.dispatch(&[&args[..], flags].concat()).ok();
        assert_eq!(out, format!("created subscription: {name}\n"));
    }

    /// Emits events of 1.0 and returns what the receipt says: new ones, deliveries, duplicates.
    fn emit(&self, events: &[Value]) -> Vec<u64> {
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        let args = ["emit", "--batch-file", "-", "-o", "json"];
        let receipt = self.dispatch_with(&args, Some(&lines)).json();
        ["events", "deliveries", "duplicates"].map(|key| receipt[key].as_u64().unwrap()).to_vec()
    }

    /// Waits until a subscription has so many deliveries in a state.
    #[track_caller]
    fn deliveries(&self, subscription: &str, state: &str, wanted: usize) -> Vec<Value> {
        let flags = ["--subscription", subscription, "--state", state, "-o", "json"];
        let mut found = Vec::new();
        until(&format!("{wanted} {state} deliveries of {subscription}"), || {
            let list = self.dispatch(&[&["get", "deliveries"], &flags[..]].concat()).json();
            found = list.as_array().unwrap().clone();
            found.len() == wanted
        });
        found
    }

    /// The runs of a function, the oldest first.
    fn runs_of(&self, function: &str) -> Vec<Value> {
        let runs = self.dispatch(&["get", "runs", function, "-o", "json"]).json();
        let mut runs = runs.as_array().unwrap().clone();
        runs.reverse();
        runs
    }
}

fn event(id: &str, event_type: &str, data: impl Into<Value>) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/shop", "type": event_type,
        "data": data.into() })
}

#[test]
fn an_emitted_event_reaches_its_function() {
    let s = Server::start();
    s.image("python3");
    s.python("f", ECHO, &[]);
    let out = s.dispatch(&["create", "subscription", "--event-type", "test.event.1", "f"]).ok();
    let name = out.trim_end().strip_prefix("created subscription: ").unwrap().to_owned();
    assert_eq!(s.ready("subscription", &name)["function"], "f");
    let data = "--data={\"name\": \"Jon\", \"place\": \"Winterfell\"}";
    let out = s.dispatch(&["emit", "test.event.1", data, "--content-type=application/json"]).ok();
    assert_eq!(out, "event emitted\n");
    s.deliveries(&name, "delivered", 1);
    let run = s.runs_of("f").remove(0);
    assert_eq!((&run["functionName"], &run["status"]), (&json!("f"), &json!("READY")));
    assert_eq!(run["output"]["event"]["eventType"], "test.event.1");
    assert_eq!(run["output"]["payload"]["place"], "Winterfell");
    // An update as a script of the old system makes it.
    let file = format!(
        "kind: Subscription\nname: {name}\neventType: test.event.2\nfunction: f\nsecrets:\ntags:\n\
         - key: role\n  value: test\n  more: x\n"
    );
    let file = s.file("update.yaml", &file);
    let out = s.dispatch(&["update", "-f", &file]).ok();
    assert_eq!(out, format!("Updated Subscription: {name}\n"));
    s.ready("subscription", &name);
    s.dispatch(&["emit", "test.event.1"]).ok();
    s.dispatch(&["emit", "test.event.2", "--source-id=/s", "--event-id=7"]).ok();
    let out = s.dispatch(&["emit", "test.event.2", "--source-id=/s", "--event-id=7"]).ok();
    assert_eq!(out, "event was emitted before, and is not delivered again\n");
    s.deliveries(&name, "delivered", 2);
    let run = s.runs_of("f").remove(1);
    assert_eq!(run["output"]["event"]["eventType"], "test.event.2");
    assert_eq!(run["output"]["payload"], Value::Null);
    let log = s.dispatch(&["get", "events", "-o", "json"]).json();
    assert_eq!(log.as_array().unwrap().len(), 3);
    let progress = s.dispatch(&["get", "subscription", &name, "--progress", "-o", "json"]).json();
    assert_eq!((&progress["delivered"], &progress["lag"]), (&json!(2), &json!(0)));
    let out = s.dispatch(&["delete", "subscription", &name]).ok();
    assert_eq!(out, format!("Deleted subscription: {name}\n"));
    let error = s.dispatch(&["get", "subscription", &name]).fails();
    assert!(error.contains("[Code: 404]"), "{error}");
}

#[test]
fn what_is_emitted_from_files_arrives() {
    let s = Server::start();
    s.image("python3");
    s.python("f", ECHO, &[]);
    s.subscribe("all", "f", &["--event-type", "*", "--paused"]);
    let text = s.file("a.txt", "it's \"text\"\n");
    let bytes = s.file("a.bin", "");
    std::fs::write(&bytes, [0xff, 0, 1]).unwrap();
    for spec in ["0.1", "1.0"] {
        for file in [&text, &bytes] {
            let args = ["emit", "t", "--data-from-file", file, "--spec-version", spec];
            s.dispatch(&args).ok();
        }
    }
    s.dispatch(&["update", "subscription", "all", "--resume", "--concurrency", "1"]).ok();
    s.deliveries("all", "delivered", 4);
    let payloads: Vec<Value> =
        s.runs_of("f").iter().map(|run| run["output"]["payload"].clone()).collect();
    let both = [json!("it's \"text\"\n"), json!("/wAB")];
    assert_eq!(payloads, [&both[..], &both[..]].concat());
}

#[test]
fn filters_say_who_gets_what() {
    let s = Server::start();
    s.image("python3");
    s.python("f", ECHO, &[]);
    s.subscribe("below", "f", &["--event-type", "order.*"]);
    s.subscribe("europe", "f", &["--event-type", "*", "--exact", "region=eu"]);
    s.subscribe("shop", "f", &["--prefix", "source=/shop", "--suffix", "type=.made"]);
    s.subscribe("sql", "f", &["--sql", "EXISTS subject AND hops < 3"]);
    s.subscribe("rest", "f", &["--filter", r#"{"not": {"prefix": {"type": "order."}}}"#]);
    let error = s.dispatch(&["create", "subscription", "f", "--sql", "hops <"]).fails();
    assert!(error.contains("filters[0]"), "{error}");
    let mut first = event("1", "order.made", 1);
    (first["region"], first["subject"], first["hops"]) = (json!("eu"), json!("x"), json!(2));
    let mut second = event("2", "car.made", 2);
    (second["subject"], second["hops"]) = (json!("x"), json!(3));
    assert_eq!(s.emit(&[first, second, event("3", "order.gone", 3)]), [3, 7, 0]);
    for (subscription, ids) in [
        ("below", &["1", "3"][..]),
        ("europe", &["1"]),
        ("shop", &["1", "2"]),
        ("sql", &["1"]),
        ("rest", &["2"]),
    ] {
        let mut found: Vec<String> = s
            .deliveries(subscription, "delivered", ids.len())
            .iter()
            .map(|delivery| delivery["eventId"].as_str().unwrap().to_owned())
            .collect();
        found.sort();
        assert_eq!(found, ids, "{subscription}");
    }
}

#[test]
fn the_shop_bills_ships_and_buries() {
    let s = Server::start();
    s.image("python3");
    let args = ["create", "--file", "shop.yaml", "--work-dir", "examples/events/"];
    let out = s.dispatch(&args).ok();
    assert!(out.ends_with("Created Subscription: ship-billed\n"), "{out}");
    for function in ["bill", "ship", "lost"] {
        s.ready("function", function);
    }
    let emit = |id: &str, data: &str| {
        let args = ["emit", "order.made", "--source-id=/shop", "--event-id", id, "--subject", id];
        s.dispatch(&[&args[..], &["--data", data]].concat()).ok();
    };
    emit("o-7", r#"{"number": "o-7", "total": 12}"#);
    emit("o-8", r#"{"number": "o-8", "total": 0}"#);
    s.deliveries("ship-billed", "delivered", 1);
    let run = s.runs_of("ship").remove(0);
    assert_eq!(run["logs"]["stdout"], json!(["shipping order o-7"]));
    let dead = s.deliveries("bill-orders", "dead", 1).remove(0);
    assert_eq!((&dead["eventId"], &dead["attempts"]), (&json!("o-8"), &json!(1)));
    assert_eq!(dead["error"], "there is nothing to bill");
    let run = s.runs_of("lost").remove(0);
    assert_eq!(run["logs"]["stdout"], json!(["somebody has to look at order o-8"]));
    // The same event again, as after a crash: the same invoice.
    let since = ["replay", "--subscription", "bill-orders", "--since", "1h", "--exact", "id=o-7"];
    let out = s.dispatch(&since).ok();
    assert_eq!(out, "1 of 3 events will be delivered to bill-orders again\n");
    s.deliveries("bill-orders", "delivered", 2);
    let runs = s.runs_of("bill");
    let invoices: Vec<&Value> = runs.iter().map(|run| &run["output"]["invoice"]).collect();
    let invoices: Vec<_> = invoices.iter().filter(|invoice| invoice.is_string()).collect();
    assert!(invoices.len() == 2 && invoices[0] == invoices[1], "{runs:?}");
}

#[test]
fn dead_deliveries_come_back() {
    let s = Server::start();
    s.image("python3");
    s.python("f", "def handle(ctx, payload):\n    raise RuntimeError('not yet')\n", &[]);
    let flags = ["--event-type=t", "--retry-attempts=2", "--retry-backoff=1"];
    s.subscribe("s", "f", &flags);
    assert_eq!(s.emit(&[event("1", "t", 1), event("2", "t", 2), event("3", "t", 3)]), [3, 3, 0]);
    let dead = s.deliveries("s", "dead", 3);
    assert!(dead.iter().all(|it| it["attempts"] == 2 && it["error"] == "not yet"), "{dead:?}");
    let id = dead[0]["id"].as_str().unwrap();
    let shown = s.dispatch(&["get", "delivery", id, "-o", "json"]).json();
    let run = s.dispatch(&["get", "run", "f", shown["run"].as_str().unwrap(), "-o", "json"]).json();
    assert_eq!(run["status"], "ERROR");
    let table = s.dispatch(&["get", "subscription", "s", "--progress"]).ok();
    assert!(table.contains("\nLast error: not yet\n"), "{table}");
    let mended = s.file("mended.py", "def handle(ctx, payload):\n    return payload\n");
    s.dispatch(&["update", "function", "f", &mended, "--wait"]).ok();
    let out = s.dispatch(&["redrive", "delivery", id]).ok();
    assert_eq!(out, format!("Redriven delivery: {id}\n"));
    s.deliveries("s", "delivered", 1);
    let error = s.dispatch(&["redrive", "delivery", id]).fails();
    assert!(error.starts_with("[Code: 400] "), "{error}");
    let out = s.dispatch(&["redrive", "deliveries", "--subscription", "s"]).ok();
    assert_eq!(out, "Redriven deliveries of s: 2\n");
    s.deliveries("s", "delivered", 3);
}

#[test]
fn a_replay_is_counted_first() {
    let s = Server::start();
    s.image("python3");
    s.python("f", ECHO, &[]);
    let events: Vec<Value> = (0..5).map(|n| event(&n.to_string(), "t", n)).collect();
    assert_eq!(s.emit(&events), [5, 0, 0]);
    assert_eq!(s.emit(&events), [0, 0, 5]);
    s.subscribe("late", "f", &["--event-type", "t"]);
    let flags = ["--subscription", "late", "--since", "1d", "--sql", "INT(id) > 2"];
    let replay = |more: &[&str]| s.dispatch(&[&["replay"], &flags[..], more].concat());
    let out = replay(&["--dry-run"]).ok();
    assert_eq!(out, "2 of 5 events would be delivered to late again\n");
    s.deliveries("late", "delivered", 0);
    assert_eq!(replay(&[]).ok(), "2 of 5 events will be delivered to late again\n");
    let delivered = s.deliveries("late", "delivered", 2);
    assert!(delivered.iter().all(|it| it["eventId"] == "3" || it["eventId"] == "4"));
    let counted = replay(&["--until", "1d", "-o", "json"]).json();
    assert_eq!(counted, json!({ "events": 0, "deliveries": 0 }));
}

#[test]
fn chains_that_bite_their_tail_end() {
    let s = Server::with(&["--event-hops", "4"]);
    s.image("python3");
    s.python("f", "def handle(ctx, payload):\n    return payload + 1\n", &[]);
    s.subscribe("loop", "f", &["--event-type", "t", "--reply-type", "t", "--reply-source", "/f"]);
    s.dispatch(&["emit", "t", "--data", "0"]).ok();
    let delivered = s.deliveries("loop", "delivered", 5);
    let error = delivered[0]["error"].as_str().unwrap();
    assert!(error.contains("reply was dropped"), "{error}");
    let log = s.dispatch(&["get", "events", "--type", "t", "-o", "json"]).json();
    let log = log.as_array().unwrap();
    let data: Vec<&Value> = log.iter().map(|entry| &entry["event"]["data"]).collect();
    assert_eq!(data, [4, 3, 2, 1, 0].iter().collect::<Vec<&i32>>());
    assert_eq!(log[0]["event"]["source"], "/f");
}

#[test]
fn what_has_one_key_comes_in_order() {
    let s = Server::start();
    s.image("python3");
    // The first of each key fails once, and the others wait for it.
    let source = "import os\ndef handle(ctx, payload):\n    if payload == 0 and ctx['event']['id'] not in seen:\n        seen.add(ctx['event']['id'])\n        raise RuntimeError('once')\n    return payload\nseen = set()\n";
    s.python("f", source, &["--max-scale", "1"]);
    let flags = ["--event-type=t", "--ordering-key=subject", "--retry-backoff=20"];
    s.subscribe("s", "f", &flags);
    let events: Vec<Value> = (0..20)
        .map(|n| {
            let mut event = event(&n.to_string(), "t", n / 2);
            event["subject"] = json!(if n % 2 == 0 { "a" } else { "b" });
            event
        })
        .collect();
    assert_eq!(s.emit(&events), [20, 20, 0]);
    s.deliveries("s", "delivered", 20);
    let mut runs = s.runs_of("f");
    runs.retain(|run| run["status"] == "READY");
    runs.sort_by_key(|run| run["finishedAt"].as_str().unwrap().to_owned());
    for key in ["a", "b"] {
        let of_key = runs.iter().filter(|run| run["event"]["subject"] == key);
        let outputs: Vec<i64> = of_key.map(|run| run["output"].as_i64().unwrap()).collect();
        assert_eq!(outputs, (0..10).collect::<Vec<i64>>(), "{key}");
    }
}

#[test]
fn a_batch_is_one_call() {
    let s = Server::start();
    s.image("python3");
    s.python("f", "def handle(ctx, payload):\n    return [e['id'] for e in ctx['event']]\n", &[]);
    s.subscribe("s", "f", &["--event-type=t", "--batch=10", "--paused"]);
    let events: Vec<Value> = (0..10).map(|n| event(&n.to_string(), "t", n)).collect();
    assert_eq!(s.emit(&events), [10, 10, 0]);
    s.deliveries("s", "waiting", 10);
    let table = s.dispatch(&["get", "subscription", "s", "--progress"]).ok();
    assert!(table.contains("Waiting: it is paused"), "{table}");
    s.dispatch(&["update", "subscription", "s", "--resume"]).ok();
    s.deliveries("s", "delivered", 10);
    let run = s.runs_of("f").remove(0);
    let ids: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!((&run["output"], &run["input"]), (&json!(ids), &json!((0..10).collect::<Vec<_>>())));
}
