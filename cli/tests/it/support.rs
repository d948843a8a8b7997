//! A server that expects requests in an order, and the program in a home of its own.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use serde_json::Value;

/// What the server was asked.
#[derive(Debug)]
pub struct Asked {
    pub headers: HeaderMap,
    pub body: Value,
}

struct Exchange {
    line: String,
    status: u16,
    kind: &'static str,
    answer: String,
    headers: Vec<(&'static str, String)>,
}

#[derive(Default)]
struct Script {
    expected: VecDeque<Exchange>,
    asked: Vec<Asked>,
    wrong: Vec<String>,
}

/// A server that expects certain requests, in order.
pub struct Fake {
    pub port: u16,
    script: Arc<Mutex<Script>>,
    home: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{self:?}");
        self.out
    }

    #[track_caller]
    pub fn fails(self) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        self.err
    }
}

impl Fake {
    pub fn start() -> Fake {
        let script = Arc::new(Mutex::new(Script::default()));
        let state = Arc::clone(&script);
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let app = axum::Router::new().fallback(answer).with_state(state);
                axum::serve(listener, app).await.unwrap();
            });
        });
        Fake { port, script, home: tempfile::tempdir().unwrap() }
    }

    /// Expects a request, such as `GET /v1/function`, and what to answer.
    pub fn expect(&self, line: &str, status: u16, answer: &Value) -> &Fake {
        self.expect_text(line, status, "application/json", &answer.to_string())
    }

    pub fn expect_text(&self, line: &str, status: u16, kind: &'static str, answer: &str) -> &Fake {
        let (line, answer) = (line.to_owned(), answer.to_owned());
        let headers = Vec::new();
        let exchange = Exchange { line, status, kind, answer, headers };
        self.script.lock().unwrap().expected.push_back(exchange);
        self
    }

    /// Expects events, and answers how many were accepted, are delivered and were there before.
    pub fn expect_events(&self, status: u16, counts: [u64; 3]) -> &Fake {
        self.expect_text("POST /v1/event", status, "application/json", "{}");
        let names = ["x-dispatch-events", "x-dispatch-deliveries", "x-dispatch-duplicates"];
        let headers = names.into_iter().zip(counts.map(|count| count.to_string())).collect();
        self.script.lock().unwrap().expected.back_mut().unwrap().headers = headers;
        self
    }

    /// What was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.script.lock().unwrap().asked)
    }

    /// The body of the only request since the last time.
    #[track_caller]
    pub fn body(&self) -> Value {
        let mut asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0).body
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Writes a file below the home directory, which is also the working directory.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The program, with nothing of this machine's environment but what a program needs.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dispatch"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("TZ", "UTC")
            .env("DISPATCH_HOST", "127.0.0.1")
            .env("DISPATCH_PORT", self.port.to_string())
            .env("DISPATCH_SCHEME", "http")
            .env("DISPATCH_ORGANIZATION", "dispatch")
            .current_dir(self.home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn dispatch(&self, args: &[&str]) -> Done {
        finish(self.command(args).spawn().unwrap())
    }

    /// Runs a command with text on its standard input.
    pub fn dispatch_with(&self, args: &[&str], input: &str) -> Done {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        finish(child)
    }
}

pub fn finish(child: Child) -> Done {
    let output = child.wait_with_output().unwrap();
    Done {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// What events are sent as: old ones, one, several.
const EVENTS: [&str; 3] =
    ["application/json", "application/cloudevents+json", "application/cloudevents-batch+json"];

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let line = format!("{method} {uri}");
    let body = match bytes.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&bytes).unwrap_or(Value::String("not JSON".to_owned())),
    };
    let mut script = script.lock().unwrap();
    let kinds: &[&str] = match line.as_str() {
        "POST /v1/event" => &EVENTS,
        _ => &["application/json"],
    };
    if !bytes.is_empty() && !kinds.iter().any(|kind| headers["content-type"] == *kind) {
        script.wrong.push(format!("{line}: the content type of the body"));
    }
    if !headers.contains_key("x-dispatch-org") {
        script.wrong.push(format!("{line}: no organization"));
    }
    if !headers.contains_key("cookie") && !headers.contains_key("authorization") {
        script.wrong.push(format!("{line}: neither cookie nor token"));
    }
    let exchange = script.expected.pop_front().filter(|exchange| exchange.line == line);
    script.asked.push(Asked { headers, body });
    let Some(exchange) = exchange else {
        script.wrong.push(format!("{line}: not expected"));
        return Response::builder().status(500).body(Body::from("not expected")).unwrap();
    };
    let mut response = Response::builder()
        .status(StatusCode::from_u16(exchange.status).unwrap())
        .header("content-type", exchange.kind);
    for (name, value) in exchange.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(exchange.answer)).unwrap()
}

impl Drop for Fake {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let script = self.script.lock().unwrap();
        assert!(script.wrong.is_empty(), "{:#?}", script.wrong);
        let left: Vec<_> = script.expected.iter().map(|exchange| &exchange.line).collect();
        assert!(left.is_empty(), "expected, but not asked: {left:?}");
    }
}
