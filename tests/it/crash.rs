//! The server is killed at random moments under load; nothing that it accepted may be lost and
//! nothing may be left over.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::functions::archive;
use crate::lifecycle::descendants;
use crate::support::{Server, until};

const ROUNDS: u32 = 3;

/// What clients were told, and must therefore find.
#[derive(Default)]
struct Told {
    /// Accepted runs.
    runs: Vec<String>,
    /// Functions that were made, or changed, and the answer of their newest version.
    functions: BTreeMap<String, u32>,
    /// Secrets by name; none means deleted.
    secrets: BTreeMap<String, Option<String>>,
    /// Names whose last request got no answer: either state is right.
    unknown: Vec<String>,
}

#[test]
fn nothing_accepted_is_lost_when_the_server_is_killed() {
    let mut s = Server::start();
    s.image("python3");
    let source =
        "import time\ndef handle(ctx, payload):\n    time.sleep(0.02)\n    return payload\n";
    s.python("echo", source, &["--retries", "3", "--retry-backoff", "10"]);
    let sources = [1, 2].map(|n| {
        archive(&s, &format!("def handle(ctx, payload):\n    return {n}\n"), "handler.py")
    });
    let told = Mutex::new(Told::default());
    for round in 0..ROUNDS {
        let stop = AtomicBool::new(false);
        let port = s.port;
        std::thread::scope(|scope| {
            let (told, stop, sources) = (&told, &stop, &sources);
            scope.spawn(move || load_runs(port, round, told, stop));
            scope.spawn(move || load_secrets(port, round, told, stop));
            scope.spawn(move || load_functions(port, round, sources, told, stop));
            // A moment that differs from round to round and from run to run.
            let moment = 300 + u64::from(std::process::id()) * 131 % 700 + u64::from(round) * 173;
            std::thread::sleep(Duration::from_millis(moment));
            let pid = nix::unistd::Pid::from_raw(i32::try_from(s.pid()).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            stop.store(true, Ordering::Relaxed);
        });
        s = s.crash_and_restart(&[]);
    }
    let told = told.into_inner().unwrap();
    assert!(told.runs.len() > 10 && told.secrets.len() > 10, "the load was real");
    let get = |path: &str| request(s.port, "GET", path, None).expect("the server answers");
    until("every accepted run has ended", || {
        let (_, list) = get("/v1/runs?status=INITIALIZED");
        let (_, creating) = get("/v1/runs?status=CREATING");
        list.as_array().unwrap().is_empty() && creating.as_array().unwrap().is_empty()
    });
    for id in &told.runs {
        let (status, run) = get(&format!("/v1/runs/{id}"));
        assert_eq!((status, &run["status"]), (200, &json!("READY")), "run {id} was lost: {run}");
        assert_eq!(run["output"], run["input"], "{run}");
    }
    assert!(!told.functions.is_empty());
    for (name, answer) in &told.functions {
        let ended = || get(&format!("/v1/function/{name}")).1;
        until("every function that was accepted is built", || {
            matches!(ended()["status"].as_str(), Some("READY" | "ERROR"))
        });
        assert_eq!(ended()["status"], "READY", "{}", ended());
        let path = format!("/v1/runs?functionName={name}");
        let run = request(s.port, "POST", &path, Some(json!({ "blocking": true }))).unwrap().1;
        let unknown = told.unknown.contains(name);
        assert!(run["output"] == json!(answer) || unknown, "{name} answers {run}, not {answer}");
    }
    for (name, value) in told.secrets.iter().filter(|(name, _)| !told.unknown.contains(name)) {
        let (status, secret) = get(&format!("/v1/secret/{name}"));
        match value {
            Some(value) => assert_eq!(secret["secrets"]["value"], json!(value), "{name}: {secret}"),
            None => assert_eq!(status, 404, "{name} came back: {secret}"),
        }
    }
    let page = reqwest_text(s.port, "/metrics");
    assert!(
        !page
            .lines()
            .any(|line| { line.starts_with("dispatch_queued_jobs") && !line.ends_with(" 0") }),
        "jobs are left over:\n{page}"
    );
    let children = descendants(s.pid());
    assert_eq!(s.stop(), Some(0));
    until("no process is left", || {
        children.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    });
}

#[test]
fn a_launcher_that_is_killed_costs_no_accepted_run() {
    let mut s = Server::start();
    s.image("python3");
    let source =
        "import time\ndef handle(ctx, payload):\n    time.sleep(payload)\n    return payload\n";
    s.python("rest", source, &["--retries", "5", "--retry-backoff", "50"]);
    let launcher = |s: &Server| {
        let named = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|n| n == "launcher\n")
        };
        descendants(s.pid()).into_iter().find(named)
    };
    let body = json!({ "input": 1 });
    let path = "/v1/runs?functionName=rest";
    let (status, run) = request(s.port, "POST", path, Some(body)).unwrap();
    assert_eq!(status, 202, "{run}");
    let run = format!("/v1/runs/{}", run["name"].as_str().unwrap());
    let get = || request(s.port, "GET", &run, None).unwrap().1;
    until("the run has begun", || {
        let page = reqwest_text(s.port, "/metrics");
        page.lines()
            .any(|line| line.starts_with("dispatch_workers{") && line.ends_with("\"busy\"} 1"))
    });
    let first = launcher(&s).expect("it is there");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(first).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    until("the run has ended", || get()["status"] == "READY");
    assert_eq!(get()["output"], 1);
    assert_eq!(s.run("rest", "0")["output"], 0);
    let second = launcher(&s).expect("there is another one");
    assert_ne!(first, second);
    assert!(s.log().contains("the launcher of sandboxes has ended"), "{}", s.log());
    assert_eq!(s.stop(), Some(0));
}

fn load_runs(port: u16, round: u32, told: &Mutex<Told>, stop: &AtomicBool) {
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let body = json!({ "input": { "round": round, "n": n } });
        let answer = request(port, "POST", "/v1/runs?functionName=echo", Some(body));
        let Some((202, run)) = answer else { continue };
        told.lock().unwrap().runs.push(run["name"].as_str().unwrap().to_owned());
    }
}

/// Creates, updates and deletes in turn.
fn load_secrets(port: u16, round: u32, told: &Mutex<Told>, stop: &AtomicBool) {
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("s{round}-{n}");
        let body = |value: &str| Some(json!({ "name": name, "secrets": { "value": value } }));
        let path = format!("/v1/secret/{name}");
        let step = |answer: Option<(u16, Value)>, wanted: u16, value: Option<&str>| {
            let mut told = told.lock().unwrap();
            match answer {
                Some((status, body)) if status == wanted => {
                    told.secrets.insert(name.clone(), value.map(str::to_owned));
                    let _ = body;
                    true
                }
                _ => {
                    told.unknown.push(name.clone());
                    false
                }
            }
        };
        if !step(request(port, "POST", "/v1/secret", body("one")), 201, Some("one")) {
            continue;
        }
        if n % 2 == 0 && !step(request(port, "PUT", &path, body("two")), 201, Some("two")) {
            continue;
        }
        if n % 3 == 0 {
            step(request(port, "DELETE", &path, None), 204, None);
        }
    }
}

/// Makes functions and changes every other one.
fn load_functions(
    port: u16,
    round: u32,
    sources: &[String; 2],
    told: &Mutex<Told>,
    stop: &AtomicBool,
) {
    for n in 0..8 {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("f{round}-{n}");
        let body = |source: usize| {
            Some(json!({ "name": name, "image": "python3", "source": sources[source] }))
        };
        let made = request(port, "POST", "/v1/function", body(0));
        if !matches!(made, Some((201, _))) {
            continue;
        }
        told.lock().unwrap().functions.insert(name.clone(), 1);
        if n % 2 == 0 {
            let changed = request(port, "PUT", &format!("/v1/function/{name}"), body(1));
            let mut told = told.lock().unwrap();
            match changed {
                Some((200, _)) => {
                    told.functions.insert(name.clone(), 2);
                }
                _ => told.unknown.push(name.clone()),
            }
        }
    }
}

/// One request on a connection of its own; none when there was no whole answer.
pub fn request(port: u16, method: &str, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
    let (status, text) = raw(port, method, path, body)?;
    let value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).ok()? };
    Some((status, value))
}

fn reqwest_text(port: u16, path: &str) -> String {
    raw(port, "GET", path, None).expect("the server answers").1
}

fn raw(port: u16, method: &str, path: &str, body: Option<Value>) -> Option<(u16, String)> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8(answer).ok()?;
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
    });
    if let Some(length) = length {
        // An answer cut off half way is no answer.
        return (rest.len() == length).then(|| (status, rest.to_owned()));
    }
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    if !chunked {
        return Some((status, rest.to_owned()));
    }
    let (mut rest, mut body) = (rest, String::new());
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some((status, body));
        }
        body += after.get(..size)?;
        rest = after.get(size + 2..)?;
    }
}
