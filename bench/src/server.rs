//! A Dispatch server of our own, on free ports, in a fresh directory.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::load::{Client, Target};
use crate::process::{Language, Process, Stream, peers};

/// How long anything the server does may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// What every call sends, and what every answer holds.
const PAYLOAD: &str = r#"{"name":"Jon","place":"here"}"#;
const ANSWER: &str = "Hello, Jon from here";

/// The server.
pub struct Server {
    /// Its process.
    pub process: Process,
    api: u16,
    gateway: u16,
    _data: tempfile::TempDir,
}

impl Server {
    /// Starts the program with further flags, in a directory below `data`.
    ///
    /// # Errors
    /// It does not become ready; its log says why.
    pub fn start(program: &Path, data: &Path, flags: &[&str]) -> anyhow::Result<Server> {
        let data = tempfile::tempdir_in(data)?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DISPATCH_") {
                command.env_remove(name);
            }
        }
        command
            .args(["server", "--port", "0", "--gateway-port", "0", "--log-format", "json"])
            .arg("--data-dir")
            .arg(data.path())
            .args(flags);
        let process = Process::start(command, Stream::Err)?;
        let (api, gateway) = process.wait_for(|line| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let port = |key: &str| entry[key].as_str()?.rsplit(':').next()?.parse().ok();
            (entry["message"] == "ready").then(|| Some((port("api")?, port("gateway")?)))?
        })?;
        Ok(Server { process, api, gateway, _data: data })
    }

    async fn api(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let mut client = Client::connect(self.api).await?;
        let (status, answer) = client.send(method, path, body).await?;
        let text = String::from_utf8_lossy(&answer);
        ensure!(status.is_success(), "{path} answered {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("{path} answered {text}"))
    }

    /// The version of the program.
    ///
    /// # Errors
    /// None is answered.
    pub async fn version(&self) -> anyhow::Result<String> {
        let version = self.api(Method::GET, "/v1/version", &Value::Null).await?;
        Ok(version["version"].as_str().unwrap_or("?").to_owned())
    }

    /// Makes base image, image, a function of the language's name, and an endpoint for it.
    ///
    /// # Errors
    /// One of them does not become ready.
    pub async fn deploy(&self, language: &Language) -> anyhow::Result<()> {
        let name = language.name;
        let base = json!({"name": format!("{name}-base"),
            "dockerUrl": format!("dispatchframework/{name}-base")});
        self.api(Method::POST, "/v1/baseimage", &base).await?;
        let image = json!({"name": name, "baseImageName": format!("{name}-base")});
        self.api(Method::POST, "/v1/image", &image).await?;
        self.create_function(name, language).await?;
        self.ready(name).await?;
        let endpoint = json!({"name": name, "function": name, "methods": ["POST"],
            "uris": [format!("/{name}")], "enabled": true});
        self.api(Method::POST, "/v1/endpoint", &endpoint).await?;
        Ok(())
    }

    /// Asks for a function; it is not ready yet.
    ///
    /// # Errors
    /// It is refused.
    pub async fn create_function(&self, name: &str, language: &Language) -> anyhow::Result<()> {
        let function = json!({"name": name, "image": language.name,
            "source": STANDARD.encode(pack(&peers().join(language.source))?)});
        self.api(Method::POST, "/v1/function", &function).await?;
        Ok(())
    }

    /// Waits until a function is ready.
    ///
    /// # Errors
    /// It failed, or took too long.
    pub async fn ready(&self, name: &str) -> anyhow::Result<()> {
        let path = format!("/v1/function/{name}");
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let function = self.api(Method::GET, &path, &Value::Null).await?;
            match function["status"].as_str() {
                Some("READY") => return Ok(()),
                Some("ERROR") => bail!("function {name} failed: {}", function["reason"]),
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        bail!("function {name} is not ready after {} s", PATIENCE.as_secs())
    }

    /// How many functions are ready.
    ///
    /// # Errors
    /// No list is answered.
    pub async fn count_ready(&self) -> anyhow::Result<usize> {
        let list = self.api(Method::GET, "/v1/function", &Value::Null).await?;
        let list = list.as_array().context("the list of functions is no list")?;
        Ok(list.iter().filter(|function| function["status"] == "READY").count())
    }

    /// A metric, summed over all lines that contain `label`; zero where there is none.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn sum(&self, metric: &str, label: &str) -> anyhow::Result<f64> {
        let mut client = Client::connect(self.api).await?;
        let (status, page) = client.send(Method::GET, "/metrics", Bytes::new()).await?;
        ensure!(status == StatusCode::OK, "/metrics answered {status}");
        let name = format!("{metric}{{");
        Ok(String::from_utf8_lossy(&page)
            .lines()
            .filter(|line| line.starts_with(&name) && line.contains(label))
            .filter(|line| !line.contains("state=\"dead\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// Waits until that sum is zero.
    ///
    /// # Errors
    /// It is not after a while.
    pub async fn zero(&self, metric: &str, label: &str) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.sum(metric, label).await? == 0.0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("{metric} {label} is not zero after {} s", PATIENCE.as_secs())
    }

    /// A call through the gateway.
    pub fn endpoint(&self, name: &str) -> Target {
        call(self.gateway, format!("/{name}"))
    }

    /// A run that the caller waits for.
    pub fn run(&self, name: &str) -> Target {
        let body = format!(r#"{{"blocking":true,"input":{PAYLOAD}}}"#).into();
        Target { body, ..call(self.api, format!("/v1/runs?functionName={name}")) }
    }

    /// A run that nobody waits for: stored before it is answered.
    pub fn queued_run(&self, name: &str) -> Target {
        let body = format!(r#"{{"input":{PAYLOAD}}}"#).into();
        let target = call(self.api, format!("/v1/runs?functionName={name}"));
        Target { body, status: StatusCode::ACCEPTED, contains: "INITIALIZED", ..target }
    }
}

/// The same call of a raw server.
pub fn call(port: u16, path: String) -> Target {
    let body = Bytes::from_static(PAYLOAD.as_bytes());
    Target { port, path, body, status: StatusCode::OK, contains: ANSWER }
}

/// A source archive of one file.
fn pack(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let name = file.file_name().context("the source is no file")?;
    archive.append_path_with_name(file, name)?;
    Ok(archive.into_inner()?.finish()?)
}
