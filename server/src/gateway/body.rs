//! From a request's body and query to the payload of a call.

use std::fmt;

use axum::http::{HeaderMap, Method, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

use crate::problem::Error;

/// Fields of a form and of a query, each: values are counted, not names.
const MAX_FIELDS: usize = 1000;
/// Characters of a parser's reason in an answer.
const MAX_REASON: usize = 200;

/// Types besides `text/*` whose bytes are text.
const TEXT: &[&str] = &[
    "application/graphql",
    "application/javascript",
    "application/sql",
    "application/toml",
    "application/x-ndjson",
    "application/x-yaml",
    "application/xml",
    "application/yaml",
];

/// Names and values in the order they came; a name may be there several times.
pub type Fields = Vec<(String, Value)>;

/// How a body becomes a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Form,
    Multipart,
    Text,
    Base64,
    Binary,
}

impl Format {
    /// Reads a media type; its parameters do not matter here. None where it is malformed.
    fn of(kind: &str) -> Option<Format> {
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence == "json" {
            return Some(Format::Json);
        }
        let (class, subtype) = essence.split_once('/')?;
        if !is_token(class) || !is_token(subtype) {
            return None;
        }
        Some(match essence.as_str() {
            "application/json" => Format::Json,
            "application/x-www-form-urlencoded" => Format::Form,
            "multipart/form-data" => Format::Multipart,
            "application/base64" => Format::Base64,
            text if class == "text" || TEXT.contains(&text) => Format::Text,
            _ => match subtype.rsplit_once('+') {
                Some((_, "json")) => Format::Json,
                Some((_, "xml" | "yaml")) => Format::Text,
                _ => Format::Binary,
            },
        })
    }
}

/// A token of <https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2>.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// The payload, as JSON text. `query` are the fields of the query.
///
/// # Errors
/// 400 for a body that is not what its type says or whose type is malformed, 413 for too many
/// fields.
pub async fn payload(
    method: &Method,
    query: Fields,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Bytes, Error> {
    let bodyless = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if bodyless || (body.is_empty() && method == Method::DELETE) {
        return Ok(Value::Object(object(query)).to_string().into());
    }
    if body.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    let kind = headers.get(header::CONTENT_TYPE).map_or(b"".as_slice(), |kind| kind.as_bytes());
    let kind = String::from_utf8_lossy(kind);
    let format = match kind.trim() {
        "" => Format::Binary,
        kind => Format::of(kind).ok_or_else(|| {
            Error::bad_request(format!("request body type is not supported: {kind}"))
        })?,
    };
    let value = match format {
        Format::Json => return json_text(body),
        Format::Form => form(fields(&body)?, query),
        Format::Multipart => form(multipart(&kind, body).await?, query),
        Format::Text => json!(
            std::str::from_utf8(&body)
                .map_err(|_| Error::bad_request("request body is not text in UTF-8"))?
        ),
        Format::Base64 => json!(STANDARD.encode(base64_text(&body)?)),
        Format::Binary => json!(STANDARD.encode(&body)),
    };
    Ok(value.to_string().into())
}

/// JSON goes to the function as it came.
fn json_text(body: Bytes) -> Result<Bytes, Error> {
    // Not a looser check: what passes here is read again, and nesting is bounded.
    match serde_json::from_slice::<Checked>(&body) {
        Ok(_) => Ok(body),
        Err(_) => Err(Error::bad_request("request body is not json")),
    }
}

/// A value that is read as any other and kept nowhere.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Checked, D::Error> {
        deserializer.deserialize_any(Checked)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Checked;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Checked, A::Error> {
        while list.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checked, A::Error> {
        while map.next_entry::<Checked, Checked>()?.is_some() {}
        Ok(Checked)
    }
}

fn base64_text(body: &[u8]) -> Result<Vec<u8>, Error> {
    let text: Vec<u8> =
        body.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    STANDARD.decode(text).map_err(|_| Error::bad_request("request body is not base64"))
}

/// The body's fields come before those of the query.
fn form(mut body: Fields, query: Fields) -> Value {
    body.extend(query);
    Value::Object(object(body))
}

/// An object in which a name that is there several times has a list.
fn object(fields: Fields) -> Map<String, Value> {
    lists(fields)
        .into_iter()
        .map(|(name, value)| match value {
            Value::Array(mut values) if values.len() == 1 => (name, values.remove(0)),
            value => (name, value),
        })
        .collect()
}

/// An object in which every name has a list.
pub fn lists(fields: Fields) -> Map<String, Value> {
    let mut lists: Map<String, Value> = Map::new();
    for (name, value) in fields {
        if let Value::Array(list) = lists.entry(name).or_insert_with(|| json!([])) {
            list.push(value);
        }
    }
    lists
}

fn too_many() -> Error {
    let text = format!("the request has more than {MAX_FIELDS} fields");
    Error::new(StatusCode::PAYLOAD_TOO_LARGE, text)
}

/// The fields of a query or of a form.
///
/// # Errors
/// 413 for too many.
pub fn fields(text: &[u8]) -> Result<Fields, Error> {
    let mut pairs = url::form_urlencoded::parse(text);
    let fields =
        pairs.by_ref().take(MAX_FIELDS).map(|(name, value)| (name.into_owned(), json!(value)));
    let fields = fields.collect();
    if pairs.next().is_some() { Err(too_many()) } else { Ok(fields) }
}

/// The fields of a multipart form; files become objects with their name, type and base64 content.
async fn multipart(kind: &str, body: Bytes) -> Result<Fields, Error> {
    let broken =
        |what: &str| Error::bad_request(format!("request body is not a multipart form: {what}"));
    // The reason may quote names, which may be as long as the body.
    let refused = |error: multer::Error| {
        broken(&error.to_string().chars().take(MAX_REASON).collect::<String>())
    };
    let boundary = multer::parse_boundary(kind).map_err(refused)?;
    let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(body)]);
    let mut form = multer::Multipart::new(stream, boundary);
    let mut fields = Fields::new();
    while let Some(field) = form.next_field().await.map_err(refused)? {
        if fields.len() == MAX_FIELDS {
            return Err(too_many());
        }
        let name = field.name().ok_or_else(|| broken("a part has no name"))?.to_owned();
        let file = field.file_name().map(str::to_owned);
        let kind = field.content_type().map(ToString::to_string);
        let content = field.bytes().await.map_err(refused)?;
        let value = match file {
            Some(file) => json!({
                "filename": file,
                "contentType": kind.unwrap_or_else(|| "application/octet-stream".to_owned()),
                "content": STANDARD.encode(&content),
            }),
            None => json!(String::from_utf8_lossy(&content)),
        };
        fields.push((name, value));
    }
    Ok(fields)
}

/// For the fuzzer: reads a content type from the first line and takes the rest as a body. Whatever
/// comes, the payload is JSON or the request is refused.
pub async fn fuzz(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (kind, body) = data.split_at(end);
    let mut headers = HeaderMap::new();
    if let Ok(kind) = header::HeaderValue::from_bytes(kind) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    let body = Bytes::copy_from_slice(body.get(1..).unwrap_or_default());
    let query = vec![("a".to_owned(), json!("b"))];
    if let Ok(payload) = payload(&Method::POST, query, &headers, body).await {
        assert!(serde_json::from_slice::<Value>(&payload).is_ok(), "the payload is not JSON");
    }
}

#[cfg(test)]
mod tests;
