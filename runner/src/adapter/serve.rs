//! The life of an adapter: it greets, loads, and runs calls until the supervisor closes the channel.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dispatch_api::ErrorType;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot};

use super::channel::{Call, Channel, Order};
use crate::frame::{Fault, FromWorker, PROTOCOL, Stream, ToWorker};

/// Pieces of logs on their way to the supervisor.
const LOGS: usize = 64;

/// What `init` says.
pub struct Init {
    /// The directory of the source.
    pub source: String,
    /// As it was given; maybe empty.
    pub handler: String,
    /// Calls at a time.
    pub concurrency: usize,
    /// Bytes a result may have.
    pub result_limit: usize,
    /// The function's environment variables.
    pub environment: HashMap<String, String>,
}

/// How programs of one kind are run.
pub trait Adapter: Send + 'static {
    /// A program that is ready for calls.
    type Loaded: Loaded;

    /// Finds the program, and sees that it can run.
    fn load(self, init: Init) -> impl Future<Output = Result<Self::Loaded, Fault>> + Send;
}

/// A program that is ready for calls.
pub trait Loaded: Send + Sync + 'static {
    /// The handler in full.
    fn handler(&self) -> String;

    /// Runs a call. It is over when what this returns is dropped.
    fn call(self: Arc<Self>, call: Call, log: Log) -> BoxFuture<'static, Result<Bytes, Fault>>;
}

/// Where a call's output goes.
#[derive(Clone)]
pub struct Log {
    id: u64,
    /// None where one call runs at a time: then our own output is the call's.
    frames: Option<mpsc::Sender<(u64, Stream, Bytes)>>,
}

impl Log {
    /// For what belongs to no call.
    pub fn ours() -> Log {
        Log { id: 0, frames: None }
    }

    /// Passes on what the function wrote to its standard error.
    pub async fn write(&self, text: &[u8]) {
        if !self.frame(Stream::Stderr, text).await {
            drop(io::Write::write_all(&mut io::stderr(), text));
        }
    }

    /// Passes on what the function wrote to its standard output.
    pub async fn print(&self, text: &[u8]) {
        if !self.frame(Stream::Stdout, text).await {
            let mut out = io::stdout().lock();
            let _ = io::Write::write_all(&mut out, text).and_then(|()| io::Write::flush(&mut out));
        }
    }

    /// Sends it to where calls are told apart; otherwise the supervisor reads our own pipes all the
    /// time.
    async fn frame(&self, stream: Stream, text: &[u8]) -> bool {
        let Some(frames) = &self.frames else { return false };
        let _ = frames.send((self.id, stream, Bytes::copy_from_slice(text))).await;
        true
    }
}

/// A fault without a stack trace.
pub fn fault(kind: ErrorType, message: impl Into<String>) -> Fault {
    Fault { kind, message: message.into(), stacktrace: Vec::new() }
}

/// Serves until the supervisor closes the channel.
///
/// # Errors
/// The channel's.
pub async fn serve<A: Adapter>(mut channel: Channel, adapter: A) -> io::Result<()> {
    channel.send(&FromWorker::Hello { protocol: PROTOCOL }, &[]).await?;
    let init = loop {
        let Some((header, body)) = channel.frame().await? else { return Ok(()) };
        match header {
            ToWorker::Init { source, handler, concurrency, result_limit, .. } => {
                let environment = serde_json::from_slice(&body)?;
                break Init { source, handler, concurrency, result_limit, environment };
            }
            ToWorker::Ping => channel.send(&FromWorker::Pong, &[]).await?,
            _ => {}
        }
    };
    let exclusive = init.concurrency <= 1;
    match adapter.load(init).await {
        Ok(loaded) => {
            let handler = loaded.handler();
            let ready =
                FromWorker::Ready { handler, forks: false, not_forking: None, ahead: false };
            channel.send(&ready, &[]).await?;
            calls(channel, Arc::new(loaded), exclusive).await
        }
        Err(fault) => channel.send_fault(&FromWorker::Failed, &fault).await,
    }
}

async fn calls<L: Loaded>(mut channel: Channel, loaded: Arc<L>, exclusive: bool) -> io::Result<()> {
    let (sender, mut logs) = mpsc::channel(LOGS);
    let mut running = FuturesUnordered::new();
    let mut cancels = HashMap::new();
    loop {
        tokio::select! {
            order = channel.order() => match order? {
                None => return Ok(()),
                Some(Order::Ping) => channel.send(&FromWorker::Pong, &[]).await?,
                Some(Order::Cancel(id)) => drop(cancels.remove(&id)),
                Some(Order::Call(call)) => {
                    let (id, (cancel, cancelled)) = (call.id, oneshot::channel::<()>());
                    cancels.insert(id, cancel);
                    let frames = (!exclusive).then(|| sender.clone());
                    let made = Arc::clone(&loaded).call(call, Log { id, frames });
                    running.push(async move {
                        tokio::select! {
                            result = made => (id, result),
                            _ = cancelled => (id, Err(fault(ErrorType::FunctionError, "cancelled"))),
                        }
                    });
                }
            },
            Some((id, stream, text)) = logs.recv() => channel.send_log(id, stream, &text).await?,
            Some((id, result)) = running.next() => {
                cancels.remove(&id);
                // What the call wrote comes before its answer.
                while let Ok((id, stream, text)) = logs.try_recv() {
                    channel.send_log(id, stream, &text).await?;
                }
                channel.answer(id, &result).await?;
            }
        }
    }
}
