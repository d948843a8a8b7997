//! Event drivers: built-in ones and those in container images, supervised by the real server.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::crash::request;
use crate::image_files::{Files, Layers};
use crate::support::{Server, until};

const NOTE: &str =
    "def handle(ctx, payload):\n    return {'event': ctx['event'], 'payload': payload}\n";

#[track_caller]
fn post(s: &Server, path: &str, body: Value) -> Value {
    let (status, answer) = request(s.port, "POST", path, Some(body)).expect("an answer");
    assert!((200..300).contains(&status), "{status} {answer}");
    answer
}

fn get(s: &Server, path: &str) -> Value {
    request(s.port, "GET", path, None).expect("an answer").1
}

fn driver(s: &Server, name: &str) -> Value {
    get(s, &format!("/v1/event/drivers/{name}"))
}

fn ready(s: &Server, name: &str) {
    until("the driver is READY", || driver(s, name)["status"] == "READY");
}

fn config(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
}

/// The text of a driver's log.
fn log(s: &Server, name: &str) -> String {
    let path = format!("/v1/event/drivers/{name}/logs");
    http(s.port, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
}

/// A whole answer, as it comes.
fn http(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Lets every user write to a directory.
fn open_to_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

/// The processes of drivers of a type.
fn processes(of: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let wanted = format!("\0driver\0{of}\0");
    pids.filter(|pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&wanted)
    })
    .collect()
}

#[test]
fn a_ticker_ticks_through_crashes_updates_and_restarts() {
    let mut s = Server::start();
    s.image("python3");
    s.python("note", NOTE, &[]);
    post(
        &s,
        "/v1/event/drivertypes",
        json!({ "name": "clock", "image": "dispatchframework/ticker:0.0.2" }),
    );
    // A source that no other test has, so that its process is found.
    let source = format!("/clock/{}", s.port);
    let settings = config(&[("seconds", "1"), ("source", &source)]);
    let made =
        post(&s, "/v1/event/drivers", json!({ "name": "c", "type": "clock", "config": settings }));
    assert_eq!((&made["status"], &made["expose"]), (&json!("CREATING"), &json!(false)));
    let filter = json!([{ "exact": { "source": source } }]);
    let body = json!({ "name": "ticks", "eventType": "ticker.tick", "function": "note", "filters": filter });
    post(&s, "/v1/event/subscriptions", body);
    ready(&s, "c");
    let runs = |s: &Server| get(s, "/v1/runs?functionName=note").as_array().unwrap().len();
    until("it ticks", || runs(&s) > 0);
    let own = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&format!("--source={source}"))
    };
    let mine = || processes("ticker").into_iter().filter(own).collect::<Vec<_>>();
    let first = mine();
    assert_eq!(first.len(), 1, "exactly one process");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first[0]), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    until("it says why it ended", || {
        driver(&s, "c")["reason"][1].as_str().is_some_and(|r| r.contains("signal 9"))
    });
    until("there is another one", || mine().iter().any(|pid| *pid != first[0]));
    let before = runs(&s);
    until("it ticks again", || runs(&s) > before);
    // An update starts it over with other settings.
    let settings = config(&[("seconds", "1"), ("source", &source), ("debug", "")]);
    let body = json!({ "name": "c", "type": "clock", "config": settings });
    let (status, updated) = request(s.port, "PUT", "/v1/event/drivers/c", Some(body)).unwrap();
    assert_eq!((status, &updated["status"]), (200, &json!("UPDATING")));
    let debug = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("--debug")
    };
    until("it has the new settings", || mine().iter().any(debug) && mine().len() == 1);
    assert!(log(&s, "c").contains("driver c of type ticker starts"));
    // It dies with the server and comes back with it.
    let last = mine();
    s = s.crash_and_restart(&[]);
    until("the old one is gone", || last.iter().all(|pid| !own(pid)));
    ready(&s, "c");
    let (status, _) = request(s.port, "DELETE", "/v1/event/drivers/c", None).unwrap();
    assert_eq!(status, 200);
    until("no process is left", || mine().is_empty());
    until("no file of it is left", || {
        let count = |dir: &str| std::fs::read_dir(s.data.join(dir)).map_or(0, Iterator::count);
        count("drivers") == 0
    });
    assert_eq!(s.stop(), Some(0));
}

#[test]
fn requests_of_strangers_reach_exposed_drivers_and_events_leave_by_others() {
    let place = tempfile::tempdir().unwrap();
    open_to_all(place.path());
    let given = place.path().display().to_string();
    let mut s = Server::with(&["--driver-directories", &given]);
    let body = json!({ "name": "s", "secrets": { "secret": "sesame" } });
    post(&s, "/v1/secret", body);
    let settings = config(&[("signature", "hmac"), ("header", "x-signature"), ("source", "/hook")]);
    let body = json!({ "name": "hook", "type": "webhook", "config": settings, "secrets": ["s"] });
    let made = post(&s, "/v1/event/drivers", body);
    assert!(made["url"].as_str().unwrap().ends_with("/driver/default/hook"), "{made}");
    let settings = config(&[("path", &format!("{given}/out")), ("as", "lines")]);
    post(
        &s,
        "/v1/event/drivers",
        json!({ "name": "out", "type": "file-sink", "config": settings }),
    );
    let body = json!({ "name": "away", "eventType": "*", "uri": "driver:out" });
    post(&s, "/v1/event/subscriptions", body);
    ready(&s, "hook");
    ready(&s, "out");
    let send = |signature: &str| {
        let body = r#"{"a":1}"#;
        let request = format!(
            "POST /driver/default/hook HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\nx-signature: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        http(s.gateway, &request)
    };
    let refused = send("0000");
    assert!(
        refused.starts_with("HTTP/1.1 401") || refused.starts_with("HTTP/1.1 403"),
        "{refused}"
    );
    assert_eq!(get(&s, "/v1/event/log"), json!([]));
    // HMAC-SHA-256 of the body with the key "sesame".
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"sesame");
    let tag = aws_lc_rs::hmac::sign(&key, br#"{"a":1}"#);
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let accepted = send(&hex);
    assert!(accepted.starts_with("HTTP/1.1 2"), "{accepted}");
    let event = get(&s, "/v1/event/log")[0]["event"].clone();
    assert_eq!(event["source"], "/hook", "{event}");
    until("it has left", || get(&s, "/v1/event/subscriptions/away")["progress"]["delivered"] == 1);
    let written = std::fs::read_to_string(place.path().join("out")).unwrap();
    assert!(written.contains("/hook"), "{written}");
    // Made anew under its name, it is another one, and the end of the first does not concern it.
    assert_eq!(request(s.port, "DELETE", "/v1/event/drivers/out", None).unwrap().0, 200);
    let settings = config(&[("path", &format!("{given}/second")), ("as", "lines")]);
    post(
        &s,
        "/v1/event/drivers",
        json!({ "name": "out", "type": "file-sink", "config": settings }),
    );
    ready(&s, "out");
    post(
        &s,
        "/v1/event",
        json!({ "cloudEventsVersion": "0.1", "eventType": "t", "eventID": "2", "source": "/s" }),
    );
    until("the second one has it", || place.path().join("second").exists());
    // A driver that is not exposed is not there for strangers.
    let hidden = "POST /driver/default/out HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                  content-length: 0\r\n\r\n";
    assert!(http(s.gateway, hidden).starts_with("HTTP/1.1 404"));
    assert!(http(s.gateway, &hidden.replace("/default/", "/other/")).starts_with("HTTP/1.1 404"));
    for query in ["", "?authToken=", "?authToken=guess"] {
        let path = format!("/v1/event/ingest{query}");
        let (status, answer) = request(s.port, "POST", &path, Some(json!({}))).unwrap();
        assert_eq!((status, &answer["message"]), (401, &json!("token not recognized")), "{query}");
    }
    assert_eq!(s.stop(), Some(0));
}

/// Says what it was given, tries what it must not, and sends an event as the drivers of the second old
/// generation did.
const DRIVER: &str = r#"
import json, os, sys, time, urllib.request, urllib.error
print('args', sys.argv[1:], flush=True)
print('token', os.environ['AUTH_TOKEN'], flush=True)
endpoint = [a.split('=', 1)[1] for a in sys.argv if a.startswith('--dispatch-api-endpoint=')][0]
def post(path, body):
    request = urllib.request.Request(f'http://{endpoint}{path}', json.dumps(body).encode(),
                                     {'content-type': 'application/json'})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.status
event = {'cloudEventsVersion': '0.1', 'eventType': 'box.opened', 'eventID': 'one', 'source': 'box',
         'data': {'password': os.environ['BOX_PASSWORD'], 'state': os.path.isdir(os.environ['DRIVER_STATE'])}}
print('sent', post('/v1/event/ingest?authToken=' + os.environ['AUTH_TOKEN'], event), flush=True)
for path in ('/v1/function', '/v1/secret'):
    try:
        urllib.request.urlopen(f'http://{endpoint}{path}', timeout=5)
        print('reached', path, flush=True)
    except urllib.error.HTTPError as error:
        print('refused', path, error.code, flush=True)
time.sleep(3600)
"#;

#[test]
fn a_driver_in_a_container_image_speaks_as_the_old_ones_did() {
    let mut s = Server::start();
    let place = s.home().join("image");
    let layers = Layers::python().with(Files::new().text("driver.py", DRIVER));
    layers.layout(&place, &json!({ "Entrypoint": ["/usr/bin/python3", "/driver.py"] }));
    let reference = format!("oci:{}", place.display());
    s.dispatch(&["create", "base-image", "box", &reference, "--language", "http"]).ok();
    let image = get(&s, "/v1/baseimage/box")["dockerUrl"].clone();
    post(&s, "/v1/secret", json!({ "name": "s", "secrets": { "box-password": "open" } }));
    let settings = config(&[("level", "high"), ("quiet", "")]);
    post(&s, "/v1/event/drivertypes", json!({ "name": "box", "image": image, "config": settings }));
    let body = json!({ "name": "b", "type": "box", "config": config(&[("level", "low")]), "secrets": ["s"] });
    post(&s, "/v1/event/drivers", body);
    until("its event is there", || get(&s, "/v1/event/log").as_array().unwrap().len() == 1);
    let event = get(&s, "/v1/event/log")[0]["event"].clone();
    assert_eq!(event["data"], json!({ "password": "open", "state": true }), "{event}");
    until("it has tried the rest", || log(&s, "b").contains("refused /v1/secret 405"));
    let log = log(&s, "b");
    assert!(log.contains("'--quiet', '--level=low'") && log.contains("sent 200"), "{log}");
    assert!(!log.contains("reached"), "{log}");
    // Its token is good at the server's own address too, for its own organization.
    let token = log.lines().find_map(|line| line.split_once(" token ")).unwrap().1.trim();
    let mut event = json!({ "cloudEventsVersion": "0.1", "eventType": "t", "eventID": "direct", "source": "box" });
    let path = format!("/v1/event/ingest?authToken={token}");
    let (status, answer) = request(s.port, "POST", &path, Some(event.clone())).unwrap();
    assert_eq!((status, &answer), (200, &event));
    assert_eq!(get(&s, "/v1/event/log")[0]["event"]["eventID"], "direct");
    // It is worth nothing once its process has ended.
    assert_eq!(request(s.port, "DELETE", "/v1/event/drivers/b", None).unwrap().0, 200);
    event["eventID"] = json!("late");
    until("the token is forgotten", || {
        request(s.port, "POST", &path, Some(event.clone())).unwrap().0 == 401
    });
    // An image that cannot be had.
    post(&s, "/v1/event/drivertypes", json!({ "name": "bad", "image": "127.0.0.1:1/none:latest" }));
    let made = post(&s, "/v1/event/drivers", json!({ "name": "x", "type": "bad" }));
    assert_eq!(made["status"], "CREATING");
    until("it is in ERROR", || driver(&s, "x")["status"] == "ERROR");
    let reason = driver(&s, "x")["reason"].clone();
    assert_eq!(reason.as_array().unwrap().len(), 2, "{reason}");
    assert_eq!(request(s.port, "DELETE", "/v1/event/drivers/x", None).unwrap().0, 200);
    assert_eq!(s.stop(), Some(0));
}

#[test]
fn the_command_line_knows_drivers_as_it_always_did() {
    let mut s = Server::start();
    let done = |args: &[&str]| s.dispatch(args);
    let image = "127.0.0.1:1/missing:1";
    let made = done(&["create", "eventdrivertype", "slow", image, "--set", "level=1"]).ok();
    assert_eq!(made, "Created event driver type: slow\n");
    let types = done(&["get", "event-driver-types"]).ok();
    let head = types.lines().next().unwrap();
    assert_eq!(head.split('|').map(str::trim).collect::<Vec<_>>(), ["NAME", "IMAGE", "EXPOSE"]);
    for built_in in ["ticker", "webhook", "cloudevents"] {
        assert!(types.contains(&format!("builtin:{built_in}")), "{types}");
    }
    let made = done(&[
        "create",
        "eventdriver",
        "slow",
        "--name",
        "t1",
        "--set",
        "seconds=2",
        "-s",
        "quiet",
    ]);
    assert_eq!(made.ok(), "Created event driver: t1\n");
    let table = done(&["get", "eventdriver", "t1"]).ok();
    assert!(table.contains("seconds=2") && table.contains("CREATING"), "{table}");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[1], lines[lines.len() - 1], "a line under each row: {table}");
    until("it is in ERROR", || done(&["get", "eventdriver", "t1"]).ok().contains("ERROR"));
    let error = done(&["create", "eventdriver", "slow", "--name", "T1"]).fails();
    assert!(error.contains("[Code: 605] name should start with lower case letter"), "{error}");
    let error = done(&["create", "eventdriver", "nope", "--name", "n1"]).fails();
    assert_eq!(
        error.trim(),
        "[Code: 400] bad request when processing event driver n1: driver type nope does not exist"
    );
    let error = done(&["create", "eventdriver", "ticker", "--set", "second=1"]).fails();
    assert!(error.contains("no key \"second\""), "{error}");
    let named = done(&["create", "eventdriver", "ticker", "--set", "seconds=1"]).ok();
    let name = named.trim().strip_prefix("Created event driver: ").unwrap().to_owned();
    until("it has a log", || {
        done(&["logs", "driver", &name]).ok().contains(&format!("driver {name} of type ticker"))
    });
    let file = "kind: DriverType\nname: clock\nimage: kars7e/timer:latest\n---\nkind: Driver\n\
                name: d\ntype: clock\nconfig:\n- key: seconds\n  value: 2\nsecrets:\ntags:\n";
    let path = s.file("drivers.yaml", file);
    assert_eq!(
        done(&["create", "-f", &path]).ok(),
        "Created DriverType: clock\nCreated Driver: d\n"
    );
    let path = s.file("drivers.yaml", &file.replace("value: 2", "value: '5'"));
    assert_eq!(
        done(&["update", "-f", &path]).ok(),
        "Updated DriverType: clock\nUpdated Driver: d\n"
    );
    until("it is READY", || {
        done(&["get", "eventdriver", "d", "-o", "json"]).json()["status"] == "READY"
    });
    let shown = done(&["get", "eventdriver", "d", "-o", "json"]).json();
    assert_eq!(shown["config"][0]["value"], "5");
    assert_eq!(done(&["delete", "eventdriver", "t1"]).ok(), "Deleted drivers: t1\n");
    assert_eq!(done(&["delete", "event-driver-type", "slow"]).ok(), "Deleted driver types: slow\n");
    assert_eq!(s.stop(), Some(0));
}
