//! The frames between the supervisor and a worker: `docs/reference/worker-protocol.md`.
//!
//! Pure code: bytes in, frames out. What a worker may say when is the business of [`crate::worker`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dispatch_api::ErrorType;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of the protocol, as in a worker's `hello`.
pub const PROTOCOL: u32 = 1;
/// Bytes a header may have.
pub const MAX_HEADER: usize = 64 * 1024;
/// Bytes the body of one frame may have; larger values are sent in pieces.
pub const MAX_BODY: usize = 1024 * 1024;
/// Bytes before the header: its length and the body's.
const PREFIX: usize = 8;
/// Bodies up to this size are copied out of the read buffer, so that they do not keep it alive.
const COPIED: usize = 4096;

/// The header of a frame from the supervisor to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ToWorker {
    /// Loads the handler. Sent once, after `hello`, maybe much later; its body is a JSON object with
    /// the environment variables of the function.
    Init {
        /// The directory of the source, as the worker sees it.
        source: String,
        /// The handler; empty when it is to be inferred.
        handler: String,
        /// Calls that may be sent at a time.
        concurrency: usize,
        /// Bytes a result may have.
        result_limit: usize,
        /// Whether it is to fork workers instead of running calls itself, where it can.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        fork: bool,
    },
    /// Forks a worker, whose channel, standard output and standard error come along.
    Fork,
    /// A call; its body is the context followed by the payload, both JSON, or a first piece of them.
    Call {
        /// Names the call in all frames about it; never used twice.
        id: u64,
        /// Milliseconds that are left for the call.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
        /// Bytes of the context.
        context_len: usize,
        /// Whether `chunk` frames and an `end` follow.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        more: bool,
        /// Microseconds of `CLOCK_MONOTONIC` from which on the call is to be declined instead of begun;
        /// 0 for never. It says as well that `wrote` is wanted in its `end`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<u64>,
    },
    /// A further piece of a call.
    Chunk {
        /// The call.
        id: u64,
    },
    /// The last piece of a call.
    End {
        /// The call.
        id: u64,
    },
    /// Nobody waits for the call any more: end it soon, with any answer.
    Cancel {
        /// The call.
        id: u64,
    },
    /// Asks for a `pong`.
    Ping,
}

/// The header of a frame from a worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum FromWorker {
    /// The first frame.
    Hello {
        /// The version that the worker speaks.
        protocol: u32,
    },
    /// The handler is loaded and can be called.
    Ready {
        /// The handler, inferred where it was empty.
        handler: String,
        /// Whether it forks workers and runs no calls.
        #[serde(default)]
        forks: bool,
        /// Why it does not, though it was asked to.
        #[serde(default)]
        not_forking: Option<String>,
        /// Whether it may be sent calls while it runs one: see `by` of [`ToWorker::Call`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ahead: bool,
    },
    /// A worker was forked, or, with a negative number, could not be.
    Forked {
        /// Its number inside the sandbox.
        pid: i32,
    },
    /// A worker that it forked has ended.
    Exited {
        /// Its number inside the sandbox.
        pid: i32,
        /// Its wait status.
        status: i32,
    },
    /// The handler cannot be loaded; the body is a [`Fault`].
    Failed,
    /// A result in several pieces begins; the body is the first piece.
    Head {
        /// The call.
        id: u64,
    },
    /// A further piece of a result.
    Chunk {
        /// The call.
        id: u64,
    },
    /// The only or last piece of a result.
    End {
        /// The call.
        id: u64,
        /// Whether something may be unread in its pipes, which is then this call's.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        wrote: bool,
    },
    /// A call that was sent ahead was not begun, and will not be.
    Declined {
        /// The call.
        id: u64,
    },
    /// The call failed; the body is a [`Fault`].
    Error {
        /// The call.
        id: u64,
        /// Whether the worker ends now and can take no further calls.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        last: bool,
        /// As that of `end`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        wrote: bool,
    },
    /// What a call wrote, where calls overlap; the body is the text.
    Log {
        /// The call.
        id: u64,
        /// Where it wrote it.
        stream: Stream,
    },
    /// Answers a `ping`.
    Pong,
}

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The body of `error` and `failed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fault {
    /// Whose fault it was.
    #[serde(rename = "type")]
    pub kind: ErrorType,
    /// What happened.
    pub message: String,
    /// The language's own stack trace, line by line.
    pub stacktrace: Vec<String>,
}

/// A header of one of the two directions.
pub trait Header: DeserializeOwned {
    /// Reads the header that most frames have, where it is exactly that, without a reader of JSON.
    fn usual(_json: &[u8]) -> Option<Self> {
        None
    }
}

impl Header for ToWorker {}

impl Header for FromWorker {
    fn usual(json: &[u8]) -> Option<FromWorker> {
        let id = json.strip_prefix(br#"{"type":"end","id":"#)?.strip_suffix(b"}")?;
        let plain =
            id.iter().all(u8::is_ascii_digit) && (id.len() == 1 || id.first() != Some(&b'0'));
        let id = std::str::from_utf8(id).ok().filter(|_| plain)?.parse().ok()?;
        Some(FromWorker::End { id, wrote: false })
    }
}

/// What makes bytes no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A length is beyond its limit.
    #[error("a frame has {length} bytes of {part}, but may have at most {limit}")]
    TooLarge {
        /// `header` or `body`.
        part: &'static str,
        /// The length that was announced.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The header is not one this side knows.
    #[error("the header of a frame is not understood: {0}")]
    Header(String),
}

/// Appends the start of a frame, all but its body, to `out`.
///
/// The caller sends `body_len` bytes after it.
pub fn encode<H: Serialize>(header: &H, body_len: usize, out: &mut BytesMut) {
    debug_assert!(body_len <= MAX_BODY);
    let start = out.len();
    out.put_u32(0);
    out.put_u32(u32::try_from(body_len).unwrap_or(u32::MAX));
    serde_json::to_writer(out.writer(), header).expect("a header is plain data");
    let length = u32::try_from(out.len() - start - PREFIX).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Turns bytes into frames, however they are cut.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds bytes that arrived.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether no bytes wait for the rest of their frame.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The buffer to read into, with room for the rest of the frame that has begun or, between
    /// frames, for at least `room` bytes.
    pub fn spare(&mut self, room: usize) -> &mut BytesMut {
        let missing = match self.lengths() {
            Some((header, body)) => (PREFIX + header + body).saturating_sub(self.buffer.len()),
            None => 0,
        };
        // Lengths beyond the limits never get here: `decode` has refused them.
        self.buffer.reserve(missing.min(PREFIX + MAX_HEADER + MAX_BODY).max(room));
        &mut self.buffer
    }

    /// Takes the next complete frame. After an error the stream is lost.
    pub fn decode<H: Header>(&mut self) -> Result<Option<(H, Bytes)>, Violation> {
        let Some((header_len, body_len)) = self.lengths() else { return Ok(None) };
        for (part, length, limit) in
            [("header", header_len, MAX_HEADER), ("body", body_len, MAX_BODY)]
        {
            if length > limit {
                return Err(Violation::TooLarge { part, length, limit });
            }
        }
        if self.buffer.len() < PREFIX + header_len + body_len {
            return Ok(None);
        }
        let json = &self.buffer[PREFIX..PREFIX + header_len];
        let header = match H::usual(json) {
            Some(header) => header,
            None => serde_json::from_slice(json)
                .map_err(|error| Violation::Header(error.to_string()))?,
        };
        self.buffer.advance(PREFIX + header_len);
        let body = if body_len <= COPIED {
            let copy = Bytes::copy_from_slice(&self.buffer[..body_len]);
            self.buffer.advance(body_len);
            copy
        } else {
            self.buffer.split_to(body_len).freeze()
        };
        Ok(Some((header, body)))
    }

    fn lengths(&self) -> Option<(usize, usize)> {
        let mut prefix = self.buffer.get(..PREFIX)?;
        Some((prefix.get_u32() as usize, prefix.get_u32() as usize))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn from_worker() -> impl Strategy<Value = FromWorker> {
        let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
        prop_oneof![
            any::<u32>().prop_map(|protocol| FromWorker::Hello { protocol }),
            (".*", any::<bool>(), any::<Option<String>>(), any::<bool>()).prop_map(
                |(handler, forks, not_forking, ahead)| {
                    FromWorker::Ready { handler, forks, not_forking, ahead }
                }
            ),
            any::<i32>().prop_map(|pid| FromWorker::Forked { pid }),
            any::<(i32, i32)>().prop_map(|(pid, status)| FromWorker::Exited { pid, status }),
            Just(FromWorker::Failed),
            any::<u64>().prop_map(|id| FromWorker::Head { id }),
            any::<u64>().prop_map(|id| FromWorker::Chunk { id }),
            (any::<u64>(), any::<bool>()).prop_map(|(id, wrote)| FromWorker::End { id, wrote }),
            any::<u64>().prop_map(|id| FromWorker::Declined { id }),
            (any::<u64>(), any::<bool>(), any::<bool>())
                .prop_map(|(id, last, wrote)| FromWorker::Error { id, last, wrote }),
            (any::<u64>(), stream).prop_map(|(id, stream)| FromWorker::Log { id, stream }),
            Just(FromWorker::Pong),
        ]
    }

    fn to_worker() -> impl Strategy<Value = ToWorker> {
        let call = (any::<u64>(), any::<Option<u64>>(), any::<usize>(), any::<bool>()).prop_map(
            |(id, deadline_ms, context_len, more)| ToWorker::Call {
                id,
                deadline_ms,
                context_len,
                more,
                by: deadline_ms,
            },
        );
        let init = (".*", ".*", any::<usize>()).prop_map(|(source, handler, concurrency)| {
            let fork = concurrency % 2 == 0;
            ToWorker::Init { source, handler, concurrency, result_limit: concurrency, fork }
        });
        let id = any::<u64>();
        prop_oneof![
            call,
            init,
            id.prop_map(|id| ToWorker::Chunk { id }),
            id.prop_map(|id| ToWorker::End { id }),
            id.prop_map(|id| ToWorker::Cancel { id }),
            Just(ToWorker::Ping),
            Just(ToWorker::Fork),
        ]
    }

    fn bytes_of<H: Serialize>(frames: &[(H, Vec<u8>)]) -> BytesMut {
        let mut bytes = BytesMut::new();
        for (header, body) in frames {
            encode(header, body.len(), &mut bytes);
            bytes.extend_from_slice(body);
        }
        bytes
    }

    /// Feeds `bytes` in pieces of the given sizes and collects what comes out.
    fn decode_all<H: Header>(bytes: &[u8], cuts: &[usize]) -> Vec<(H, Vec<u8>)> {
        let (mut decoder, mut frames, mut rest) = (Decoder::default(), Vec::new(), bytes);
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            rest = after;
            decoder.extend(piece);
            while let Some((header, body)) = decoder.decode().unwrap() {
                frames.push((header, body.to_vec()));
            }
        }
        frames
    }

    fn bodies() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => proptest::collection::vec(any::<u8>(), 0..40),
            1 => (COPIED - 2..3 * COPIED).prop_map(|length| vec![b'x'; length]),
        ]
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            frames in proptest::collection::vec((from_worker(), bodies()), 0..6),
            cuts in proptest::collection::vec(0..64usize, 0..40),
        ) {
            prop_assert_eq!(decode_all::<FromWorker>(&bytes_of(&frames), &cuts), frames);
        }

        #[test]
        fn the_other_direction_too(frames in proptest::collection::vec((to_worker(), bodies()), 0..6)) {
            prop_assert_eq!(decode_all::<ToWorker>(&bytes_of(&frames), &[9]), frames);
        }

        #[test]
        fn garbage_never_panics_and_never_grows(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::default();
            for byte in bytes {
                decoder.extend(&[byte]);
                if decoder.decode::<FromWorker>().is_err() {
                    break;
                }
                prop_assert!(decoder.spare(1).capacity() < 2 * (PREFIX + MAX_HEADER + MAX_BODY));
            }
        }
    }

    fn refused(prefix: [u32; 2], header: &[u8]) -> String {
        let mut decoder = Decoder::default();
        prefix.iter().for_each(|length| decoder.extend(&length.to_be_bytes()));
        decoder.extend(header);
        decoder.decode::<FromWorker>().unwrap_err().to_string()
    }

    #[test]
    fn lengths_are_checked_before_the_bytes_arrive() {
        assert_eq!(
            refused([65_537, 0], b""),
            "a frame has 65537 bytes of header, but may have at most 65536"
        );
        assert_eq!(
            refused([1, u32::MAX], b""),
            "a frame has 4294967295 bytes of body, but may have at most 1048576"
        );
    }

    #[test]
    fn headers_are_checked() {
        let unknown = br#"{"type":"halt"}"#;
        assert!(refused([unknown.len() as u32, 0], unknown).contains("unknown variant `halt`"));
        assert!(refused([3, 0], b"\xff\xfe\xfd").contains("not understood"));
        assert!(refused([0, 0], b"").contains("not understood"));
    }

    #[test]
    fn the_usual_header_is_read_as_any_other() {
        for json in [
            r#"{"type":"end","id":0}"#,
            r#"{"type":"end","id":18446744073709551615}"#,
            r#"{"type":"end","id":18446744073709551616}"#,
            r#"{"type":"end","id":01}"#,
            r#"{"type":"end","id":+1}"#,
            r#"{"type":"end","id":}"#,
            r#"{"type":"end","id":1,"more":2}"#,
            r#"{"id":1,"type":"end"}"#,
        ] {
            let read = serde_json::from_str::<FromWorker>(json).ok();
            let usual = FromWorker::usual(json.as_bytes());
            assert!(usual.is_none() || usual == read, "{json}");
            assert_eq!(usual.is_some(), json.ends_with(":0}") || json.ends_with("615}"), "{json}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored_so_that_fields_can_be_added() {
        let header = br#"{"type":"pong","load":3}"#;
        let mut decoder = Decoder::default();
        decoder.extend(&(header.len() as u64).rotate_left(32).to_be_bytes());
        decoder.extend(header);
        assert_eq!(decoder.decode().unwrap(), Some((FromWorker::Pong, Bytes::new())));
    }
}
