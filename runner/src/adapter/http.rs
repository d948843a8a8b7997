//! Calls as HTTP requests, for functions that are HTTP servers, and responses as results.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dispatch_api::ErrorType;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper::http::response::Parts;
use hyper::{HeaderMap, Request};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::channel::Call;
use super::serve::fault;
use crate::frame::Fault;

/// What of a context says how the call came.
#[derive(Deserialize)]
struct Context {
    request: Option<Origin>,
}

/// The request at the endpoint.
#[derive(Deserialize)]
struct Origin {
    uri: String,
    method: String,
    #[serde(default)]
    header: BTreeMap<String, Vec<String>>,
}

/// The response in the place of a result, which the gateway makes a response again.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    status_code: u16,
    multi_value_headers: BTreeMap<&'a str, Vec<String>>,
    body: String,
    is_base64_encoded: bool,
}

/// Headers that are about one connection, or about bytes that are no more.
const HOPS: [&str; 6] =
    ["connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"];

/// The request that a call is, and whether it came as one: the same method, path and headers, or
/// `POST /`. The body is the payload.
///
/// # Errors
/// The context is not one, or holds a request that is none.
pub fn request(call: &Call) -> Result<(Request<Bytes>, bool), Fault> {
    let wrong = |error: &dyn std::fmt::Display| fault(ErrorType::SystemError, error.to_string());
    let context: Context = serde_json::from_slice(&call.context).map_err(|error| wrong(&error))?;
    let came = context.request.is_some();
    let origin = context.request.unwrap_or_else(|| Origin {
        uri: "/".to_owned(),
        method: "POST".to_owned(),
        header: BTreeMap::new(),
    });
    let mut builder = Request::builder().method(origin.method.as_str()).uri(&origin.uri);
    for (name, values) in &origin.header {
        if HOPS.contains(&name.to_ascii_lowercase().as_str()) {
            continue;
        }
        for value in values {
            builder = builder.header(name, value);
        }
    }
    let body = match &call.payload[..] {
        b"null" => Bytes::new(),
        _ => call.payload.clone(),
    };
    let length = body.len();
    let mut request = builder.body(body).map_err(|error| wrong(&error))?;
    let headers = request.headers_mut();
    headers.entry(HOST).or_insert(hyper::header::HeaderValue::from_static("function"));
    headers.insert(CONTENT_LENGTH, length.into());
    if length > 0 {
        let json = hyper::header::HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json);
    }
    Ok((request, came))
}

/// The result that a response is: all of it for a call that came as a request, otherwise its body.
///
/// # Errors
/// For a call that came otherwise, the fault that a status of 400 and more means.
pub fn result(parts: &Parts, body: &Bytes, came: bool) -> Result<Bytes, Fault> {
    let text = std::str::from_utf8(body).ok();
    if came {
        let envelope = Envelope {
            status_code: parts.status.as_u16(),
            multi_value_headers: headers(&parts.headers),
            body: text.map_or_else(|| STANDARD.encode(body), str::to_owned),
            is_base64_encoded: text.is_none(),
        };
        return json(&envelope);
    }
    if parts.status.is_client_error() || parts.status.is_server_error() {
        let kind = match parts.status.is_client_error() {
            true => ErrorType::InputError,
            false => ErrorType::FunctionError,
        };
        let message = format!("{}: {}", parts.status, text.unwrap_or_default().trim());
        return Err(fault(kind, message));
    }
    if body.trim_ascii().is_empty() {
        return Ok(Bytes::from_static(b"null"));
    }
    if serde_json::from_slice::<&RawValue>(body).is_ok() {
        return Ok(body.clone());
    }
    match text {
        Some(text) => json(text),
        None => json(&STANDARD.encode(body)),
    }
}

fn headers(all: &HeaderMap) -> BTreeMap<&str, Vec<String>> {
    let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in all.iter().filter(|(name, _)| !HOPS.contains(&name.as_str())) {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str()).or_default().push(value);
    }
    headers
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, Fault> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| fault(ErrorType::SystemError, error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn call(context: &Value, payload: &'static str) -> Call {
        Call { id: 1, context: context.to_string().into(), payload: payload.into() }
    }

    #[test]
    fn a_call_is_the_request_that_it_came_as() {
        let context = json!({"secrets": {}, "request": {"uri": "/a?b=1", "method": "PUT",
            "header": {"X-A": ["1", "2"], "Connection": ["close"], "Content-Length": ["99"]}}});
        let (request, came) = request(&call(&context, "[1]")).unwrap();
        assert!(came);
        assert_eq!(
            (request.method().as_str(), request.uri().to_string()),
            ("PUT", "/a?b=1".into())
        );
        let values: Vec<_> = request.headers().get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!(request.headers()["content-length"], "3");
        assert!(!request.headers().contains_key("connection"));
    }

    #[test]
    fn other_calls_are_posted() {
        let (request, came) = request(&call(&json!({}), "null")).unwrap();
        assert!(!came && request.body().is_empty());
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/"));
        assert!(
            super::request(&call(&json!({"request": {"uri": "a b", "method": "GET"}}), "1"))
                .is_err()
        );
    }

    fn respond(status: u16, body: &'static [u8], came: bool) -> Result<Value, Fault> {
        let response = hyper::Response::builder().status(status);
        let response = response.header("x-a", "1").header("x-a", "2").header("connection", "close");
        let (parts, ()) = response.body(()).unwrap().into_parts();
        let result = result(&parts, &Bytes::from_static(body), came)?;
        Ok(serde_json::from_slice(&result).unwrap())
    }

    #[test]
    fn a_response_to_a_request_is_one_and_to_a_call_a_result() {
        let envelope = |body: &str, base64: bool| {
            json!({"statusCode": 404, "multiValueHeaders": {"x-a": ["1", "2"]}, "body": body,
                "isBase64Encoded": base64})
        };
        assert_eq!(respond(404, b"gone", true).unwrap(), envelope("gone", false));
        assert_eq!(respond(404, b"\xff", true).unwrap(), envelope("/w==", true));
        assert_eq!(respond(200, b"[1]\n", false).unwrap(), json!([1]));
        assert_eq!(respond(200, b"hello", false).unwrap(), json!("hello"));
        assert_eq!(respond(204, b"", false).unwrap(), json!(null));
        let wrong = respond(422, b"no name\n", false).unwrap_err();
        assert_eq!(wrong.kind, ErrorType::InputError);
        assert_eq!(wrong.message, "422 Unprocessable Entity: no name");
        assert_eq!(respond(500, b"", false).unwrap_err().kind, ErrorType::FunctionError);
    }
}
