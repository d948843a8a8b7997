//! From the outcome of a call to an HTTP response.

use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dispatch_api::{ErrorType, Problem};
use dispatch_runner::{Cause, Failure};
use http_body_util::Full;
use serde_json::Value;

/// A response with its whole body.
pub type Answer = Response<Full<Bytes>>;

/// Keys of an envelope. An object with any other key is a plain result.
const ENVELOPE: &[&str] =
    &["statusCode", "headers", "multiValueHeaders", "cookies", "body", "isBase64Encoded"];
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
/// Headers a function may set.
const MAX_HEADERS: usize = 100;

/// A JSON answer.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

/// An error answer.
pub fn problem(status: StatusCode, problem: &Problem) -> Answer {
    json(status, serde_json::to_vec(problem).unwrap_or_default())
}

/// The answer to a call that gave a result.
pub fn success(output: &Bytes) -> Answer {
    let text = output.trim_ascii();
    if matches!(text, b"null" | b"\"\"" | b"") {
        return Response::new(Full::default());
    }
    // Most results are no envelope: only objects that mention one are looked into.
    if text.first() == Some(&b'{')
        && text.windows(12).any(|window| window == b"\"statusCode\"")
        && let Ok(Value::Object(object)) = serde_json::from_slice::<Value>(text)
        && object.get("statusCode").is_some_and(Value::is_i64)
        && object.keys().all(|key| ENVELOPE.contains(&key.as_str()))
    {
        return envelope(&object).unwrap_or_else(|reason| {
            tracing::debug!(reason, "a function answered an envelope that is not valid");
            let text = format!("the function's answer is not a valid HTTP response: {reason}");
            problem(StatusCode::BAD_GATEWAY, &Problem::new(502, text))
        });
    }
    let mut body = Vec::with_capacity(output.len() + 1);
    body.extend_from_slice(output);
    body.push(b'\n');
    json(StatusCode::OK, body)
}

fn envelope(object: &serde_json::Map<String, Value>) -> Result<Answer, String> {
    let status = object["statusCode"].as_i64().and_then(|code| u16::try_from(code).ok());
    let status = status
        .filter(|status| (200..=599).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or("statusCode is not between 200 and 599")?;
    let encoded = object.get("isBase64Encoded").is_some_and(|value| value == true);
    let (body, kind) = match object.get("body") {
        None | Some(Value::Null) => (Bytes::new(), None),
        Some(Value::String(text)) if encoded => {
            let bytes = STANDARD.decode(text).map_err(|_| "body is not base64")?;
            (Bytes::from(bytes), Some("application/octet-stream"))
        }
        Some(Value::String(text)) => (Bytes::from(text.clone()), Some("text/plain; charset=utf-8")),
        Some(other) => (Bytes::from(other.to_string()), Some("application/json")),
    };
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for group in ["headers", "multiValueHeaders"] {
        let Some(group) = object.get(group) else { continue };
        let Value::Object(group) = group else {
            return Err("headers are not an object".to_owned());
        };
        for (name, value) in group {
            for value in texts(value).ok_or_else(|| format!("header {name:?} is not a text"))? {
                add(headers, name, &value)?;
            }
        }
    }
    if let Some(cookies) = object.get("cookies") {
        for cookie in texts(cookies).ok_or("cookies are not texts")? {
            add(headers, "set-cookie", &cookie)?;
        }
    }
    if let Some(kind) = kind
        && !headers.contains_key(header::CONTENT_TYPE)
    {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    Ok(answer)
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

fn add(headers: &mut axum::http::HeaderMap, name: &str, value: &str) -> Result<(), String> {
    if headers.len() >= MAX_HEADERS {
        return Err(format!("there are more than {MAX_HEADERS} headers"));
    }
    let refused = || format!("header {name:?} is not valid");
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused())?;
    if OURS.contains(&header.as_str()) {
        return Err(format!("header {name:?} is the server's to set"));
    }
    // No control characters: what would start a line of its own never gets out.
    let value = HeaderValue::from_str(value)
        .or_else(|_| HeaderValue::from_bytes(value.as_bytes()))
        .map_err(|_| refused())?;
    headers.append(header, value);
    Ok(())
}

/// The answer to a call that failed. The message of an error of the caller's is shown; what happened
/// inside of a function is for its owner, who finds it under the run's id.
pub fn failure(failure: &Failure, run: &str) -> Answer {
    let (status, page) = match (&failure.cause, failure.kind) {
        (Cause::Handler, ErrorType::InputError) => (StatusCode::BAD_REQUEST, "input-error"),
        (Cause::Handler, ErrorType::FunctionError) => (StatusCode::BAD_GATEWAY, "function-error"),
        (Cause::Timeout, _) => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
        (Cause::OutOfMemory, _) => (StatusCode::BAD_GATEWAY, "out-of-memory"),
        (Cause::Signal(_) | Cause::Exit(_), _) => (StatusCode::BAD_GATEWAY, "worker-crashed"),
        (Cause::Protocol, _) => (StatusCode::BAD_GATEWAY, "protocol-violation"),
        (Cause::Overload { .. }, _) => (StatusCode::TOO_MANY_REQUESTS, "overloaded"),
        (Cause::Cancelled, _) => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        (Cause::Load, _) => (StatusCode::BAD_GATEWAY, "handler-not-loaded"),
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
    let mut body = Problem::new(i64::from(status.as_u16()), message);
    body.error = Some(page.to_owned());
    let mut answer = problem(status, &body);
    if let Cause::Overload { retry_after } = failure.cause {
        let seconds = HeaderValue::from(retry_after.as_secs().max(1));
        answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    async fn text(answer: Answer) -> String {
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn of(value: &Value) -> Answer {
        success(&Bytes::from(value.to_string()))
    }

    #[tokio::test]
    async fn plain_results_are_json_and_nothing_is_nothing() {
        let answer = of(&json!({"a": 1}));
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(text(answer).await, "{\"a\":1}\n");
        for nothing in [json!(null), json!("")] {
            let answer = of(&nothing);
            assert_eq!((answer.status(), text(answer).await.as_str()), (StatusCode::OK, ""));
        }
        let other = json!({"statusCode": 201, "body": "x", "more": 1});
        assert_eq!(of(&other).status(), StatusCode::OK, "not an envelope: another key");
    }

    #[tokio::test]
    async fn an_envelope_decides_everything_about_the_answer() {
        let answer = of(&json!({"statusCode": 201, "headers": {"X-A": "1", "x-b": ["1", "2"]},
            "cookies": ["a=b", "c=d"], "body": {"k": 1}}));
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(answer.headers().get_all("x-b").iter().count(), 2);
        assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 2);
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(text(answer).await, "{\"k\":1}");
        let answer = of(&json!({"statusCode": 200, "isBase64Encoded": true, "body": "aGk=",
            "headers": {"content-type": "image/png"}}));
        assert_eq!(answer.headers()["content-type"], "image/png");
        assert_eq!(text(answer).await, "hi");
    }

    #[tokio::test]
    async fn an_envelope_cannot_forge_the_connection() {
        for bad in [
            json!({"statusCode": 200, "headers": {"x": "a\r\nset-cookie: b"}}),
            json!({"statusCode": 200, "headers": {"x\r\ny": "a"}}),
            json!({"statusCode": 200, "headers": {"Transfer-Encoding": "chunked"}}),
            json!({"statusCode": 200, "headers": {"Content-Length": "0"}}),
            json!({"statusCode": 200, "cookies": ["a\nb"]}),
            json!({"statusCode": 99}),
            json!({"statusCode": 101}),
            json!({"statusCode": 99999}),
            json!({"statusCode": 200, "isBase64Encoded": true, "body": "%"}),
        ] {
            assert_eq!(of(&bad).status(), StatusCode::BAD_GATEWAY, "{bad}");
        }
    }

    #[tokio::test]
    async fn failures_keep_the_insides_of_functions_to_themselves() {
        let with = |kind, cause| Failure {
            kind,
            cause,
            message: "an inner detail".to_owned(),
            stacktrace: vec!["line".to_owned()],
        };
        let overload = Cause::Overload { retry_after: std::time::Duration::from_secs(2) };
        for (kind, cause, status) in [
            (ErrorType::InputError, Cause::Handler, 400),
            (ErrorType::FunctionError, Cause::Handler, 502),
            (ErrorType::FunctionError, Cause::Timeout, 504),
            (ErrorType::FunctionError, Cause::Signal(11), 502),
            (ErrorType::SystemError, overload, 429),
            (ErrorType::SystemError, Cause::System, 500),
        ] {
            let answer = failure(&with(kind, cause.clone()), "id");
            assert_eq!(answer.status().as_u16(), status, "{cause:?}");
            let shown = text(answer).await;
            assert_eq!(shown.contains("an inner detail"), status == 400, "{shown}");
        }
    }

    proptest! {
        #[test]
        fn headers_of_functions_never_hold_line_ends(name in ".{0,10}", value in "[\\x00-\\xff]{0,20}") {
            let answer = of(&json!({"statusCode": 200, "headers": {name: value}}));
            for value in answer.headers().values() {
                prop_assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
            }
        }
    }
}
