//! `dispatch exec`.

use serde_json::{Value, json};

use crate::support::Fake;

const CALL: &str = "POST /v1/runs?functionName=hello";

fn run() -> Value {
    json!({
        "blocking": true, "executedTime": 1795358350, "faasId": "f", "finishedTime": 1795358351,
        "functionId": "i", "functionName": "hello", "input": {"name": "Jon", "a": 1},
        "logs": {"stderr": null, "stdout": ["messages to stdout show up in logs"]},
        "name": "4bf64461-48d5-41de-9c33-02160420b53c", "output": {"myField": "Hello, <Jon>"},
        "reason": null, "secrets": ["open-sesame"], "services": null, "status": "READY", "tags": [],
        "executedAt": "2026-11-22T14:39:10Z",
    })
}

#[test]
fn the_envelope() {
    let fake = Fake::start();
    fake.expect(CALL, 200, &run());
    let out = fake.dispatch_with(&["exec", "hello"], "{\"name\": \"user\"}\n").ok();
    let wanted = r#"{
    "context": {
        "logs": {
            "stdout": [
                "messages to stdout show up in logs"
            ],
            "stderr": null
        }
    },
    "payload": {
        "myField": "Hello, \u003cJon\u003e"
    }
}
"#;
    assert_eq!(out, wanted);
    let body = fake.body();
    assert_eq!((&body["input"], &body["blocking"]), (&json!({"name": "user"}), &json!(true)));
    let mut failed = run();
    failed["error"] = json!({"type": "InputError", "message": "bad", "stacktrace": ["a"]});
    failed.as_object_mut().unwrap().remove("output");
    fake.expect(CALL, 200, &failed).expect(CALL, 200, &failed);
    let envelope: Value = serde_json::from_str(&fake.dispatch(&["exec", "hello"]).ok()).unwrap();
    assert_eq!(envelope["context"]["error"]["type"], "InputError");
    assert_eq!(envelope["payload"], Value::Null);
    let done = fake.dispatch(&["exec", "hello", "--fail"]);
    assert!(done.out.contains("InputError"));
    assert_eq!(done.fails(), "");
}

#[test]
fn the_run() {
    let fake = Fake::start();
    fake.expect(CALL, 200, &run());
    let out = fake.dispatch(&["exec", "hello", "--wait", "--input", "{\"name\": \"Jon\"}"]).ok();
    let wanted = r#"{
    "blocking": true,
    "executedTime": 1795358350,
    "faasId": "f",
    "finishedTime": 1795358351,
    "functionId": "i",
    "functionName": "hello",
    "input": {
        "a": 1,
        "name": "Jon"
    },
    "logs": {
        "stderr": null,
        "stdout": [
            "messages to stdout show up in logs"
        ]
    },
    "name": "4bf64461-48d5-41de-9c33-02160420b53c",
    "output": {
        "myField": "Hello, \u003cJon\u003e"
    },
    "reason": null,
    "secrets": [
        "open-sesame"
    ],
    "services": null,
    "status": "READY",
    "tags": [],
    "executedAt": "2026-11-22T14:39:10Z"
}
"#;
    assert_eq!(out, wanted);
    for flags in [&["-o", "json"][..], &["--json"], &["--wait", "-o", "json"]] {
        fake.expect(CALL, 200, &run());
        assert_eq!(fake.dispatch(&[&["exec", "hello", "--input={}"], flags].concat()).ok(), wanted);
    }
    fake.asked();
    fake.expect(CALL, 202, &run());
    let args = ["exec", "hello", "--async", "-o", "name", "--secret", "a,b", "--secret", "c"];
    assert_eq!(fake.dispatch(&args).ok(), "4bf64461-48d5-41de-9c33-02160420b53c\n");
    let body = fake.body();
    assert_eq!((&body["blocking"], &body["secrets"]), (&Value::Null, &json!(["a", "b", "c"])));
}

#[test]
fn payloads() {
    let fake = Fake::start();
    fake.file("in.json", "[1, 2]");
    let sent = |args: &[&str], stdin: Option<&str>| {
        fake.expect(CALL, 200, &run());
        let args = [&["exec", "hello"], args].concat();
        match stdin {
            Some(text) => fake.dispatch_with(&args, text).ok(),
            None => fake.dispatch(&args).ok(),
        };
        fake.body()["input"].clone()
    };
    assert_eq!(sent(&[], None), json!({}), "nothing on standard input");
    assert_eq!(sent(&[], Some(" \n")), json!({}));
    assert_eq!(sent(&[], Some("42")), json!(42));
    assert_eq!(sent(&["--input", "null"], Some("42")), json!(null));
    assert_eq!(sent(&["--input", "@in.json"], None), json!([1, 2]));
    assert_eq!(sent(&["--input", "-"], Some("\"x\"")), json!("x"));
    assert_eq!(sent(&["--wait"], None), json!({}));
    assert_eq!(sent(&["--wait", "--input", "-"], Some("7")), json!(7));
    assert_eq!(sent(&["-c", "text/plain"], Some("hi\n")), json!("hi\n"));
    assert_eq!(sent(&["-c", "image/png"], Some("hi")), json!("aGk="));
}

#[test]
fn payloads_that_are_no_json() {
    let fake = Fake::start();
    let done = fake.dispatch(&["exec", "hello", "--wait", "--input", "{"]);
    assert_eq!(
        done.fails(),
        "Error when parsing function parameters {\nunexpected end of JSON input\n"
    );
    let error = fake.dispatch_with(&["exec", "hello"], "nope\n").fails();
    assert!(error.starts_with("Error when parsing function parameters nope\n"), "{error}");
    let error = fake.dispatch(&["exec", "hello", "--input", "@missing"]).fails();
    assert_eq!(
        error,
        "error when reading content of missing: open missing: no such file or directory\n"
    );
}

#[test]
fn functions_that_are_not_there() {
    let fake = Fake::start();
    let problem = json!({"code": 404, "message": "function nope not found"});
    fake.expect("POST /v1/runs?functionName=nope", 404, &problem);
    let error = fake.dispatch(&["exec", "nope", "--wait"]).fails();
    assert_eq!(error, "[Code: 404] function nope not found\n");
}
