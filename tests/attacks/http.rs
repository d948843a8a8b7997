//! Bytes to a port and back: what a well-behaved client would not send.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// How long a server may be silent before what came is all.
pub const SILENCE: Duration = Duration::from_secs(60);

/// What came back on a connection.
#[derive(Debug)]
pub struct Reply {
    /// The status of the first response, 0 for none.
    pub status: u16,
    /// The head of the first response.
    pub head: String,
    /// All that came after it.
    pub body: Vec<u8>,
}

impl Reply {
    fn of(bytes: &[u8]) -> Reply {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) = bytes.split_at(end.map_or(bytes.len(), |end| end + 4));
        let head = String::from_utf8_lossy(head).into_owned();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        Reply { status, head, body: body.to_vec() }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// How many responses came.
    pub fn count(&self) -> usize {
        usize::from(self.status > 0) + self.text().matches("HTTP/1.1 ").count()
    }
}

/// A connection to a port of this machine.
pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    stream
}

/// Sends bytes as they are and reads until the other side closes.
pub fn raw(port: u16, bytes: &[u8]) -> Reply {
    let mut stream = connect(port);
    // A server may have refused, and closed, before it has read all.
    let _ = stream.write_all(bytes);
    read(&mut stream)
}

/// Reads until the other side closes.
pub fn read(stream: &mut TcpStream) -> Reply {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 65536]);
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..count]);
    }
    Reply::of(&bytes)
}

/// A request to the API for an organization.
pub fn api(port: u16, org: &str, method: &str, path: &str, body: &[u8]) -> Reply {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-dispatch-org: {org}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    raw(port, &[head.as_bytes(), body].concat())
}

/// Calls a function and waits: the run.
pub fn call(port: u16, org: &str, function: &str, input: &Value) -> Value {
    let body = serde_json::json!({ "blocking": true, "input": input }).to_string();
    let path = format!("/v1/runs?functionName={function}");
    let reply = api(port, org, "POST", &path, body.as_bytes());
    assert_eq!(reply.status, 200, "{function}: {} {}", reply.head, reply.text());
    reply.json()
}
