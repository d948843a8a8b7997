//! Container images that serve HTTP by themselves: the image's command is started once, and calls are
//! requests to it.

mod envelope;
mod whisk;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dispatch_api::ErrorType;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::http::response::Parts;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::channel::Call;
use super::http;
use super::serve::{Adapter, Init, Loaded, Log, fault};
use crate::frame::Fault;

/// How often it is looked whether the server listens.
const LOOK: Duration = Duration::from_millis(5);
/// Connections that are kept.
const IDLE: usize = 16;

/// How the server wants its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// As the requests they came as.
    Plain,
    /// `{context, payload}` in, and out: the first two generations of Dispatch.
    Envelope,
    /// The payload in, `{context, payload}` out: the third.
    EnvelopeOut,
    /// `/init` and `/run`.
    Whisk,
}

/// What a handler may be, and what it means. `of-watchdog` passes requests on as they are.
const PROTOCOLS: [(&str, Protocol); 5] = [
    ("http", Protocol::Plain),
    ("dispatch", Protocol::Envelope),
    ("dispatch-knative", Protocol::EnvelopeOut),
    ("openfaas", Protocol::Plain),
    ("openwhisk", Protocol::Whisk),
];

/// What the image says.
pub struct Server {
    directory: PathBuf,
    ports: Vec<u16>,
    command: Vec<String>,
}

impl Server {
    /// # Errors
    /// A word that means nothing here.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Server, String> {
        let directory = words.next().ok_or("the directory is missing")?.into();
        let ports = words.next().ok_or("the ports are missing")?;
        let ports = ports.split(',').map(str::parse).collect::<Result<_, _>>();
        let ports = ports.map_err(|error| format!("the ports: {error}"))?;
        Ok(Server { directory, ports, command: words.collect() })
    }
}

impl Adapter for Server {
    type Loaded = Running;

    async fn load(self, init: Init) -> Result<Running, Fault> {
        let refused = |text: String| fault(ErrorType::FunctionError, text);
        let wanted = match init.handler.as_str() {
            "" => None,
            name => {
                let known = PROTOCOLS.iter().find(|(known, _)| *known == name);
                let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
                let why = || format!("the handler is {name:?}: use one of {}", names.join(", "));
                Some(known.ok_or_else(|| refused(why()))?.1)
            }
        };
        let variable =
            |name: &str| init.environment.get(name).cloned().or_else(|| std::env::var(name).ok());
        let whisk = wanted == Some(Protocol::Whisk)
            || wanted.is_none() && variable("__OW_EXECUTION_ENV").is_some();
        let port = *self.ports.first().unwrap_or(&8080);
        let mut process = Process::start(&self, port, &init, whisk).map_err(|error| {
            let name = self.command.first().map_or("", String::as_str);
            refused(format!("the image's command {name:?} cannot be started: {error}"))
        })?;
        let address = process.listens(&self.ports).await.map_err(refused)?;
        let mut running = Running {
            protocol: Protocol::Plain,
            process: tokio::sync::Mutex::new(process),
            address,
            idle: Mutex::default(),
            limit: init.result_limit,
        };
        running.protocol = match wanted {
            Some(wanted) => wanted,
            None if whisk => Protocol::Whisk,
            None => match running.has_health().await {
                false => Protocol::Plain,
                true if variable("TIMEOUT").is_some() => Protocol::EnvelopeOut,
                true => Protocol::Envelope,
            },
        };
        if running.protocol == Protocol::Whisk {
            let body = whisk::init(&init).map_err(refused)?;
            let (parts, body) = running.post("/init", body).await?;
            whisk::is_ready(&parts, &body)?;
            let mut process = running.process.lock().await;
            process.forward(&Log::ours()).await;
        }
        Ok(running)
    }
}

/// A server that listens.
pub struct Running {
    protocol: Protocol,
    process: tokio::sync::Mutex<Process>,
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    limit: usize,
}

impl Loaded for Running {
    fn handler(&self) -> String {
        let known = PROTOCOLS.iter().find(|(_, protocol)| *protocol == self.protocol);
        known.map_or("http", |(name, _)| name).to_owned()
    }

    fn call(self: Arc<Self>, call: Call, log: Log) -> BoxFuture<'static, Result<Bytes, Fault>> {
        Box::pin(async move {
            match self.protocol {
                Protocol::Plain => {
                    let (request, came) = http::request(&call)?;
                    let (parts, body) = self.send(request).await?;
                    http::result(&parts, &body, came)
                }
                Protocol::Envelope => {
                    let (parts, body) = self.post("/", envelope::wrap(&call)).await?;
                    envelope::unwrap(&parts, &body, &log).await
                }
                Protocol::EnvelopeOut => {
                    let (parts, body) = self.post("/", call.payload).await?;
                    envelope::unwrap(&parts, &body, &log).await
                }
                Protocol::Whisk => {
                    // One at a time: its output has an end for each call, and no name.
                    let mut process = self.process.lock().await;
                    let answer = self.post("/run", whisk::run(&call)).await;
                    process.forward(&log).await;
                    let (parts, body) = answer?;
                    whisk::result(&parts, body)
                }
            }
        })
    }
}

impl Running {
    /// Whether it is a function server of Dispatch: `GET /healthz` answers `{}`.
    async fn has_health(&self) -> bool {
        let request = Request::get("/healthz").header("host", "function").body(Full::default());
        let Ok(request) = request else { return false };
        match self.exchange(request).await {
            Ok((parts, body)) => parts.status.as_u16() == 200 && body.trim_ascii() == b"{}",
            Err(_) => false,
        }
    }

    async fn post(&self, path: &str, body: Bytes) -> Result<(Parts, Bytes), Fault> {
        let request = Request::builder().method(Method::POST).uri(path).header("host", "function");
        let request = request.header("content-type", "application/json").body(body);
        self.send(request.map_err(|error| fault(ErrorType::SystemError, error.to_string()))?).await
    }

    async fn send(&self, request: Request<Bytes>) -> Result<(Parts, Bytes), Fault> {
        self.exchange(request.map(Full::new)).await.map_err(|why| {
            fault(ErrorType::FunctionError, format!("the image's server did not answer: {why}"))
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(Parts, Bytes), String> {
        let mut connection = self.connection().await.map_err(|error| error.to_string())?;
        let response = connection.send_request(request).await.map_err(|error| error.to_string())?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, self.limit).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(connection);
        }
        Ok((parts, body))
    }

    async fn connection(&self) -> std::io::Result<SendRequest<Full<Bytes>>> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut idle) = idle else { break };
            // One that the server has closed says so here.
            if idle.ready().await.is_ok() {
                return Ok(idle);
            }
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// The image's command, which is killed with all it started when this is dropped.
struct Process {
    child: Child,
    group: Option<Pid>,
    output: Option<whisk::Output>,
}

impl Process {
    #[expect(clippy::disallowed_methods, reason = "the sandbox that is meant is around us")]
    fn start(server: &Server, port: u16, init: &Init, whisk: bool) -> std::io::Result<Process> {
        let (program, arguments) =
            server.command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let output = || if whisk { Stdio::piped() } else { Stdio::inherit() };
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(&server.directory)
            .env("PORT", port.to_string())
            .envs(&init.environment)
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().map(|id| Pid::from_raw(id.cast_signed()));
        let output = whisk::Output::of(&mut child);
        Ok(Process { child, group, output })
    }

    /// Waits until it listens, for as long as who started us waits.
    async fn listens(&mut self, ports: &[u16]) -> Result<SocketAddr, String> {
        loop {
            for port in ports {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                if TcpStream::connect(address).await.is_ok() {
                    return Ok(address);
                }
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                self.forward(&Log::ours()).await;
                return Err(format!(
                    "the image's command ended before it listened: {}",
                    end(status)
                ));
            }
            sleep(LOOK).await;
        }
    }

    /// Passes on what it wrote up to the end of a call.
    async fn forward(&mut self, log: &Log) {
        if let Some(output) = &mut self.output {
            output.forward(log).await;
        }
    }
}

fn end(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}; its log says more"),
        None => format!("{status}; its log says more"),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}
