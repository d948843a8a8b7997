//! Runs: schemas, errors, logs, deadlines, crashes, retries.

use serde_json::{Value, json};

use crate::support::{Server, until};

#[test]
fn what_a_call_writes_is_in_its_run_and_in_no_other() {
    let s = Server::start();
    s.image("python3");
    let source = r#"
import sys
print("noise while loading")
def handle(ctx, payload):
    print("out", payload)
    print("err", payload, file=sys.stderr)
    sys.stdout.write("no newline")
    return None
"#;
    s.python("logs", source, &[]);
    for n in 1..=3 {
        let run = s.run("logs", &n.to_string());
        assert_eq!(run["logs"]["stdout"], json!([format!("out {n}"), "no newline"]));
        assert_eq!(run["logs"]["stderr"], json!([format!("err {n}")]));
    }
}

#[test]
fn schemas_are_checked_on_both_sides() {
    let s = Server::start();
    s.image("nodejs");
    let source = s.file("echo.js", "module.exports = (context, payload) => payload.answer\n");
    let input = s.file("in.json", r#"{"type":"object","required":["answer"]}"#);
    let output = s.file(
        "out.json",
        r#"{"$schema":"http://json-schema.org/draft-04/schema#","type":"string"}"#,
    );
    let args = ["create", "function", "--image", "nodejs", "echo", &source];
    let schemas = ["--schema-in", &input, "--schema-out", &output];
    s.dispatch(&[&args[..], &schemas[..]].concat()).ok();
    s.ready("function", "echo");
    assert_eq!(s.run("echo", r#"{"answer":"x"}"#)["output"], "x");
    let run = s.run("echo", "{}");
    assert_eq!((&run["status"], &run["error"]["type"]), (&json!("ERROR"), &json!("InputError")));
    assert!(
        run["error"]["message"].as_str().unwrap().starts_with("Input invalid against schema: ")
    );
    let run = s.run("echo", r#"{"answer":7}"#);
    assert_eq!(run["error"]["type"], "FunctionError");
    assert!(run["error"]["message"].as_str().unwrap().starts_with("Output invalid against schema"));
    let bad = s.file("bad.json", r#"{"type":"no such type"}"#);
    let error = s.dispatch(&[&args[..], &["--schema-in", &bad]].concat()).fails();
    assert!(error.contains("[Code: 400] could not decode schema.in"), "{error}");
}

#[test]
fn an_error_in_the_function_has_its_type_and_its_stack() {
    let s = Server::start();
    s.image("python3");
    let source = r#"
def helper(kind):
    raise {"value": ValueError, "other": RuntimeError}[kind]("bad " + kind)
async def handle(ctx, payload):
    helper(payload)
"#;
    s.python("raises", source, &[]);
    let run = s.run("raises", "\"value\"");
    assert_eq!(run["error"]["type"], "InputError");
    assert_eq!(run["error"]["message"], "bad value");
    let run = s.run("raises", "\"other\"");
    assert_eq!(run["error"]["type"], "FunctionError");
    let stack = run["error"]["stacktrace"].as_array().unwrap();
    let stack: Vec<&str> = stack.iter().map(|line| line.as_str().unwrap()).collect();
    assert!(stack.iter().any(|line| line.contains("helper")), "{stack:?}");
    assert!(!stack.iter().any(|line| line.contains("worker.py")), "{stack:?}");
    assert_eq!(run["reason"], json!(["error running function: raises: bad other"]));
    let exit = s.dispatch(&["exec", "raises", "--input", "\"other\"", "--fail"]).code;
    assert_eq!(exit, 1);
    let exit = s.dispatch(&["exec", "raises", "--input", "\"other\""]).code;
    assert_eq!(exit, 0);
}

#[test]
fn each_violent_end_has_its_own_message() {
    let s = Server::start();
    s.image("python3");
    let source = r#"
import os, signal, time
count = 0
def handle(ctx, payload):
    global count
    count += 1
    if payload == "segv": os.kill(os.getpid(), signal.SIGSEGV)
    if payload == "exit": os._exit(3)
    if payload == "hang": time.sleep(600)
    if payload == "eat":
        hoard = []
        while True: hoard.append(bytearray(b"x" * (8 << 20)))
    return count
"#;
    s.python("ends", source, &["--timeout", "1500", "--memory", "128"]);
    assert_eq!(s.run("ends", "0")["output"], 1);
    for (payload, word) in
        [("segv", "SIGSEGV"), ("exit", "code 3"), ("hang", "timeout"), ("eat", "memory")]
    {
        let run = s.run("ends", &format!("\"{payload}\""));
        let message = run["error"]["message"].as_str().unwrap_or_else(|| panic!("{run}"));
        assert!(message.contains(word), "{payload}: {message}");
        // A worker that ended badly is never used again.
        assert_eq!(s.run("ends", "0")["output"], 1, "after {payload}");
    }
}

#[test]
fn a_run_nobody_waits_for_is_tried_again_then_dead_then_redriven() {
    let s = Server::start();
    s.image("python3");
    let source = r#"
def handle(ctx, payload):
    if "open-sesame" not in ctx["secrets"]:
        raise RuntimeError("locked")
    return "in"
"#;
    let flags = ["--retries", "2", "--retry-backoff", "50"];
    s.python("door", source, &flags);
    let run = s.dispatch(&["exec", "door", "--async", "--input", "{}", "-o", "json"]).json();
    assert_eq!(run["status"], "INITIALIZED");
    let id = run["name"].as_str().unwrap().to_owned();
    let get = || s.dispatch(&["get", "run", "door", &id, "-o", "json"]).json();
    until("the run is dead", || get()["dead"] == true);
    assert_eq!(get()["attempts"], 3);
    let dead = s.dispatch(&["get", "runs", "--dead", "-o", "json"]).json();
    assert_eq!(dead.as_array().unwrap().len(), 1);
    let secret = s.file("key.json", r#"{"open-sesame":"yes"}"#);
    s.dispatch(&["create", "secret", "key", &secret]).ok();
    let path = s.home().join("src/door/handler.py");
    let mut update = vec!["update", "function", "door", path.to_str().unwrap(), "--secret", "key"];
    update.extend(flags);
    s.dispatch(&update).ok();
    s.ready("function", "door");
    s.dispatch(&["redrive", "run", &id]).ok();
    until("the run went well", || get()["status"] == "READY");
    assert_eq!(get()["output"], "in");
    let error = s.dispatch(&["redrive", "run", &id]).fails();
    assert!(error.contains("not dead"), "{error}");
}

#[test]
fn times_are_seconds_and_exact_and_say_where_the_time_went() {
    let s = Server::start();
    s.image("python3");
    s.python("fn", "def handle(ctx, payload):\n    return ctx\n", &["--timeout", "5000"]);
    let run = s.run("fn", "null");
    let executed = run["executedTime"].as_i64().unwrap();
    assert!((1_600_000_000..10_000_000_000).contains(&executed), "seconds: {executed}");
    let at = run["executedAt"].as_str().unwrap();
    assert_eq!(at.len(), "2026-01-02T03:04:05.123456789Z".len(), "{at}");
    let timings = &run["timings"];
    let part = |key: &str| timings[key].as_u64().unwrap();
    assert!(part("total") >= part("function"), "{timings}");
    assert!(run["output"]["deadline"].as_str().unwrap().ends_with('Z'));
    let runs: Value = s.dispatch(&["get", "runs", "fn", "-o", "json"]).json();
    assert_eq!(runs[0]["name"], run["name"]);
    s.dispatch(&["delete", "function", "fn"]).ok();
    assert_eq!(s.dispatch(&["get", "runs", "fn", "-o", "json"]).json(), json!([]));
}
