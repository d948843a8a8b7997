//! The worker's side of the channel to the supervisor.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream as Blocking;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::frame::{self, Decoder, Fault, FromWorker, MAX_BODY, Stream, ToWorker};

/// Bytes asked for at a time between frames.
const READ: usize = 64 * 1024;

/// Frames over the inherited socket.
pub struct Channel {
    stream: UnixStream,
    decoder: Decoder,
    partial: HashMap<u64, Partial>,
}

/// A call as it comes in pieces.
struct Partial {
    context_len: usize,
    body: BytesMut,
}

/// One call.
pub struct Call {
    /// Its number in frames.
    pub id: u64,
    /// JSON.
    pub context: Bytes,
    /// JSON.
    pub payload: Bytes,
}

/// What the supervisor wants.
pub enum Order {
    /// To run a call.
    Call(Call),
    /// To end this one soon.
    Cancel(u64),
    /// To hear that all is well.
    Ping,
}

impl Channel {
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn new(stream: Blocking) -> io::Result<Channel> {
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        Ok(Channel { stream, decoder: Decoder::default(), partial: HashMap::new() })
    }

    /// The next frame; none at the end of the stream. May be given up at any time.
    ///
    /// # Errors
    /// The socket's, or what is no frame.
    pub async fn frame(&mut self) -> io::Result<Option<(ToWorker, Bytes)>> {
        loop {
            if let Some(frame) = self.decoder.decode().map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
            if self.stream.read_buf(self.decoder.spare(READ)).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next order, of complete calls; none at the end of the stream. May be given up at any time.
    ///
    /// # Errors
    /// As [`Channel::frame`].
    pub async fn order(&mut self) -> io::Result<Option<Order>> {
        loop {
            let Some((header, body)) = self.frame().await? else { return Ok(None) };
            match header {
                ToWorker::Call { id, context_len, more, .. } => {
                    if !more {
                        return call(id, context_len, body).map(Some);
                    }
                    let body = BytesMut::from(&body[..]);
                    self.partial.insert(id, Partial { context_len, body });
                }
                ToWorker::Chunk { id } => {
                    if let Some(partial) = self.partial.get_mut(&id) {
                        partial.body.extend_from_slice(&body);
                    }
                }
                ToWorker::End { id } => {
                    if let Some(mut partial) = self.partial.remove(&id) {
                        partial.body.extend_from_slice(&body);
                        let Partial { context_len, body } = partial;
                        return call(id, context_len, body.freeze()).map(Some);
                    }
                }
                ToWorker::Cancel { id } => {
                    self.partial.remove(&id);
                    return Ok(Some(Order::Cancel(id)));
                }
                ToWorker::Ping => return Ok(Some(Order::Ping)),
                ToWorker::Init { .. } | ToWorker::Fork => {}
            }
        }
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The socket's.
    pub async fn send(&mut self, header: &FromWorker, body: &[u8]) -> io::Result<()> {
        let mut out = BytesMut::with_capacity(128 + body.len());
        frame::encode(header, body.len(), &mut out);
        out.extend_from_slice(body);
        self.stream.write_all(&out).await
    }

    /// Sends what a call wrote, in as many frames as it takes.
    ///
    /// # Errors
    /// The socket's.
    pub async fn send_log(&mut self, id: u64, stream: Stream, text: &[u8]) -> io::Result<()> {
        for piece in text.chunks(MAX_BODY) {
            self.send(&FromWorker::Log { id, stream }, piece).await?;
        }
        Ok(())
    }

    /// Answers a call.
    ///
    /// # Errors
    /// The socket's.
    pub async fn answer(&mut self, id: u64, result: &Result<Bytes, Fault>) -> io::Result<()> {
        let result = match result {
            Ok(result) => result,
            Err(fault) => {
                return self
                    .send_fault(&FromWorker::Error { id, last: false, wrote: false }, fault)
                    .await;
            }
        };
        let mut pieces = result.chunks(MAX_BODY).peekable();
        let mut header = FromWorker::Head { id };
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                header = FromWorker::End { id, wrote: false };
            }
            self.send(&header, piece).await?;
            header = FromWorker::Chunk { id };
        }
        Ok(())
    }

    /// Sends a fault with this header.
    ///
    /// # Errors
    /// The socket's.
    pub async fn send_fault(&mut self, header: &FromWorker, fault: &Fault) -> io::Result<()> {
        self.send(header, &serde_json::to_vec(fault)?).await
    }
}

fn call(id: u64, context_len: usize, mut body: Bytes) -> io::Result<Order> {
    if context_len > body.len() {
        return Err(io::Error::other("a call is shorter than its context"));
    }
    let context = body.split_to(context_len);
    Ok(Order::Call(Call { id, context, payload: body }))
}
