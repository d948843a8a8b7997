//! Lists that go on.

use std::io::{BufRead as _, BufReader, Read as _};

use serde_json::json;

use crate::golden::function;
use crate::support::Fake;

fn events() -> String {
    let put = |status: &str| format!("event: put\ndata: {}\n\n", function(status));
    let other = json!({"name": "other", "status": "READY", "createdTime": 1795358314});
    format!(
        ": hello\n\n{}event: synced\ndata: {{}}\n\n{}event: put\ndata: {other}\n\n\
         event: delete\ndata: {{\"name\":\"hello\"}}\n\n",
        put("CREATING"),
        put("ERROR")
    )
}

#[test]
fn rows_follow_the_table() {
    let fake = Fake::start();
    fake.expect_text("GET /v1/function?watch=true", 200, "text/event-stream", &events());
    let done = fake.dispatch(&["get", "functions", "-w"]);
    let wanted = "  NAME  | FUNCTIONIMAGE |  STATUS  |         CREATED DATE          \n\
                  --------------------------------------------------------------\n  \
                  hello |               | CREATING | Sun Nov 22 14:38:34 UTC 2026  \n  \
                  hello |               | ERROR    | Sun Nov 22 14:38:34 UTC 2026  \n  \
                  other |               | READY    | Sun Nov 22 14:38:34 UTC 2026  \n  \
                  hello DELETED\n";
    assert_eq!(done.out, wanted);
    assert_eq!(done.fails(), "the server ended the watch: start it again\n");
}

#[test]
fn one_name_and_other_forms() {
    let fake = Fake::start();
    let watch = |args: &[&str]| {
        fake.expect_text("GET /v1/function?watch=true", 200, "text/event-stream", &events());
        fake.dispatch(&[&["get", "function", "-w"], args].concat()).out
    };
    fake.expect("GET /v1/function/other", 200, &json!({"name": "other"}));
    assert_eq!(watch(&["other", "-o", "name"]), "other\n");
    assert_eq!(watch(&["-o", "name"]), "hello\nhello\nother\nhello\n");
    let out = watch(&["-o", "json"]);
    let lists: Vec<Vec<serde_json::Value>> =
        serde_json::Deserializer::from_str(&out).into_iter().collect::<Result<_, _>>().unwrap();
    let states: Vec<_> =
        lists.iter().flatten().map(|item| item["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["CREATING", "ERROR", "READY", "DELETED"]);
}

#[test]
fn runs_are_followed() {
    let fake = Fake::start();
    let run = json!({"name": "1-2", "functionName": "hello", "status": "READY", "secrets": [], "tags": [],
        "executedAt": "2026-11-22T14:39:10Z"});
    let text = format!("event: synced\ndata: {{}}\n\nevent: put\ndata: {run}\n\n");
    let line = "GET /v1/runs?functionName=hello&watch=true";
    fake.expect_text(line, 200, "text/event-stream", &text);
    let done = fake.dispatch(&["get", "runs", "hello", "-f"]);
    assert!(
        done.out.ends_with("\n  1-2 | hello    | READY  | 2026-11-22T14:39:10Z |           \n"),
        "{done:?}"
    );
    assert_eq!(done.code, 1);
    let text = "event: error\ndata: {\"message\":\"list again\"}\n\n";
    fake.expect_text(line, 200, "text/event-stream", text);
    assert!(fake.dispatch(&["get", "runs", "hello", "-f"]).fails().contains("list again"));
    fake.expect(line, 200, &json!([]));
    assert!(fake.dispatch(&["get", "runs", "hello", "-f"]).fails().contains("cannot be watched"));
}

/// A server whose watch does not end.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_a_watch() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let fake = Fake::start();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut child = fake.command(&["get", "functions", "-w", "--port", &port]).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = [0; 64];
    assert!(stream.read(&mut head).unwrap() > 0);
    let text =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: synced\ndata: {}\n\n";
    std::io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut header = String::new();
    out.read_line(&mut header).unwrap();
    assert!(header.contains("NAME"), "{header}");
    let killed =
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(killed.unwrap().success());
    let done = crate::support::finish(child);
    assert_eq!((done.code, done.err.as_str()), (1, ""));
}
