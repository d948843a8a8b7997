//! Functions that try what they can: one function a language holds all attacks.

use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use serde_json::{Value, json};

use crate::http;
use crate::support::{PATIENCE, Server, root};
use crate::table::{self, Attack, By, Expect, TIMEOUT};

/// What is there to be attacked, and must not be reached.
pub struct Targets {
    facts: Value,
    _listeners: (UdpSocket, UnixListener, UnixListener),
}

impl Targets {
    pub fn of(s: &Server) -> Targets {
        // The address that packets to elsewhere would have.
        let route = UdpSocket::bind("0.0.0.0:0").unwrap();
        let address = match route.connect("192.0.2.1:9").and_then(|()| route.local_addr()) {
            Ok(address) => address.ip().to_string(),
            Err(_) => "127.0.0.2".to_owned(),
        };
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        let name = format!("dispatch-attacked-{}", s.pid());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let hidden = UnixListener::bind_addr(&abstract_name).unwrap();
        s.file("secret", "not for functions");
        let path = s.home().join("socket");
        let file = UnixListener::bind(&path).unwrap();
        let facts = json!({
            "server": s.pid(), "api": s.port, "gateway": s.gateway, "data": s.data, "home": s.home(), "root": root(),
            "address": address,
            "udp": udp.local_addr().unwrap().port(), "abstract": name, "socket": path,
            "mark": mark(s),
        });
        Targets { facts, _listeners: (udp, hidden, file) }
    }

    /// The payload of an attack.
    pub fn payload(&self, attack: &str) -> Value {
        let mut payload = self.facts.clone();
        payload["attack"] = attack.into();
        payload
    }
}

/// The name of a process that must not outlive its sandbox.
fn mark(s: &Server) -> String {
    format!("left-{}", s.pid())
}

/// A language to attack from.
struct Language {
    image: &'static str,
    handler: &'static str,
    by: By,
}

const PYTHON: Language = Language { image: "python3", handler: "attack.handle", by: By::Python };
const NODE: Language = Language { image: "nodejs", handler: "./attack.js", by: By::Node };

/// How a server is told to do without namespaces.
const WEAK: &[&str] = &["--isolation-at-most", "C"];
/// Few wait for functions, however many workers the attacks end: files that stay open are counted.
const PLAIN: &[&str] = &["--stem-cells-most", "2"];

/// The function with patience, and the same one without.
const PATIENT: &str = "attacks";
const BRIEF: &str = "brief";

fn deploy(s: &Server, language: &Language) {
    s.image(language.image);
    let source = root().join("tests/attacks/functions").join(language.image);
    for (name, timeout) in [(PATIENT, "30000"), (BRIEF, "1000")] {
        let mut create = vec!["create", "function", "--image", language.image, name];
        let source = source.to_str().unwrap();
        create.extend([source, "--handler", language.handler]);
        create.extend(["--timeout", timeout, "--memory", "320", "--max-scale", "1"]);
        s.dispatch(&create).ok();
        s.ready("function", name);
    }
}

/// Tries all that a language can; returns what did not end as it must.
fn try_all(s: &Server, language: &Language, tier: char) -> Vec<String> {
    let targets = Targets::of(s);
    let mut wrong = Vec::new();
    for attack in table::all().filter(|attack| [By::Both, language.by].contains(&attack.by)) {
        let expect = attack.expected(tier);
        if expect == Expect::NotPromised {
            continue;
        }
        if let Err(what) = attempt(s, &targets, attack, expect) {
            wrong.push(format!("{} {}: {expect:?}, but {what}", attack.number, attack.name));
        }
    }
    wrong
}

fn attempt(s: &Server, targets: &Targets, attack: &Attack, expect: Expect) -> Result<(), String> {
    let function = match expect {
        Expect::Ends(TIMEOUT) => BRIEF,
        _ => PATIENT,
    };
    let run = call(s, function, &targets.payload(attack.name));
    kept(attack.name, &run)?;
    let message = run["error"]["message"].as_str();
    let ended = match (expect, message) {
        (Expect::Got(wanted), None) if run["output"] == wanted => false,
        (Expect::Ends(wanted), Some(message)) if message.contains(wanted) => true,
        (Expect::Fails(wanted), Some(message)) if message.contains(wanted) => false,
        (_, None) => return Err(run["output"].to_string()),
        (_, Some(message)) => return Err(message.to_owned()),
    };
    // The first call of a worker answers 1: whose call ended badly is not used again.
    let next = call(s, function, &Value::Null);
    match next["output"].as_u64() {
        Some(1) if ended => Ok(()),
        Some(count) if count > 1 && !ended => Ok(()),
        _ => Err(format!("the next call got {} {}", next["output"], next["error"])),
    }
}

/// Calls until a worker was there in time: on a busy machine one may start for longer than a call may
/// wait.
fn call(s: &Server, function: &str, payload: &Value) -> Value {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let run = http::call(s.port, "default", function, payload);
        let message = run["error"]["message"].as_str().unwrap_or_default();
        if !message.starts_with("Did not invoke") {
            return run;
        }
        assert!(std::time::Instant::now() < end, "{run}");
    }
}

/// Bytes that are kept of each stream of a call.
const KEPT: usize = 256 << 10;

/// Whether what is kept of an attack's output is as much as there may be, and in order.
fn kept(name: &str, run: &Value) -> Result<(), String> {
    let lines = |stream: &str| -> Vec<String> {
        serde_json::from_value(run["logs"][stream].clone()).unwrap_or_default()
    };
    let (out, err) = (lines("stdout"), lines("stderr"));
    let right = match name {
        "output-flood" => out.len() == KEPT / 1024 && out.iter().all(|line| line.len() == 1023),
        "output-without-newline" => err.len() == 1 && err[0].len() == KEPT,
        "binary-output" => out.len() == 17 && out[0].starts_with('\0'),
        "forged-log-lines" => out.len() == 2 && out[0].starts_with(r#"{"level":"ERROR""#),
        // What is not text takes up to three times the bytes.
        _ => {
            [out, err].iter().all(|lines| lines.iter().map(String::len).sum::<usize>() <= 3 * KEPT)
        }
    };
    if right { Ok(()) } else { Err(format!("it kept {:.300}", run["logs"].to_string())) }
}

fn attack(s: &Server, language: &Language, tier: char) {
    let health = http::raw(s.port, b"GET /healthz HTTP/1.0\r\n\r\n").json();
    assert_eq!(health["isolation"], tier.to_string());
    deploy(s, language);
    let before = open_files(s);
    let wrong = try_all(s, language, tier);
    assert!(wrong.is_empty(), "{} attacks:\n{}", wrong.len(), wrong.join("\n"));
    let after = open_files(s);
    assert!(after < before + 16, "the server had {before} files open and has {after}");
    let log = s.log();
    assert!(!log.contains('\u{1b}') && !log.contains("127.0.0.1:1\""), "a function wrote the log");
    assert!(log.len() < 1 << 20, "the log has {} bytes", log.len());
    let left = processes(&mark(s));
    assert!(left.is_empty(), "processes {left:?} outlived their sandbox");
}

fn open_files(s: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", s.pid())).unwrap().count()
}

fn processes(name: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let named = all.filter(|entry| {
        std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    named.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn python_in_tier_a() {
    attack(&Server::with(PLAIN), &PYTHON, 'A');
}

#[test]
fn python_in_tier_b() {
    attack(&Server::as_user_with(1500, PLAIN), &PYTHON, 'B');
}

#[test]
fn python_in_tier_c() {
    attack(&Server::with(WEAK), &PYTHON, 'C');
}

#[test]
fn node_in_tier_c() {
    attack(&Server::with(WEAK), &NODE, 'C');
}

#[test]
fn node_in_tier_a() {
    attack(&Server::with(PLAIN), &NODE, 'A');
}

#[test]
fn node_in_tier_b() {
    attack(&Server::as_user_with(1500, PLAIN), &NODE, 'B');
}
