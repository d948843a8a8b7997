//! Resources from YAML files.

use crate::support::Server;

const FILE: &str = r"
kind: Secret
name: y1
secrets:
  password: OpenSesame
---
kind: Function
name: yfn
image: python3
sourcePath: yfn/hello.py
secrets: [y1]
---
kind: API
name: yapi
function: yfn
enabled: true
protocols: [http]
methods: [GET]
uris: [/y]
";

#[test]
fn create_update_apply_and_delete_a_file() {
    let s = Server::start();
    s.image("python3");
    let handler = "def handle(ctx, payload):\n    return ctx['secrets']['password']\n";
    s.file("yfn/hello.py", handler);
    let file = s.file("f.yaml", FILE);
    let work = s.home().to_str().unwrap();
    let with = |verb: &str| s.dispatch(&[verb, "-f", "f.yaml", "-w", work]);
    let lines = |verb: &str| format!("{verb} Secret: y1\n{verb} Function: yfn\n{verb} API: yapi\n");
    assert_eq!(with("create").ok(), lines("Created"));
    s.ready("function", "yfn");
    assert_eq!(s.run("yfn", "{}")["output"], "OpenSesame");
    assert!(with("create").fails().contains("[Code: 409] secret y1 already exists"));
    std::fs::write(&file, FILE.replace("OpenSesame", "OpenSesameStreet")).unwrap();
    assert_eq!(with("update").ok(), lines("Updated"));
    s.ready("function", "yfn");
    assert_eq!(s.run("yfn", "{}")["output"], "OpenSesameStreet");
    assert_eq!(with("apply").ok(), lines("Applied"));
    s.ready("function", "yfn");
    assert_eq!(with("delete").ok(), lines("Deleted"));
    let error = s.dispatch(&["get", "function", "yfn"]).fails();
    assert!(error.contains("[Code: 404] function yfn not found"), "{error}");
    assert_eq!(with("apply").ok(), lines("Applied"));
}

#[test]
fn edit_changes_what_the_editor_wrote() {
    let s = Server::start();
    s.image("python3");
    s.python("fn", "def handle(ctx, payload):\n    return 1\n", &[]);
    let editor = s.file("editor.sh", "#!/bin/sh\nsed -i 's/^timeout: .*/timeout: 1234/' \"$1\"\n");
    let done = |editor: &str| {
        let output = s.command(&["edit", "function", "fn"]).env("EDITOR", editor).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), output)
    };
    let (code, out, output) = done(&format!("sh {editor}"));
    assert_eq!((code, out.as_str()), (Some(0), "Updated Function: fn\n"), "{output:?}");
    assert_eq!(s.ready("function", "fn")["timeout"], 1234);
    assert_eq!(s.run("fn", "{}")["output"], 1, "an edit keeps the source");
    let (code, out, _) = done("true");
    assert_eq!((code, out.as_str()), (Some(0), "Edit cancelled, no changes made.\n"));
}

#[test]
fn the_seed_files_are_read() {
    let s = Server::start();
    s.dispatch(&["create", "seed-images"]).ok();
    s.ready("image", "nodejs");
    let image = s.settled("image", "python3");
    assert_eq!(image["status"], "READY", "{image}");
    let out = s.dispatch(&["create", "--file", "seed.yaml", "--work-dir", "examples/"]).ok();
    assert!(out.contains("Created Function: hello-py"), "{out}");
    s.ready("function", "hello-py");
    s.ready("function", "hello-js");
    assert_eq!(
        s.run("hello-py", r#"{"name":"Jon"}"#)["output"]["myField"],
        "Hello, Jon from Nowhere"
    );
    let run = s.run("hello-js", "{}");
    assert_eq!(run["error"]["type"], "InputError", "its schema asks for a name: {run}");
}
