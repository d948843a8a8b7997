//! A server on ports of its own in a directory of its own. When it is stopped, nothing may be left:
//! no unfinished job, no unwritten run.

use std::time::{Duration, Instant};

use dispatch_server::config::Config;
use dispatch_server::store::Store;
use dispatch_server::{Launcher, Server, ServerArgs};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

pub struct Test {
    server: Option<Server>,
    http: reqwest::Client,
    org: String,
    _dir: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
    pub text: String,
}

impl Answer {
    /// The body of an answer with this status.
    #[track_caller]
    pub fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }
}

pub async fn start() -> Test {
    start_with(ServerArgs::default()).await
}

pub async fn start_with(args: ServerArgs) -> Test {
    let dir = tempfile::tempdir().unwrap();
    let args = ServerArgs {
        data_dir: Some(dir.path().join("data")),
        port: Some(0),
        gateway_port: Some(0),
        ..args
    };
    let (config, _) = Config::load(args, None).unwrap();
    let server = Server::start(config, Launcher::start().unwrap()).await.unwrap();
    let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
    Test { server: Some(server), http, org: "default".to_owned(), _dir: dir }
}

impl Test {
    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// The following requests are for another organization.
    pub fn org(&mut self, org: &str) {
        org.clone_into(&mut self.org);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server().api())
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer { status, headers, body, text }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, self.url(path)).header("X-Dispatch-Org", &self.org)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Waits until a resource is READY or ERROR.
    pub async fn settled(&self, path: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let body = self.get(path).await.is(200);
            if matches!(body["status"].as_str(), Some("READY" | "ERROR")) {
                return body;
            }
            assert!(Instant::now() < end, "{path} does not settle: {body}");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// A base image and an image of a language, ready.
    pub async fn image(&self, language: &str) {
        let base = format!("{language}-base");
        let url = format!("dispatchframework/{base}:0.0.13-knative");
        self.post("/v1/baseimage", json!({ "name": base, "dockerUrl": url })).await.is(201);
        self.post("/v1/image", json!({ "name": language, "baseImageName": base })).await.is(201);
        let image = self.settled(&format!("/v1/image/{language}")).await;
        assert_eq!(image["status"], "READY", "{image}");
    }

    /// A function of one Python file, ready.
    pub async fn python(&self, name: &str, source: &str) {
        let body = json!({ "name": name, "image": "python3", "source": archive(source) });
        self.post("/v1/function", body).await.is(201);
        let function = self.settled(&format!("/v1/function/{name}")).await;
        assert_eq!(function["status"], "READY", "{function}");
    }

    /// Stops the server, lets something happen to its store, and starts it again on the same data.
    pub async fn restart(&mut self, meanwhile: impl AsyncFnOnce(&Store)) {
        let server = self.server.take().unwrap();
        let config = server.app().config.clone();
        // The claim on the data directory goes with the last handle.
        server.stop().await;
        let store = Store::open(&config.data_dir.join("dispatch.db")).await.unwrap();
        meanwhile(&store).await;
        store.close().await;
        let launcher = Launcher::start().unwrap();
        self.server = Some(Server::start(config, launcher).await.unwrap());
    }

    /// Stops the server and looks for leftovers.
    pub async fn stop(mut self) {
        let app = std::sync::Arc::clone(self.server().app());
        app.recorder.flush().await;
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let queues = app.store.queue_depths().await.unwrap();
            if queues.iter().all(|(_, waiting, running, _)| waiting + running == 0) {
                break;
            }
            assert!(Instant::now() < end, "jobs are left over: {queues:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.server.take().unwrap().stop().await;
        let workers: usize =
            app.runner.pools().iter().map(|pool| pool.idle + pool.busy + pool.starting).sum();
        assert_eq!(workers, 0, "workers are left over");
    }
}

/// A source archive with one file, `handler.py`, in base64.
pub fn archive(source: &str) -> String {
    use std::io::Write as _;
    let mut tar =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(source.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "./handler.py", source.as_bytes()).unwrap();
    let mut gzip = tar.into_inner().unwrap();
    gzip.flush().unwrap();
    base64(&gzip.finish().unwrap())
}

pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub const NO_CONTENT: u16 = StatusCode::NO_CONTENT.as_u16();
