//! As much of the protocol of NATS as publishers and one subscriber need. Loopback only.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::load::{Client, DIGITS, renumber};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that are kept while they are not read.
const MAX_BUFFER: usize = 16 << 20;
/// The stream that all events go to.
const STREAM: &str = "EVENTS";
/// The number under which answers are listened to.
const ANSWERS: &str = "1";
/// The number under which events are.
const PUSHED: &str = "2";
/// The subject of events of a type.
const SUBJECT: &str = "events.";

/// A message: the subject that an answer goes to, and its payload.
pub struct Message {
    /// Of what this connection listens to: [`ANSWERS`], [`PUSHED`].
    listened: String,
    /// Where it is acknowledged.
    pub reply: String,
    /// What was published.
    pub payload: Vec<u8>,
}

/// A connection.
pub struct Nats {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// Messages that came while an answer was waited for.
    early: Vec<Message>,
}

impl Nats {
    /// Connects, and listens for answers.
    ///
    /// # Errors
    /// Nothing listens there, or it is something else.
    pub fn open(port: u16) -> anyhow::Result<Nats> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot connect to port {port}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut nats = Nats { stream, buffer: vec![0; 64 << 10], filled: 0, early: Vec::new() };
        let inbox = nats.inbox()?;
        let hello =
            format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB {inbox} {ANSWERS}\r\n");
        nats.stream.write_all(hello.as_bytes())?;
        Ok(nats)
    }

    /// Where answers to this connection go: nobody else has its port.
    fn inbox(&self) -> anyhow::Result<String> {
        Ok(format!("_INBOX.{}", self.stream.local_addr()?.port()))
    }

    /// Makes the stream, on disk.
    ///
    /// # Errors
    /// It is refused.
    pub fn create_stream(&mut self) -> anyhow::Result<()> {
        let subjects = [format!("{SUBJECT}>")];
        let config = json!({"name": STREAM, "subjects": subjects, "storage": "file"});
        self.ask(&format!("$JS.API.STREAM.CREATE.{STREAM}"), &config)?;
        Ok(())
    }

    /// Has messages of a type pushed to this connection, each to be acknowledged.
    ///
    /// # Errors
    /// It is refused.
    pub fn subscribe(&mut self, event_type: &str, most: usize) -> anyhow::Result<()> {
        let subject = format!("deliver.{event_type}");
        self.stream.write_all(format!("SUB {subject} {PUSHED}\r\n").as_bytes())?;
        let config = json!({"durable_name": event_type, "deliver_subject": subject,
            "ack_policy": "explicit", "max_ack_pending": most,
            "filter_subject": format!("{SUBJECT}{event_type}")});
        let path = format!("$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.{event_type}");
        self.ask(&path, &json!({"stream_name": STREAM, "config": config}))?;
        Ok(())
    }

    /// Whether all messages of a type were delivered and acknowledged.
    ///
    /// # Errors
    /// The server does not answer.
    pub fn is_done(&mut self, event_type: &str) -> anyhow::Result<bool> {
        let path = format!("$JS.API.CONSUMER.INFO.{STREAM}.{event_type}");
        let info = self.ask(&path, &Value::Null)?;
        Ok(info["num_pending"] == 0 && info["num_ack_pending"] == 0)
    }

    /// Acknowledges messages.
    ///
    /// # Errors
    /// The server is gone.
    pub fn acknowledge(&mut self, messages: &[Message]) -> anyhow::Result<()> {
        let acks: String =
            messages.iter().map(|message| format!("PUB {} 4\r\n+ACK\r\n", message.reply)).collect();
        Ok(self.stream.write_all(acks.as_bytes())?)
    }

    fn ask(&mut self, subject: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!("PUB {subject} {} {}\r\n{body}\r\n", self.inbox()?, body.len());
        self.stream.write_all(request.as_bytes())?;
        loop {
            let (answers, others): (Vec<_>, Vec<_>) =
                self.arrived()?.into_iter().partition(|message| message.listened == ANSWERS);
            self.early.extend(others);
            if let Some(message) = answers.first() {
                let answer: Value = serde_json::from_slice(&message.payload)?;
                ensure!(answer["error"].is_null(), "{subject}: {}", answer["error"]);
                return Ok(answer);
            }
        }
    }

    /// Messages that came before, or what reading once brings.
    ///
    /// # Errors
    /// As of reading: the server is gone, says that something is wrong, or nothing arrived for half a minute.
    pub fn read(&mut self) -> anyhow::Result<Vec<Message>> {
        match std::mem::take(&mut self.early) {
            none if none.is_empty() => self.arrived(),
            early => Ok(early),
        }
    }

    /// Reads once, waiting if nothing has arrived: the messages that are whole.
    fn arrived(&mut self) -> anyhow::Result<Vec<Message>> {
        if self.filled == self.buffer.len() {
            ensure!(self.filled < MAX_BUFFER, "a message has more than {MAX_BUFFER} bytes");
            self.buffer.resize(self.filled * 2, 0);
        }
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => bail!("NATS closed the connection"),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                bail!("NATS: nothing within {} s", PATIENCE.as_secs())
            }
            Err(error) => return Err(error.into()),
        }
        let (mut messages, mut from) = (Vec::new(), 0);
        while let Some((line, after)) = line(&self.buffer[..self.filled], from) {
            let line = String::from_utf8_lossy(line).into_owned();
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words.first().copied() {
                Some(kind @ ("MSG" | "HMSG")) => {
                    // Before the payload, with HMSG, come headers, and their length before its own.
                    let headers = kind == "HMSG";
                    let number = |back: usize| words.iter().nth_back(back).unwrap_or(&"").parse();
                    let length: usize = number(0)?;
                    let head: usize = if headers { number(1)? } else { 0 };
                    let Some(all) = self.buffer[..self.filled].get(after..after + length + 2)
                    else {
                        break;
                    };
                    let with_reply = words.len() == 5 + usize::from(headers);
                    messages.push(Message {
                        listened: (*words.get(2).unwrap_or(&"")).to_owned(),
                        reply: if with_reply { words[3].to_owned() } else { String::new() },
                        payload: all.get(head..length).unwrap_or_default().to_vec(),
                    });
                    from = after + length + 2;
                    continue;
                }
                Some("PING") => self.stream.write_all(b"PONG\r\n")?,
                Some("INFO" | "PONG" | "+OK") => {}
                _ => bail!("NATS says {line}"),
            }
            from = after;
        }
        self.buffer.copy_within(from..self.filled, 0);
        self.filled -= from;
        Ok(messages)
    }
}

/// The line that begins at `from`, and the place behind it.
fn line(bytes: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let length = bytes[from..].windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[from..from + length], from + length + 2))
}

/// A publisher that sends so many events and waits until each is acknowledged, which they are when they are
/// on the disk. They are CloudEvents in the binary mode, and their ids keep the server from taking one twice.
pub struct Publisher {
    nats: Nats,
    request: Vec<u8>,
    numbers: Vec<usize>,
    batch: usize,
    /// Bytes of an event's data.
    data: usize,
    left: usize,
}

impl Publisher {
    /// Connects.
    ///
    /// # Errors
    /// Nothing listens there.
    pub fn open(
        port: u16,
        event_type: &str,
        batch: usize,
        data: &str,
    ) -> anyhow::Result<Publisher> {
        let nats = Nats::open(port)?;
        let id = "0".repeat(DIGITS);
        let head = format!(
            "NATS/1.0\r\nNats-Msg-Id: {id}\r\nce-specversion: 1.0\r\nce-id: {id}\r\n\
             ce-source: /bench\r\nce-type: {event_type}\r\ncontent-type: application/json\r\n\r\n"
        );
        let one = format!(
            "HPUB {SUBJECT}{event_type} {} {} {}\r\n{head}{data}\r\n",
            nats.inbox()?,
            head.len(),
            head.len() + data.len()
        );
        let request = one.repeat(batch);
        let numbers = request.match_indices(&id).map(|(place, _)| place).collect();
        let request = request.into_bytes();
        Ok(Publisher { nats, request, numbers, batch, data: data.len(), left: 0 })
    }
}

impl Publisher {
    /// Replaces the data of the event that is sent next by data of the same length.
    ///
    /// # Errors
    /// It has another length.
    pub fn set_data(&mut self, data: &str) -> anyhow::Result<()> {
        let end = self.request.len().saturating_sub(2);
        let place = end.saturating_sub(data.len())..end;
        ensure!(self.batch == 1 && self.data == data.len(), "the data has another length");
        self.request[place].copy_from_slice(data.as_bytes());
        Ok(())
    }
}

impl AsFd for Publisher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.nats.stream.as_fd()
    }
}

impl Client for Publisher {
    fn send(&mut self) -> anyhow::Result<()> {
        renumber(&mut self.request, &self.numbers);
        self.left = self.batch;
        Ok(self.nats.stream.write_all(&self.request)?)
    }

    fn receive(&mut self) -> anyhow::Result<bool> {
        for message in self.nats.read()? {
            let answer: Value = serde_json::from_slice(&message.payload)?;
            let stored = answer["seq"].is_u64() && answer["duplicate"] != json!(true);
            ensure!(stored, "NATS did not take an event: {answer}");
            self.left = self.left.checked_sub(1).context("one acknowledgement too many")?;
        }
        Ok(self.left == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;
    use crate::cores::Cores;
    use crate::peers::free_port;
    use crate::process::Process;

    #[test]
    fn a_publisher_waits_for_all_acknowledgements_however_they_arrive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"INFO {}\r\nPING\r\n").unwrap();
            let ack = |seq: u32| {
                let body = format!("{{\"stream\":\"EVENTS\",\"seq\":{seq}}}");
                format!("MSG _INBOX.1 1 {}\r\n{body}\r\n", body.len())
            };
            let (mut seen, mut buffer) = (String::new(), [0; 4096]);
            while seen.matches("{}\r\n").count() < 2 {
                let read = stream.read(&mut buffer).unwrap();
                seen += &String::from_utf8_lossy(&buffer[..read]);
            }
            let acks = ack(1) + &ack(2);
            let (one, two) = acks.split_at(60);
            stream.write_all(one.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            stream.write_all(two.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            let refused = "{\"error\":{\"code\":503}}";
            let text = format!(
                "HMSG _INBOX.1 1 12 {}\r\nNATS/1.0\r\n\r\n{refused}\r\n",
                12 + refused.len()
            );
            stream.write_all(text.as_bytes()).unwrap();
            seen
        });
        let mut publisher = Publisher::open(port, "a", 2, "{}").unwrap();
        publisher.send().unwrap();
        while !publisher.receive().unwrap() {}
        // What is no acknowledgement of a stored event is an error.
        let error = publisher.receive().unwrap_err();
        assert!(error.to_string().contains("did not take an event"), "{error}");
        let seen = server.join().unwrap();
        let ids: std::collections::BTreeSet<&str> =
            seen.split("Nats-Msg-Id: ").skip(1).map(|rest| &rest[..DIGITS]).collect();
        assert_eq!(ids.len(), 2, "{seen}");
    }

    #[test]
    fn events_go_through_a_real_broker() {
        if Command::new("nats-server").arg("--version").output().is_err() {
            println!("skipped: nats-server is not installed");
            return;
        }
        let (data, port) = (tempfile::tempdir().unwrap(), free_port().unwrap());
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(data.path());
        let process = Process::start(command, Cores::Two).unwrap();
        process.wait_for(|line| line.contains("Server is ready").then_some(())).unwrap();
        let mut subscriber = Nats::open(port).unwrap();
        subscriber.create_stream().unwrap();
        subscriber.subscribe("order", 100).unwrap();
        let mut publisher = Publisher::open(port, "order", 1, "{\"n\":1}").unwrap();
        let mut batch = Publisher::open(port, "order", 30, "{\"n\":2}").unwrap();
        publisher.set_data("{\"n\":3}").unwrap();
        assert!(publisher.set_data("{}").is_err());
        publisher.send().unwrap();
        while !publisher.receive().unwrap() {}
        assert!(!subscriber.is_done("order").unwrap());
        batch.send().unwrap();
        while !batch.receive().unwrap() {}
        let mut seen = Vec::new();
        while seen.len() < 31 {
            let messages = subscriber.read().unwrap();
            subscriber.acknowledge(&messages).unwrap();
            seen.extend(messages.into_iter().map(|message| message.payload));
        }
        assert_eq!(seen[0], b"{\"n\":3}");
        assert!(seen[1..].iter().all(|payload| payload == b"{\"n\":2}"));
        while !subscriber.is_done("order").unwrap() {}
        // The same numbers again: the broker has them already.
        batch.numbers.clear();
        batch.send().unwrap();
        let error = loop {
            if let Err(error) = batch.receive() {
                break error;
            }
        };
        assert!(error.to_string().contains("duplicate"), "{error}");
    }
}
