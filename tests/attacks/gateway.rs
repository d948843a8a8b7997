//! Requests that no well-behaved client sends, and responses that no well-behaved function makes.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{self, Reply};
use crate::support::Server;

/// Answers with what it is given; `null` asks how often it was called.
const ECHO: &str = "
calls = 0
def handle(context, payload):
    global calls
    calls += 1
    return payload.get('answer') if payload else calls
";

/// A server with the function at `/echo`.
fn server() -> Server {
    let s = Server::start();
    s.image("python3");
    s.python("echo", ECHO, &["--max-scale", "1"]);
    let create = ["create", "endpoint", "echo", "echo", "-m", "GET,POST", "-p", "/echo"];
    s.dispatch(&create).ok();
    s.ready("endpoint", "echo");
    s
}

fn post(head: &str, body: &str) -> Vec<u8> {
    format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{head}\r\n{body}")
        .into_bytes()
}

fn get(head: &str) -> Vec<u8> {
    format!("GET /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n").into_bytes()
}

/// The request is refused with one of these, once, and the connection is closed.
#[track_caller]
fn refused(s: &Server, what: &str, request: &[u8], statuses: &[u16]) {
    let reply = http::raw(s.gateway, request);
    let right = statuses.contains(&reply.status) && reply.count() <= 1;
    assert!(right, "{what}: {} {}", reply.head, reply.text());
}

#[test]
fn requests_whose_length_is_in_doubt_are_refused() {
    let s = server();
    let smuggled = "0\r\n\r\nGET /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    for (what, head, body) in [
        ("two lengths", "content-length: 2\r\ncontent-length: 3\r\n", "{} "),
        ("a list of lengths", "content-length: 2, 3\r\n", "{} "),
        ("a sign", "content-length: +2\r\n", "{}"),
        ("below zero", "content-length: -1\r\n", "{}"),
        ("beyond all numbers", "content-length: 99999999999999999999999\r\n", "{}"),
        ("no number", "content-length: 0x2\r\n", "{}"),
        ("a coding that is none", "transfer-encoding: xchunked\r\n", smuggled),
        ("a coding after chunked", "transfer-encoding: chunked, identity\r\n", smuggled),
        ("a folded header", "x-a: b\r\n c\r\ncontent-length: 2\r\n", "{}"),
        ("a space before the colon", "content-length : 2\r\n", "{}"),
        ("a NUL", "x-a: b\0c\r\ncontent-length: 2\r\n", "{}"),
        ("a lone carriage return", "x-a: b\rc\r\ncontent-length: 2\r\n", "{}"),
        ("a name with a space", "x a: b\r\ncontent-length: 2\r\n", "{}"),
        ("no name", ": b\r\ncontent-length: 2\r\n", "{}"),
        ("two hosts", "host: y\r\nconnection: close\r\ncontent-length: 2\r\n", "{}"),
    ] {
        refused(&s, what, &post(head, body), &[400]);
    }
    let broken =
        ["zz\r\n{}\r\n0\r\n\r\n", "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n", "-2\r\n{}\r\n0\r\n\r\n"];
    for body in broken {
        let reply = http::raw(s.gateway, &post("transfer-encoding: chunked\r\n", body));
        assert!([0, 400].contains(&reply.status), "{body:?}: {}", reply.head);
    }
}

#[test]
fn a_length_beside_chunks_smuggles_nothing() {
    let s = server();
    let second = "GET /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let body = format!("0\r\n\r\n{second}");
    for head in [
        format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", body.len()),
        format!("transfer-encoding: chunked\r\ncontent-length: {}\r\n", body.len()),
        format!("transfer-encoding: chunked\r\ncontent-length: {}\r\n", 5),
    ] {
        let reply = http::raw(s.gateway, &post(&head, &body));
        assert_eq!(reply.count(), 1, "{head}: {} {}", reply.head, reply.text());
    }
}

#[test]
fn heads_without_end_are_refused() {
    let s = server();
    let long = "a".repeat(200 << 10);
    let many: String = (0..1000).map(|n| format!("x-{n}: 1\r\n")).collect();
    refused(&s, "a long header", &get(&format!("x-a: {long}\r\n")), &[400, 431]);
    refused(&s, "many headers", &get(&many), &[400, 431]);
    let line = format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n");
    refused(&s, "a long path", line.as_bytes(), &[400, 414, 431]);
    let query = format!(
        "GET /echo?{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "a=1&".repeat(5000)
    );
    refused(&s, "many fields", query.as_bytes(), &[413]);
    let trailers = format!("0\r\n{}\r\n", many.repeat(20));
    let reply = http::raw(s.gateway, &post("transfer-encoding: chunked\r\n", &trailers));
    assert!([0, 400, 431].contains(&reply.status), "trailers: {}", reply.head);
    let extended = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(1 << 20));
    let reply = http::raw(s.gateway, &post("transfer-encoding: chunked\r\n", &extended));
    assert!([0, 400].contains(&reply.status), "a chunk's extension: {}", reply.head);
}

#[test]
fn strange_targets_reach_no_function() {
    let s = server();
    for (target, statuses) in [
        ("GET /echo/../other", &[400, 404][..]),
        ("GET /echo/%2e%2e/%2e%2e/other", &[400, 404]),
        ("GET /%00echo", &[400, 404]),
        ("GET /x%2fecho", &[400, 404]),
        ("GET /ECHO", &[400, 404]),
        ("CONNECT 169.254.169.254:80", &[400, 404, 405]),
        ("GET http://169.254.169.254/latest/meta-data", &[400, 404]),
        ("OPTIONS *", &[400, 404]),
        ("TRACE /echo", &[400, 404, 405]),
        ("GET\t/echo", &[400]),
        ("G\0T /echo", &[400]),
    ] {
        let request = format!("{target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        refused(&s, target, request.as_bytes(), statuses);
    }
    let upgrade = get("upgrade: websocket\r\nsec-websocket-version: 13\r\n");
    assert_eq!(http::raw(s.gateway, &upgrade).status, 200, "nothing is upgraded");
}

#[test]
fn what_a_function_returns_makes_no_other_response() {
    let s = server();
    let split = "a\r\nset-cookie: evil=1\r\n\r\n<script>";
    for (what, answer) in [
        ("a value with a line break", json!({"statusCode": 200, "headers": {"x-a": split}})),
        ("a line feed alone", json!({"statusCode": 200, "headers": {"x-a": "a\nb: c"}})),
        ("a value with NUL", json!({"statusCode": 200, "headers": {"x-a": "a\0b"}})),
        ("a name with a line break", json!({"statusCode": 200, "headers": {"x-a\r\nb": "c"}})),
        ("a name with NUL", json!({"statusCode": 200, "headers": {"x\0": "c"}})),
        ("no name", json!({"statusCode": 200, "headers": {"": "c"}})),
        ("a cookie", json!({"statusCode": 200, "cookies": ["a=b\r\nx: y"]})),
        (
            "several values",
            json!({"statusCode": 200, "multiValueHeaders": {"x": ["a", "b\r\nc: d"]}}),
        ),
        ("a length", json!({"statusCode": 200, "headers": {"content-length": "0"}, "body": "x"})),
        ("a coding", json!({"statusCode": 200, "headers": {"Transfer-Encoding": "chunked"}})),
        ("hop by hop", json!({"statusCode": 200, "headers": {"connection": "x-a"}})),
        ("another protocol", json!({"statusCode": 200, "headers": {"upgrade": "h2c"}})),
        ("switching protocols", json!({"statusCode": 101})),
        ("to be continued", json!({"statusCode": 100})),
        ("no status", json!({"statusCode": 99999})),
        ("many headers", json!({"statusCode": 200, "multiValueHeaders": {"x": vec!["1"; 5000]}})),
        ("long headers", json!({"statusCode": 200, "headers": {"x": "y".repeat(1 << 20)}})),
    ] {
        let body = json!({ "answer": answer }).to_string();
        let head = format!("connection: close\r\ncontent-length: {}\r\n", body.len());
        let reply = http::raw(s.gateway, &post(&head, &body));
        assert_eq!((reply.status, reply.count()), (502, 1), "{what}: {}", reply.head);
        assert!(!reply.head.contains("evil"), "{what}: {}", reply.head);
    }
}

fn sent(s: &Server, kind: &str, body: &str) -> Reply {
    let head = format!(
        "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    http::raw(s.gateway, &[head.as_bytes(), body.as_bytes()].concat())
}

#[test]
fn strange_json_is_refused_at_the_door() {
    let s = server();
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    for (what, body) in [
        ("deep", deep(1_000_000)),
        ("deep enough", deep(1000)),
        ("deep objects", "{\"a\":".repeat(100_000)),
        ("a number beyond all", "1e999999999".to_owned()),
        ("not a number", "NaN".to_owned()),
        ("two values", "1 2".to_owned()),
        ("a lone surrogate", r#""\ud800""#.to_owned()),
        ("a raw NUL", "\"\0\"".to_owned()),
    ] {
        assert_eq!(sent(&s, "application/json", &body).status, 400, "gateway: {what}");
        let run = format!(r#"{{"blocking":true,"input":{body}}}"#);
        let path = "/v1/runs?functionName=echo";
        let reply = http::api(s.port, "default", "POST", path, run.as_bytes());
        assert_eq!(reply.status, 400, "api: {what}: {}", reply.text());
        let create = format!(r#"{{"name":"x","image":"python3","schema":{{"in":{body}}}}}"#);
        let reply = http::api(s.port, "default", "POST", "/v1/function", create.as_bytes());
        assert_eq!(reply.status, 400, "schema: {what}: {}", reply.text());
    }
    // A form whose fields are the names that objects have in JavaScript is plain data.
    let reply = sent(&s, "application/x-www-form-urlencoded", "__proto__=1&answer=2");
    assert_eq!(reply.json(), json!("2"));
}

/// Calls the function was given so far, besides this one.
fn calls(s: &Server) -> u64 {
    let run = http::call(s.port, "default", "echo", &Value::Null);
    run["output"].as_u64().unwrap_or_else(|| panic!("{run}")) - 1
}

#[test]
fn slow_senders_do_not_keep_others_out() {
    let s = server();
    let mut slow: Vec<_> = (0..64).map(|_| http::connect(s.gateway)).collect();
    for (n, stream) in slow.iter_mut().enumerate() {
        // Half a head, or a whole one and half a body.
        let part = if n % 2 == 0 {
            "POST /echo HTTP/1.1\r\nhost: x\r\nx-a"
        } else {
            "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"
        };
        stream.write_all(part.as_bytes()).unwrap();
    }
    assert_eq!(http::raw(s.gateway, &get("")).status, 200);
    // Who does not finish a head is cut off, without an answer or with one that says so.
    let reply = http::read(&mut slow[0]);
    assert!([0, 408].contains(&reply.status), "{}", reply.head);
    assert_eq!(calls(&s), 1, "half a request is no call");
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The beginning of a connection of HTTP/2: the preface and no settings.
fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[])[..]].concat()
}

/// `GET http:/echo`: two entries of the static table, and a path that is written out.
const GET_ECHO: &[u8] = b"\x82\x86\x04\x05/echo";
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// The kinds of the frames of a reply that begins with a frame.
fn kinds(bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    let mut rest = bytes;
    while let [a, b, c, kind, ..] = rest {
        kinds.push(*kind);
        let length = 9 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
        rest = rest.get(length..).unwrap_or_default();
    }
    kinds
}

fn talk(s: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = http::connect(s.gateway);
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut all);
    all
}

#[test]
fn streams_that_are_reset_at_once_cost_little() {
    let s = server();
    let one = [preface(), frame(HEADERS, 5, 1, GET_ECHO)].concat();
    assert!(kinds(&talk(&s, &one)).contains(&HEADERS), "one stream alone is answered");
    let mut flood = preface();
    for n in 0..20_000u32 {
        flood.extend(frame(HEADERS, 5, 2 * n + 1, GET_ECHO));
        flood.extend(frame(RESET, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    let kinds = kinds(&talk(&s, &flood));
    assert!(kinds.contains(&GO_AWAY), "the server hangs up: {} frames", kinds.len());
    let made = calls(&s);
    assert!(made < 2000, "{made} of 20000 calls were made that nobody waited for");
    assert_eq!(http::raw(s.gateway, &get("")).status, 200);
}

#[test]
fn a_head_in_endless_pieces_is_cut_off() {
    let s = server();
    let mut flood = preface();
    flood.extend(frame(HEADERS, 1, 1, GET_ECHO));
    // A header without indexing: a name of one byte, a value of 100.
    let header = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat();
    for _ in 0..2000 {
        flood.extend(frame(CONTINUATION, 0, 1, &header.repeat(100)));
    }
    let kinds = kinds(&talk(&s, &flood));
    assert!(kinds.contains(&GO_AWAY), "{kinds:?}");
    assert_eq!(calls(&s), 0);
}
