//! The function servers of the first Dispatch: `{context, payload}` in and out.

use bytes::Bytes;
use dispatch_api::ErrorType;
use hyper::http::response::Parts;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::channel::Call;
use super::super::serve::{Log, fault};
use crate::frame::Fault;

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(default)]
    context: Context,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    error: Option<Problem>,
    logs: Option<Lines>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    message: String,
    /// Clojure's writes it in the other way.
    #[serde(default, alias = "stackTrace")]
    stacktrace: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Lines {
    stdout: Option<Vec<String>>,
    stderr: Option<Vec<String>>,
}

/// The request's body.
pub(super) fn wrap(call: &Call) -> Bytes {
    let (context, payload) = (&call.context[..], &call.payload[..]);
    [&b"{\"context\":"[..], context, b",\"payload\":", payload, b"}"].concat().into()
}

/// The result in the answer; the lines it brings go to the log.
///
/// # Errors
/// What the function server says, or that it says nothing of the kind.
pub(super) async fn unwrap(parts: &Parts, body: &Bytes, log: &Log) -> Result<Bytes, Fault> {
    let strange = || {
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
        let message = format!("the function server answered {}: {text}", parts.status);
        fault(ErrorType::SystemError, message)
    };
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|_| strange())?;
    let logs = answer.context.logs.unwrap_or_default();
    for line in logs.stdout.iter().flatten() {
        log.print(format!("{line}\n").as_bytes()).await;
    }
    for line in logs.stderr.iter().flatten() {
        log.write(format!("{line}\n").as_bytes()).await;
    }
    if let Some(Problem { kind, message, stacktrace }) = answer.context.error {
        let kind = match kind.as_str() {
            "InputError" => ErrorType::InputError,
            "SystemError" => ErrorType::SystemError,
            _ => ErrorType::FunctionError,
        };
        return Err(Fault { kind, message, stacktrace: stacktrace.unwrap_or_default() });
    }
    if !parts.status.is_success() {
        return Err(strange());
    }
    let payload = answer.payload.map_or("null", RawValue::get);
    Ok(Bytes::copy_from_slice(payload.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn read(status: u16, body: &'static str) -> Result<Bytes, Fault> {
        let (parts, ()) = hyper::Response::builder().status(status).body(()).unwrap().into_parts();
        unwrap(&parts, &Bytes::from_static(body.as_bytes()), &Log::ours()).await
    }

    #[tokio::test]
    async fn envelopes_are_opened() {
        let good = r#"{"context":{"logs":{"stdout":null,"stderr":[]}},"payload":{"a": 1}}"#;
        assert_eq!(read(200, good).await.unwrap(), r#"{"a": 1}"#);
        assert_eq!(read(200, r#"{"context":{}}"#).await.unwrap(), "null");
        let bad =
            r#"{"context":{"error":{"type":"InputError","message":"no","stackTrace":["a"]}}}"#;
        let fault = read(200, bad).await.unwrap_err();
        assert_eq!((fault.kind, fault.message.as_str()), (ErrorType::InputError, "no"));
        assert_eq!(fault.stacktrace, ["a"]);
        for (status, body) in [(200, "hello"), (500, r#"{"payload":1}"#), (200, "[]")] {
            assert_eq!(
                read(status, body).await.unwrap_err().kind,
                ErrorType::SystemError,
                "{body}"
            );
        }
    }

    #[test]
    fn a_call_becomes_one_document() {
        let call = Call { id: 1, context: r#"{"secrets":{}}"#.into(), payload: "[1]".into() };
        assert_eq!(wrap(&call), r#"{"context":{"secrets":{}},"payload":[1]}"#);
    }
}
