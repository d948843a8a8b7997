//! The server that is measured: its process, its API, and calls of its functions.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::cores::Cores;
use crate::http::{Connection, request};
use crate::load::{DIGITS, PAYLOAD, Target, hello};
use crate::peers;
use crate::process::Process;
use crate::toys;

/// How long anything the server does may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// What every server is started with.
pub struct Setup {
    /// The program.
    pub program: PathBuf,
    /// Where data directories are made.
    pub data: PathBuf,
}

/// The server.
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Its API.
    pub api: Api,
    gateway: u16,
    _data: tempfile::TempDir,
}

/// The port of a server's API.
#[derive(Clone, Copy)]
pub struct Api(u16);

impl Api {
    fn call(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = request(method, path, body.as_bytes());
        let (status, answer) = Connection::open(self.0)?.exchange(&request)?;
        let text = String::from_utf8_lossy(&answer);
        ensure!((200..300).contains(&status), "{path} answered {status}: {text}");
        serde_json::from_str(&text).with_context(|| format!("{path} answered {text}"))
    }

    /// Asks for a function of a file among the peers' sources; it is not ready yet.
    ///
    /// # Errors
    /// It is refused.
    pub fn create_function(&self, name: &str, language: &str, source: &str) -> anyhow::Result<()> {
        self.create(&json!({"name": name, "image": language,
            "source": STANDARD.encode(pack(source)?)}))
    }

    /// The same, with the workers forked from a process that has loaded the source.
    ///
    /// # Errors
    /// It is refused.
    pub fn create_forking(&self, name: &str, language: &str, source: &str) -> anyhow::Result<()> {
        self.create(&json!({"name": name, "image": language, "preload": true,
            "source": STANDARD.encode(pack(source)?)}))
    }

    fn create(self, function: &Value) -> anyhow::Result<()> {
        self.call("POST", "/v1/function", function)?;
        Ok(())
    }
}

impl Server {
    /// Starts the program with further flags, on some cores.
    ///
    /// # Errors
    /// It does not become ready; its log says why.
    pub fn start(setup: &Setup, cores: Cores, flags: &[&str]) -> anyhow::Result<Server> {
        let data = tempfile::tempdir_in(&setup.data)?;
        toys::write_pack(data.path())?;
        let mut command = Command::new(&setup.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DISPATCH_") {
                command.env_remove(name);
            }
        }
        command
            .args(["server", "--port", "0", "--gateway-port", "0", "--log-format", "json"])
            .arg("--data-dir")
            .arg(data.path().join("data"))
            .arg("--languages-dir")
            .arg(data.path().join("languages"))
            .args(flags);
        let process = Process::start(command, cores)?;
        let (api, gateway) = process.wait_for(|line| {
            let entry: Value = serde_json::from_str(line).ok()?;
            let port = |key: &str| entry[key].as_str()?.rsplit(':').next()?.parse().ok();
            (entry["message"] == "ready").then(|| Some((port("api")?, port("gateway")?)))?
        })?;
        Ok(Server { process, api: Api(api), gateway, _data: data })
    }

    /// The version of the program.
    ///
    /// # Errors
    /// None is answered.
    pub fn version(&self) -> anyhow::Result<String> {
        let version = self.api.call("GET", "/v1/version", &Value::Null)?;
        Ok(version["version"].as_str().unwrap_or("?").to_owned())
    }

    /// Makes base image and image of a language, both of its name.
    ///
    /// # Errors
    /// One of them is refused.
    pub fn image(&self, language: &str) -> anyhow::Result<()> {
        let base = json!({"name": format!("{language}-base"),
            "dockerUrl": format!("dispatchframework/{language}-base")});
        self.api.call("POST", "/v1/baseimage", &base)?;
        let image = json!({"name": language, "baseImageName": format!("{language}-base")});
        self.api.call("POST", "/v1/image", &image)?;
        Ok(())
    }

    /// Makes a function and an endpoint for it, and waits until it is ready.
    ///
    /// # Errors
    /// One of them does not become ready.
    pub fn deploy(&self, name: &str, language: &str, source: &str) -> anyhow::Result<()> {
        self.api.create_function(name, language, source)?;
        self.expose(name)
    }

    /// Waits until a function is ready, and makes an endpoint for it.
    ///
    /// # Errors
    /// One of them does not become ready.
    pub fn expose(&self, name: &str) -> anyhow::Result<()> {
        self.ready(name)?;
        let endpoint = json!({"name": name, "function": name, "methods": ["POST"],
            "uris": [format!("/{name}")], "enabled": true});
        self.api.call("POST", "/v1/endpoint", &endpoint)?;
        Ok(())
    }

    /// Waits until a function is ready.
    ///
    /// # Errors
    /// It failed, or took too long.
    pub fn ready(&self, name: &str) -> anyhow::Result<()> {
        let path = format!("/v1/function/{name}");
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let function = self.api.call("GET", &path, &Value::Null)?;
            match function["status"].as_str() {
                Some("READY") => return Ok(()),
                Some("ERROR") => bail!("function {name} failed: {}", function["reason"]),
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        bail!("function {name} is not ready after {} s", PATIENCE.as_secs())
    }

    /// A metric, summed over all lines that contain `label`; zero where there is none.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn sum(&self, metric: &str, label: &str) -> anyhow::Result<f64> {
        let request = request("GET", "/metrics", b"");
        let (status, page) = Connection::open(self.api.0)?.exchange(&request)?;
        ensure!(status == 200, "/metrics answered {status}");
        let name = format!("{metric}{{");
        Ok(String::from_utf8_lossy(&page)
            .lines()
            .filter(|line| line.starts_with(&name) && line.contains(label))
            .filter(|line| !line.contains("state=\"dead\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// Waits until that sum is as `wanted`.
    ///
    /// # Errors
    /// It is not after a while.
    pub fn until(
        &self,
        metric: &str,
        label: &str,
        wanted: impl Fn(f64) -> bool,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut sum = f64::NAN;
        while Instant::now() < end {
            sum = self.sum(metric, label)?;
            if wanted(sum) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("{metric} {label} is {sum} after {} s", PATIENCE.as_secs())
    }

    /// A call through the gateway.
    pub fn endpoint(&self, name: &str) -> Target {
        hello(self.gateway, &format!("/{name}"))
    }

    /// Delivers the events of a type to a function.
    ///
    /// # Errors
    /// It is refused.
    pub fn subscribe(&self, event_type: &str, function: &str) -> anyhow::Result<()> {
        let subscription = json!({"name": function, "eventType": event_type, "function": function});
        self.api.call("POST", "/v1/event/subscriptions", &subscription)?;
        Ok(())
    }

    /// How many events were delivered to the subscription of a function.
    ///
    /// # Errors
    /// There is none, or it failed.
    pub fn delivered(&self, function: &str) -> anyhow::Result<u64> {
        let path = format!("/v1/event/subscriptions/{function}");
        let subscription = self.api.call("GET", &path, &Value::Null)?;
        let progress = &subscription["progress"];
        ensure!(progress["dead"].as_u64().unwrap_or(0) == 0, "deliveries failed: {progress}");
        Ok(progress["delivered"].as_u64().unwrap_or(0))
    }

    /// What the runs of a function returned, at most 1000 of them, the newest first.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn outputs(&self, function: &str) -> anyhow::Result<Vec<Value>> {
        let path = format!("/v1/runs?functionName={function}&limit=1000");
        let runs = self.api.call("GET", &path, &Value::Null)?;
        Ok(runs.as_array().into_iter().flatten().map(|run| run["output"].clone()).collect())
    }

    /// Events of a type: stored before it is answered. Each has an id of its own, also in a batch.
    pub fn emit(&self, event_type: &str, batch: usize, data: &str) -> Target {
        let id = "0".repeat(DIGITS);
        let event = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/bench","type":"{event_type}","data":{data}}}"#
        );
        let (kind, body) = match batch {
            1 => ("cloudevents", event),
            _ => ("cloudevents-batch", format!("[{}]", vec![event; batch].join(","))),
        };
        let request = format!(
            "POST /v1/event HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/{kind}+json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let numbers = request.match_indices(&id).map(|(place, _)| place).collect();
        let request = request.into_bytes();
        Target { port: self.api.0, request, status: 202, contains: "", numbers }
    }

    /// A run that nobody waits for: stored before it is answered.
    pub fn queued_run(&self, name: &str) -> Target {
        let body = format!(r#"{{"input":{PAYLOAD}}}"#);
        let request = request("POST", &format!("/v1/runs?functionName={name}"), body.as_bytes());
        Target {
            port: self.api.0,
            request,
            status: 202,
            contains: "INITIALIZED",
            numbers: Vec::new(),
        }
    }
}

/// The file with the work that is measured. The toy ignores it.
pub fn source(language: &str) -> &'static str {
    if language == "nodejs" { "hello.js" } else { "hello.py" }
}

/// A source archive of one file.
fn pack(source: &str) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    archive.append_path_with_name(peers::directory().join(source), source)?;
    Ok(archive.into_inner()?.finish()?)
}
