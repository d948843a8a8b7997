//! `dispatch emit`.

use std::path::Path;

use dispatch_api::cloud_event::{BATCH, Data, Extension, MAX_BATCH, STRUCTURED, SpecVersion};
use dispatch_api::{CloudEvent, Receipt};
use jiff::Timestamp;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Session;
use crate::args::{Emit, Spec};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::input;
use crate::output::{self, Show};

/// Bytes of events that are sent in one request, as long as there is more than one.
const MAX_BYTES: usize = 4 << 20;
const BOTH: &str = "Error reading event data: --data and --data-from-file are mutually exclusive, \
                    specify only one of them";

/// Emits an event, or those of a file.
///
/// # Errors
/// What is wrong with the flags or the file, or what the server says.
pub async fn run(session: &Session, args: Emit) -> Result {
    if let Some(file) = &args.batch_file {
        return batch(session, file).await;
    }
    let event = event(args)?;
    let kind = match event.spec_version {
        SpecVersion::V0_1 => "application/json",
        SpecVersion::V1_0 => STRUCTURED,
    };
    let body = serde_json::to_vec(&event)
        .map_err(|error| Error::local(format!("Error writing the event: {error}")))?;
    let receipt = session.client.emit(kind, body).await?;
    let message = match receipt.duplicates {
        0 => "event emitted",
        _ => "event was emitted before, and is not delivered again",
    };
    output::done(message, &receipt, &session.settings)
}

fn event(args: Emit) -> Result<CloudEvent> {
    let spec_version = match args.spec_version {
        Some(Spec::V1_0) => SpecVersion::V1_0,
        None if args.subject.is_some() => SpecVersion::V1_0,
        _ => SpecVersion::V0_1,
    };
    if spec_version == SpecVersion::V0_1 && args.subject.is_some() {
        return Err(Error::local("events of 0.1 have no --subject: use --spec-version 1.0"));
    }
    if spec_version == SpecVersion::V1_0 && args.event_type_version.is_some() {
        let text = "events of 1.0 have no --event-type-version: make it a part of the type, or an \
                    --extension";
        return Err(Error::local(text));
    }
    let mut event = CloudEvent {
        spec_version,
        id: given(args.event_id).unwrap_or_else(|| Uuid::new_v4().to_string()),
        source: args.source_id,
        event_type: args.event_type.unwrap_or_default(),
        event_type_version: given(args.event_type_version),
        subject: given(args.subject),
        time: Some(Timestamp::now().to_string()),
        data_content_type: given(args.content_type),
        data_schema: given(args.event_schema_url),
        ..CloudEvent::default()
    };
    for text in args.extension {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            Error::local(format!("invalid argument {text:?} for \"--extension\": use KEY=VALUE"))
        })?;
        event.extensions.insert(key.to_owned(), Extension::String(value.to_owned()));
    }
    match (given(args.data), given(args.data_from_file)) {
        (Some(_), Some(_)) => return Err(Error::local(BOTH)),
        (Some(json), None) => {
            event.data_content_type = Some("application/json".to_owned());
            event.data = data(&event, "--data", json.as_bytes())?;
        }
        (None, Some(file)) => {
            let bytes = read(&file)?;
            event.data_content_type.get_or_insert_with(|| sniff(&bytes, args.binary));
            event.data = match args.binary {
                true => Some(Data::Binary(bytes)),
                false => data(&event, &file, &bytes)?,
            };
        }
        (None, None) => {}
    }
    Ok(event)
}

/// An empty text is as none, as it always was.
fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn data(event: &CloudEvent, place: &str, bytes: &[u8]) -> Result<Option<Data>> {
    Data::from_body(event.data_content_type.as_deref(), bytes)
        .map_err(|error| Error::local(format!("Error reading event data: {place}: {error}")))
}

fn read(file: &str) -> Result<Vec<u8>> {
    match file {
        "-" => input::stdin(),
        file => input::read(Path::new(file))
            .map_err(|cause| Error::local(format!("Error reading event data: {cause}"))),
    }
}

/// The media type of a file of which nothing is known.
fn sniff(bytes: &[u8], binary: bool) -> String {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !binary && !text.contains('\0'));
    let kind = match text {
        None => "application/octet-stream",
        Some(text) if serde_json::from_str::<&RawValue>(text).is_ok() => "application/json",
        Some(_) => "text/plain; charset=utf-8",
    };
    kind.to_owned()
}

/// Sends the events of a file in as few requests as may be.
async fn batch(session: &Session, file: &str) -> Result {
    let bytes = read(file)?;
    let wrong = |error| Error::local(format!("Error reading events: {file}: {error}"));
    let events = events(&bytes).map_err(wrong)?;
    let mut total = Receipt::default();
    for part in parts(&events) {
        let body = serde_json::to_vec(part)
            .map_err(|error| Error::local(format!("Error writing events: {error}")))?;
        match session.client.emit(BATCH, body).await {
            Ok(receipt) => {
                total.events += receipt.events;
                total.deliveries += receipt.deliveries;
                total.duplicates += receipt.duplicates;
            }
            Err(error) if total == Receipt::default() => return Err(error.into()),
            Err(error) => {
                let done = total.events + total.duplicates;
                return Err(Error::local(format!(
                    "{error}\nThe first {done} of {} events were accepted. Emit the file again when \
                     this is put right: events with an id of their own are delivered once.",
                    events.len()
                )));
            }
        }
    }
    output::done(&message(&total), &total, &session.settings)
}

/// All events of a file: objects, in lists or one after the other.
fn events(bytes: &[u8]) -> serde_json::Result<Vec<&RawValue>> {
    let mut events = Vec::new();
    for value in serde_json::Deserializer::from_slice(bytes).into_iter::<&RawValue>() {
        let value = value?;
        match value.get().starts_with('[') {
            true => events.extend(serde_json::from_str::<Vec<&RawValue>>(value.get())?),
            false => events.push(value),
        }
    }
    Ok(events)
}

/// Events in requests that the server takes.
fn parts<'a, 'b>(events: &'a [&'b RawValue]) -> Vec<&'a [&'b RawValue]> {
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, event) in events.iter().enumerate() {
        let length = event.get().len();
        if at > start && (at - start == MAX_BATCH || bytes + length > MAX_BYTES) {
            parts.push(&events[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += length;
    }
    if start < events.len() {
        parts.push(&events[start..]);
    }
    parts
}

fn message(total: &Receipt) -> String {
    match total.duplicates {
        0 => format!("{} events emitted", total.events),
        duplicates => format!(
            "{} events emitted; {duplicates} were emitted before, and are not delivered again",
            total.events
        ),
    }
}

impl Show for Receipt {
    const MODEL: &'static str = r#"{"events": 0, "deliveries": 0, "duplicates": 0}"#;
    const COLUMNS: &'static [&'static str] = &["Events", "Deliveries", "Duplicates"];

    fn label(&self) -> String {
        self.events.to_string()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        [self.events, self.deliveries, self.duplicates].map(|count| count.to_string()).to_vec()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_hold_events_in_lists_and_lines() {
        let found = events(b"{\"a\": 1}\n{\"b\": 2} [{\"c\": 3}, {\"d\": 4}]\n").unwrap();
        let found: Vec<&str> = found.iter().map(|event| event.get()).collect();
        assert_eq!(found, ["{\"a\": 1}", "{\"b\": 2}", "{\"c\": 3}", "{\"d\": 4}"]);
        assert!(events(b"").unwrap().is_empty());
        assert!(events(b"{} x").is_err());
    }

    #[test]
    fn requests_are_bounded() {
        let text = format!("[{}1]", "1,".repeat(2 * MAX_BATCH));
        let found = events(text.as_bytes()).unwrap();
        let lengths: Vec<usize> = parts(&found).iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [MAX_BATCH, MAX_BATCH, 1]);
        let long = format!("\"{}\"", "x".repeat(MAX_BYTES));
        let text = format!("[1,{long},{long},2]");
        let found = events(text.as_bytes()).unwrap();
        let lengths: Vec<usize> = parts(&found).iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [1, 1, 1, 1]);
        assert!(parts(&[]).is_empty());
    }

    #[test]
    fn media_types_are_found_out() {
        for (bytes, binary, kind) in [
            (&b"{\"a\": 1}"[..], false, "application/json"),
            (b"{\"a\": 1}", true, "application/octet-stream"),
            (b"hello", false, "text/plain; charset=utf-8"),
            (b"a\0b", false, "application/octet-stream"),
            (b"\xff\xd8", false, "application/octet-stream"),
        ] {
            assert_eq!(sniff(bytes, binary), kind, "{bytes:?}");
        }
    }
}
