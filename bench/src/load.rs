//! A closed loop of clients: each sends its next request when the one before is answered. Loopback
//! only; connections are kept alive.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::stats::Rate;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const MAX_ANSWER: usize = 64 << 20;

/// One kept-alive connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// Nothing listens there.
    pub async fn connect(port: u16) -> anyhow::Result<Client> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its errors come back with the request that meets them.
        tokio::spawn(connection);
        Ok(Client { sender, host: address.to_string() })
    }

    /// Sends one request and reads the answer.
    ///
    /// # Errors
    /// No answer, or none in time.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
            Ok((parts.status, body.to_bytes()))
        };
        let late = || format!("{path}: no answer within {} s", PATIENCE.as_secs());
        tokio::time::timeout(PATIENCE, exchange).await.with_context(late)?
    }
}

/// One kind of request, and what its answer must look like.
#[derive(Clone, Debug)]
pub struct Target {
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// The body to POST.
    pub body: Bytes,
    /// The status of every answer.
    pub status: StatusCode,
    /// A text that every answer contains.
    pub contains: &'static str,
}

impl Target {
    /// Sends it once.
    ///
    /// # Errors
    /// No answer, or another than expected.
    pub async fn call(&self, client: &mut Client) -> anyhow::Result<()> {
        let (status, answer) = client.send(Method::POST, &self.path, self.body.clone()).await?;
        let wanted = self.contains.as_bytes();
        let found = answer.windows(wanted.len()).any(|window| window == wanted);
        ensure!(
            status == self.status && found,
            "{} answered {status}: {}",
            self.path,
            String::from_utf8_lossy(&answer[..answer.len().min(500)])
        );
        Ok(())
    }

    /// Connects and sends it once.
    ///
    /// # Errors
    /// As [`Target::call`].
    pub async fn call_once(&self) -> anyhow::Result<()> {
        self.call(&mut Client::connect(self.port).await?).await
    }
}

/// When a measurement ends: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// After this time.
    pub time: Duration,
    /// After this many requests of all clients.
    pub requests: usize,
}

/// Lets `clients` send until the bound is reached.
///
/// # Errors
/// One wrong answer ends the measurement: a rate of errors says nothing.
pub async fn run(target: &Target, clients: usize, bound: Bound) -> anyhow::Result<Rate> {
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(Client::connect(target.port).await?);
    }
    let start = Instant::now();
    let share = bound.requests.div_ceil(clients.max(1));
    let mut tasks = tokio::task::JoinSet::new();
    for mut client in connected {
        let target = target.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while times.len() < share && start.elapsed() < bound.time {
                let sent = Instant::now();
                target.call(&mut client).await?;
                times.push(sent.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    if times.is_empty() {
        bail!("{}: nothing was answered within {:?}", target.path, bound.time);
    }
    Ok(Rate::new(times, start.elapsed()))
}
