//! One organization against another: code, secrets, runs, workers, logs, and whether they exist.

use std::io::{BufRead as _, BufReader, Write as _};

use serde_json::{Value, json};

use crate::http::{self, Reply};
use crate::support::{Server, root};

/// The attacker, the victim, and what is the victim's.
const A: &str = "attacker";
const B: &str = "victims";
const OF_B: &str = "treasure";
/// A name of the same length that nobody has.
const NOBODYS: &str = "nothings";

const KEEPS: &str = "
def handle(context, payload):
    print('a line of the victim')
    return {'answer': 'of the victim', 'secret': context['secrets'].get('password')}
";

fn request(s: &Server, org: &str, method: &str, path: &str, body: &Value) -> Reply {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::api(s.port, org, method, path, body.as_bytes())
}

/// Makes images and a function of an organization.
#[track_caller]
fn deploy(s: &Server, org: &str, name: &str, source: &str, flags: &[&str]) {
    let url = "dispatchframework/python3-base:0.0.13-knative";
    // They may be there already.
    s.dispatch(&["create", "base-image", "python3-base", url, "--organization", org]);
    s.dispatch(&["create", "image", "python3", "python3-base", "--organization", org]);
    let create = ["create", "function", "--image", "python3", name, source, "--organization", org];
    s.dispatch(&[&create[..], flags].concat()).ok();
    let path = format!("/v1/function/{name}");
    crate::support::until("the function is settled", || {
        let status = request(s, org, "GET", &path, &Value::Null).json()["status"].clone();
        ["READY", "ERROR"].contains(&status.as_str().unwrap_or_default())
    });
    let function = request(s, org, "GET", &path, &Value::Null).json();
    assert_eq!(function["status"], "READY", "{function}");
}

/// A server where the victim has one of everything, all by the same name; and the id of its run.
fn server() -> (Server, String) {
    let s = Server::start();
    let secret = json!({ "name": OF_B, "secrets": { "password": "OpenSesame" } });
    assert_eq!(request(&s, B, "POST", "/v1/secret", &secret).status, 201);
    let source = s.file("victim/handler.py", KEEPS);
    deploy(&s, B, OF_B, &source, &["--secret", OF_B]);
    let create = ["create", "image", OF_B, "python3-base", "--organization", B];
    s.dispatch(&create).ok();
    let create = ["create", "base-image", OF_B, "dispatchframework/python3-base:1"];
    s.dispatch(&[&create[..], &["--organization", B]].concat()).ok();
    let endpoint = json!({
        "name": OF_B, "function": OF_B, "hosts": ["b.example"], "uris": ["/treasure"],
        "methods": ["GET"], "enabled": true,
    });
    let made = request(&s, B, "POST", "/v1/endpoint", &endpoint);
    assert_eq!(made.status, 200, "{}", made.text());
    let run = http::call(s.port, B, OF_B, &Value::Null);
    assert_eq!(run["output"]["secret"], "OpenSesame", "{run}");
    // The record of a run is written in the background.
    let id = run["name"].as_str().unwrap().to_owned();
    crate::support::until("the run is recorded", || {
        request(&s, B, "GET", &format!("/v1/runs/{id}"), &Value::Null).status == 200
    });
    (s, id)
}

#[test]
fn what_another_has_answers_like_what_nobody_has() {
    let (s, run) = server();
    let nobodys_run = "01900000-0000-7000-8000-000000000000";
    let source = json!({ "name": OF_B, "image": "python3", "source": "" });
    let exec = json!({ "blocking": true, "input": 1 });
    let secret = json!({ "name": OF_B, "secrets": { "password": "mine" } });
    let image = json!({ "name": OF_B, "baseImageName": OF_B });
    let base = json!({ "name": OF_B, "imageUrl": "dispatchframework/python3-base:1" });
    let endpoint = json!({ "name": OF_B, "function": OF_B, "uris": ["/x"] });
    let back = json!({ "revision": 1 });
    let none = Value::Null;
    let requests: Vec<(&str, String, &Value)> = vec![
        ("GET", format!("/v1/function/{OF_B}"), &none),
        ("PUT", format!("/v1/function/{OF_B}"), &source),
        ("DELETE", format!("/v1/function/{OF_B}"), &none),
        ("GET", format!("/v1/function/{OF_B}/revisions"), &none),
        ("POST", format!("/v1/function/{OF_B}/rollback"), &back),
        ("POST", format!("/v1/runs?functionName={OF_B}"), &exec),
        ("GET", format!("/v1/runs?functionName={OF_B}"), &none),
        ("GET", format!("/v1/runs/{run}"), &none),
        ("GET", format!("/v1/runs/{run}?functionName={OF_B}"), &none),
        ("POST", format!("/v1/runs/{run}/redrive"), &none),
        ("GET", format!("/v1/secret/{OF_B}"), &none),
        ("PUT", format!("/v1/secret/{OF_B}"), &secret),
        ("DELETE", format!("/v1/secret/{OF_B}"), &none),
        ("GET", format!("/v1/image/{OF_B}"), &none),
        ("PUT", format!("/v1/image/{OF_B}"), &image),
        ("DELETE", format!("/v1/image/{OF_B}"), &none),
        ("GET", format!("/v1/image/{OF_B}/logs"), &none),
        ("GET", format!("/v1/baseimage/{OF_B}"), &none),
        ("PUT", format!("/v1/baseimage/{OF_B}"), &base),
        ("DELETE", format!("/v1/baseimage/{OF_B}"), &none),
        ("GET", format!("/v1/endpoint/{OF_B}"), &none),
        ("PUT", format!("/v1/endpoint/{OF_B}"), &endpoint),
        ("DELETE", format!("/v1/endpoint/{OF_B}"), &none),
        ("GET", format!("/v1/api/{OF_B}"), &none),
        ("PUT", format!("/v1/api/{OF_B}"), &endpoint),
        ("DELETE", format!("/v1/api/{OF_B}"), &none),
    ];
    for (method, path, body) in requests {
        let other = |text: &str| text.replace(OF_B, NOBODYS).replace(&run, nobodys_run);
        let theirs = request(&s, A, method, &path, body);
        let body: Value = serde_json::from_str(&other(&body.to_string())).unwrap();
        let nobodys = request(&s, A, method, &other(&path), &body);
        let plain = |reply: &Reply| {
            let mut body = reply.json();
            if let Some(body) = body.as_object_mut() {
                body.remove("requestId");
            }
            (reply.status, other(&body.to_string()))
        };
        assert_eq!(plain(&theirs), plain(&nobodys), "{method} {path}");
        assert_ne!(theirs.status, 500, "{method} {path}");
        // A list by a name that is not there is empty, and an image needs a base image.
        let empty = theirs.json() == json!([]);
        assert!([400, 404].contains(&theirs.status) || empty, "{method} {path}: {}", theirs.text());
    }
    let run = http::call(s.port, B, OF_B, &Value::Null);
    assert_eq!(run["output"]["secret"], "OpenSesame", "nothing has changed: {run}");
}

#[test]
fn lists_watches_and_references_stay_inside() {
    let (s, _) = server();
    for kind in ["function", "secret", "image", "baseimage", "endpoint", "api", "runs"] {
        let mine = request(&s, A, "GET", &format!("/v1/{kind}"), &Value::Null);
        assert_eq!(mine.json(), json!([]), "{kind}");
        let page = request(&s, B, "GET", &format!("/v1/{kind}?limit=1"), &Value::Null);
        let next = page.head.lines().find_map(|line| line.strip_prefix("x-dispatch-continue: "));
        let next = next.unwrap_or("AAAA").to_owned();
        let mine = request(&s, A, "GET", &format!("/v1/{kind}?continue={next}"), &Value::Null);
        assert!([200, 400, 422].contains(&mine.status), "{kind}: {}", mine.text());
        assert!(!mine.text().contains(OF_B), "{kind}: {}", mine.text());
    }
    // What is watched: first the victim changes something, then the attacker does.
    let mut watch = http::connect(s.port);
    let head = format!(
        "GET /v1/secret?watch=true HTTP/1.1\r\nhost: localhost\r\nx-dispatch-org: {A}\r\n\r\n"
    );
    watch.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(watch).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("synced")));
    for (org, name) in [(B, "of-the-victim"), (A, "of-the-attacker")] {
        let secret = json!({ "name": name, "secrets": { "a": "b" } });
        assert_eq!(request(&s, org, "POST", "/v1/secret", &secret).status, 201);
    }
    let seen = lines.find(|line| line.starts_with("data:") && line.contains("of-the-")).unwrap();
    assert!(seen.contains("of-the-attacker"), "{seen}");
    // The victim's resources by name, in what is the attacker's.
    let source = s.file("attacker/handler.py", "def handle(c, p):\n    return c['secrets']\n");
    deploy(&s, A, "thief", &source, &[]);
    for secret in [OF_B, NOBODYS] {
        let body = json!({ "blocking": true, "input": 1, "secrets": [secret] });
        let run = request(&s, A, "POST", "/v1/runs?functionName=thief", &body).json();
        let message = run["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains(&format!("secret {secret} not found")), "{run}");
    }
    // The same name is another function, with none of the other's secrets and runs.
    deploy(&s, A, OF_B, &source, &[]);
    assert_eq!(http::call(s.port, A, OF_B, &Value::Null)["output"], json!({}));
    let run = http::call(s.port, B, OF_B, &Value::Null);
    assert_eq!(run["output"]["answer"], "of the victim", "{run}");
    let runs = request(&s, A, "GET", &format!("/v1/runs?functionName={OF_B}"), &Value::Null);
    assert!(!runs.text().contains("of the victim"), "{}", runs.text());
}

#[test]
fn routes_of_another_are_not_taken_over() {
    let (s, _) = server();
    let call = |path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        http::raw(s.gateway, request.as_bytes())
    };
    assert!(call("/treasure", "b.example").text().contains("of the victim"));
    let source = s.file("attacker/handler.py", "def handle(c, p):\n    return 'of the attacker'\n");
    deploy(&s, A, "thief", &source, &[]);
    for (n, (kind, hosts, uris)) in [
        ("endpoint", json!(["b.example"]), json!(["/treasure"])),
        ("endpoint", json!(["B.EXAMPLE"]), json!(["/{all:path}"])),
        ("endpoint", json!(["b.example."]), json!(["/treasure"])),
        ("endpoint", json!(["b.example:80"]), json!(["/treasure"])),
        ("endpoint", json!(["*.example"]), json!(["/treasure"])),
        ("endpoint", json!([]), json!(["/treasure"])),
        ("api", json!(["b.example"]), json!(["/treasure"])),
        ("api", json!([]), json!([format!("/{B}/../treasure")])),
        ("api", json!([]), json!(["/treasure"])),
    ]
    .into_iter()
    .enumerate()
    {
        // Whether it is refused or made, it changes nothing for the victim.
        let body = json!({
            "name": format!("steal{n}"), "function": "thief", "hosts": hosts, "uris": uris,
            "methods": ["GET"], "enabled": true,
        });
        let reply = request(&s, A, "POST", &format!("/v1/{kind}"), &body);
        assert!(reply.status < 500, "{}", reply.text());
        let answer = call("/treasure", "b.example").text();
        assert!(answer.contains("of the victim"), "{body}: {answer}");
    }
    let mine = http::call(s.port, A, "thief", &Value::Null);
    assert_eq!(mine["output"], "of the attacker");
}

#[test]
fn workers_find_nothing_of_each_other() {
    for s in [Server::start(), Server::as_user(1500)] {
        let source = root().join("tests/attacks/functions/python3");
        let source = source.to_str().unwrap();
        let flags = ["--handler", "attack.handle", "--max-scale", "1"];
        deploy(&s, B, OF_B, source, &flags);
        deploy(&s, A, "thief", source, &flags);
        // The same organization keeps its functions apart too.
        deploy(&s, B, "sibling", source, &flags);
        let mark = format!("mark-{}", s.pid());
        let call = |org: &str, name: &str, attack: &str, pids: &[u32]| {
            let payload = json!({ "attack": attack, "mark": mark, "pids": pids });
            http::call(s.port, org, name, &payload)["output"].clone()
        };
        let left = call(B, OF_B, "leave-marks", &[]);
        let left = left.as_str().unwrap().to_owned();
        for place in ["/tmp/mark", "/dev/shm/mark", "port", "abstract socket", "socket file"] {
            assert!(left.contains(place), "{left}");
        }
        // Who left it finds it again: the search works.
        let own = call(B, OF_B, "find-marks", &[]);
        let own = own.as_str().unwrap().to_owned();
        assert_eq!(own, format!("{left} process"));
        let pids: Vec<u32> = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
            .collect();
        for (org, name) in [(A, "thief"), (B, "sibling")] {
            assert_eq!(call(org, name, "find-marks", &[]), "nothing", "{org} {name}");
            assert_eq!(call(org, name, "signal-others", &pids), "nobody", "{org} {name}");
        }
        // A new revision is another sandbox as well.
        let update = ["update", "function", OF_B, source, "--organization", B];
        s.dispatch(&[&update[..], &flags[..], &["--timeout", "9000"]].concat()).ok();
        crate::support::until("the new revision serves", || {
            call(B, OF_B, "find-marks", &[]) == "nothing"
        });
    }
}
