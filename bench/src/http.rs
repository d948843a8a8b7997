//! HTTP/1.1 on a kept-alive connection, with as little work as possible: what the client does takes
//! time from what is measured. Loopback only.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const MAX_ANSWER: usize = 64 << 20;
/// Headers of an answer.
const MAX_HEADERS: usize = 64;

/// The bytes of a request.
pub fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An answer that has arrived in full.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
}

/// A connection with at most one request under way.
pub struct Connection {
    port: u16,
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// Whether an answer came over this stream.
    used: bool,
    /// Whether the other side closes it after the answer before.
    closing: bool,
    /// Times that the other side closed it and it was opened again.
    pub reopened: usize,
}

impl Connection {
    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// Nothing listens there.
    pub fn open(port: u16) -> anyhow::Result<Connection> {
        let stream = connect(port)?;
        let buffer = vec![0; 4096];
        Ok(Connection { port, stream, buffer, filled: 0, used: false, closing: false, reopened: 0 })
    }

    fn reopen(&mut self) -> anyhow::Result<()> {
        self.stream = connect(self.port)?;
        (self.used, self.closing, self.filled) = (false, false, 0);
        self.reopened += 1;
        Ok(())
    }

    /// Sends the bytes of a request.
    ///
    /// # Errors
    /// The other side is gone.
    pub fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.filled = 0;
        if self.closing {
            self.reopen()?;
        }
        match self.stream.write_all(request) {
            Err(_) if self.used => {
                // Closed while it was idle.
                self.reopen()?;
                Ok(self.stream.write_all(request)?)
            }
            result => Ok(result?),
        }
    }

    /// Reads once what has arrived of the answer to `request`, waiting if nothing has. The answer,
    /// once it is whole.
    ///
    /// # Errors
    /// The other side is gone or says something else, or nothing arrived for half a minute.
    pub fn receive(&mut self, request: &[u8]) -> anyhow::Result<Option<Answer<'_>>> {
        if self.filled == self.buffer.len() {
            ensure!(self.filled < MAX_ANSWER, "an answer has more than {MAX_ANSWER} bytes");
            self.buffer.resize(self.filled * 2, 0);
        }
        let read = match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                bail!("port {}: no answer within {} s", self.port, PATIENCE.as_secs())
            }
            Err(error) => return Err(error.into()),
        };
        if read == 0 {
            ensure!(self.used && self.filled == 0, "port {}: closed without answer", self.port);
            self.reopen()?;
            self.stream.write_all(request)?;
            return Ok(None);
        }
        self.filled += read;
        let Some(Head { status, start, length, close }) = parse(&self.buffer[..self.filled])?
        else {
            return Ok(None);
        };
        if self.filled < start + length {
            return Ok(None);
        }
        ensure!(self.filled == start + length, "port {}: more than one answer", self.port);
        (self.used, self.closing) = (true, close);
        Ok(Some(Answer { status, body: &self.buffer[start..start + length] }))
    }

    /// Sends a request and waits for the answer: its status and body.
    ///
    /// # Errors
    /// As [`Connection::send`] and [`Connection::receive`].
    pub fn exchange(&mut self, request: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        self.send(request)?;
        loop {
            if let Some(answer) = self.receive(request)? {
                return Ok((answer.status, answer.body.to_owned()));
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn connect(port: u16) -> anyhow::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream =
        TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// What the head of an answer says.
struct Head {
    status: u16,
    /// Where the body begins.
    start: usize,
    /// Bytes of the body.
    length: usize,
    /// Whether the connection ends with it.
    close: bool,
}

/// The head, once it is whole.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = response.parse(bytes)? else { return Ok(None) };
    let (mut length, mut close) = (None, response.version == Some(0));
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(header.value)?.parse().ok();
        } else if header.name.eq_ignore_ascii_case("connection") {
            close = header.value.eq_ignore_ascii_case(b"close");
        }
    }
    let length =
        length.context("an answer without content-length, which is not understood here")?;
    Ok(Some(Head { status: response.code.unwrap_or_default(), start, length, close }))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that answers each connection with these pieces, one for each request.
    fn server(connections: Vec<Vec<&'static str>>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for answers in connections {
                let (mut stream, _) = listener.accept().unwrap();
                for answer in answers {
                    assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
                    for piece in answer.split('|') {
                        stream.write_all(piece.as_bytes()).unwrap();
                        stream.flush().unwrap();
                    }
                }
            }
        });
        port
    }

    #[test]
    fn answers_arrive_whole_whatever_their_pieces() {
        let port = server(vec![vec![
            "HTTP/1.1 200 OK\r\nContent-|Length: 5\r\n\r\nhe|llo",
            "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
        ]]);
        let mut connection = Connection::open(port).unwrap();
        let request = request("POST", "/", b"{}");
        assert_eq!(connection.exchange(&request).unwrap(), (200, b"hello".to_vec()));
        assert_eq!(connection.exchange(&request).unwrap(), (202, Vec::new()));
        assert_eq!(connection.reopened, 0);
    }

    #[test]
    fn a_connection_that_is_closed_between_requests_is_opened_again() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na";
        let last = "HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 1\r\n\r\nb";
        let port = server(vec![vec![answer], vec![last], vec![answer]]);
        let mut connection = Connection::open(port).unwrap();
        let request = request("POST", "/", b"{}");
        for (body, reopened) in [("a", 0), ("b", 1), ("a", 2)] {
            assert_eq!(connection.exchange(&request).unwrap(), (200, body.into()));
            assert_eq!(connection.reopened, reopened, "{body}");
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for answer in ["", "hello", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-"] {
            let port = server(vec![vec![answer]]);
            let mut connection = Connection::open(port).unwrap();
            assert!(connection.exchange(&request("GET", "/", b"")).is_err(), "{answer:?}");
        }
    }
}
