//! Subscriptions.

use serde_json::{Value, json};

use crate::golden::{begins, lines};
use crate::support::Fake;

fn subscription(name: &str, event_type: &str) -> Value {
    json!({
        "createdTime": 1795358353, "eventType": event_type, "function": "hello",
        "kind": "Subscription", "modifiedTime": 1795358353, "name": name, "secrets": null,
        "status": "READY", "tags": null,
    })
}

#[test]
fn subscriptions_are_shown_as_they_were() {
    let fake = Fake::start();
    let path = "/v1/event/subscriptions";
    fake.expect(&format!("POST {path}"), 201, &subscription("sub1", "ev.one"));
    let args = ["create", "subscription", "--event-type", "ev.one", "--name", "sub1", "hello"];
    let out = fake.dispatch(&[&args[..], &["-a", "app", "--secret", "a", "--secret=b,c"]].concat());
    assert_eq!(out.ok(), "created subscription: sub1\n");
    let body = fake.body();
    assert_eq!((&body["eventType"], &body["function"]), (&json!("ev.one"), &json!("hello")));
    assert_eq!(body["secrets"], json!(["a", "b", "c"]));
    assert_eq!(body["tags"], json!([{ "key": "Application", "value": "app" }]));
    for absent in ["uri", "filters", "retry", "batch", "deadLetter", "reply", "paused"] {
        assert_eq!(body.get(absent), None, "{absent}");
    }
    let both =
        json!([subscription("intense-impala-578350", "ev.two"), subscription("sub1", "ev.one")]);
    fake.expect(&format!("GET {path}"), 200, &both);
    let wanted = "
        |           NAME          | EVENT TYPE | FUNCTION NAME | STATUS |         CREATED DATE          
        | ----------------------------------------------------------------------------------------
        |   intense-impala-578350 | ev.two     | hello         | READY  | Sun Nov 22 14:39:13 UTC 2026  
        |   sub1                  | ev.one     | hello         | READY  | Sun Nov 22 14:39:13 UTC 2026  
    ";
    assert_eq!(fake.dispatch(&["get", "subscription"]).ok(), lines(wanted));
    fake.expect(&format!("GET {path}/sub1"), 200, &subscription("sub1", "ev.one"));
    let wanted = r#"
        | {
        |     "createdTime": 1795358353,
        |     "eventType": "ev.one",
        |     "function": "hello",
        |     "kind": "Subscription",
        |     "modifiedTime": 1795358353,
        |     "name": "sub1",
        |     "secrets": null,
        |     "status": "READY",
        |     "tags": null
        | }
    "#;
    begins(&fake.dispatch(&["get", "subscriptions", "sub1", "-o", "json"]).ok(), wanted);
    fake.expect(&format!("DELETE {path}/sub1"), 200, &subscription("sub1", "ev.one"));
    let out = fake.dispatch(&["delete", "subscription", "sub1"]).ok();
    assert_eq!(out, "Deleted subscription: sub1\n");
}

#[test]
fn names_are_made_where_none_is_given() {
    let fake = Fake::start();
    for flags in [&[][..], &["--name", ""]] {
        fake.expect("POST /v1/event/subscriptions", 201, &subscription("x", "t"));
        fake.dispatch(&[&["create", "subscription", "--event-type", "t", "f"], flags].concat())
            .ok();
        let name = fake.body()["name"].as_str().unwrap().to_owned();
        let parts: Vec<&str> = name.split('-').collect();
        assert!(parts.len() == 3 && parts[2].len() == 6, "{name}");
    }
}

#[test]
fn every_setting_of_a_subscription_has_a_flag() {
    let fake = Fake::start();
    fake.expect("POST /v1/event/subscriptions", 201, &subscription("s", ""));
    let flags = [
        "--filter={\"not\": {\"exact\": {\"type\": \"a\"}}}",
        "--exact=subject=a=b",
        "--prefix=source=/shop",
        "--suffix=type=.made",
        "--sql=hops < 4",
        "--retry-attempts=3",
        "--retry-backoff=10",
        "--retry-max-backoff=20",
        "--timeout=30",
        "--concurrency=2",
        "--ordering-key=subject",
        "--batch=1",
        "--dead-letter=http://127.0.0.1/dead",
        "--reply-type=order.billed",
        "--reply-source=/billing",
        "--paused",
        "--uri=https://example.com/in",
    ];
    fake.dispatch(&[&["create", "subscription", "--name", "s"], &flags[..]].concat()).ok();
    let body = fake.body();
    let filters = json!([
        { "not": { "exact": { "type": "a" } } },
        { "exact": { "subject": "a=b" } },
        { "prefix": { "source": "/shop" } },
        { "suffix": { "type": ".made" } },
        { "sql": "hops < 4" },
    ]);
    assert_eq!(body["filters"], filters);
    let retry = json!({ "attempts": 3, "backoff": 10, "maxBackoff": 20, "timeout": 30 });
    assert_eq!(body["retry"], retry);
    assert_eq!(body["deadLetter"], json!({ "uri": "http://127.0.0.1/dead" }));
    assert_eq!(body["reply"], json!({ "type": "order.billed", "source": "/billing" }));
    let rest = json!([
        body["concurrency"],
        body["orderingKey"],
        body["batch"],
        body["paused"],
        body["uri"],
        body["function"]
    ]);
    assert_eq!(rest, json!([2, "subject", 1, true, "https://example.com/in", ""]));
    // An update changes what is given: here most is taken away.
    let mut stored = body;
    stored["revision"] = json!("7");
    fake.expect("GET /v1/event/subscriptions/s", 200, &stored);
    fake.expect("PUT /v1/event/subscriptions/s", 200, &stored);
    let flags = [
        "--filter=",
        "--dead-letter=",
        "--reply-type=",
        "--ordering-key=",
        "--resume",
        "--timeout=5",
    ];
    let out = fake.dispatch(&[&["update", "subscription", "s", "f"], &flags[..]].concat()).ok();
    assert_eq!(out, "Updated subscription: s\n");
    let body = fake.asked().remove(1).body;
    for absent in ["uri", "filters", "deadLetter", "reply", "orderingKey", "paused"] {
        assert_eq!(body.get(absent), None, "{absent}");
    }
    let retry = json!({ "attempts": 3, "backoff": 10, "maxBackoff": 20, "timeout": 5 });
    assert_eq!((&body["retry"], &body["function"]), (&retry, &json!("f")));
    assert_eq!(body["revision"], "7");
}

#[test]
fn wrong_flags_of_subscriptions() {
    let fake = Fake::start();
    for (flags, wanted) in [
        (&["f", "--filter", "{"][..], "invalid argument \"{\" for \"--filter\": "),
        (&["f", "--exact", "x"], "invalid argument \"x\" for \"--exact\": use ATTRIBUTE=VALUE\n"),
        (&["f", "--reply-source", "/x"], "--reply-source goes with --reply-type\n"),
        (
            &["f", "--uri", "http://x/"],
            "Error: the argument '[FUNCTION]' cannot be used with '--uri",
        ),
        (&["f", "--batch", "x"], "Error: invalid argument \"x\" for \"--batch\": "),
    ] {
        let error = fake.dispatch(&[&["create", "subscription"], flags].concat()).fails();
        assert!(error.starts_with(wanted), "{flags:?}: {error}");
    }
    let error = fake.dispatch(&["update", "subscription", "s", "--paused", "--resume"]).fails();
    assert!(error.contains("cannot be used with"), "{error}");
}

#[test]
fn files_hold_subscriptions() {
    let fake = Fake::start();
    let file = "kind: Subscription\nname: s\neventType: test.event\nfunction: f\nsecrets:\n\
                tags:\n- key: role\n  value: test\n  more: x\nfilters:\n- exact: {subject: x}\n";
    fake.file("s.yaml", file);
    let path = "/v1/event/subscriptions";
    let problem = json!({ "code": 404, "message": "no" });
    fake.expect(&format!("PUT {path}/s"), 200, &subscription("s", "t"));
    assert_eq!(fake.dispatch(&["update", "-f", "s.yaml"]).ok(), "Updated Subscription: s\n");
    let body = fake.body();
    assert_eq!((&body["eventType"], &body["secrets"]), (&json!("test.event"), &Value::Null));
    assert_eq!(body["filters"], json!([{ "exact": { "subject": "x" } }]));
    fake.expect(&format!("PUT {path}/s"), 404, &problem);
    fake.expect(&format!("POST {path}"), 201, &subscription("s", "t"));
    assert_eq!(fake.dispatch(&["apply", "-f", "s.yaml"]).ok(), "Applied Subscription: s\n");
    fake.expect(&format!("POST {path}"), 201, &subscription("s", "t"));
    let out = fake.dispatch(&["create", "-f", "s.yaml", "--json"]).ok();
    let summary = out.strip_prefix("Created Subscription: s\n").unwrap();
    let summary: Value = serde_json::from_str(summary).unwrap();
    assert_eq!(summary["subscriptions"][0]["name"], "s");
    fake.expect(&format!("DELETE {path}/s"), 200, &subscription("s", "t"));
    assert_eq!(fake.dispatch(&["delete", "-f", "s.yaml"]).ok(), "Deleted Subscription: s\n");
}

#[test]
fn progress_is_told() {
    let fake = Fake::start();
    let mut item = subscription("s", "t");
    item["progress"] = json!({ "lag": 3, "delivered": 40, "dead": 1, "lastError": "no\u{1b}[2J",
        "lastDelivered": "2026-11-22T14:39:11.5Z", "waitingFor": "function hello is not READY" });
    fake.expect("GET /v1/event/subscriptions/s", 200, &item);
    let out = fake.dispatch(&["get", "subscription", "s", "--progress"]).ok();
    let wanted = "
        |   LAG | DELIVERED | DEAD |     LAST DELIVERED      
        | ----------------------------------------------
        |     3 |        40 |    1 | 2026-11-22T14:39:11.5Z  
        | 
        | Last error: no\u{fffd}[2J
        | 
        | Waiting: function hello is not READY
    ";
    assert_eq!(out, lines(wanted));
    fake.expect("GET /v1/event/subscriptions/s", 200, &item);
    let out = fake.dispatch(&["get", "subscription", "s", "--progress", "-o", "json"]).ok();
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&shown["lag"], &shown["dead"]), (&json!(3), &json!(1)));
}
