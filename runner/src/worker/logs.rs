//! What a call wrote, bounded.

use crate::call::Logs;
use crate::frame::Stream;

/// Bytes that are kept of each stream of a call. What is beyond is read and counted.
pub const LIMIT: usize = 256 * 1024;

/// Collects the output of one call.
#[derive(Debug, Default)]
pub struct LogBuffer {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    dropped: u64,
}

impl LogBuffer {
    /// Adds bytes that were written to `stream`.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let kept = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let fits = bytes.len().min(LIMIT - kept.len());
        kept.extend_from_slice(&bytes[..fits]);
        self.dropped += (bytes.len() - fits) as u64;
    }

    /// Splits what was collected into lines.
    pub fn finish(self) -> Logs {
        Logs { stdout: lines(&self.stdout), stderr: lines(&self.stderr), dropped: self.dropped }
    }
}

/// Lines end with `\n`; a last one without it counts. What is not UTF-8 is replaced.
fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    if text.is_empty() {
        return Vec::new();
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    text.split('\n').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_at_newlines_only() {
        for (bytes, expected) in [
            (&b""[..], vec![]),
            (b"\n", vec![""]),
            (b"a", vec!["a"]),
            (b"a\n", vec!["a"]),
            (b"a\n\n b\r\nc", vec!["a", "", " b\r", "c"]),
            (b"\xff\xfe\n\xc3\xbc", vec!["\u{fffd}\u{fffd}", "\u{fc}"]),
        ] {
            assert_eq!(lines(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn each_stream_is_bounded_and_the_rest_counted() {
        let mut buffer = LogBuffer::default();
        for _ in 0..3 {
            buffer.write(Stream::Stdout, &vec![b'x'; LIMIT / 2 + 1]);
        }
        buffer.write(Stream::Stderr, b"still here");
        let logs = buffer.finish();
        assert_eq!(logs.stdout[0].len(), LIMIT);
        assert_eq!(logs.stderr, ["still here"]);
        assert_eq!(logs.dropped, (LIMIT / 2 + 3) as u64);
    }
}
