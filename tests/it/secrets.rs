//! Secrets: into the context, and never onto the disk in clear.

use serde_json::json;

use crate::support::Server;

const READS: &str = "def handle(ctx, payload):\n    return ctx['secrets']\n";

#[test]
fn secrets_are_merged_and_later_ones_win() {
    let s = Server::start();
    s.image("python3");
    let one = s.file("one.json", r#"{"a":"1","b":"1"}"#);
    let two = s.file("two.json", r#"{"b":"2"}"#);
    s.dispatch(&["create", "secret", "one", &one]).ok();
    s.dispatch(&["create", "secret", "two", &two]).ok();
    s.python("reads", READS, &["--secret", "one"]);
    assert_eq!(s.run("reads", "{}")["output"], json!({"a": "1", "b": "1"}));
    let both = ["exec", "reads", "--wait", "--secret", "two", "--input", "{}", "-o", "json"];
    let run = s.dispatch(&both).json();
    assert_eq!(run["output"], json!({"a": "1", "b": "2"}));
    assert_eq!(run["secrets"], json!(["one", "two"]));
    s.dispatch(&["delete", "secret", "one"]).ok();
    let run = s.run("reads", "{}");
    assert_eq!(run["error"]["type"], "InputError");
    assert!(run["error"]["message"].as_str().unwrap().contains("secret one not found"), "{run}");
}

#[test]
fn the_data_directory_holds_no_plaintext_and_no_other_organization_sees_it() {
    let mut s = Server::start();
    s.image("python3");
    let secret = s.file("s.json", r#"{"password":"Correct-Horse-Battery"}"#);
    s.dispatch(&["create", "secret", "open-sesame", &secret]).ok();
    s.python(
        "reads",
        "def handle(ctx, payload):\n    return len(ctx['secrets'])\n",
        &["--secret", "open-sesame"],
    );
    assert_eq!(s.run("reads", "{}")["output"], 1);
    let hidden = s.dispatch(&["get", "secret", "open-sesame"]).ok();
    assert!(hidden.contains("<hidden>") && !hidden.contains("Horse"), "{hidden}");
    let shown = s.dispatch(&["get", "secret", "open-sesame", "-o", "json"]).json();
    assert_eq!(shown["secrets"]["password"], "Correct-Horse-Battery");
    let other = ["get", "secret", "open-sesame", "--organization", "other"];
    assert!(s.dispatch(&other).fails().contains("[Code: 404]"));
    let list = ["get", "secrets", "-o", "json", "--organization", "other"];
    assert_eq!(s.dispatch(&list).json(), json!([]));
    let exec = ["exec", "reads", "--wait", "--input", "{}", "--organization", "other"];
    assert!(s.dispatch(&exec).fails().contains("[Code: 404]"));
    assert_eq!(s.stop(), Some(0));
    let mut found = Vec::new();
    visit(&s.data, &mut |path| {
        let bytes = std::fs::read(path).unwrap();
        if bytes.windows(5).any(|window| window == b"Horse") {
            found.push(path.to_owned());
        }
    });
    assert!(found.is_empty(), "plaintext in {found:?}");
    assert!(!s.log().contains("Horse"));
    use std::os::unix::fs::PermissionsExt as _;
    let key = std::fs::metadata(s.data.join("master.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

fn visit(dir: &std::path::Path, see: &mut impl FnMut(&std::path::Path)) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            visit(&entry.path(), see);
        } else if kind.is_file() {
            see(&entry.path());
        }
    }
}

#[test]
fn a_viewer_sees_names_and_no_values() {
    let home = tempfile::tempdir().unwrap();
    let token = |name: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, format!("token-of-the-{name}-of-this-story\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (admin, viewer) = (token("admin"), token("viewer"));
    let s = Server::with(&["--admin-token-file", &admin, "--viewer-token-file", &viewer]);
    let secret = s.file("s.json", r#"{"password":"OpenSesame"}"#);
    let create = ["create", "secret", "open-sesame", &secret];
    let with = |role: &str, args: &[&str]| {
        let token = format!("token-of-the-{role}-of-this-story");
        s.dispatch(&[args, &["--token", &token]].concat())
    };
    assert!(s.dispatch(&create).fails().contains("[Code: 401]"));
    assert!(with("viewer", &create).fails().contains("[Code: 403]"));
    with("admin", &create).ok();
    let get = ["get", "secret", "open-sesame", "-o", "json"];
    assert_eq!(with("viewer", &get).json()["secrets"], json!({"password": ""}));
    assert_eq!(with("admin", &get).json()["secrets"], json!({"password": "OpenSesame"}));
}
