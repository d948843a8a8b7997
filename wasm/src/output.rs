//! What an instance writes: to its standard error for the log of its call, to its standard output for
//! the result.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use dispatch_runner::adapter::Log;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// Pieces on their way.
const PIECES: usize = 16;

/// The writing end.
#[derive(Clone)]
pub struct Errors(mpsc::Sender<Bytes>);

/// Passes on what is written until all writing ends are gone.
pub struct Passing(tokio::task::JoinHandle<()>);

impl Errors {
    /// A stream into `log`.
    pub fn new(log: &Log) -> (Errors, Passing) {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES);
        let log = log.clone();
        let task = tokio::spawn(async move {
            while let Some(piece) = receiver.recv().await {
                log.write(&piece).await;
            }
        });
        (Errors(sender), Passing(task))
    }
}

impl Passing {
    /// Waits until everything has been passed on.
    pub async fn finish(self) {
        let _ = self.0.await;
    }
}

impl IsTerminal for Errors {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Errors {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Stream(PollSender::new(self.0.clone())))
    }
}

struct Stream(PollSender<Bytes>);

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let closed = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        std::task::ready!(self.0.poll_reserve(cx)).map_err(closed)?;
        self.0.send_item(Bytes::copy_from_slice(data)).map_err(closed)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Keeps what is written, up to a limit.
#[derive(Clone)]
pub struct Output {
    kept: Arc<Mutex<Vec<u8>>>,
    limit: usize,
}

impl Output {
    /// Keeps `limit` bytes.
    pub fn new(limit: usize) -> Output {
        Output { kept: Arc::default(), limit }
    }

    /// What was written, unless it was more.
    pub fn take(&self) -> Option<Bytes> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.len() <= self.limit).then(|| std::mem::take(&mut *kept).into())
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // One byte too many tells that there was more.
        let room = (self.limit + 1).saturating_sub(kept.len());
        kept.extend_from_slice(&data[..data.len().min(room)]);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
