//! Source archives that try to get out of where they are unpacked.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::json;

use crate::http;
use crate::support::{Server, root, until};

/// Everything below a directory, without what the server writes all the time.
fn tree(s: &Server) -> Vec<String> {
    let found =
        Command::new("find").args(["sources", "layers"]).current_dir(&s.data).output().unwrap();
    assert!(found.status.success(), "{found:?}");
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn archives_that_try_to_get_out_are_refused_by_name() {
    let made = Command::new("python3")
        .arg(root().join("tests/attacks/functions/archives.py"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let archives: BTreeMap<String, String> = serde_json::from_slice(&made.stdout).unwrap();
    let s = Server::start();
    s.image("python3");
    let before = tree(&s);
    for (n, archive) in archives.values().enumerate() {
        let body = json!({
            "name": format!("evil{n}"), "image": "python3", "handler": "handler.handle",
            "source": archive,
        });
        let body = body.to_string();
        let reply = http::api(s.port, "default", "POST", "/v1/function", body.as_bytes());
        assert_eq!(reply.status, 201, "{}", reply.text());
    }
    let mut wrong = Vec::new();
    for (n, what) in archives.keys().enumerate() {
        let path = format!("/v1/function/evil{n}");
        let get = || http::api(s.port, "default", "GET", &path, b"").json();
        until(what, || ["READY", "ERROR"].contains(&get()["status"].as_str().unwrap()));
        let function = get();
        let reason = function["reason"][0].as_str().unwrap_or_default();
        if function["status"] != "ERROR" || !reason.contains("archive") {
            wrong.push(format!("{what}: {} {reason}", function["status"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!std::path::Path::new("/tmp/escaped").exists());
    let after = tree(&s);
    assert_eq!(before, after, "nothing of a refused archive is left");
}
