//! `dispatch edit`.

use serde_json::json;

use crate::golden::function;
use crate::support::{Done, Fake, finish};

fn edit(fake: &Fake, editor: &str) -> Done {
    let path = fake.file("editor.sh", &format!("#!/bin/sh\n{editor}\n"));
    let tmp = fake.home().join("tmp");
    std::fs::create_dir_all(&tmp).unwrap();
    let mut command = fake.command(&["edit", "function", "hello"]);
    command.env("EDITOR", format!("sh {}", path.display())).env("TMPDIR", tmp);
    finish(command.spawn().unwrap())
}

fn left_over(fake: &Fake) -> Vec<String> {
    let entries = std::fs::read_dir(fake.home().join("tmp")).unwrap();
    entries.map(|entry| entry.unwrap().path().display().to_string()).collect()
}

#[test]
fn what_was_changed_is_sent() {
    let fake = Fake::start();
    let mut stored = function("READY");
    stored["revision"] = json!("7");
    stored["schema"] = json!({"in": {"type": "object", "maxProperties": 3}});
    fake.expect("GET /v1/function/hello", 200, &stored);
    fake.expect("PUT /v1/function/hello", 200, &stored);
    let done = edit(&fake, "sed -i 's/^timeout: .*/timeout: 1234/' \"$1\"");
    assert_eq!(done.ok(), "Updated Function: hello\n");
    let body = &fake.asked()[1].body;
    assert_eq!((&body["timeout"], &body["revision"]), (&json!(1234), &json!("7")));
    assert_eq!(body["schema"], stored["schema"]);
    assert_eq!(body["secrets"], json!(["open-sesame"]));
    assert_eq!(body.get("source"), None, "the source stays");
    assert_eq!(left_over(&fake), [""; 0]);
}

#[test]
fn nothing_changed() {
    let fake = Fake::start();
    fake.expect("GET /v1/function/hello", 200, &function("READY"));
    assert_eq!(edit(&fake, "true").ok(), "Edit cancelled, no changes made.\n");
    fake.expect("GET /v1/function/hello", 200, &function("READY"));
    let error = edit(&fake, "exit 3").fails();
    assert!(error.starts_with("the editor sh failed: exit status: 3"), "{error}");
    assert_eq!(left_over(&fake), [""; 0]);
}

#[test]
fn what_the_server_refuses_is_kept() {
    let fake = Fake::start();
    fake.expect("GET /v1/function/hello", 200, &function("READY"));
    fake.expect("PUT /v1/function/hello", 409, &json!({"code": 409, "message": "changed"}));
    let error = edit(&fake, "sed -i 's/^handler: .*/handler: kept/' \"$1\"").fails();
    let kept = left_over(&fake);
    assert_eq!(error, format!("[Code: 409] changed\nThe edited file is kept: {}\n", kept[0]));
    assert!(std::fs::read_to_string(&kept[0]).unwrap().contains("handler: kept"));
}

#[test]
fn no_editor() {
    let fake = Fake::start();
    fake.expect("GET /v1/function/hello", 200, &function("READY"));
    let mut command = fake.command(&["edit", "function", "hello"]);
    let done = finish(command.env("EDITOR", "no-such-editor -x").spawn().unwrap());
    let error = done.fails();
    assert!(error.contains("exec no-such-editor: no such file or directory"), "{error}");
}
