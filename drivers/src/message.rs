//! Messages of brokers as events, and back.

use aws_lc_rs::digest;
use dispatch_api::CloudEvent;
use dispatch_api::cloud_event::{Data, MAX_ID, STRUCTURED};
use jiff::Timestamp;

use crate::{Emitter, Settings};

/// A message, as a broker gave it.
#[derive(Debug, Default)]
pub(crate) struct Message<'a> {
    /// What it is named by for ever, so that the same message becomes the same event.
    pub id: String,
    /// What the broker says of it: a topic, a subject, a key.
    pub subject: Option<&'a str>,
    /// When it was written, where the broker says so.
    pub time: Option<Timestamp>,
    /// Headers with names as the broker gives them.
    pub headers: Vec<(&'a str, &'a str)>,
    /// What it says its body is.
    pub content_type: Option<&'a str>,
    /// Its body.
    pub body: &'a [u8],
}

impl Message<'_> {
    /// The event that this message is. One that is a CloudEvent already, in structured or binary mode,
    /// stays what it is; any other becomes the data of a new one.
    pub fn into_event(self, emitter: &Emitter, event_type: &str) -> CloudEvent {
        if let Some(event) = self.as_event() {
            return event;
        }
        let data = data(self.content_type, self.body);
        let time = self.time.unwrap_or_else(Timestamp::now);
        let mut event = emitter.event(short(self.id), event_type, time, data);
        if let Some(kind) = self.content_type.filter(|_| event.data.is_some()) {
            event.data_content_type = Some(kind.to_owned());
        }
        event.subject = self.subject.filter(|text| !text.is_empty()).map(str::to_owned);
        if event.validate().is_err() {
            // What strangers write into such places must not keep the message out.
            event.data_content_type =
                matches!(event.data, Some(Data::Json(_))).then(|| "application/json".to_owned());
            event.subject = event.subject.map(|text| {
                text.chars().filter(|letter| !letter.is_control()).take(1000).collect()
            });
        }
        event
    }

    fn as_event(&self) -> Option<CloudEvent> {
        let structured = self.content_type.is_some_and(|kind| kind.starts_with(STRUCTURED));
        let names = ["ce-", "ce_", "cloudEvents:", "cloudEvents_"];
        let mut headers: Vec<(String, &[u8])> = (self.headers.iter())
            .filter_map(|(name, value)| {
                let name = names.iter().find_map(|prefix| name.strip_prefix(prefix))?;
                Some((format!("ce-{name}"), value.as_bytes()))
            })
            .collect();
        if !structured && headers.is_empty() {
            return None;
        }
        if let Some(kind) = self.content_type {
            headers.push(("content-type".to_owned(), kind.as_bytes()));
        }
        let headers = headers.iter().map(|(name, value)| (name.as_str(), *value));
        CloudEvent::from_http(headers, self.body).ok().filter(|all| all.len() == 1)?.pop()
    }
}

/// A body as data: JSON where it is, else text where it is, else bytes.
pub(crate) fn data(content_type: Option<&str>, body: &[u8]) -> Option<Data> {
    if body.is_empty() {
        return None;
    }
    let json = content_type.is_none_or(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.ends_with("/json") || kind.ends_with("+json")
    });
    if json && let Ok(raw) = serde_json::from_slice::<Box<serde_json::value::RawValue>>(body) {
        return Some(Data::Json(raw));
    }
    Some(match std::str::from_utf8(body) {
        Ok(text) => Data::Text(text.to_owned()),
        Err(_) => Data::Binary(body.to_vec()),
    })
}

/// An id that fits: the hash of one that is too long.
pub(crate) fn short(id: String) -> String {
    if id.len() <= MAX_ID && !id.chars().any(char::is_control) {
        return id;
    }
    hex(digest::digest(&digest::SHA256, id.as_bytes()).as_ref())
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a sink writes: the whole event as JSON, or its data alone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Format {
    Event,
    Data,
}

impl Format {
    /// What `--format` says.
    pub fn of(settings: &Settings) -> Format {
        match settings.get("format") {
            "data" => Format::Data,
            _ => Format::Event,
        }
    }

    /// The content type and the body.
    pub fn write(self, event: &CloudEvent) -> (String, Vec<u8>) {
        match self {
            Format::Event => {
                (STRUCTURED.to_owned(), event.to_http_structured().unwrap_or_default())
            }
            Format::Data => {
                let (headers, body) = event.to_http_binary();
                let kind = headers.into_iter().find(|(name, _)| name == "content-type");
                (kind.map_or_else(|| "application/octet-stream".into(), |(_, kind)| kind), body)
            }
        }
    }
}

/// A name for what is written of an event: the same for the same event, and safe in paths.
pub(crate) fn file_name(event: &CloudEvent) -> String {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let plain = event.id.len() <= 80 && event.id.bytes().all(safe);
    let both = format!("{}\n{}", event.source, event.id);
    let hash = hex(&digest::digest(&digest::SHA256, both.as_bytes()).as_ref()[..8]);
    if plain { format!("{}-{hash}.json", event.id) } else { format!("{hash}.json") }
}
