//! Events in HTTP messages: structured, in batches, and binary.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::value::RawValue;

use super::json::{is_json, json_data, read};
use super::{CloudEvent, Data, EventError, Extension, SpecVersion, check, json};

/// The content type of one event as JSON.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// The content type of a list of events as JSON.
pub const BATCH: &str = "application/cloudevents-batch+json";
/// The most events in one message.
pub const MAX_BATCH: usize = 1000;

const REQUIRED: [&str; 4] = ["id", "source", "specversion", "type"];

impl CloudEvent {
    /// The events of a message. The caller has bounded the sizes of headers and body.
    ///
    /// | content type | events |
    /// |---|---|
    /// | [`STRUCTURED`] | one object |
    /// | [`BATCH`] | a list of objects, which may be empty |
    /// | any other, with headers `ce-id`, `ce-source`, `ce-specversion`, `ce-type` | one, whose data is the body |
    /// | `application/json`, or none | objects, one after the other or in lists |
    ///
    /// # Errors
    /// When it is something else, or one of the events is wrong: then none is taken.
    pub fn from_http<'a>(
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        body: &[u8],
    ) -> Result<Vec<CloudEvent>, EventError> {
        let mut content_type = None;
        let mut attributes = BTreeMap::new();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            if name == "content-type" {
                let value = String::from_utf8_lossy(value).trim().to_owned();
                content_type = Some(value).filter(|value| !value.is_empty());
            } else if let Some(attribute) = name.strip_prefix("ce-") {
                let value = decode(value).ok_or_else(|| invalid(format!("{name} is not UTF-8")))?;
                if attributes.insert(attribute.to_owned(), value).is_some() {
                    return Err(invalid(format!("{name} is there twice")));
                }
            }
        }
        let essence = content_type.as_deref().unwrap_or_default();
        let essence = essence.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            STRUCTURED => Ok(vec![one(parse(body)?)?]),
            BATCH => several(&parse::<Vec<&RawValue>>(body)?, Some(SpecVersion::V1_0)),
            other if other.starts_with("application/cloudevents") => {
                Err(EventError::MediaType(essence))
            }
            _ if REQUIRED.iter().any(|name| attributes.contains_key(*name)) => {
                Ok(vec![binary(attributes, content_type, body).map_err(EventError::Invalid)?])
            }
            "application/json" | "" => stream(body),
            _ => Err(EventError::MediaType(essence)),
        }
    }

    /// The event in binary mode: headers, in lower case and with `content-type`, and the body. One of 0.1 goes
    /// as one of 1.0.
    pub fn to_http_binary(&self) -> (Vec<(String, String)>, Vec<u8>) {
        let event = self.to_v1();
        let mut headers = vec![
            ("ce-specversion".to_owned(), event.spec_version.as_str().to_owned()),
            ("ce-id".to_owned(), encode(&event.id)),
            ("ce-source".to_owned(), encode(&event.source)),
            ("ce-type".to_owned(), encode(&event.event_type)),
        ];
        for (name, value) in
            [("subject", &event.subject), ("time", &event.time), ("dataschema", &event.data_schema)]
        {
            if let Some(value) = value {
                headers.push((format!("ce-{name}"), encode(value)));
            }
        }
        for (name, value) in &event.extensions {
            headers.push((format!("ce-{name}"), encode(&value.to_string())));
        }
        let is_json = matches!(event.data, Some(Data::Json(_)));
        let content_type = event.data_content_type.or(is_json.then(|| "application/json".into()));
        if let Some(content_type) = content_type {
            headers.push(("content-type".into(), content_type));
        }
        let body = match event.data {
            Some(Data::Json(raw)) => raw.get().as_bytes().to_vec(),
            Some(Data::Text(text)) => text.into_bytes(),
            Some(Data::Binary(bytes)) => bytes,
            None => Vec::new(),
        };
        (headers, body)
    }

    /// The event as a JSON object, for [`STRUCTURED`]. One of 0.1 goes as one of 1.0.
    ///
    /// # Errors
    /// None that are known: its parts are JSON.
    pub fn to_http_structured(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&self.to_v1())
    }

    /// Events as a JSON list, for [`BATCH`]. Those of 0.1 go as ones of 1.0.
    ///
    /// # Errors
    /// None that are known: their parts are JSON.
    pub fn to_http_batch(events: &[CloudEvent]) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&events.iter().map(CloudEvent::to_v1).collect::<Vec<_>>())
    }
}

fn invalid(reason: impl Into<String>) -> EventError {
    EventError::Invalid(reason.into())
}

fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, EventError> {
    serde_json::from_slice(body).map_err(|error| EventError::Malformed(error.to_string()))
}

fn one(raw: &RawValue) -> Result<CloudEvent, EventError> {
    read(raw, Some(SpecVersion::V1_0)).map_err(EventError::Invalid)
}

fn several(
    all: &[&RawValue],
    expected: Option<SpecVersion>,
) -> Result<Vec<CloudEvent>, EventError> {
    if all.len() > MAX_BATCH {
        return Err(EventError::TooMany);
    }
    let number = |index: usize, reason: String| {
        if all.len() == 1 { reason } else { format!("event {}: {reason}", index + 1) }
    };
    all.iter()
        .enumerate()
        .map(|(index, raw)| read(raw, expected).map_err(|reason| invalid(number(index, reason))))
        .collect()
}

/// What clients and drivers of the old Dispatch send: an object, a list, or several of them.
fn stream(body: &[u8]) -> Result<Vec<CloudEvent>, EventError> {
    let mut all: Vec<&RawValue> = Vec::new();
    for value in serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>() {
        let value = value.map_err(|error| EventError::Malformed(error.to_string()))?;
        if value.get().starts_with('[') {
            all.extend(parse::<Vec<&RawValue>>(value.get().as_bytes())?);
        } else {
            all.push(value);
        }
        if all.len() > MAX_BATCH {
            return Err(EventError::TooMany);
        }
    }
    if all.is_empty() {
        return Err(EventError::Malformed("no events in the body".into()));
    }
    several(&all, None)
}

fn binary(
    mut attributes: BTreeMap<String, String>,
    content_type: Option<String>,
    body: &[u8],
) -> Result<CloudEvent, String> {
    for name in REQUIRED {
        if attributes.get(name).is_none_or(String::is_empty) {
            return Err(format!("header ce-{name} is required"));
        }
    }
    let mut take = |name: &str| attributes.remove(name);
    let version = take("specversion").unwrap_or_default();
    if version != SpecVersion::V1_0.as_str() {
        let version = check::short(&version);
        return Err(format!("header ce-specversion should be 1.0, not {version}"));
    }
    let mut event = CloudEvent {
        id: take("id").unwrap_or_default(),
        source: take("source").unwrap_or_default(),
        event_type: take("type").unwrap_or_default(),
        subject: take("subject"),
        time: take("time"),
        data_schema: take("dataschema"),
        data_content_type: content_type,
        ..CloudEvent::default()
    };
    event.extensions =
        attributes.into_iter().map(|(name, value)| (name, Extension::String(value))).collect();
    check::check(&event)?;
    event.data = Data::from_body(event.data_content_type.as_deref(), body)?;
    Ok(event)
}

impl Data {
    /// A body as data; nothing where it is empty. Without a content type it is JSON where it can be.
    ///
    /// # Errors
    /// It is not what its content type says.
    pub fn from_body(content_type: Option<&str>, body: &[u8]) -> Result<Option<Data>, String> {
        if body.is_empty() {
            return Ok(None);
        }
        if is_json(content_type) {
            match serde_json::from_slice::<&RawValue>(body) {
                Ok(raw) => return json_data(raw).map(Some),
                Err(error) if content_type.is_some() => {
                    return Err(format!("the body is not JSON, as its content type says: {error}"));
                }
                Err(_) => {}
            }
        }
        let is_text = content_type.is_some_and(json::is_text);
        Ok(Some(match std::str::from_utf8(body) {
            Ok(text) if is_text => Data::Text(text.to_owned()),
            _ => Data::Binary(body.to_vec()),
        }))
    }
}

/// A header's value as an attribute's: without quotes around it, percent-decoded once. An escape that is none
/// is left as it is, since senders exist that do not encode. Nothing when it is not UTF-8 then.
fn decode(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    let mut bytes = match value {
        [b'"', inner @ .., b'"'] => unquote(inner),
        plain => plain.to_vec(),
    };
    if bytes.contains(&b'%') {
        let digit =
            |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut decoded = Vec::with_capacity(bytes.len());
        let mut rest = bytes.as_slice();
        while let [first, after @ ..] = rest {
            let escape = match rest {
                [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
                _ => None,
            };
            let (byte, tail) = match escape {
                Some((high, low)) => (high << 4 | low, &rest[3..]),
                None => (*first, after),
            };
            decoded.push(byte);
            rest = tail;
        }
        bytes = decoded;
    }
    String::from_utf8(bytes).ok()
}

/// The inside of a quoted string of HTTP.
fn unquote(inner: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    let keep = |byte: &&u8| {
        escaped = **byte == b'\\' && !escaped;
        !escaped
    };
    inner.iter().filter(keep).copied().collect()
}

/// An attribute's value as a header's: printable ASCII but for `"` and `%` as it is, all else escaped.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
