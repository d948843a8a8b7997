//! The lines of the quickstart, exactly as the README has them.

use serde_json::json;

use crate::support::Server;

#[test]
fn from_source_to_endpoint_in_python() {
    let s = Server::start();
    let url = "dispatchframework/python3-base:0.0.13-knative";
    let out = s.dispatch(&["create", "base-image", "python3-base", url]).ok();
    assert_eq!(out, "Created base image: python3-base\n");
    // Scripts of the old system look for this state right after the creation.
    let base = s.dispatch(&["get", "base-image", "python3-base", "-o", "json"]).json();
    assert_eq!(base["status"], "INITIALIZED");
    let out = s.dispatch(&["create", "image", "python3", "python3-base"]).ok();
    assert_eq!(out, "Created image: python3\n");
    s.ready("image", "python3");
    let table = s.dispatch(&["get", "images"]).ok();
    assert!(table.contains("python3-base") && table.contains("READY"), "{table}");

    let source = "./examples/python3/hello.py";
    let out = s.dispatch(&["create", "function", "--image", "python3", "hello", source]).ok();
    assert_eq!(out, "Created function: hello\n");
    s.ready("function", "hello");
    let table = s.dispatch(&["get", "function"]).ok();
    assert!(table.contains("hello") && table.contains("READY"), "{table}");

    let answer = s.dispatch_with(&["exec", "hello"], Some("{\"name\": \"user\"}\n")).json();
    let wanted = json!({
        "context": {"logs": {"stdout": ["messages to stdout show up in logs"], "stderr": null}},
        "payload": {"myField": "Hello, user from Nowhere"},
    });
    assert_eq!(answer, wanted);

    let out = s
        .dispatch(&[
            "create",
            "endpoint",
            "get-hello",
            "hello",
            "--method",
            "GET",
            "--method",
            "POST",
            "--path",
            "/hello",
        ])
        .ok();
    assert_eq!(out, "Created endpoint: get-hello\n");
    let host = "Host: default.default.dispatch.local";
    let answer = curl(&[&s.url("/hello?name=Jon"), "-H", host]);
    assert_eq!(answer["myField"], "Hello, Jon from Nowhere");
    // The only organization of this machine: no host needed.
    assert_eq!(curl(&[&s.url("/hello?name=Jon")])["myField"], "Hello, Jon from Nowhere");
}

#[test]
fn from_source_to_endpoint_in_nodejs() {
    let s = Server::start();
    s.image("nodejs");
    let source = "./examples/nodejs/hello.js";
    s.dispatch(&["create", "function", "--image", "nodejs", "hello", source]).ok();
    s.ready("function", "hello");
    let answer =
        s.dispatch_with(&["exec", "hello"], Some(r#"{"name":"Jon","place":"Winterfell"}"#));
    assert_eq!(answer.json()["payload"]["myField"], "Hello, Jon from Winterfell");
    s.dispatch(&["create", "api", "post-hello", "hello", "-m", "POST", "-p", "/hello"]).ok();
    let api = s.dispatch(&["get", "api", "post-hello", "-o", "json"]).json();
    assert_eq!(api["uris"], json!(["/default/hello"]));
    let answer = curl(&[&s.url("/default/hello"), "--json", r#"{"name":"Jon"}"#]);
    assert_eq!(answer["myField"], "Hello, Jon from Nowhere");
}

#[test]
fn a_directory_needs_a_handler() {
    let s = Server::start();
    s.image("python3");
    s.image("nodejs");
    let create = |image: &str, name: &str, path: &str, handler: &str| {
        s.dispatch(&["create", "function", "--image", image, name, path, "--handler", handler])
            .ok();
        s.ready("function", name);
        let run = s.run(name, r#"{"name":"Jon","place":"Winterfell"}"#);
        assert_eq!(run["output"]["myField"], "Hello, Jon from Winterfell", "{run}");
    };
    create("python3", "py", "examples/python3", "hello.handle");
    create("nodejs", "js", "examples/nodejs", "./hello.js");
    let error =
        s.dispatch(&["create", "function", "--image", "python3", "no", "examples/python3"]).fails();
    assert!(error.contains("handler is required"), "{error}");
}

fn curl(args: &[&str]) -> serde_json::Value {
    let output =
        std::process::Command::new("curl").args(["-sS", "--max-time", "30"]).args(args).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}
