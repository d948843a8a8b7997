//! A closed loop of clients: each sends its next request when the one before is answered. One thread,
//! so that the clients take no more from the servers than they must.
//!
//! A closed loop waits while a server stalls and so sees less of the stall than an open stream of
//! requests would: compare its percentiles with each other only.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cores::{self, Cores};
use crate::http::{self, Answer, Connection};
use crate::machine::Watch;
use crate::stats::Rate;

/// How long all clients together may be without an answer.
const PATIENCE_MS: u16 = 30_000;

/// One kind of request, and what its answer must look like.
#[derive(Clone, Debug)]
pub struct Target {
    /// The port.
    pub port: u16,
    /// What is sent.
    pub request: Vec<u8>,
    /// The status of every answer.
    pub status: u16,
    /// A text that every answer contains; empty where none has to.
    pub contains: &'static str,
    /// Places in the request of [`DIGITS`] digits that are another number in each request.
    pub numbers: Vec<usize>,
}

/// How long the numbers are that make requests different from each other.
pub const DIGITS: usize = 16;

/// Writes another number, in hexadecimal, at each of these places.
pub fn renumber(request: &mut [u8], places: &[usize]) {
    static LAST: AtomicU64 = AtomicU64::new(0);
    for &place in places {
        let number = format!("{:0DIGITS$x}", LAST.fetch_add(1, Ordering::Relaxed));
        request[place..place + DIGITS].copy_from_slice(number.as_bytes());
    }
}

/// One side of a conversation in which at most one request is under way.
pub trait Client: AsFd {
    /// Sends the next request.
    ///
    /// # Errors
    /// The other side is gone.
    fn send(&mut self) -> anyhow::Result<()>;

    /// Reads once what has arrived of the answer, waiting if nothing has: whether it is whole, and right.
    ///
    /// # Errors
    /// The other side is gone, or the answer is wrong.
    fn receive(&mut self) -> anyhow::Result<bool>;

    /// Connections that the other side closed and that were opened again.
    fn reopened(&self) -> usize {
        0
    }
}

/// A client of an HTTP server.
pub struct Caller<'a> {
    target: &'a Target,
    connection: Connection,
    request: Vec<u8>,
}

impl Caller<'_> {
    /// Connects.
    ///
    /// # Errors
    /// Nothing listens there.
    pub fn open(target: &Target) -> anyhow::Result<Caller<'_>> {
        let connection = Connection::open(target.port)?;
        Ok(Caller { target, connection, request: target.request.clone() })
    }
}

impl AsFd for Caller<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Client for Caller<'_> {
    fn send(&mut self) -> anyhow::Result<()> {
        renumber(&mut self.request, &self.target.numbers);
        self.connection.send(&self.request)
    }

    fn receive(&mut self) -> anyhow::Result<bool> {
        let Some(answer) = self.connection.receive(&self.request)? else { return Ok(false) };
        self.target.check(&answer).map(|()| true)
    }

    fn reopened(&self) -> usize {
        self.connection.reopened
    }
}

impl Target {
    /// Sends it once, over a new connection.
    ///
    /// # Errors
    /// No answer, or another than expected.
    pub fn call(&self) -> anyhow::Result<()> {
        let (status, body) = Connection::open(self.port)?.exchange(&self.request)?;
        self.check(&Answer { status, body: &body })
    }

    fn check(&self, answer: &Answer<'_>) -> anyhow::Result<()> {
        let wanted = self.contains.as_bytes();
        let found =
            wanted.is_empty() || answer.body.windows(wanted.len()).any(|window| window == wanted);
        ensure!(
            answer.status == self.status && found,
            "port {} answered {}: {}",
            self.port,
            answer.status,
            String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)])
        );
        Ok(())
    }
}

/// When a measurement ends: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// After this time.
    pub time: Duration,
    /// Time before, in which answers are checked but not counted.
    pub warm: Duration,
    /// After this many requests of all clients.
    pub requests: usize,
}

/// Lets `clients` send until the bound is reached. `server` is the process whose time is counted, with
/// all below it.
///
/// # Errors
/// One wrong answer ends the measurement: a rate of errors says nothing.
pub fn run(
    target: &Target,
    clients: usize,
    bound: Bound,
    cores: Cores,
    server: u32,
) -> anyhow::Result<Rate> {
    let clients = (0..clients).map(|_| Caller::open(target)).collect::<Result<Vec<_>, _>>()?;
    drive(clients, bound, cores, server).with_context(|| format!("port {}", target.port))
}

/// The same with clients of any kind.
///
/// # Errors
/// As [`run`].
pub fn drive<C: Client>(
    clients: Vec<C>,
    bound: Bound,
    cores: Cores,
    server: u32,
) -> anyhow::Result<Rate> {
    cores::on(cores.clients(), || {
        let mut group = Group::new(clients);
        if !bound.warm.is_zero() {
            group.run(Bound { time: bound.warm, ..bound })?;
        }
        let watch = Watch::start(server);
        let start = Instant::now();
        let times = group.run(bound)?;
        let elapsed = start.elapsed();
        ensure!(!times.is_empty(), "nothing was answered within {:?}", bound.time);
        let reopened = group.0.iter().map(|(client, _)| client.reopened()).sum();
        Ok(Rate::new(times, elapsed, watch.stop(), reopened))
    })?
}

/// Sends each request once, all at the same time, each over a new connection; the times from before
/// the connection to the answer.
///
/// # Errors
/// As [`run`].
pub fn burst(targets: &[Target], cores: Cores) -> anyhow::Result<Vec<Duration>> {
    cores::on(cores.clients(), || {
        let (mut group, mut times) = (Group(Vec::new()), Vec::new());
        for target in targets {
            let start = Instant::now();
            let mut caller = Caller::open(target)?;
            caller.send()?;
            group.0.push((caller, Some(start)));
        }
        while times.len() < targets.len() {
            for index in group.ready()? {
                times.extend(group.receive(index)?);
            }
        }
        Ok(times)
    })?
}

/// Clients, and when the request under way was sent by each.
struct Group<C>(Vec<(C, Option<Instant>)>);

impl<C: Client> Group<C> {
    fn new(clients: Vec<C>) -> Group<C> {
        Group(clients.into_iter().map(|client| (client, None)).collect())
    }

    /// Which clients something has arrived for. A single one is not asked: reading waits too.
    fn ready(&self) -> anyhow::Result<Vec<usize>> {
        if self.0.len() == 1 {
            return Ok(vec![0]);
        }
        let waits = self.0.iter().enumerate().filter(|(_, (_, sent))| sent.is_some());
        let (indices, mut waits): (Vec<_>, Vec<_>) = waits
            .map(|(index, (client, _))| (index, PollFd::new(client.as_fd(), PollFlags::POLLIN)))
            .unzip();
        ensure!(
            poll(&mut waits, PollTimeout::from(PATIENCE_MS))? > 0,
            "no client was answered within 30 s"
        );
        let ready = indices.into_iter().zip(waits).filter(|(_, wait)| wait.any() == Some(true));
        Ok(ready.map(|(index, _)| index).collect())
    }

    /// Reads for a client: the time its request took, if the answer is whole now.
    fn receive(&mut self, index: usize) -> anyhow::Result<Option<Duration>> {
        let (client, sent) = &mut self.0[index];
        if !client.receive()? {
            return Ok(None);
        }
        let now = Instant::now();
        let sent = sent.take().context("an answer to nothing")?;
        Ok(Some(now - sent))
    }

    fn send(&mut self, index: usize) -> anyhow::Result<()> {
        let (client, sent) = &mut self.0[index];
        *sent = Some(Instant::now());
        client.send()
    }

    /// The times of all requests until the bound; when it returns, none is under way.
    fn run(&mut self, bound: Bound) -> anyhow::Result<Vec<Duration>> {
        let end = Instant::now() + bound.time;
        let mut times = Vec::new();
        let (mut sent, mut waiting) = (0, 0);
        for index in 0..self.0.len().min(bound.requests) {
            self.send(index)?;
            (sent, waiting) = (sent + 1, waiting + 1);
        }
        while waiting > 0 {
            for index in self.ready()? {
                let Some(time) = self.receive(index)? else { continue };
                times.push(time);
                waiting -= 1;
                if sent < bound.requests && Instant::now() < end {
                    self.send(index)?;
                    (sent, waiting) = (sent + 1, waiting + 1);
                }
            }
        }
        Ok(times)
    }
}

/// A call of the function of all measurements.
pub fn hello(port: u16, path: &str) -> Target {
    let request = http::request("POST", path, PAYLOAD.as_bytes());
    Target { port, request, status: 200, contains: ANSWER, numbers: Vec::new() }
}

/// What every call sends.
pub const PAYLOAD: &str = r#"{"name":"Jon","place":"here"}"#;
/// What every answer holds.
pub const ANSWER: &str = "Hello, Jon from here";

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A server that counts what it answers. Requests here are small enough to arrive at once.
    fn server(answer: &'static str) -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answered = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&answered);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, counter) = (stream.unwrap(), Arc::clone(&counter));
                std::thread::spawn(move || {
                    while stream.read(&mut [0; 1000]).is_ok_and(|read| read > 0) {
                        counter.fetch_add(1, Ordering::SeqCst);
                        let length = answer.len();
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                        stream.write_all((head + answer).as_bytes()).unwrap();
                    }
                });
            }
        });
        (port, answered)
    }

    fn bound(millis: u64, requests: usize) -> Bound {
        Bound { time: Duration::from_millis(millis), warm: Duration::ZERO, requests }
    }

    #[test]
    fn clients_send_until_a_bound_is_reached_and_wait_for_every_answer() {
        for clients in [1, 5] {
            let (port, answered) = server(ANSWER);
            let target = hello(port, "/");
            let callers = (0..clients).map(|_| Caller::open(&target).unwrap()).collect();
            let mut group = Group::new(callers);
            assert_eq!(group.run(bound(60_000, 23)).unwrap().len(), 23);
            assert_eq!(answered.load(Ordering::SeqCst), 23);
            let times = group.run(bound(50, usize::MAX)).unwrap();
            assert!(times.len() >= clients, "{}", times.len());
            assert_eq!(answered.load(Ordering::SeqCst), 23 + times.len());
        }
    }

    #[test]
    fn requests_are_numbered_where_they_are_to_be() {
        let mut request = b"a0000000000000000b0000000000000000c".to_vec();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            renumber(&mut request, &[1, 18]);
            assert_eq!((request[0], request[17], request[34]), (b'a', b'b', b'c'));
            assert!(seen.insert(request[1..17].to_vec()) && seen.insert(request[18..34].to_vec()));
        }
    }

    #[test]
    fn a_wrong_answer_ends_the_measurement() {
        let (port, answered) = server("Hello, nobody");
        let target = hello(port, "/");
        let mut group = Group::new(vec![Caller::open(&target).unwrap()]);
        let error = group.run(bound(60_000, 9)).unwrap_err();
        assert!(error.to_string().contains("answered 200: Hello, nobody"), "{error}");
        assert_eq!(answered.load(Ordering::SeqCst), 1);
        assert!(target.call().is_err());
    }
}
