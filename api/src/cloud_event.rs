//! Events: CloudEvents 1.0, and those of 0.1 that the old Dispatch knew, in one type.
//!
//! An event is kept, shown and given to functions in the shape of the version it came in; where it leaves by
//! HTTP it is one of 1.0 ([`CloudEvent::to_v1`]).

mod check;
mod http;
mod json;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

pub use check::{
    MAX_ATTRIBUTE, MAX_EXTENSION_NAME, MAX_EXTENSIONS, MAX_ID, MAX_TYPE, MAX_TYPE_V0_1, is_old_type,
};
pub use http::{BATCH, MAX_BATCH, STRUCTURED};
pub use json::{Context, MAX_DEPTH};

/// The names that 1.0 gives a meaning; no extension may have one of them.
pub const ATTRIBUTES: [&str; 8] =
    ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];

/// The version of the specification that an event is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SpecVersion {
    /// 0.1, of the old Dispatch: `eventType`, `eventID`, …
    V0_1,
    /// 1.0.
    #[default]
    V1_0,
}

impl SpecVersion {
    /// As it stands in an event: `0.1`, `1.0`.
    pub fn as_str(self) -> &'static str {
        match self {
            SpecVersion::V0_1 => "0.1",
            SpecVersion::V1_0 => "1.0",
        }
    }
}

/// The value of an extension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Extension {
    /// A truth value.
    Boolean(bool),
    /// A whole number of 32 bits.
    Integer(i32),
    /// A text.
    String(String),
    /// Any other JSON. Only events of 0.1 have it.
    Json(Value),
}

/// As a header or a filter sees it.
impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extension::Boolean(value) => value.fmt(f),
            Extension::Integer(value) => value.fmt(f),
            Extension::String(value) => f.write_str(value),
            Extension::Json(value) => value.fmt(f),
        }
    }
}

/// What an event carries.
#[derive(Clone, Debug)]
pub enum Data {
    /// JSON, as it came.
    Json(Box<RawValue>),
    /// Text of another content type.
    Text(String),
    /// Anything else.
    Binary(Vec<u8>),
}

impl Data {
    /// JSON data of a value.
    ///
    /// # Errors
    /// When the value cannot be JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Data, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Data::Json)
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Data) -> bool {
        match (self, other) {
            (Data::Json(one), Data::Json(two)) => one.get() == two.get(),
            (Data::Text(one), Data::Text(two)) => one == two,
            (Data::Binary(one), Data::Binary(two)) => one == two,
            _ => false,
        }
    }
}

/// An event. Its JSON is in the shape of its own version of the specification.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloudEvent {
    /// `specversion`; 0.1: `cloudEventsVersion`.
    pub spec_version: SpecVersion,
    /// `id`, unique in the source; 0.1: `eventID`.
    pub id: String,
    /// `source`, a reference to what it happened in.
    pub source: String,
    /// `type`; 0.1: `eventType`.
    pub event_type: String,
    /// 0.1 only: `eventTypeVersion`.
    pub event_type_version: Option<String>,
    /// `subject`: what in the source it is about. Not in 0.1.
    pub subject: Option<String>,
    /// `time`, RFC 3339 as it came; 0.1: `eventTime`.
    pub time: Option<String>,
    /// `datacontenttype`; 0.1: `contentType`. JSON where absent.
    pub data_content_type: Option<String>,
    /// `dataschema`; 0.1: `schemaURL`.
    pub data_schema: Option<String>,
    /// Further attributes; 0.1: the members of `extensions`.
    pub extensions: BTreeMap<String, Extension>,
    /// What it carries.
    pub data: Option<Data>,
}

/// Why something is no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// A content type that no form of an event has: HTTP 415.
    #[error(
        "unsupported media type {0:?}, only [application/json {STRUCTURED} {BATCH}] are, or headers ce-id, \
         ce-source, ce-specversion and ce-type"
    )]
    MediaType(String),
    /// Not JSON: HTTP 400.
    #[error("Error parsing event: {0}")]
    Malformed(String),
    /// An attribute is missing or wrong: HTTP 400.
    #[error("Error validating event: {0}")]
    Invalid(String),
    /// More events at once than [`MAX_BATCH`]: HTTP 413.
    #[error("more than {MAX_BATCH} events at once: send several requests")]
    TooMany,
}

impl EventError {
    /// The HTTP status that answers it.
    pub fn status(&self) -> u16 {
        match self {
            EventError::MediaType(_) => 415,
            EventError::Malformed(_) | EventError::Invalid(_) => 400,
            EventError::TooMany => 413,
        }
    }
}

impl CloudEvent {
    /// An event of 1.0 that Dispatch makes itself.
    pub fn new(
        id: impl fmt::Display,
        source: impl Into<String>,
        event_type: impl Into<String>,
        time: Timestamp,
        data: Option<Data>,
    ) -> CloudEvent {
        let content_type = match &data {
            None => None,
            Some(Data::Json(_)) => Some("application/json"),
            Some(Data::Text(_)) => Some("text/plain; charset=utf-8"),
            Some(Data::Binary(_)) => Some("application/octet-stream"),
        };
        CloudEvent {
            id: id.to_string(),
            source: source.into(),
            event_type: event_type.into(),
            time: Some(time.to_string()),
            data_content_type: content_type.map(str::to_owned),
            data,
            ..CloudEvent::default()
        }
    }

    /// Checks the rules of the event's own version, and the bounds. What is read is checked already; this is
    /// for events that were put together.
    ///
    /// # Errors
    /// [`EventError::Invalid`], the first check that fails.
    pub fn validate(&self) -> Result<(), EventError> {
        check::check(self).map_err(EventError::Invalid)
    }

    /// An attribute or an extension by the name that 1.0 gives it, as text: what filters see. For an event of
    /// 0.1 these are the old members (`type` is `eventType`), `eventtypeversion`, and its extensions, under
    /// their own names and under those of [`CloudEvent::to_v1`].
    pub fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        let plain = match name {
            "specversion" => Some(self.spec_version.as_str()),
            "id" => Some(self.id.as_str()),
            "source" => Some(self.source.as_str()),
            "type" => Some(self.event_type.as_str()),
            "subject" => self.subject.as_deref(),
            "time" => self.time.as_deref(),
            "datacontenttype" => self.data_content_type.as_deref(),
            "dataschema" => self.data_schema.as_deref(),
            "eventtypeversion" if self.event_type_version.is_some() => {
                self.event_type_version.as_deref()
            }
            _ => return self.extension(name).map(Cow::Owned),
        };
        plain.map(Cow::Borrowed)
    }

    fn extension(&self, name: &str) -> Option<String> {
        let own = self.extensions.get(name);
        let found = own.or_else(|| {
            let old = self.spec_version == SpecVersion::V0_1;
            let mut all = self.extensions.iter().filter(|_| old);
            all.find(|(key, _)| modern_name(key) == name).map(|(_, value)| value)
        });
        found.map(Extension::to_string)
    }

    /// The same event in 1.0. Names of extensions lose what 1.0 does not allow in them (`callback-url` becomes
    /// `callbackurl`), those that would be an attribute's get `ext` in front, and of several that become the
    /// same the first by name stays. Values that are neither text, number nor truth value become their JSON.
    /// White space in the source becomes `%20`; a content type or a schema that is none is left out.
    #[must_use]
    pub fn to_v1(&self) -> CloudEvent {
        let mut event = self.clone();
        if self.spec_version == SpecVersion::V1_0 {
            return event;
        }
        event.spec_version = SpecVersion::V1_0;
        event.source = event.source.split(char::is_whitespace).collect::<Vec<_>>().join("%20");
        event.data_schema = event.data_schema.filter(|schema| check::is_uri(schema));
        event.data_content_type = event.data_content_type.filter(|kind| check::is_media_type(kind));
        if event.data_content_type.is_none() && matches!(event.data, Some(Data::Text(_))) {
            event.data_content_type = Some("text/plain; charset=utf-8".into());
        }
        event.extensions.clear();
        if let Some(version) = event.event_type_version.take() {
            event.extensions.insert("eventtypeversion".into(), Extension::String(version));
        }
        for (name, value) in &self.extensions {
            let name = modern_name(name);
            if name.is_empty() || *value == Extension::Json(Value::Null) {
                continue;
            }
            if let btree_map::Entry::Vacant(free) = event.extensions.entry(name) {
                free.insert(match value {
                    Extension::Json(value) => Extension::String(value.to_string()),
                    plain => plain.clone(),
                });
            }
        }
        event
    }

    /// What a function sees as `context.event`: the event in its own shape, without its data, which is the
    /// payload. An event of 0.1 has `"data": null`, as it always had.
    pub fn context(&self) -> Context<'_> {
        Context(self)
    }

    /// The data as a function receives it: JSON as it is, text as a JSON string, bytes as a string in base64,
    /// nothing as `null`.
    pub fn payload(&self) -> Box<RawValue> {
        json::payload(self.data.as_ref())
    }
}

/// What an extension of 0.1 is named in 1.0.
fn modern_name(name: &str) -> String {
    let mut plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    plain.make_ascii_lowercase();
    if ATTRIBUTES.contains(&plain.as_str()) || plain == "data" {
        plain.insert_str(0, "ext");
    }
    plain.truncate(MAX_EXTENSION_NAME);
    plain
}
