//! An ingest, drivers in this process, and brokers as processes.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use dispatch_api::CloudEvent;
use dispatch_drivers::{Error, Settings, find, run};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "a&token";
/// Far longer than anything takes, so that what hangs is found.
const PATIENCE: Duration = Duration::from_secs(100);

#[derive(Default)]
struct Seen {
    /// What all requests are answered with; 0: they are accepted.
    answer: u16,
    /// Requests that were not accepted.
    refused: usize,
    accepted: Vec<CloudEvent>,
}

/// A server's ingest: checks the token and every event.
#[derive(Clone)]
pub struct Ingest {
    seen: Arc<Mutex<Seen>>,
    pub url: String,
}

impl Ingest {
    pub async fn start() -> Ingest {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/event/ingest", listener.local_addr().unwrap());
        let app = axum::Router::new()
            .route("/v1/event/ingest", axum::routing::post(ingest))
            .with_state(Arc::clone(&seen));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ingest { seen, url }
    }

    /// Answers every request with this status, until told otherwise; 0 accepts.
    pub fn answer(&self, status: u16) {
        self.seen.lock().unwrap().answer = status;
    }

    pub fn refused(&self) -> usize {
        self.seen.lock().unwrap().refused
    }

    pub fn accepted(&self) -> Vec<CloudEvent> {
        self.seen.lock().unwrap().accepted.clone()
    }

    /// Accepted events by `(source, id)`, as the server knows them apart.
    pub fn distinct(&self) -> BTreeMap<(String, String), CloudEvent> {
        let all = self.accepted().into_iter();
        all.map(|event| ((event.source.clone(), event.id.clone()), event)).collect()
    }

    /// Waits for so many distinct events.
    pub async fn wait_for(&self, count: usize) -> Vec<CloudEvent> {
        until(&format!("{count} events"), || self.distinct().len() >= count).await;
        self.distinct().into_values().collect()
    }

    /// Waits for further requests that are not accepted.
    pub async fn wait_for_refusals(&self, count: usize) {
        let before = self.refused();
        until("requests that are refused", || self.refused() >= before + count).await;
    }
}

async fn ingest(
    State(seen): State<Arc<Mutex<Seen>>>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> (StatusCode, String) {
    let mut seen = seen.lock().unwrap();
    assert_eq!(query["authToken"], TOKEN);
    assert_eq!(headers["authorization"], format!("Bearer {TOKEN}"));
    let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    match CloudEvent::from_http(pairs, &body) {
        Err(error) => {
            seen.refused += 1;
            (StatusCode::from_u16(error.status()).unwrap(), error.to_string())
        }
        Ok(_) if seen.answer != 0 => {
            seen.refused += 1;
            (StatusCode::from_u16(seen.answer).unwrap(), "not now".into())
        }
        // What the tests' own rules do not allow.
        Ok(events) if events.iter().any(|event| event.event_type.contains("poison")) => {
            seen.refused += 1;
            (StatusCode::BAD_REQUEST, "poison".into())
        }
        Ok(events) => {
            for event in &events {
                assert_eq!(event.spec_version.as_str(), "1.0");
                event.validate().unwrap();
            }
            seen.accepted.extend(events);
            (StatusCode::ACCEPTED, String::new())
        }
    }
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain: {what}");
}

/// Waits until something is so that must be asked for.
#[allow(dead_code)]
pub async fn until_async<F: Future<Output = bool>>(what: &str, mut so: impl FnMut() -> F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain: {what}");
}

/// A driver that runs in this process.
pub struct Driver {
    task: JoinHandle<Result<(), Error>>,
    stop: CancellationToken,
    pub port: u16,
}

/// What a driver is started with.
pub struct Start<'a> {
    pub kind: &'a str,
    pub args: Vec<(String, String)>,
    pub env: BTreeMap<String, String>,
}

impl<'a> Start<'a> {
    pub fn new(kind: &'a str) -> Start<'a> {
        Start { kind, args: Vec::new(), env: BTreeMap::new() }
    }

    pub fn arg(mut self, name: &str, value: impl ToString) -> Self {
        self.args.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.insert(name.to_owned(), value.to_string());
        self
    }

    /// Emits to this ingest and keeps its position there.
    pub fn to(self, ingest: &Ingest, state: &Path) -> Self {
        self.env("K_SINK", &ingest.url)
            .env("AUTH_TOKEN", TOKEN)
            .env("DRIVER_STATE", state.display())
    }

    pub fn run(mut self) -> Driver {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let port = free_port();
        self = self.env("PORT", port);
        let kind = find(self.kind).unwrap_or_else(|| panic!("no type {}", self.kind));
        let args = self.args.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let settings = Settings::new(kind, args, |name| self.env.get(name).cloned()).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(settings, stop.clone()));
        Driver { task, stop, port }
    }
}

impl Driver {
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Waits until it answers HTTP.
    pub async fn listening(self) -> Driver {
        let port = self.port;
        until("a driver that listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        self
    }

    pub async fn stop(self) {
        self.stop.cancel();
        match tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap() {
            Ok(()) | Err(Error::Stopped) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Ends it in the middle of what it does, as a crash would.
    pub async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Why it ended by itself.
    pub async fn failure(self) -> String {
        let done = tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
        done.unwrap_err().to_string()
    }
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A broker as a process of its own, with its own data. Its end is the test's end.
#[allow(dead_code)]
pub struct Broker {
    child: Child,
    /// Whether it leads a group of processes.
    group: bool,
    pub port: u16,
    pub data: TempDir,
}

#[allow(dead_code)]
impl Broker {
    /// Where a program of this name is, or a printed reason to skip.
    pub fn find(program: &str) -> Option<std::path::PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places: Vec<_> = std::env::split_paths(&path).collect();
        places.extend(["/usr/sbin".into(), "/usr/lib/rabbitmq/bin".into()]);
        places.extend((12..20).rev().map(|n| format!("/usr/lib/postgresql/{n}/bin").into()));
        let found = places.into_iter().map(|place| place.join(program)).find(|path| path.exists());
        if found.is_none() {
            eprintln!("skipped: {program} is not installed (scripts/setup test installs it)");
        }
        found
    }

    pub async fn start(command: &mut Command, port: u16, data: TempDir) -> Broker {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(data.path().join("log"))
            .unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut broker = Broker { child, group: false, port, data };
        until("a broker that listens", || {
            if let Some(status) = broker.child.try_wait().unwrap() {
                let log = std::fs::read_to_string(broker.data.path().join("log")).unwrap();
                panic!("the broker ended with {status}: {log}");
            }
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .await;
        broker
    }

    /// As `start`, for programs that are a script around the real one: all of them end.
    pub async fn start_group(command: &mut Command, port: u16, data: TempDir) -> Broker {
        use std::os::unix::process::CommandExt as _;
        let mut broker = Broker::start(command.process_group(0), port, data).await;
        broker.group = true;
        broker
    }

    /// Ends it without warning; its data stays.
    pub fn kill(mut self) -> TempDir {
        self.end();
        std::mem::replace(&mut self.data, tempfile::tempdir().unwrap())
    }

    fn end(&mut self) {
        if self.group {
            let group = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
            let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Posts an event to a sink and returns the status, which is `expected` if that is not 0.
#[allow(dead_code)]
pub async fn publish(sink: &Driver, id: &str, expected: u16) -> u16 {
    let event = serde_json::json!({
        "specversion": "1.0", "id": id, "source": "/test", "type": "test.sent",
        "subject": "s", "time": "2026-01-01T00:00:00Z", "data": {"id": id},
    });
    let post = reqwest::Client::new()
        .post(sink.url())
        .header("content-type", dispatch_api::cloud_event::STRUCTURED)
        .body(event.to_string());
    let answer = post.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    assert!(expected == 0 || status == expected, "{status}: {text}");
    status
}
