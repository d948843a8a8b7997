//! From the outcome of a call to an HTTP response.

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dispatch_api::ErrorType;
use dispatch_runner::{Cause, Failure};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::problem::Error;

/// A response with its whole body.
pub type Answer = Response<Full<Bytes>>;

/// Headers that are the server's to set.
const OURS: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers a function may set, and their bytes together.
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 32 << 10;

/// A result that decides about the whole response. An object with any other key is a plain result.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    status_code: &'a RawValue,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    #[serde(borrow)]
    multi_value_headers: Option<&'a RawValue>,
    #[serde(borrow)]
    cookies: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    is_base64_encoded: Option<&'a RawValue>,
}

/// A JSON answer.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// The answer to a request that was not served.
pub fn refusal(mut error: Error, request_id: &str) -> Answer {
    error.problem.request_id = Some(request_id.to_owned());
    let mut answer = json(error.status, serde_json::to_vec(&error.problem).unwrap_or_default());
    if let Some(after) = error.retry_after {
        let seconds = HeaderValue::from(after.as_secs().max(1));
        answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    answer
}

/// The answer to a call that gave a result.
///
/// # Errors
/// 502 for an envelope that is not a valid HTTP response.
pub fn success(output: &Bytes) -> Result<Answer, Error> {
    let text = output.trim_ascii();
    if matches!(text, b"null" | b"\"\"" | b"") {
        return Ok(Response::default());
    }
    if may_be_envelope(text)
        && let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(text)
        && let Ok(status) = serde_json::from_str::<i64>(envelope.status_code.get())
    {
        return answer(status, &envelope).map_err(|reason| {
            let text = format!("the function's answer is not a valid HTTP response: {reason}");
            Error::new(StatusCode::BAD_GATEWAY, text).page("function-error")
        });
    }
    let mut body = Vec::with_capacity(output.len() + 1);
    body.extend_from_slice(output);
    body.push(b'\n');
    Ok(json(StatusCode::OK, body))
}

/// Whether it is worth reading: most results name no status, not even escaped.
fn may_be_envelope(text: &[u8]) -> bool {
    const KEY: &[u8] = b"\"statusCode\"";
    text.starts_with(b"{")
        && (text.contains(&b'\\') || text.windows(KEY.len()).any(|window| window == KEY))
}

fn answer(status: i64, envelope: &Envelope<'_>) -> Result<Answer, String> {
    // Below 200 are answers that another one follows.
    let status = u16::try_from(status)
        .ok()
        .filter(|status| (200..=599).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or("statusCode is not between 200 and 599")?;
    let encoded = match envelope.is_base64_encoded.map(RawValue::get) {
        Some("true") => true,
        None | Some("false") => false,
        Some(_) => return Err("isBase64Encoded is neither true nor false".to_owned()),
    };
    let (mut body, kind) = content(envelope.body, encoded)?;
    if matches!(status.as_u16(), 204 | 205 | 304) {
        body = Bytes::new();
    }
    let mut headers = HeaderMap::new();
    for group in [envelope.headers, envelope.multi_value_headers].into_iter().flatten() {
        let group: Map<String, Value> =
            serde_json::from_str(group.get()).map_err(|_| "headers are not an object")?;
        for (name, value) in &group {
            for value in texts(value).ok_or_else(|| format!("header {name:?} is not a text"))? {
                add(&mut headers, name, &value)?;
            }
        }
    }
    if let Some(cookies) = envelope.cookies {
        let cookies: Vec<String> =
            serde_json::from_str(cookies.get()).map_err(|_| "cookies are not a list of texts")?;
        for cookie in &cookies {
            add(&mut headers, "set-cookie", cookie)?;
        }
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > MAX_HEADER_BYTES {
        return Err(format!("the headers are larger than {MAX_HEADER_BYTES} bytes"));
    }
    if !body.is_empty() {
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
    }
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

/// The bytes of a body and the type they have where the function names none.
fn content(body: Option<&RawValue>, encoded: bool) -> Result<(Bytes, &'static str), String> {
    let Some(body) = body.map(RawValue::get) else { return Ok((Bytes::new(), "text/plain")) };
    if !body.starts_with('"') {
        if encoded {
            return Err("body is not base64: it is not a text".to_owned());
        }
        return Ok((Bytes::copy_from_slice(body.as_bytes()), "application/json"));
    }
    let text: String = serde_json::from_str(body).map_err(|_| "body is not Unicode")?;
    if encoded {
        let bytes = STANDARD.decode(text).map_err(|_| "body is not base64")?;
        return Ok((bytes.into(), "application/octet-stream"));
    }
    Ok((text.into(), "text/plain; charset=utf-8"))
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    };
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        one => text(one).map(|text| vec![text]),
    }
}

fn add(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    if headers.len() >= MAX_HEADERS {
        return Err(format!("there are more than {MAX_HEADERS} headers"));
    }
    let refused = || format!("header {name:?} is not valid");
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
    if OURS.contains(&header.as_str()) {
        return Err(format!("header {name:?} is the server's to set"));
    }
    // No control characters: what would start a line of its own never gets out.
    let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| refused())?;
    headers.append(header, value);
    Ok(())
}

/// The answer to a call that failed. The message of an error of the caller's is shown; what happened
/// inside of a function is for its owner, who finds it under the run's id.
pub fn failure(failure: &Failure, run: &str) -> Error {
    const BAD: StatusCode = StatusCode::BAD_GATEWAY;
    let (status, page) = match (&failure.cause, failure.kind) {
        (Cause::Handler, ErrorType::InputError) => (StatusCode::BAD_REQUEST, "input-error"),
        (Cause::Handler, ErrorType::FunctionError) => (BAD, "function-error"),
        (Cause::Timeout, _) => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
        (Cause::OutOfMemory, _) => (BAD, "out-of-memory"),
        (Cause::ForbiddenCall, _) => (BAD, "forbidden-call"),
        (Cause::Signal(_) | Cause::Exit(_), _) => (BAD, "worker-crashed"),
        (Cause::ProcessLimit, _) => (BAD, "process-limit"),
        (Cause::Protocol, _) => (BAD, "protocol-violation"),
        (Cause::Load, _) => (BAD, "handler-not-loaded"),
        (Cause::Overload { .. }, _) => (StatusCode::TOO_MANY_REQUESTS, "overloaded"),
        (Cause::Cancelled, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (Cause::System, ErrorType::InputError) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "secret-missing")
        }
        (Cause::Lost, _) => (StatusCode::INTERNAL_SERVER_ERROR, "worker-lost"),
        (Cause::Handler | Cause::System, _) => (StatusCode::INTERNAL_SERVER_ERROR, "system-error"),
    };
    let message = match status {
        StatusCode::BAD_REQUEST => failure.message.clone(),
        StatusCode::GATEWAY_TIMEOUT => format!("the function took too long (run {run})"),
        StatusCode::TOO_MANY_REQUESTS => {
            "too many calls wait for this function: try again".to_owned()
        }
        StatusCode::SERVICE_UNAVAILABLE => "the server is stopping: try again".to_owned(),
        _ => format!("the function failed: its owner finds the cause in run {run}"),
    };
    let mut error = Error::new(status, message).page(page);
    error.retry_after = match failure.cause {
        Cause::Overload { retry_after } => Some(retry_after),
        _ => None,
    };
    error
}

#[cfg(test)]
mod tests;
