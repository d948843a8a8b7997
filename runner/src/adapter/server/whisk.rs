//! The action images of OpenWhisk: `POST /init` with the code, `POST /run` for each call.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dispatch_api::ErrorType;
use hyper::http::response::Parts;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::time::timeout;

use super::super::channel::Call;
use super::super::serve::{Init, Log, fault};
use crate::frame::Fault;

/// The line that ends what a call wrote, on both streams.
const END: &str = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX";
/// How long that line may take after the answer.
const LAST_LINE: Duration = Duration::from_millis(500);
/// Bytes of the code, and of a line.
const MAX_CODE: u64 = 48 << 20;
const MAX_LINE: usize = 1 << 20;

/// The body of `/init`: the one file of the source, text or archive; an image may have its code in it.
///
/// # Errors
/// The source has several files.
pub(super) fn init(init: &Init) -> Result<Bytes, String> {
    let wrong = |error: std::io::Error| format!("the source cannot be read: {error}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(Path::new(&init.source)).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        if entry.file_type().map_err(wrong)?.is_file() {
            files.push(entry.path());
        }
    }
    let mut value = json!({"name": "function", "main": "main", "binary": false, "code": "",
        "env": init.environment});
    match files.as_slice() {
        [] => {}
        [file] => {
            if std::fs::metadata(file).map_err(wrong)?.len() > MAX_CODE {
                return Err(format!("the source has more than {MAX_CODE} bytes"));
            }
            let code = std::fs::read(file).map_err(wrong)?;
            let (code, binary) = match String::from_utf8(code) {
                Ok(text) => (text, false),
                Err(error) => (STANDARD.encode(error.as_bytes()), true),
            };
            value["code"] = code.into();
            value["binary"] = binary.into();
        }
        many => {
            return Err(format!(
                "the source has {} files; an image of OpenWhisk takes one: a text, or a zip archive",
                many.len()
            ));
        }
    }
    Ok(json!({ "value": value }).to_string().into())
}

/// Whether the code was taken.
///
/// # Errors
/// What the image says of it.
pub(super) fn is_ready(parts: &Parts, body: &Bytes) -> Result<(), Fault> {
    match parts.status.is_success() {
        true => Ok(()),
        false => Err(fault(ErrorType::FunctionError, reason(body))),
    }
}

/// The body of `/run`.
pub(super) fn run(call: &Call) -> Bytes {
    // Its parameters are always named.
    let payload = call.payload.trim_ascii();
    match payload.starts_with(b"{") {
        true => [&b"{\"value\":"[..], payload, b"}"].concat().into(),
        false if payload == b"null" => Bytes::from_static(b"{\"value\":{}}"),
        false => [&b"{\"value\":{\"payload\":"[..], payload, b"}}"].concat().into(),
    }
}

/// The result in the answer.
///
/// # Errors
/// What the action says went wrong.
pub(super) fn result(parts: &Parts, body: Bytes) -> Result<Bytes, Fault> {
    let is_json = serde_json::from_slice::<&RawValue>(&body).is_ok();
    match parts.status.is_success() && is_json {
        true => Ok(body),
        false => Err(fault(ErrorType::FunctionError, reason(&body))),
    }
}

fn reason(body: &Bytes) -> String {
    #[derive(Deserialize)]
    struct Answer {
        error: Value,
    }
    match serde_json::from_slice(body) {
        Ok(Answer { error: Value::String(text) }) => text,
        Ok(Answer { error }) => error.to_string(),
        Err(_) => String::from_utf8_lossy(body).chars().take(500).collect(),
    }
}

/// What an action writes.
pub(super) struct Output {
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Output {
    /// Of a process whose streams are pipes; none otherwise.
    pub fn of(child: &mut Child) -> Option<Output> {
        let (out, err) = (child.stdout.take()?, child.stderr.take()?);
        Some(Output { out: BufReader::new(out), err: BufReader::new(err) })
    }

    /// Passes on everything up to the end of a call.
    pub async fn forward(&mut self, log: &Log) {
        let Output { out, err } = self;
        let printed = async {
            while let Some(text) = line(out).await {
                log.print(&text).await;
            }
        };
        let written = async {
            while let Some(text) = line(err).await {
                log.write(&text).await;
            }
        };
        let _ = timeout(LAST_LINE, async { tokio::join!(printed, written) }).await;
    }
}

/// A line; none at the end of a call.
async fn line<R: AsyncRead + Unpin>(reader: &mut BufReader<R>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut bounded = tokio::io::AsyncReadExt::take(&mut *reader, MAX_LINE as u64);
    let count = bounded.read_until(b'\n', &mut line).await.ok()?;
    (count > 0 && line.trim_ascii() != END.as_bytes()).then_some(line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parameters_have_names() {
        let body = |payload: &'static str| {
            run(&Call { id: 1, context: "{}".into(), payload: payload.into() })
        };
        assert_eq!(body(r#" {"a":1}"#), r#"{"value":{"a":1}}"#);
        assert_eq!(body("null"), r#"{"value":{}}"#);
        assert_eq!(body("[1]"), r#"{"value":{"payload":[1]}}"#);
    }

    #[test]
    fn failures_say_why() {
        let of = |status: u16, body: &'static str| {
            let (parts, ()) =
                hyper::Response::builder().status(status).body(()).unwrap().into_parts();
            result(&parts, Bytes::from_static(body.as_bytes())).map_err(|fault| fault.message)
        };
        assert_eq!(of(200, "{}").unwrap(), "{}");
        assert_eq!(of(502, r#"{"error":"broken"}"#).unwrap_err(), "broken");
        assert_eq!(of(502, r#"{"error":{"a":1}}"#).unwrap_err(), r#"{"a":1}"#);
        assert_eq!(of(200, "text").unwrap_err(), "text");
    }
}
