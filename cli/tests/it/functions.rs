//! Functions: how they are packed, sent, changed and waited for.

use std::io::Read as _;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::golden::function;
use crate::support::Fake;

/// Entries of a source archive: name, mode and what is in it.
fn unpack(source: &Value) -> Vec<(String, u32, String)> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(source.as_str().unwrap()).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        if let Some(target) = entry.link_name().unwrap() {
            text = format!("-> {}", target.display());
        }
        (name, entry.header().mode().unwrap(), text)
    });
    entries.collect()
}

#[test]
fn all_settings_are_sent() {
    let fake = Fake::start();
    fake.file("hello.py", "x = 1\n");
    fake.file("in.json", "{\"type\": \"object\"}");
    fake.file("out.json", "true");
    fake.expect("POST /v1/function", 201, &function("INITIALIZED"));
    let args = "create function --image=python3 hello hello.py --handler=hello.handle --secret a \
                --secret b,c --schema-in in.json --schema-out out.json --timeout 500 --memory 64 --cpu 250 \
                --concurrency 2 --min-scale 1 --max-scale 3 --preload --env A=1 --env B=x=y --egress proxy \
                --allow api.example:443 --allow *.example --link 5432=db.example:5432 \
                --retries 4 --retry-backoff 250 -a shop --service s";
    let mut args: Vec<_> = args.split_whitespace().collect();
    args.extend(["--schedule", "2 * 00:00-24:00 Europe/Berlin", "--schedule", "1 sun 10:00-12:00"]);
    assert_eq!(fake.dispatch(&args).ok(), "Created function: hello\n");
    let mut body = fake.body();
    assert_eq!(unpack(&body["source"]), [("./hello.py".to_owned(), 0o644, "x = 1\n".to_owned())]);
    body.as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null() && *value != json!("") && *value != json!(0));
    body["source"] = Value::Null;
    let wanted = json!({
        "source": null, "name": "hello", "image": "python3", "handler": "hello.handle",
        "secrets": ["a", "b", "c"], "services": ["s"],
        "schema": {"in": {"type": "object"}, "out": true}, "timeout": 500, "memory": 64, "cpu": 250,
        "concurrency": 2, "minScale": 1, "maxScale": 3, "preload": true,
        "schedules": ["2 * 00:00-24:00 Europe/Berlin", "1 sun 10:00-12:00"], "environment": {"A": "1", "B": "x=y"},
        "egress": "proxy", "egressAllow": ["api.example:443", "*.example"],
        "links": [{"listen": 5432, "to": "db.example:5432"}], "retries": {"max": 4, "backoff": 250},
        "tags": [{"key": "Application", "value": "shop"}], "status": "INITIALIZED",
    });
    assert_eq!(body, wanted);
}

#[test]
fn a_directory_is_packed_the_same_each_time() {
    let fake = Fake::start();
    let long = format!("{}/{}.py", "d".repeat(90), "f".repeat(90));
    for (name, text) in
        [("src/b.py", "b"), ("src/a/c.py", "c"), ("src/.git/config", "no"), ("src/.env", "e")]
    {
        fake.file(name, text);
    }
    fake.file(&format!("src/{long}"), "long");
    let pack = || {
        fake.expect("POST /v1/function", 201, &function("INITIALIZED"));
        fake.dispatch(&["create", "function", "hello", "src", "--handler", "a.c"]).ok();
        fake.body()["source"].clone()
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let mode = std::fs::Permissions::from_mode(0o770);
        std::fs::set_permissions(fake.home().join("src/b.py"), mode).unwrap();
        symlink("../b.py", fake.home().join("src/a/link")).unwrap();
    }
    let source = pack();
    let entries = unpack(&source);
    let names: Vec<_> = entries.iter().map(|(name, ..)| name.trim_end_matches('/')).collect();
    let long_dir = format!("./{}", "d".repeat(90));
    let long = format!("./{long}");
    assert_eq!(names, ["./.env", "./a", "./a/c.py", "./a/link", "./b.py", &long_dir, &long]);
    assert_eq!(entries[3].2, "-> ../b.py");
    assert_eq!((entries[4].1, entries[4].2.as_str()), (0o755, "b"));
    assert_eq!(entries[6].2, "long");
    assert_eq!(pack(), source);
}

#[test]
fn sources_that_cannot_be_packed() {
    let fake = Fake::start();
    fake.file("src/a.py", "");
    let create = |path: &str, handler: &str| {
        fake.dispatch(&["create", "function", "f", path, "--handler", handler]).fails()
    };
    let error = create("src", "");
    assert_eq!(
        error,
        "error creating function f: handler is required, source path src is a directory\n"
    );
    let error = create("nope", "h");
    let wanted =
        "failed to determine if path is dir: 'nope': stat nope: no such file or directory\n";
    assert_eq!(error, wanted);
    #[cfg(unix)]
    for target in ["../../secret", "/etc/passwd", ".."] {
        let link = fake.home().join("src/link");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).unwrap();
        let error = create("src", "h");
        let wanted =
            format!("error creating function f: src/link is a link to {target}, which is outside");
        assert!(error.starts_with(&wanted), "{error}");
    }
    let error = fake.dispatch(&["create", "function", "f", "src/a.py", "--env", "A"]).fails();
    assert_eq!(error, "invalid argument \"A\" for \"--env\": use KEY=VALUE\n");
    fake.file("bad.json", "{");
    let error =
        fake.dispatch(&["create", "function", "f", "src/a.py", "--schema-in", "bad.json"]).fails();
    assert!(error.starts_with("error when parsing JSON from bad.json: "), "{error}");
}

#[test]
fn too_large_a_source_is_refused_before_it_is_sent() {
    let fake = Fake::start();
    // What looks random cannot be compressed.
    let mut state = 1u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    })
    .take(51 << 20)
    .collect();
    std::fs::write(fake.home().join("big.bin"), bytes).unwrap();
    let error = fake.dispatch(&["create", "function", "f", "big.bin"]).fails();
    assert!(error.contains("the source archive has more than 50 MiB"), "{error}");
}

#[test]
fn an_update_changes_what_is_given() {
    let fake = Fake::start();
    fake.file("new.py", "new");
    let mut stored = function("READY");
    stored["revision"] = json!("3");
    stored["environment"] = json!({"A": "1", "B": "2"});
    stored["retries"] = json!({"max": 2, "backoff": 10});
    fake.expect("GET /v1/function/hello", 200, &stored);
    fake.expect("PUT /v1/function/hello", 200, &stored);
    let args = ["update", "function", "hello", "--timeout", "9", "--env", "B=3", "--retries", "5"];
    assert_eq!(fake.dispatch(&args).ok(), "Updated function: hello\n");
    let body = &fake.asked()[1].body;
    assert_eq!((&body["timeout"], &body["revision"]), (&json!(9), &json!("3")));
    assert_eq!(body["environment"], json!({"A": "1", "B": "3"}));
    assert_eq!(body["retries"], json!({"max": 5, "backoff": 10}));
    assert_eq!((&body["secrets"], body.get("source")), (&json!(["open-sesame"]), None));
    fake.expect("GET /v1/function/hello", 200, &stored);
    fake.expect("PUT /v1/function/hello", 200, &stored);
    fake.dispatch(&["update", "function", "hello", "new.py"]).ok();
    assert_eq!(unpack(&fake.asked()[1].body["source"])[0].2, "new");
}

#[test]
fn waiting_for_the_end_of_a_build() {
    let fake = Fake::start();
    fake.file("hello.py", "");
    let create = |flags: &[&str]| {
        fake.dispatch(&[&["create", "function", "hello", "hello.py", "--wait"], flags].concat())
    };
    fake.expect("POST /v1/function", 201, &function("INITIALIZED"));
    fake.expect("GET /v1/function/hello", 200, &function("CREATING"));
    fake.expect("GET /v1/function/hello", 200, &function("READY"));
    assert_eq!(create(&[]).ok(), "Created function: hello\n");
    fake.expect("POST /v1/function", 201, &function("READY"));
    let out = create(&["-o", "json"]).ok();
    assert!(out.contains("\"status\": \"READY\""), "{out}");
    let mut failed = function("ERROR");
    failed["reason"] = json!(["SyntaxError: hello.py, line 1"]);
    fake.expect("POST /v1/function", 201, &function("INITIALIZED"));
    fake.expect("GET /v1/function/hello", 200, &failed);
    let done = create(&[]);
    assert_eq!(done.out, "Created function: hello\n");
    assert_eq!(done.fails(), "function hello is in status ERROR: SyntaxError: hello.py, line 1\n");
    let image = json!({"name": "i", "status": "ERROR", "reason": ["no such package"]});
    fake.expect("POST /v1/image", 201, &image);
    let error = fake.dispatch(&["create", "image", "i", "b", "--wait"]).fails();
    assert!(
        error.contains("no such package\nThe log of its build: dispatch get image i --logs"),
        "{error}"
    );
}

#[test]
fn revisions_and_back() {
    let fake = Fake::start();
    let revision = |number: i64, serving: bool| {
        json!({"number": number, "serving": serving, "status": "READY", "image": "python3",
            "handler": "hello.handle", "createdTime": 1795358314})
    };
    let both = json!([revision(2, true), revision(1, false)]);
    fake.expect("GET /v1/function/hello/revisions", 200, &both);
    let out = fake.dispatch(&["get", "function", "hello", "--revisions"]).ok();
    let wanted = "  REVISION | SERVING | STATUS |  IMAGE  |   HANDLER    |         CREATED DATE          \n\
                  --------------------------------------------------------------------------------\n  \
                  \x20      2 | true    | READY  | python3 | hello.handle | Sun Nov 22 14:38:34 UTC 2026  \n  \
                  \x20      1 | false   | READY  | python3 | hello.handle | Sun Nov 22 14:38:34 UTC 2026  \n";
    assert_eq!(out, wanted);
    let mut back = function("READY");
    back["servingRevision"] = json!(1);
    fake.asked();
    fake.expect("POST /v1/function/hello/rollback", 200, &back);
    let out = fake.dispatch(&["rollback", "function", "hello"]).ok();
    assert_eq!(out, "Rolled back function: hello to revision 1\n");
    assert_eq!(fake.body(), json!({}));
    fake.expect("POST /v1/function/hello/rollback", 200, &back);
    fake.dispatch(&["rollback", "function", "hello", "--to", "1"]).ok();
    assert_eq!(fake.body(), json!({"revision": 1}));
}

#[test]
fn images_and_their_dependencies() {
    let fake = Fake::start();
    fake.file("requirements.txt", "requests\n");
    fake.file("system.json", r#"{"packages": [{"name": "curl", "version": "1"}, {"name": "jq"}]}"#);
    let args = "create image i b --runtime-deps requirements.txt --system-deps system.json";
    fake.expect("POST /v1/image", 201, &json!({"name": "i"}));
    fake.dispatch(&args.split(' ').collect::<Vec<_>>()).ok();
    let body = fake.body();
    assert_eq!(body["runtimeDependencies"]["manifest"], "requests\n");
    assert_eq!(
        body["systemDependencies"]["packages"],
        json!([{"name": "curl", "version": "1"}, {"name": "jq"}])
    );
    let error =
        |flag: &str, file: &str| fake.dispatch(&["create", "image", "i", "b", flag, file]).fails();
    let wanted = "failed to read system dependencies file: open no: no such file or directory\n";
    assert_eq!(error("--system-deps", "no"), wanted);
    let text = error("--system-deps", "requirements.txt");
    assert!(text.starts_with("failed to unmarshal system dependencies file: "), "{text}");
    let wanted = "failed to read runtime dependencies file: open no: no such file or directory\n";
    assert_eq!(error("--runtime-deps", "no"), wanted);
}
