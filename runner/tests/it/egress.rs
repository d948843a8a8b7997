//! What functions reach: real sandboxes, the proxy, and servers on this machine's loopback, which
//! the operator permits.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dispatch_runner::egress::{News, Reach, Resolve};
use dispatch_runner::{Egress, Revision, Runner as _, Settings};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::fixture::{Fixture, Function, PATIENCE, fixture_with};

/// Says to the proxy, or to another port, what it is told to say, and returns what comes back.
const RAW: &str = "
import socket
def handle(ctx, payload):
    with socket.create_connection(('127.0.0.1', payload.get('port', 3128)), 40) as s:
        s.sendall(payload['say'].encode('latin-1'))
        said = b''
        while True:
            try: part = s.recv(65536)
            except ConnectionResetError: break
            if not part: break
            said += part
        return said.decode('latin-1')
";

/// Fetches URLs as most programs do.
const FETCH: &str = "
import urllib.request, urllib.error
def handle(ctx, payload):
    try:
        with urllib.request.urlopen(payload['url'], data=payload.get('data', '').encode() or None, timeout=40) as reply:
            return [reply.status, reply.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]
    except OSError as error:
        return [0, str(error)]
";

/// Answers each name with one answer after the other, the last one again and again.
#[derive(Debug, Default)]
struct Names {
    answers: Mutex<HashMap<&'static str, Vec<&'static str>>>,
    asked: Mutex<Vec<String>>,
}

impl Resolve for Names {
    fn resolve(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut answers = self.answers.lock().unwrap();
        let found = answers.get_mut(name.as_str()).map(|answers| match answers.len() {
            1 => answers[0],
            _ => answers.remove(0),
        });
        self.asked.lock().unwrap().push(name);
        Box::pin(async move {
            let found = found.ok_or(io::ErrorKind::NotFound)?;
            Ok(found.split(' ').map(|address| address.parse().unwrap()).collect())
        })
    }
}

async fn runner(names: &[(&'static str, &[&'static str])]) -> (Fixture, Arc<Names>) {
    let answers = names.iter().map(|(name, answers)| (*name, answers.to_vec())).collect();
    let names = Arc::new(Names { answers: Mutex::new(answers), asked: Mutex::default() });
    let fixture = fixture_with(|options| {
        options.operator.permit = vec!["127.0.0.1".parse().unwrap()];
        options.operator.patience = Duration::from_secs(2);
        options.resolver = Arc::clone(&names) as Arc<dyn Resolve>;
    });
    (fixture.await, names)
}

fn proxy(allow: &[&str]) -> impl FnOnce(&mut Settings) {
    let allow = allow.iter().map(|entry| entry.parse().unwrap()).collect();
    move |settings| settings.egress = Egress::Proxy(Reach { allow, links: Vec::new() })
}

/// A server that says what it was asked, and to whom `Host` says it was; `/away` leads to metadata.
async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let field = |name: &str| {
                    let found = head.lines().find_map(|line| {
                        let (key, value) = line.split_once(':')?;
                        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                    });
                    found.unwrap_or_default()
                };
                let mut body = vec![0; field("content-length").parse().unwrap_or(0)];
                stream.read_exact(&mut body).await.unwrap();
                let line = head.lines().next().unwrap();
                let said = format!(
                    "{line}|{}|{}|{}|{}",
                    field("host"),
                    field("x-own"),
                    field("proxy-authorization"),
                    String::from_utf8_lossy(&body)
                );
                let reply = if line.contains("/away") {
                    "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n".to_owned()
                } else {
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len())
                };
                let _ = stream.write_all(reply.as_bytes()).await;
            });
        }
    });
    port
}

async fn say(fixture: &Fixture, raw: &Arc<Revision>, what: &str) -> String {
    let said = fixture.value(raw, &json!({ "say": what }).to_string()).await;
    said.as_str().unwrap().to_owned()
}

async fn fetch(fixture: &Fixture, function: &Arc<Revision>, url: &str) -> Value {
    fixture.value(function, &json!({ "url": url }).to_string()).await
}

fn news(fixture: &Fixture, revision: &Revision) -> News {
    let key = (revision.organization.clone(), revision.function.clone());
    fixture.runner.egress().remove(&key).unwrap_or_default()
}

#[tokio::test]
async fn python_fetches_through_the_proxy_by_its_variables() {
    let (fixture, port) = (runner(&[("site.example", &["127.0.0.1"])]).await.0, server().await);
    let f = fixture.deploy(Function::python(FETCH).set(proxy(&["site.example", "127.0.0.1"])));
    let by_name = fetch(&fixture, &f, &format!("http://site.example:{port}/a?b=c")).await;
    assert_eq!(by_name, json!([200, format!("GET /a?b=c HTTP/1.1|site.example:{port}|||")]));
    // The function's own loopback is its own, so this goes to the proxy by hand.
    let posted = json!({ "url": format!("http://site.example:{port}/p"), "data": "body" });
    let posted = fixture.value(&f, &posted.to_string()).await;
    assert_eq!(posted, json!([200, format!("POST /p HTTP/1.1|site.example:{port}|||body")]));
    let redirected = fetch(&fixture, &f, &format!("http://site.example:{port}/away")).await;
    assert_eq!(redirected[0], 403);
    let why = redirected[1].as_str().unwrap();
    assert!(why.starts_with("egress: 169.254.169.254:80 is a metadata address"), "{why}");
    for (url, status, why) in [
        ("http://other.example/", 502, "egress: other.example has no address"),
        ("https://other.example/", 0, "502"),
        ("http://[::1]:1/", 403, "loopback"),
        ("http://10.0.0.1/", 403, "private"),
    ] {
        let answer = fetch(&fixture, &f, url).await;
        assert_eq!(answer[0], status, "{url} {answer}");
        assert!(answer[1].as_str().unwrap().contains(why), "{url} {answer}");
    }
    let news = news(&fixture, &f);
    assert_eq!(
        (news.connected, news.refused.get("metadata"), news.refused.get("private")),
        (3, Some(&1), Some(&1))
    );
    assert!(news.sent > 0 && news.received > 0, "{news:?}");
    assert!(
        news.notes.keys().all(|note| note.refusal.is_some()),
        "only refusals: it does not learn"
    );
}

#[tokio::test]
async fn a_function_without_egress_has_no_proxy() {
    let (fixture, _) = runner(&[]).await;
    let code = "
import os, socket
def handle(ctx, payload):
    variables = {k: v for k, v in os.environ.items() if 'proxy' in k.lower() and v}
    try: socket.create_connection(('127.0.0.1', 3128), 5)
    except OSError as error: return [variables, error.errno]
";
    let waited = fixture.deploy(Function::python(code));
    // Certain variables need a process of its own.
    let fresh = |s: &mut Settings| s.environment = vec![("PYTHONHASHSEED".into(), "1".into())];
    let fresh = fixture.deploy(Function::python(code).set(fresh));
    for function in [waited, fresh] {
        assert_eq!(fixture.value(&function, "{}").await, json!([{}, 111]));
    }
}

#[tokio::test]
async fn nodejs_reaches_what_it_may_through_the_proxy() {
    let (fixture, port) = (runner(&[("site.example", &["127.0.0.1"])]).await.0, server().await);
    let code = "
const http = require('http')
const proxy = new URL(process.env.HTTP_PROXY)
const ask = (options, then) => new Promise((resolve, reject) => {
    const request = http.request({ host: proxy.hostname, port: proxy.port, ...options })
    request.on('error', reject); then(request, resolve); request.end()
})
const text = stream => new Promise(resolve => {
    let all = ''; stream.on('data', part => all += part); stream.on('end', () => resolve(all))
})
module.exports = async (ctx, { whole, tunnel }) => [
    await ask({ path: whole }, (request, resolve) =>
        request.on('response', async reply => resolve([reply.statusCode, await text(reply)]))),
    await ask({ method: 'CONNECT', path: tunnel }, (request, resolve) => {
        request.on('connect', (reply, socket) => {
            if (reply.statusCode !== 200) return resolve([reply.statusCode, ''])
            socket.write('GET /through HTTP/1.1\\r\\nHost: inner\\r\\nConnection: close\\r\\n\\r\\n')
            text(socket).then(all => resolve([200, all.split('\\r\\n\\r\\n')[1]]))
        })
    }),
    process.env.NODE_USE_ENV_PROXY,
]
";
    let f = fixture.deploy(Function::nodejs(code).set(proxy(&["site.example"])));
    let ask = |host: &str| json!({ "whole": format!("http://{host}:{port}/x"), "tunnel": format!("{host}:{port}") });
    let reached = fixture.value(&f, &ask("site.example").to_string()).await;
    let expected = json!([
        [200, format!("GET /x HTTP/1.1|site.example:{port}|||")],
        [200, "GET /through HTTP/1.1|inner|||"],
        "1",
    ]);
    assert_eq!(reached, expected);
    let refused = fixture.value(&f, &ask("169.254.169.254").to_string()).await;
    assert_eq!((&refused[0][0], &refused[1][0]), (&json!(403), &json!(403)));
}

#[tokio::test]
async fn tricks_with_names_and_heads_lead_nowhere() {
    let (fixture, names) = runner(&[
        ("site.example", &["127.0.0.1"]),
        ("inner.example", &["10.0.0.7"]),
        ("both.example", &["169.254.169.254 127.0.0.1"]),
    ])
    .await;
    let port = server().await;
    let f = fixture.deploy(Function::python(RAW).set(proxy(&["*.example", "127.0.0.1"])));
    let get = |url: &str| {
        format!("GET {url} HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n\r\n")
    };
    let connect = |to: &str| format!("CONNECT {to} HTTP/1.1\r\nHost: site.example:443\r\n\r\n");
    for (what, status) in [
        (connect("127.0.0.2:80"), "403"),
        (connect("[::1]:80"), "403"),
        (connect("[::ffff:169.254.169.254]:80"), "403"),
        (connect("[::ffff:a9fe:a9fe]:80"), "403"),
        (connect("[64:ff9b::a9fe:a9fe]:80"), "403"),
        (connect("[fd00:ec2::254]:80"), "403"),
        (connect("169.254.169.254:80"), "403"),
        (connect("0.0.0.0:80"), "403"),
        (connect("inner.example:443"), "403"),
        (connect("2852039166:80"), "400"),
        (connect("0xa9fea9fe:80"), "400"),
        (connect("0251.0376.0251.0376:80"), "400"),
        (connect("127.1:80"), "400"),
        (connect("site.example@169.254.169.254:80"), "400"),
        (connect("169.254.169.254"), "400"),
        (connect("site.example:0"), "400"),
        (connect("site.example:99999"), "400"),
        (get("http://169.254.169.254/latest/meta-data/"), "403"),
        (get("http://site.example@169.254.169.254/"), "400"),
        (get(&format!("http://169.254.169.254:80@site.example:{port}/")), "400"),
        (get("http://169.254.169.254%2f@site.example/"), "400"),
        (get("http://2852039166/"), "400"),
        (get("https://site.example/"), "400"),
        (get("ftp://site.example/"), "400"),
        (get("/"), "400"),
        (get("http://site.example :80/"), "400"),
        (
            format!(
                "POST http://site.example:{port}/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\
                  Content-Length: 5\r\n\r\nabcde"
            ),
            "400",
        ),
        (
            format!(
                "GET http://site.example:{port}/ HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
                "a".repeat(300_000)
            ),
            "431",
        ),
        (format!("GET http://site.example:{port}/{} HTTP/1.1\r\n\r\n", "a".repeat(300_000)), "431"),
        (
            format!("GET http://site.example:{port}/ HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200)),
            "431",
        ),
    ] {
        let said = say(&fixture, &f, &what).await;
        let short = &what[..what.len().min(120)];
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{short}: {said}");
    }
    // Whoever the head says it is for, it goes to the checked place under that place's name, and
    // what is meant for the proxy stays here. A name with several addresses uses what it may.
    for host in ["site.example", "both.example"] {
        let what = format!(
            "GET http://{host}:{port}/x HTTP/1.1\r\nHost: 169.254.169.254\r\nX-Own: 1\r\n\
             Proxy-Authorization: Basic eA==\r\nConnection: close, X-Own\r\n\r\n"
        );
        let said = say(&fixture, &f, &what).await;
        assert!(said.ends_with(&format!("\r\n\r\nGET /x HTTP/1.1|{host}:{port}|||")), "{said}");
    }
    // One connection, two requests: each is decided on.
    let two = format!(
        "GET http://site.example:{port}/1 HTTP/1.1\r\nHost: a\r\n\r\n{}",
        get("http://169.254.169.254/2")
    );
    let said = say(&fixture, &f, &two).await;
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("HTTP/1.1 403 "), "{said}");
    // Two lengths for one body: it arrives with one, so that nobody finds another request in it.
    let two = format!(
        "POST http://site.example:{port}/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    let said = say(&fixture, &f, &two).await;
    assert!(said.ends_with(&format!("POST / HTTP/1.1|site.example:{port}|||")), "{said}");
    // Nothing that is no name was looked up.
    assert!(names.asked.lock().unwrap().iter().all(|name| name.ends_with(".example")));
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_looked_up_once_for_each_connection() {
    let (fixture, names) =
        runner(&[("rebind.example", &["127.0.0.1", "169.254.169.254", "127.0.0.1"])]).await;
    let port = server().await;
    let f = fixture.deploy(Function::python(FETCH).set(proxy(&["rebind.example"])));
    for status in [200, 403, 200] {
        let answer = fetch(&fixture, &f, &format!("http://rebind.example:{port}/")).await;
        assert_eq!(answer[0], status, "{answer}");
    }
    assert_eq!(names.asked.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn socks_connects_and_refuses_by_the_same_policy() {
    let (fixture, port) = (runner(&[("site.example", &["127.0.0.1"])]).await.0, server().await);
    let f = fixture.deploy(Function::python(RAW).set(proxy(&["site.example", "127.0.0.1"])));
    let hello = "\u{5}\u{1}\0";
    let bytes = |of: &[u8]| of.iter().map(|byte| char::from(*byte)).collect::<String>();
    let place = port.to_be_bytes();
    let by_name = format!("{hello}\u{5}\u{1}\0\u{3}\u{c}site.example{}", bytes(&place));
    let by_address = format!("{hello}{}", bytes(&[5, 1, 0, 1, 127, 0, 0, 1, place[0], place[1]]));
    let request = "GET /s HTTP/1.1\r\nHost: inner\r\nConnection: close\r\n\r\n";
    for start in [by_name, by_address] {
        let said = say(&fixture, &f, &format!("{start}{request}")).await;
        assert!(said.starts_with(&bytes(&[5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0])), "{said:?}");
        assert!(said.ends_with("GET /s HTTP/1.1|inner|||"), "{said:?}");
    }
    let mapped = [&[5, 1, 0, 4][..], &[0; 10], &[0xff, 0xff, 169, 254, 169, 254, 0, 80]].concat();
    let number = [&[5, 1, 0, 3, 10][..], b"2852039166", &[0, 80]].concat();
    for (request, reply) in [
        (vec![5, 1, 0, 1, 169, 254, 169, 254, 0, 80], 2),
        (mapped, 2),
        (number, 1),
        (vec![5, 2, 0, 1, 127, 0, 0, 1, 0, 80], 7),
        (vec![5, 3, 0, 1, 127, 0, 0, 1, 0, 80], 7),
        (vec![5, 1, 0, 9], 8),
        (vec![5, 1, 0, 1, 127, 0, 0, 1, 0, 0], 1),
    ] {
        let said = say(&fixture, &f, &format!("{hello}{}", bytes(&request))).await;
        assert_eq!(said, bytes(&[5, 0, 5, reply, 0, 1, 0, 0, 0, 0, 0, 0]), "{request:?}");
    }
    assert_eq!(say(&fixture, &f, "\u{5}\u{1}\u{2}").await, bytes(&[5, 0xff]));
}

#[tokio::test]
async fn who_says_nothing_is_let_go() {
    let (fixture, _) = runner(&[]).await;
    let f = fixture.deploy(Function::python(RAW).set(proxy(&[])));
    for what in ["", "GET http://site.exam", "\u{5}", "\u{5}\u{1}\0\u{5}"] {
        let said = say(&fixture, &f, what).await;
        assert!(!said.contains("200"), "{what:?} {said:?}");
    }
}

#[tokio::test]
async fn links_lead_to_their_place_and_to_no_other() {
    let (fixture, _) =
        runner(&[("db.example", &["127.0.0.1"]), ("inner.example", &["10.0.0.7"])]).await;
    let port = server().await;
    let links: Vec<(u16, dispatch_api::egress::Target)> = vec![
        (5432, format!("db.example:{port}").parse().unwrap()),
        (80, format!("127.0.0.1:{port}").parse().unwrap()),
        (6379, "inner.example:6379".parse().unwrap()),
    ];
    // A list of its own does not concern links.
    let allow = vec!["nothing.example".parse().unwrap()];
    let set = |s: &mut Settings| s.egress = Egress::Proxy(Reach { allow, links });
    let f = fixture.deploy(Function::python(RAW).set(set));
    let request = "GET /l HTTP/1.1\r\nHost: inner\r\n\r\n";
    for (inner, reaches) in [(5432, true), (80, true), (6379, false)] {
        let payload = json!({ "port": inner, "say": request }).to_string();
        let said = fixture.value(&f, &payload).await;
        assert_eq!(said.as_str().unwrap().ends_with("GET /l HTTP/1.1|inner|||"), reaches, "{said}");
    }
    let connect = format!("CONNECT db.example:{port} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(say(&fixture, &f, &connect).await.starts_with("HTTP/1.1 403 "));
    let news = news(&fixture, &f);
    assert_eq!((news.connected, news.refused.get("private")), (2, Some(&1)), "{news:?}");
}

#[tokio::test]
async fn learning_notes_what_is_reached_and_refused() {
    let (fixture, _) = runner(&[("site.example", &["127.0.0.1"])]).await;
    let port = server().await;
    let learns = |s: &mut Settings| s.egress = Egress::Learn(Reach::default());
    let f = fixture.deploy(Function::python(FETCH).set(learns));
    for url in ["http://site.example:{}/", "http://site.example:{}/again", "http://10.0.0.1:{}/"] {
        fetch(&fixture, &f, &url.replace("{}", &port.to_string())).await;
    }
    let notes = news(&fixture, &f).notes;
    let notes: Vec<_> = notes
        .iter()
        .map(|(note, noted)| {
            let word = note.refusal.map_or("", dispatch_runner::egress::policy::Refusal::word);
            (note.target.to_string(), word, noted.count)
        })
        .collect();
    assert_eq!(
        notes,
        [(format!("site.example:{port}"), "", 2), (format!("10.0.0.1:{port}"), "private", 1),]
    );
    assert!(fixture.runner.egress().is_empty(), "it is told once");
}

#[tokio::test]
async fn a_function_cannot_fill_the_book_or_the_machine() {
    let (fixture, _) = runner(&[]).await;
    let code = "
import socket
def handle(ctx, payload):
    for n in range(400):
        with socket.create_connection(('127.0.0.1', 3128), 40) as s:
            s.sendall(f'CONNECT 10.0.{n // 256}.{n % 256}:1 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'.encode())
            assert s.recv(999).startswith(b'HTTP/1.1 403')
    held = [socket.create_connection(('127.0.0.1', 3128), 40) for _ in range(128)]
    # All places are taken: the next one waits.
    with socket.create_connection(('127.0.0.1', 3128), 40) as s:
        s.sendall(b'CONNECT 10.0.0.1:1 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')
        s.settimeout(0.3)
        try: early = s.recv(99).decode()
        except TimeoutError: early = ''
        for other in held: other.close()
        s.settimeout(40)
        return [early, s.recv(12).decode()]
";
    let f = fixture.deploy(Function::python(code).set(proxy(&[])));
    assert_eq!(fixture.value(&f, "{}").await, json!(["", "HTTP/1.1 403"]));
    let news = news(&fixture, &f);
    assert_eq!((news.notes.len(), news.unlisted), (256, 144), "{:?}", news.refused);
    assert_eq!(news.refused.values().sum::<u64>(), 401);
}

#[tokio::test]
async fn nothing_is_left_when_the_worker_ends() {
    let (fixture, _) = runner(&[("site.example", &["127.0.0.1"])]).await;
    // Accepts, and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let code = "
import socket
kept = []
def handle(ctx, payload):
    s = socket.create_connection(('127.0.0.1', 3128), 40)
    s.sendall(('CONNECT site.example:%d HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n' % payload).encode())
    kept.append(s)
    return s.recv(12).decode()
";
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let idle = |s: &mut Settings| s.idle = Duration::from_millis(200);
    let f = fixture.deploy(Function::python(code).set(proxy(&["site.example"])).set(idle));
    assert_eq!(fixture.value(&f, &port.to_string()).await, json!("HTTP/1.1 200"));
    let (mut outer, _) = listener.accept().await.unwrap();
    // The worker goes, and with it the connection it kept.
    let end = tokio::time::timeout(PATIENCE, outer.read(&mut [0])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)));
    drop(outer);
    fixture.until_waiting("python3", 2).await;
    let begun = std::time::Instant::now();
    while open() > before {
        assert!(begun.elapsed() < PATIENCE, "{} descriptors, {before} before", open());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_port_that_the_function_has_taken_is_a_clear_error() {
    let (fixture, _) = runner(&[]).await;
    let links =
        vec![(5432, "a.example:1".parse().unwrap()), (5432, "b.example:1".parse().unwrap())];
    let set = |s: &mut Settings| s.egress = Egress::Proxy(Reach { allow: Vec::new(), links });
    let f = fixture.deploy(Function::python(RAW).set(set));
    let failed = fixture.failure(&f, "{}").await;
    assert!(failed.message.contains("port 5432"), "{}", failed.message);
}

#[tokio::test]
async fn full_is_a_network_of_its_own_behind_the_operator_s_rules() {
    let there = |path: &str| std::path::Path::new(path).exists();
    if !there("/usr/bin/slirp4netns") || !there("/usr/sbin/nft") {
        println!("skipped: slirp4netns and nftables are not installed");
        return;
    }
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    let Ok(own) = own.map(|address| address.ip()) else {
        println!("skipped: this machine has no address but loopback");
        return;
    };
    let listener = TcpListener::bind((own, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"reached").await;
        }
    });
    let code = "
import errno, os, socket
def handle(ctx, payload):
    try:
        with socket.create_connection(payload, 20) as s: said = s.recv(9).decode()
    except OSError as error: said = errno.errorcode.get(error.errno, str(error))
    return [said, [k for k in os.environ if 'PROXY' in k], len(socket.if_nameindex())]
";
    for permitted in [true, false] {
        let fixture = fixture_with(|options| {
            options.operator.permit.extend(
                permitted.then(|| own.to_string().parse::<dispatch_api::egress::Net>().unwrap()),
            );
        });
        let fixture = fixture.await;
        let f = fixture.deploy(Function::python(code).set(|s| s.egress = Egress::Full));
        let said = fixture.value(&f, &json!([own.to_string(), port]).to_string()).await;
        let expected = if permitted { "reached" } else { "EHOSTUNREACH" };
        assert_eq!(said, json!([expected, [], 2]));
        for address in ["169.254.169.254", "10.0.2.2"] {
            let said = fixture.value(&f, &json!([address, 80]).to_string()).await;
            assert_eq!(said[0], "EHOSTUNREACH", "{address}");
        }
    }
}
