//! Events as JSON.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};

use super::{ATTRIBUTES, CloudEvent, Data, Extension, SpecVersion, check};

/// How deep data may nest, so that whoever reads it can.
pub const MAX_DEPTH: usize = 127;

const OLD: [&str; 10] = [
    "cloudEventsVersion",
    "contentType",
    "data",
    "eventID",
    "eventTime",
    "eventType",
    "eventTypeVersion",
    "extensions",
    "schemaURL",
    "source",
];

type Members<'a> = BTreeMap<String, &'a RawValue>;

/// Reads one event. An object with `specversion` is one of 1.0, any other one of 0.1, unless only 1.0 is
/// `expected`.
pub(super) fn read(raw: &RawValue, expected: Option<SpecVersion>) -> Result<CloudEvent, String> {
    let members: Members<'_> =
        serde_json::from_str(raw.get()).map_err(|_| "it should be a JSON object".to_owned())?;
    let is_old = |key: &String| key.eq_ignore_ascii_case(OLD[0]);
    let event = if members.contains_key("specversion") {
        modern(members)?
    } else if expected == Some(SpecVersion::V1_0) && !members.keys().any(is_old) {
        return Err("specversion is required".into());
    } else {
        old(&members)?
    };
    check::check(&event)?;
    Ok(event)
}

/// Whether data of this content type is JSON.
pub(super) fn is_json(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else { return true };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.split_once('/').is_some_and(|(_, sub)| sub == "json" || sub.ends_with("+json"))
}

/// Whether data of this content type is text: in UTF-8, and meant for reading.
pub(super) fn is_text(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, sub)) = essence.split_once('/') else { return false };
    let last = sub.rsplit('+').next().unwrap_or_default();
    kind == "text" || matches!(last, "xml" | "yaml" | "x-yaml" | "toml" | "csv" | "x-ndjson")
}

/// JSON data, refused when it nests too deep.
pub(super) fn json_data(raw: &RawValue) -> Result<Data, String> {
    let (mut depth, mut text, mut escaped) = (0_usize, false, false);
    for byte in raw.get().bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = text,
            b'"' => text = !text,
            b'[' | b'{' if !text => depth += 1,
            b']' | b'}' if !text => depth -= 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!("data nests deeper than {MAX_DEPTH}"));
        }
    }
    Ok(Data::Json(raw.to_owned()))
}

/// The member `data`: text where the content type is not JSON and it is a string.
fn data(raw: &RawValue, content_type: Option<&str>) -> Result<Data, String> {
    if !is_json(content_type) && raw.get().starts_with('"') {
        return serde_json::from_str(raw.get()).map(Data::Text).map_err(|error| error.to_string());
    }
    json_data(raw)
}

pub(super) fn payload(data: Option<&Data>) -> Box<RawValue> {
    let text = match data {
        Some(Data::Json(raw)) => return raw.clone(),
        Some(Data::Text(text)) => to_raw_value(text),
        Some(Data::Binary(bytes)) => to_raw_value(&STANDARD.encode(bytes)),
        None => return RawValue::NULL.to_owned(),
    };
    text.unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn text(name: &str, raw: &RawValue) -> Result<String, String> {
    serde_json::from_str(raw.get()).map_err(|_| format!("{name} should be a text"))
}

fn modern(members: Members<'_>) -> Result<CloudEvent, String> {
    let mut event = CloudEvent::default();
    let (mut plain, mut encoded) = (None, None);
    for (name, raw) in members {
        if raw.get() == "null" {
            continue;
        }
        match name.as_str() {
            "specversion" => {
                if text(&name, raw)? != SpecVersion::V1_0.as_str() {
                    return Err(format!("specversion should be \"1.0\", not {:.32}", raw.get()));
                }
            }
            "id" => event.id = text(&name, raw)?,
            "source" => event.source = text(&name, raw)?,
            "type" => event.event_type = text(&name, raw)?,
            "subject" => event.subject = Some(text(&name, raw)?),
            "time" => event.time = Some(text(&name, raw)?),
            "datacontenttype" => event.data_content_type = Some(text(&name, raw)?),
            "dataschema" => event.data_schema = Some(text(&name, raw)?),
            "data" => plain = Some(raw),
            "data_base64" => encoded = Some(text(&name, raw)?),
            _ => {
                let value =
                    serde_json::from_str(raw.get()).map_err(|error| format!("{name}: {error}"))?;
                event.extensions.insert(name, value);
            }
        }
    }
    event.data = match (plain, encoded) {
        (Some(_), Some(_)) => return Err("it has both data and data_base64".into()),
        (Some(raw), None) => Some(data(raw, event.data_content_type.as_deref())?),
        (None, Some(text)) => {
            let bytes =
                STANDARD.decode(text).map_err(|_| "data_base64 is not base64".to_owned())?;
            Some(Data::Binary(bytes))
        }
        (None, None) => None,
    };
    Ok(event)
}

/// Members in any case; unknown ones are ignored; the words of the errors are those of the old server.
fn old(members: &Members<'_>) -> Result<CloudEvent, String> {
    let mut event = CloudEvent { spec_version: SpecVersion::V0_1, ..CloudEvent::default() };
    let mut found: BTreeMap<&str, &RawValue> = BTreeMap::new();
    for (key, raw) in members {
        let Some(name) = OLD.iter().find(|name| name.eq_ignore_ascii_case(key)) else { continue };
        // A member written exactly as it should be wins.
        if raw.get() != "null" && (key == name || !found.contains_key(name)) {
            found.insert(name, raw);
        }
    }
    let member = |name: &str| match found.get(name) {
        None => Ok(None),
        Some(raw) => serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|_| format!("{name} in body must be of type string: {:.64}", raw.get())),
    };
    match member("cloudEventsVersion")?.as_deref() {
        None | Some("") => return Err("cloudEventsVersion in body is required".into()),
        Some("0.1") => {}
        Some(_) => return Err("cloudEventsVersion in body should be one of [0.1]".into()),
    }
    event.data_content_type = member("contentType")?;
    event.id = member("eventID")?.unwrap_or_default();
    event.time = member("eventTime")?;
    event.event_type = member("eventType")?.unwrap_or_default();
    event.event_type_version = member("eventTypeVersion")?;
    event.data_schema = member("schemaURL")?;
    event.source = member("source")?.unwrap_or_default();
    if let Some(raw) = found.get("extensions") {
        event.extensions = serde_json::from_str(raw.get())
            .map_err(|_| "extensions in body must be of type object".to_owned())?;
        if event.extensions.is_empty() {
            return Err("extensions in body should have at least 1 properties".into());
        }
    }
    if let Some(raw) = found.get("data") {
        event.data = Some(data(raw, event.data_content_type.as_deref())?);
    }
    Ok(event)
}

/// An event without its data; see [`CloudEvent::context`].
#[derive(Clone, Copy, Debug)]
pub struct Context<'a>(pub(super) &'a CloudEvent);

impl Serialize for Context<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self.0, false, serializer)
    }
}

impl Serialize for CloudEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self, true, serializer)
    }
}

fn write<S: Serializer>(event: &CloudEvent, with_data: bool, to: S) -> Result<S::Ok, S::Error> {
    let is_old = event.spec_version == SpecVersion::V0_1;
    let name = |old: &'static str, modern: &'static str| if is_old { old } else { modern };
    let mut map = to.serialize_map(None)?;
    map.serialize_entry(name(OLD[0], ATTRIBUTES[0]), event.spec_version.as_str())?;
    map.serialize_entry(name("eventID", "id"), &event.id)?;
    map.serialize_entry("source", &event.source)?;
    map.serialize_entry(name("eventType", "type"), &event.event_type)?;
    for (name, value) in [
        ("eventTypeVersion", &event.event_type_version),
        ("subject", &event.subject),
        (name("eventTime", "time"), &event.time),
        (name("contentType", "datacontenttype"), &event.data_content_type),
        (name("schemaURL", "dataschema"), &event.data_schema),
    ] {
        if let Some(value) = value {
            map.serialize_entry(name, value)?;
        }
    }
    if !is_old {
        for (name, value) in &event.extensions {
            map.serialize_entry(name, value)?;
        }
    } else if !event.extensions.is_empty() {
        map.serialize_entry("extensions", &event.extensions)?;
    }
    match event.data.as_ref().filter(|_| with_data) {
        Some(Data::Json(raw)) => map.serialize_entry("data", raw),
        Some(Data::Text(text)) => map.serialize_entry("data", text),
        Some(Data::Binary(bytes)) => {
            let name = if is_old { "data" } else { "data_base64" };
            map.serialize_entry(name, &STANDARD.encode(bytes))
        }
        None if is_old && !with_data => map.serialize_entry("data", &()),
        None => Ok(()),
    }?;
    map.end()
}

/// Reads an event that [`CloudEvent`]'s `Serialize` wrote, with all checks. Only from JSON.
impl<'de> Deserialize<'de> for CloudEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CloudEvent, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        read(&raw, None).map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for CloudEvent {
    fn schema() -> RefOr<Schema> {
        let about =
            "An event of CloudEvents 1.0, or of 0.1 (eventType, eventID, cloudEventsVersion, …).";
        ObjectBuilder::new().description(Some(about)).into()
    }
}

impl utoipa::ToSchema for CloudEvent {}

impl From<&str> for Extension {
    fn from(text: &str) -> Extension {
        Extension::String(text.to_owned())
    }
}
