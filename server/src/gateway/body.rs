//! From a request's body and query to the payload of a call.

use axum::http::{HeaderMap, Method, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::problem::Error;

/// Fields of a form or a query.
const MAX_FIELDS: usize = 1000;

/// Types whose bytes reach the function in base64.
const BINARY: &[&str] = &[
    "application/octet-stream",
    "application/base64",
    "application/pdf",
    "application/zip",
    "application/gzip",
    "application/x-tar",
    "application/x-gzip",
    "application/wasm",
    "application/msgpack",
    "application/protobuf",
    "application/x-protobuf",
];

/// The payload, as JSON text.
///
/// # Errors
/// 400 for a body that is not what its type says, or of a type that cannot be a payload.
pub async fn payload(
    method: &Method,
    query: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Bytes, Error> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = match kind {
        None => None,
        Some(value) => Some(value.to_str().map_err(|_| unsupported("?"))?),
    };
    let bodyless = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if bodyless || (body.is_empty() && method == Method::DELETE) {
        return Ok(json!(fields(query.as_bytes(), Map::new())?).to_string().into());
    }
    if body.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    let Some(full) = kind else {
        return Ok(json!(STANDARD.encode(&body)).to_string().into());
    };
    let essence = full.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (class, subtype) = essence.split_once('/').unwrap_or((&essence, ""));
    let value = match (class, subtype) {
        ("json", "") => return json_text(body),
        ("application", "json") => return json_text(body),
        ("application", subtype) if subtype.ends_with("+json") => return json_text(body),
        ("application", "x-www-form-urlencoded") => {
            Value::Object(fields(&body, fields(query.as_bytes(), Map::new())?)?)
        }
        ("multipart", "form-data") => {
            Value::Object(multipart(full, body, fields(query.as_bytes(), Map::new())?).await?)
        }
        ("text", _) | ("application", "xml" | "yaml" | "javascript") => {
            json!(
                std::str::from_utf8(&body)
                    .map_err(|_| { Error::bad_request("request body is not text in UTF-8") })?
            )
        }
        ("image" | "audio" | "video" | "font", _) => json!(STANDARD.encode(&body)),
        _ if BINARY.contains(&essence.as_str()) => json!(STANDARD.encode(&body)),
        _ => return Err(unsupported(full)),
    };
    Ok(value.to_string().into())
}

fn unsupported(kind: &str) -> Error {
    Error::bad_request(format!("request body type is not supported: {kind}"))
}

/// JSON goes to the function as it came.
fn json_text(body: Bytes) -> Result<Bytes, Error> {
    match serde_json::from_slice::<Value>(&body) {
        Ok(_) => Ok(body),
        Err(_) => Err(Error::bad_request("request body is not json")),
    }
}

/// Adds a field; several values of one name become a list.
fn add(fields: &mut Map<String, Value>, name: String, value: Value) -> Result<(), Error> {
    if fields.len() >= MAX_FIELDS && !fields.contains_key(&name) {
        let text = format!("the request has more than {MAX_FIELDS} fields");
        return Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    match fields.get_mut(&name) {
        None => {
            fields.insert(name, value);
        }
        Some(Value::Array(values)) => values.push(value),
        Some(one) => *one = json!([one.take(), value]),
    }
    Ok(())
}

/// The fields of a query or of a form.
pub(super) fn fields(
    text: &[u8],
    mut fields: Map<String, Value>,
) -> Result<Map<String, Value>, Error> {
    for (name, value) in url::form_urlencoded::parse(text) {
        add(&mut fields, name.into_owned(), json!(value))?;
    }
    Ok(fields)
}

/// The fields of a multipart form; files become objects with their name, type and base64 content.
async fn multipart(
    kind: &str,
    body: Bytes,
    mut fields: Map<String, Value>,
) -> Result<Map<String, Value>, Error> {
    let broken = |error: multer::Error| {
        Error::bad_request(format!("request body is not a multipart form: {error}"))
    };
    let boundary = multer::parse_boundary(kind).map_err(broken)?;
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(body)]);
    let mut form = multer::Multipart::new(stream, boundary);
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or_default().to_owned();
        let file = field.file_name().map(str::to_owned);
        let kind = field.content_type().map(ToString::to_string);
        let content = field.bytes().await.map_err(broken)?;
        let value = match file {
            Some(file) => json!({
                "filename": file,
                "contentType": kind.unwrap_or_else(|| "application/octet-stream".to_owned()),
                "content": STANDARD.encode(&content),
            }),
            None => json!(String::from_utf8_lossy(&content)),
        };
        add(&mut fields, name, value)?;
    }
    Ok(fields)
}

/// For the fuzzer: reads a content type from the first line and takes the rest as a body. Whatever
/// comes, the payload is JSON or the request is refused.
pub async fn fuzz(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (kind, body) = data.split_at(end);
    let mut headers = HeaderMap::new();
    if let Ok(kind) = header::HeaderValue::from_bytes(kind) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    let body = Bytes::copy_from_slice(body);
    if let Ok(payload) = payload(&Method::POST, "a=b", &headers, body).await {
        assert!(serde_json::from_slice::<Value>(&payload).is_ok(), "the payload is not JSON");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    async fn post(kind: Option<&str>, body: &[u8]) -> Result<Value, Error> {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        }
        let body = Bytes::copy_from_slice(body);
        let payload = payload(&Method::POST, "q=1", &headers, body).await?;
        Ok(serde_json::from_slice(&payload).unwrap())
    }

    #[tokio::test]
    async fn each_type_has_its_payload() {
        let form = "application/x-www-form-urlencoded";
        let multipart = "multipart/form-data; boundary=X";
        let parts = b"--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
            --X\r\nContent-Disposition: form-data; name=\"f\"; filename=\"n.txt\"\r\n\
            Content-Type: text/plain\r\n\r\nhi\r\n--X--\r\n";
        for (kind, body, wanted) in [
            (Some("application/json"), &b"[1, 2]"[..], json!([1, 2])),
            (Some("Application/JSON; charset=utf-8"), b"42", json!(42)),
            (Some("application/cloudevents+json"), b"{}", json!({})),
            (
                Some(form),
                b"name=VMware&place=Palo+Alto&n=1&n=2",
                json!({"q": "1", "name": "VMware", "place": "Palo Alto", "n": ["1", "2"]}),
            ),
            (Some("text/csv"), b"a,b", json!("a,b")),
            (Some("image/png"), b"\x89", json!("iQ==")),
            (Some("application/octet-stream"), b"hi", json!("aGk=")),
            (None, b"hi", json!("aGk=")),
            (Some("application/json"), b"", json!({})),
            (
                Some(multipart),
                parts,
                json!({"q": "1", "a": "1",
                "f": {"filename": "n.txt", "contentType": "text/plain", "content": "aGk="}}),
            ),
        ] {
            assert_eq!(post(kind, body).await.unwrap(), wanted, "{kind:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_a_payload_is_refused_in_the_old_words() {
        for (kind, body, wanted) in [
            ("application/json", &b"{"[..], "request body is not json"),
            (
                "unsupported-content-type",
                b"x",
                "request body type is not supported: unsupported-content-type",
            ),
            ("text/plain", b"\xff", "request body is not text in UTF-8"),
        ] {
            let error = post(Some(kind), body).await.unwrap_err();
            assert_eq!((error.status.as_u16(), error.problem.message.as_str()), (400, wanted));
        }
        assert!(post(Some("multipart/form-data"), b"x").await.is_err());
        let deep = "[".repeat(10_000);
        assert!(post(Some("application/json"), deep.as_bytes()).await.is_err());
        let many = (0..2000).map(|n| format!("f{n}=1")).collect::<Vec<_>>().join("&");
        let form = Some("application/x-www-form-urlencoded");
        assert_eq!(post(form, many.as_bytes()).await.unwrap_err().status.as_u16(), 413);
    }

    proptest! {
        #[test]
        fn strange_bytes_are_a_payload_or_refused(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(fuzz(&data));
            runtime.block_on(fuzz(&[b"multipart/form-data; boundary=X\n--X\r\n", &data[..]].concat()));
        }
    }
}
