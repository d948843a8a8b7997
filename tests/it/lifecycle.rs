//! Starting, stopping, and looking at a server.

use std::process::Command;

use serde_json::Value;

use crate::support::{Server, program, until};

fn server(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(program()).arg("server").args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_second_server_and_a_taken_port_are_refused_clearly() {
    let s = Server::start();
    let data = s.data.to_str().unwrap();
    let free = ["--port", "0", "--gateway-port", "0"];
    let (code, _, err) = server(&[&free[..], &["--data-dir", data]].concat());
    assert_eq!(code, 1);
    assert!(err.contains(data) && err.contains("in use"), "{err}");
    let other = tempfile::tempdir().unwrap();
    let (port, other) = (s.port.to_string(), other.path().to_str().unwrap().to_owned());
    let (code, _, err) = server(&["--port", &port, "--gateway-port", "0", "--data-dir", &other]);
    assert_eq!(code, 1);
    assert!(err.contains(&port) && err.contains("--port"), "{err}");
}

#[test]
fn the_configuration_shows_where_each_value_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dispatch.toml");
    std::fs::write(&file, "gateway-port = 9001\n").unwrap();
    let output = Command::new(program())
        .args(["server", "--print-config", "--port", "9000", "--config", file.to_str().unwrap()])
        .env("DISPATCH_MAX_WORKERS", "7")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = |name: &str| {
        let line = out.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("{out}")).split_whitespace().skip(1).collect::<Vec<_>>()
    };
    assert_eq!(line("port"), ["9000", "flag"]);
    assert_eq!(line("gateway-port"), ["9001", "file"]);
    assert_eq!(line("max-workers"), ["7", "environment"]);
    assert_eq!(line("max-queued-runs"), ["10000", "default"]);
}

#[test]
fn a_graceful_stop_finishes_what_runs_and_leaves_no_process() {
    let mut s = Server::start();
    s.image("python3");
    let source = "import time\ndef handle(ctx, payload):\n    time.sleep(2)\n    return 'done'\n";
    s.python("slow", source, &[]);
    let mut call = s
        .command(&["exec", "slow", "--wait", "--input", "{}", "-o", "json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let api = s.api("/metrics");
    until("the call runs", || {
        let page = Command::new("curl").args(["-sS", &api]).output().unwrap();
        String::from_utf8_lossy(&page.stdout).lines().any(|line| {
            line.starts_with("dispatch_workers") && line.contains("busy") && line.ends_with(" 1")
        })
    });
    let children = descendants(s.pid());
    assert!(!children.is_empty());
    assert_eq!(s.stop(), Some(0));
    assert!(call.wait().unwrap().success());
    let mut out = String::new();
    std::io::Read::read_to_string(&mut call.stdout.take().unwrap(), &mut out).unwrap();
    let run: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(run["output"], "done");
    until("no process is left", || {
        children.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    });
}

/// The process ids below a process.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut queue = vec![pid];
    while let Some(parent) = queue.pop() {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let rest = stat.rsplit(')').next().unwrap();
            if rest.split_whitespace().nth(1) == Some(&parent.to_string()) {
                found.push(child);
                queue.push(child);
            }
        }
    }
    found
}

#[test]
fn an_ordinary_user_runs_functions_too() {
    if !nix::unistd::geteuid().is_root() {
        // Then every other story is this one.
        return;
    }
    let mut s = Server::as_user(1500);
    let health = Command::new("curl").args(["-sS", &s.api("/healthz")]).output().unwrap();
    assert!(String::from_utf8_lossy(&health.stdout).contains("\"isolation\":\"B\""), "{health:?}");
    s.image("python3");
    let source =
        "import os\ndef handle(ctx, payload):\n    return [os.getuid(), os.path.exists('/root')]\n";
    s.python("who", source, &[]);
    assert_eq!(s.run("who", "{}")["output"], serde_json::json!([1000, false]));
    assert_eq!(s.stop(), Some(0));
}

#[test]
fn health_version_and_watch() {
    let s = Server::start();
    let get = |path: &str| {
        let output = Command::new("curl").args(["-sS", &s.api(path)]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let health: Value = serde_json::from_str(&get("/healthz")).unwrap();
    assert!(health["version"]["version"].as_str().unwrap().starts_with('v'));
    assert_eq!(health["isolation"].as_str().unwrap().len(), 1);
    let out = s.dispatch(&["version"]).ok();
    assert!(out.starts_with("Client: v") && out.contains("\nServer: v"), "{out}");
    let document: Value = serde_json::from_str(&get("/v1/openapi.json")).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let mut watch = s
        .command(&["get", "secrets", "--watch", "-o", "name"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let secret = s.file("s.json", r#"{"a":"b"}"#);
    s.dispatch(&["create", "secret", "watched", &secret]).ok();
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("watched"), "{line}");
    watch.kill().unwrap();
    watch.wait().unwrap();
}
