//! How isolation is shown, and what a server does where it is weak.

use std::process::Command;

use serde_json::Value;

use crate::support::Server;

const WHO: &str = "
import os, tempfile
def handle(context, payload):
    tempfile.mkstemp()
    try: open('/proc/1/status'); seen = True
    except PermissionError: seen = False
    return [os.getpid() == 1, seen]
";

fn health(s: &Server) -> Value {
    let output = Command::new("curl").args(["-sS", &s.api("/healthz")]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn active(health: &Value, layer: &str) -> bool {
    let layers = health["layers"].as_array().unwrap();
    layers.iter().any(|other| other["name"] == layer && other["active"] == true)
}

#[test]
fn the_tier_and_every_layer_are_shown() {
    let s = Server::start();
    let tier = if nix::unistd::geteuid().is_root() { "A" } else { "B" };
    let shown = health(&s);
    assert_eq!((&shown["isolation"], shown.get("warning")), (&Value::from(tier), None));
    for layer in ["mount namespace", "system calls", "capabilities"] {
        assert!(active(&shown, layer), "{shown}");
    }
    s.image("python3");
    s.python("who", WHO, &[]);
    assert_eq!(s.ready("function", "who")["isolation"], tier);
    // What is only answered cannot be set.
    let file = s.file("f.yaml", "kind: Function\nname: who\nimage: python3\nisolation: Z\n");
    s.dispatch(&["update", "-f", &file]).ok();
    assert_eq!(s.ready("function", "who")["isolation"], tier);
    let text = s.dispatch(&["manage", "check"]).ok();
    for part in [
        format!("This machine, as this user: tier {tier}"),
        format!("The server: tier {tier}"),
        "system calls       yes".to_owned(),
    ] {
        assert!(text.contains(&part), "{text}");
    }
    let both = s.dispatch(&["manage", "check", "-o", "json"]).json();
    assert_eq!(both["server"], shown);
    assert_eq!(both["machine"]["layers"], shown["layers"]);
}

#[test]
fn a_check_needs_no_server() {
    let mut s = Server::start();
    s.stop();
    let text = s.dispatch(&["manage", "check"]).ok();
    assert!(text.contains("This machine") && text.contains("No server was asked"), "{text}");
    let both = s.dispatch(&["manage", "check", "-o", "json"]).json();
    assert_eq!(both["server"], Value::Null);
}

#[test]
fn where_rules_alone_keep_functions_in_one_organization_is_served_with_a_warning() {
    // A user who can read the server's directory: the functions of root's servers are others.
    let s = Server::as_user_with(1500, &["--isolation-at-most", "C"]);
    let shown = health(&s);
    if shown["isolation"] != "C" {
        eprintln!("skipped: {shown}");
        return;
    }
    assert!(shown["warning"].as_str().unwrap().contains("not from each other"), "{shown}");
    assert!(s.log().contains("ISOLATION IS WEAK"));
    assert!(active(&shown, "access rules") && !active(&shown, "namespaces"), "{shown}");
    s.image("python3");
    s.python("who", WHO, &[]);
    assert_eq!(s.ready("function", "who")["isolation"], "C");
    assert_eq!(s.run("who", "{}")["output"], serde_json::json!([false, false]));
    // Issue 4: the program itself is found too, where it lies below /tmp as when it is tried out.
    s.image("bash");
    let script = s.file("shell.sh", "echo '\"from a shell\"'\n");
    s.dispatch(&["create", "function", "--image", "bash", "shell", &script, "--wait"]).ok();
    s.ready("function", "shell");
    let run = s.run("shell", "{}");
    assert_eq!(run["output"], "from a shell", "{run}");
    // And what is built before it runs.
    s.image("java");
    let code = "public class Shout implements java.util.function.Function<String, String> {\n\
                public String apply(String text) { return text.toUpperCase(); } }\n";
    let file = s.file("Shout.java", code);
    s.dispatch(&["create", "function", "--image", "java", "shout", &file, "--wait"]).ok();
    s.ready("function", "shout");
    assert_eq!(s.run("shout", "\"loud\"")["output"], "LOUD");
    // Somebody else's function is refused, and says why.
    let other = |args: &[&str]| s.dispatch(&[args, &["--organization", "other"]].concat());
    let url = "dispatchframework/python3-base:0.0.13-knative";
    other(&["create", "base-image", "python3-base", url]).ok();
    other(&["create", "image", "python3", "python3-base", "--wait"]).ok();
    let path = s.file("src/other.py", WHO);
    let refused =
        other(&["create", "function", "who", &path, "--image", "python3", "--wait"]).fails();
    assert!(refused.contains("of one only"), "{refused}");
    let text = s.dispatch(&["manage", "check"]).ok();
    assert!(text.contains("The server: tier C") && text.contains("Warning: tier C"), "{text}");
}

#[test]
fn without_isolation_functions_run_only_where_that_is_wanted() {
    let s = Server::as_user_with(1500, &["--isolation-at-most", "D"]);
    assert_eq!(health(&s)["isolation"], "D");
    assert!(s.log().contains("functions cannot run here"), "{}", s.log());
    let both = s.dispatch(&["manage", "check"]);
    assert_eq!(both.code, 1, "{both:?}");
    assert!(both.out.contains("Warning: tier D"), "{both:?}");
    let flags = ["--isolation-at-most", "D", "--insecure-no-isolation", "true"];
    let s = Server::as_user_with(1500, &flags);
    let shown = health(&s);
    assert!(shown["warning"].as_str().unwrap().contains("--insecure-no-isolation"), "{shown}");
    s.image("python3");
    s.python("hello", "def handle(context, payload): return 'hello'", &[]);
    assert_eq!(s.run("hello", "{}")["output"], "hello");
}
