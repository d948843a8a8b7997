//! Answers that go on: changes as server-sent events, and logs.

use std::marker::PhantomData;

use reqwest::Response;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::{chunk, decode, place};
use super::{Error, Result};
use crate::Problem;

/// The most bytes of one event.
const MAX_EVENT: usize = 16 << 20;

/// What happened to something that is watched.
#[derive(Debug)]
pub enum Event<T> {
    /// It exists, or was changed.
    Put(Box<T>),
    /// It was deleted; its name.
    Delete(String),
    /// All that existed at the start has been sent.
    Synced,
}

/// Changes as they happen.
pub struct Watch<T> {
    response: Response,
    place: String,
    frames: Frames,
    item: PhantomData<T>,
}

impl<T: DeserializeOwned> Watch<T> {
    pub(super) fn new(response: Response) -> Watch<T> {
        let (place, frames) = (place(&response), Frames::default());
        Watch { response, place, frames, item: PhantomData }
    }

    /// Waits for the next event; none when the server ended the watch.
    ///
    /// # Errors
    /// What the server says, or that it went silent.
    pub async fn next(&mut self) -> Result<Option<Event<T>>> {
        loop {
            while let Some(frame) = self.frames.take() {
                if let Some(event) = self.event(&frame)? {
                    return Ok(Some(event));
                }
            }
            if self.frames.buffer.len() > MAX_EVENT {
                let text = format!("{}: an event has more than {MAX_EVENT} bytes", self.place);
                return Err(Error::Decode(text));
            }
            match chunk(&mut self.response, &self.place).await? {
                Some(bytes) => self.frames.push(&bytes),
                None => return Ok(None),
            }
        }
    }

    fn event(&self, frame: &str) -> Result<Option<Event<T>>> {
        let (mut name, mut data) = ("message", String::new());
        for line in frame.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => name = value,
                "data" if data.is_empty() => value.clone_into(&mut data),
                "data" => data = data + "\n" + value,
                _ => {}
            }
        }
        Ok(match name {
            "put" => Some(Event::Put(decode(data.as_bytes(), &self.place)?)),
            "delete" => {
                let gone: Value = decode(data.as_bytes(), &self.place)?;
                Some(Event::Delete(gone["name"].as_str().unwrap_or_default().to_owned()))
            }
            "synced" => Some(Event::Synced),
            "error" => {
                let problem: Problem = decode(data.as_bytes(), &self.place)?;
                return Err(Error::Transport(format!("{}: {}", self.place, problem.message)));
            }
            _ => None,
        })
    }
}

/// Bytes that are cut at empty lines.
#[derive(Default)]
struct Frames {
    buffer: Vec<u8>,
    /// Bytes that are known to hold no empty line.
    searched: usize,
}

impl Frames {
    /// Line ends are normalized; JSON data never holds a raw carriage return.
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes.iter().filter(|byte| **byte != b'\r'));
    }

    fn take(&mut self) -> Option<String> {
        let tail = &self.buffer[self.searched..];
        let Some(end) = tail.windows(2).position(|pair| pair == b"\n\n") else {
            self.searched = self.buffer.len().saturating_sub(1);
            return None;
        };
        let frame: Vec<u8> = self.buffer.drain(..self.searched + end + 2).collect();
        self.searched = 0;
        Some(String::from_utf8_lossy(&frame).into_owned())
    }
}

/// A text that is read as it arrives.
pub struct Text {
    response: Response,
    place: String,
}

impl Text {
    pub(super) fn new(response: Response) -> Text {
        Text { place: place(&response), response }
    }

    /// Waits for more; none at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        chunk(&mut self.response, &self.place).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_the_chunks_end() {
        let text = b"event: put\r\ndata: 1\r\n\r\n: ping\n\ndata: 2\n\nrest";
        for size in 1..text.len() {
            let (mut frames, mut taken) = (Frames::default(), Vec::new());
            for chunk in text.chunks(size) {
                frames.push(chunk);
                taken.extend(std::iter::from_fn(|| frames.take()));
            }
            assert_eq!(taken, ["event: put\ndata: 1\n\n", ": ping\n\n", "data: 2\n\n"], "{size}");
            assert_eq!(frames.buffer, b"rest");
        }
    }
}
