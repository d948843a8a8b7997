//! Events and deliveries.

use serde_json::{Value, json};

use crate::golden::lines;
use crate::support::{Asked, Fake};

/// The header and the body of the only request.
fn sent(fake: &Fake) -> (String, Value) {
    let mut asked = fake.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let Asked { headers, body } = asked.remove(0);
    (headers["content-type"].to_str().unwrap().to_owned(), body)
}

#[test]
fn an_old_event_is_emitted_as_it_was() {
    let fake = Fake::start();
    fake.expect_events(200, [1, 2, 0]);
    let args = ["emit", "ev.one", "--data={\"name\":\"ev\"}", "--content-type=text/plain"];
    assert_eq!(fake.dispatch(&args).ok(), "event emitted\n");
    let (kind, mut body) = sent(&fake);
    assert_eq!(kind, "application/json");
    let taken = |body: &mut Value, key: &str| body.as_object_mut().unwrap().remove(key).unwrap();
    assert_eq!(taken(&mut body, "eventID").as_str().unwrap().len(), 36);
    assert!(taken(&mut body, "eventTime").as_str().unwrap().ends_with('Z'));
    let wanted = json!({ "cloudEventsVersion": "0.1", "contentType": "application/json",
        "data": { "name": "ev" }, "eventType": "ev.one", "source": "dispatch" });
    assert_eq!(body, wanted);
    fake.expect_events(200, [1, 0, 0]);
    let flags = ["--source-id=/s", "--event-id=7", "--event-type-version=2", "--extension=a=b=c"];
    let args = [&["emit", "ev.one", "--event-schema-url=/schema"], &flags[..]].concat();
    fake.dispatch(&args).ok();
    let (_, body) = sent(&fake);
    let parts = json!([
        body["source"],
        body["eventID"],
        body["eventTypeVersion"],
        body["schemaURL"],
        body["extensions"],
        body.get("data"),
        body.get("contentType")
    ]);
    assert_eq!(parts, json!(["/s", "7", "2", "/schema", { "a": "b=c" }, null, null]));
    fake.expect_events(200, [0, 0, 1]);
    let out = fake.dispatch(&["emit", "ev.one", "--event-id", "7"]).ok();
    assert_eq!(out, "event was emitted before, and is not delivered again\n");
    fake.expect_events(200, [1, 2, 0]);
    let out = fake.dispatch(&["emit", "ev.one", "-o", "json"]).ok();
    let wanted = json!({ "events": 1, "deliveries": 2, "duplicates": 0 });
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), wanted);
}

#[test]
fn an_event_of_1_0_is_structured() {
    let fake = Fake::start();
    fake.expect_events(202, [1, 0, 0]);
    let args = ["emit", "order.made", "--subject=o-7", "--event-id=1", "--extension=region=eu"];
    assert_eq!(fake.dispatch(&[&args[..], &["--data=[1]"]].concat()).ok(), "event emitted\n");
    let (kind, mut body) = sent(&fake);
    assert_eq!(kind, "application/cloudevents+json");
    body.as_object_mut().unwrap().remove("time").unwrap();
    let wanted = json!({ "specversion": "1.0", "id": "1", "source": "dispatch",
        "type": "order.made", "subject": "o-7", "datacontenttype": "application/json",
        "region": "eu", "data": [1] });
    assert_eq!(body, wanted);
    for (flags, wanted) in [
        (&["--subject=x", "--spec-version=0.1"][..], "events of 0.1 have no --subject"),
        (&["--event-type-version=2", "--spec-version=1.0"], "events of 1.0 have no --event-type-"),
        (&["--extension=x"], "invalid argument \"x\" for \"--extension\": use KEY=VALUE\n"),
        (
            &["--spec-version=2"],
            "Error: invalid argument \"2\" for \"--spec-version\": use one of 0.1, 1.0",
        ),
        (&["--data={"], "Error reading event data: --data: the body is not JSON"),
    ] {
        let error = fake.dispatch(&[&["emit", "t"], flags].concat()).fails();
        assert!(error.starts_with(wanted), "{flags:?}: {error}");
    }
}

#[test]
fn files_are_sent_as_what_they_are() {
    let fake = Fake::start();
    fake.file("a.json", "{\"n\": 1}");
    fake.file("a.txt", "hello\n");
    std::fs::write(fake.home().join("a.bin"), [0xff, 0]).unwrap();
    let parts = |args: &[&str]| {
        fake.expect_events(200, [1, 0, 0]);
        fake.dispatch(&[&["emit", "t"], args].concat()).ok();
        let (_, body) = sent(&fake);
        let kind = body.get("contentType").or(body.get("datacontenttype")).cloned();
        (kind.unwrap_or_default(), body)
    };
    let (kind, body) = parts(&["--data-from-file", "a.json"]);
    assert_eq!((kind, &body["data"]), (json!("application/json"), &json!({ "n": 1 })));
    let (kind, body) = parts(&["--data-from-file", "a.txt"]);
    assert_eq!((kind, &body["data"]), (json!("text/plain; charset=utf-8"), &json!("hello\n")));
    let (kind, body) = parts(&["--data-from-file", "a.bin"]);
    assert_eq!((kind, &body["data"]), (json!("application/octet-stream"), &json!("/wA=")));
    let (kind, body) = parts(&["--data-from-file=a.txt", "--binary", "--content-type=image/png"]);
    assert_eq!((kind, &body["data"]), (json!("image/png"), &json!("aGVsbG8K")));
    let (_, body) = parts(&["--data-from-file", "a.bin", "--spec-version", "1.0"]);
    assert_eq!((body.get("data"), &body["data_base64"]), (None, &json!("/wA=")));
    fake.expect_events(200, [1, 0, 0]);
    fake.dispatch_with(&["emit", "t", "--data-from-file", "-"], "[1]").ok();
    assert_eq!(sent(&fake).1["data"], json!([1]));
    let error = fake.dispatch(&["emit", "t", "--data", "1", "--data-from-file", "a.txt"]).fails();
    let wanted = "Error reading event data: --data and --data-from-file are mutually exclusive, \
                  specify only one of them\n";
    assert_eq!(error, wanted);
    let error = fake.dispatch(&["emit", "t", "--data-from-file", "none"]).fails();
    assert_eq!(error, "Error reading event data: open none: no such file or directory\n");
    let args = ["emit", "t", "--data-from-file", "a.txt", "--content-type", "application/json"];
    let error = fake.dispatch(&args).fails();
    assert!(error.starts_with("Error reading event data: a.txt: the body is not JSON"), "{error}");
}

#[test]
fn a_file_of_events_is_sent_in_batches() {
    let fake = Fake::start();
    let event = |n: usize| json!({ "specversion": "1.0", "id": n, "source": "/s", "type": "t" });
    let text: String = (0..1001).map(|n| format!("{}\n", event(n))).collect();
    fake.file("events.jsonl", &text);
    fake.expect_events(202, [1000, 2000, 0]).expect_events(202, [0, 0, 1]);
    let out = fake.dispatch(&["emit", "--batch-file", "events.jsonl"]).ok();
    let wanted = "1000 events emitted; 1 were emitted before, and are not delivered again\n";
    assert_eq!(out, wanted);
    let asked = fake.asked();
    assert_eq!(asked[0].headers["content-type"], "application/cloudevents-batch+json");
    assert_eq!(
        (asked[0].body[999]["id"].clone(), &asked[1].body),
        (json!(999), &json!([event(1000)]))
    );
    fake.expect_events(202, [2, 0, 0]);
    let list = json!([event(1), event(2)]).to_string();
    assert_eq!(fake.dispatch_with(&["emit", "--batch-file=-"], &list).ok(), "2 events emitted\n");
    let problem = json!({ "code": 400, "message": "Error validating event: event 1: no" });
    fake.expect_events(202, [1000, 0, 0]).expect("POST /v1/event", 400, &problem);
    let error = fake.dispatch(&["emit", "--batch-file", "events.jsonl"]).fails();
    let wanted = "[Code: 400] Error validating event: event 1: no\nThe first 1000 of 1001 events were \
                  accepted. ";
    assert!(error.starts_with(wanted), "{error}");
    let error = fake.dispatch_with(&["emit", "--batch-file=-"], "{} x").fails();
    assert!(error.starts_with("Error reading events: -: "), "{error}");
    let error = fake.dispatch(&["emit", "t", "--batch-file=-"]).fails();
    assert!(error.contains("cannot be used with"), "{error}");
}

fn delivery(id: &str, state: &str) -> Value {
    json!({ "id": id, "subscription": "s", "state": state, "eventId": "e-1", "eventSource": "/s",
        "eventType": "order.made", "attempts": 8, "error": "function f: no",
        "created": "2026-11-22T14:39:11Z", "modified": "2026-11-22T14:39:12Z" })
}

#[test]
fn the_log_and_deliveries_are_shown() {
    let fake = Fake::start();
    let event = json!({ "cloudEventsVersion": "0.1", "eventID": "e-1", "eventType": "order.made",
        "source": "/s" });
    let logged = json!([{ "number": 12, "accepted": "2026-11-22T14:39:11.25Z", "event": event }]);
    fake.expect("GET /v1/event/log?type=order.made&limit=5", 200, &logged);
    let out = fake.dispatch(&["get", "events", "--type", "order.made", "--limit", "5"]).ok();
    let wanted = "
        |   NUMBER |    TYPE    | SOURCE | ID  |        ACCEPTED          
        | ----------------------------------------------------------
        |       12 | order.made | /s     | e-1 | 2026-11-22T14:39:11.25Z  
    ";
    assert_eq!(out, lines(wanted));
    fake.expect("GET /v1/event/log", 200, &logged);
    let out = fake.dispatch(&["get", "event", "-o", "json"]).ok();
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), logged);
    let path = "/v1/event/deliveries";
    let all = json!([delivery("3", "dead"), delivery("2", "dead")]);
    fake.expect(&format!("GET {path}?subscription=s&state=dead&limit=2"), 200, &all);
    let flags = ["--subscription", "s", "--state", "DEAD", "--limit", "2"];
    let out = fake.dispatch(&[&["get", "deliveries"], &flags[..]].concat()).ok();
    let wanted = "
        |   ID | SUBSCRIPTION | STATE | EVENT TYPE | EVENT ID | ATTEMPTS |     ERROR       
        | -------------------------------------------------------------------------
        |    3 | s            | dead  | order.made | e-1      |        8 | function f: no  
        |    2 | s            | dead  | order.made | e-1      |        8 | function f: no  
    ";
    assert_eq!(out, lines(wanted));
    fake.expect(&format!("GET {path}/3"), 200, &delivery("3", "dead"));
    assert_eq!(fake.dispatch(&["get", "delivery", "3", "-o", "name"]).ok(), "3\n");
    let error = fake.dispatch(&["get", "deliveries", "--state", "lost"]).fails();
    let wanted = "Error: invalid argument \"lost\" for \"--state\": use one of waiting, blocked, \
                  delivered, dead";
    assert!(error.starts_with(wanted), "{error}");
}

#[test]
fn dead_deliveries_are_redriven() {
    let fake = Fake::start();
    let path = "/v1/event/deliveries/3/redrive";
    fake.expect(&format!("POST {path}"), 202, &delivery("3", "waiting"));
    assert_eq!(fake.dispatch(&["redrive", "delivery", "3"]).ok(), "Redriven delivery: 3\n");
    fake.expect("POST /v1/event/redrive?subscription=s", 202, &json!({ "deliveries": 2 }));
    let out = fake.dispatch(&["redrive", "deliveries", "--subscription", "s"]).ok();
    assert_eq!(out, "Redriven deliveries of s: 2\n");
    let error = fake.dispatch(&["redrive", "deliveries"]).fails();
    assert!(error.starts_with("Error: accepts 1 arg(s), received 0\n"), "{error}");
}

#[test]
fn events_are_replayed() {
    let fake = Fake::start();
    let replayed = json!({ "events": 40, "deliveries": 12 });
    fake.expect("POST /v1/event/replay", 202, &replayed);
    let args = ["replay", "--subscription=s", "--since=2026-01-31T09:00:00+01:00", "--dry-run"];
    let flags = ["--until=2026-02-01T00:00:00Z", "--exact=subject=x"];
    let out = fake.dispatch(&[&args[..], &flags[..]].concat()).ok();
    assert_eq!(out, "12 of 40 events would be delivered to s again\n");
    let wanted = json!({ "subscription": "s", "since": "2026-01-31T08:00:00Z",
        "until": "2026-02-01T00:00:00Z", "filters": [{ "exact": { "subject": "x" } }],
        "dryRun": true });
    assert_eq!(fake.body(), wanted);
    fake.expect("POST /v1/event/replay", 202, &replayed);
    let out = fake.dispatch(&["replay", "--subscription", "s", "--since", "2d"]).ok();
    assert_eq!(out, "12 of 40 events will be delivered to s again\n");
    let body = fake.body();
    assert_eq!((body.get("until"), body.get("dryRun"), body.get("filters")), (None, None, None));
    let error = fake.dispatch(&["replay", "--subscription", "s", "--since", "soon"]).fails();
    assert!(error.starts_with("invalid argument \"soon\" for \"--since\": use a time"), "{error}");
}
