//! The rules of both versions, and bounds.

use std::borrow::Cow;

use jiff::Timestamp;

use super::{ATTRIBUTES, CloudEvent, Extension, SpecVersion};

/// The longest `id`, in bytes.
pub const MAX_ID: usize = 512;
/// The longest `type` of 1.0, in bytes.
pub const MAX_TYPE: usize = 256;
/// The longest `eventType` of 0.1, in bytes.
pub const MAX_TYPE_V0_1: usize = 128;
/// The longest value of any other attribute or extension, in bytes.
pub const MAX_ATTRIBUTE: usize = 4096;
/// The most extensions of an event.
pub const MAX_EXTENSIONS: usize = 64;
/// The longest name of an extension, in bytes.
pub const MAX_EXTENSION_NAME: usize = 64;

/// Whether `text` has the form of an `eventType` of 0.1: `^[\w\d\-\.]+$`, in ASCII.
pub fn is_old_type(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !text.is_empty() && text.bytes().all(fits)
}

/// The first rule that is broken, in words.
pub(super) fn check(event: &CloudEvent) -> Result<(), String> {
    match event.spec_version {
        SpecVersion::V0_1 => old(event)?,
        SpecVersion::V1_0 => modern(event)?,
    }
    if event.extensions.len() > MAX_EXTENSIONS {
        return Err(format!("it has more than {MAX_EXTENSIONS} extensions"));
    }
    for (name, value) in &event.extensions {
        if name.len() > MAX_EXTENSION_NAME {
            return Err(format!(
                "the name of extension {name:.32}… is longer than {MAX_EXTENSION_NAME} bytes"
            ));
        }
        let text: Cow<'_, str> = match value {
            Extension::String(text) => text.into(),
            other => other.to_string().into(),
        };
        at_most(name, &text, MAX_ATTRIBUTE)?;
    }
    Ok(())
}

/// The rules of the old server, in its order and its words.
fn old(event: &CloudEvent) -> Result<(), String> {
    let optional = |name: &str, value: &Option<String>| match value.as_deref() {
        Some("") => Err(format!("{name} in body should be at least 1 chars long")),
        Some(text) => text_of(name, text, MAX_ATTRIBUTE),
        None => Ok(()),
    };
    let required = |name: &str, value: &str, most| match value {
        "" => Err(format!("{name} in body is required")),
        text => text_of(name, text, most),
    };
    optional("contentType", &event.data_content_type)?;
    required("eventID", &event.id, MAX_ID)?;
    if let Some(time) = event.time.as_deref().filter(|time| !is_time(time)) {
        return Err(format!("eventTime in body must be of type date-time: {}", short(time)));
    }
    required("eventType", &event.event_type, MAX_ATTRIBUTE)?;
    if event.event_type.len() > MAX_TYPE_V0_1 {
        return Err(format!("eventType in body should be at most {MAX_TYPE_V0_1} chars long"));
    }
    if !is_old_type(&event.event_type) {
        return Err(r"eventType in body should match '^[\w\d\-\.]+$'".into());
    }
    optional("eventTypeVersion", &event.event_type_version)?;
    if let Some(url) = event.data_schema.as_deref() {
        text_of("schemaURL", url, MAX_ATTRIBUTE)?;
        if !(is_uri(url) || (url.starts_with('/') && !has_space(url))) {
            return Err(format!("schemaURL in body must be of type uri: {}", short(url)));
        }
    }
    required("source", &event.source, MAX_ATTRIBUTE)
}

fn modern(event: &CloudEvent) -> Result<(), String> {
    for (name, value, most) in [
        ("id", &event.id, MAX_ID),
        ("source", &event.source, MAX_ATTRIBUTE),
        ("type", &event.event_type, MAX_TYPE),
    ] {
        if value.is_empty() {
            return Err(format!("{name} is required"));
        }
        text_of(name, value, most)?;
    }
    if has_space(&event.source) {
        let source = short(&event.source);
        return Err(format!("source should be a URI reference, without spaces: {source}"));
    }
    for (name, value) in [
        ("subject", &event.subject),
        ("time", &event.time),
        ("datacontenttype", &event.data_content_type),
        ("dataschema", &event.data_schema),
    ] {
        let Some(value) = value else { continue };
        if value.is_empty() {
            return Err(format!("{name} should not be empty: leave it out"));
        }
        text_of(name, value, MAX_ATTRIBUTE)?;
    }
    if let Some(time) = event.time.as_deref().filter(|time| !is_time(time)) {
        return Err(format!("time should be as in 2026-11-27T10:00:00Z, not {}", short(time)));
    }
    if let Some(kind) = event.data_content_type.as_deref().filter(|kind| !is_media_type(kind)) {
        return Err(format!(
            "datacontenttype should be as in application/json, not {}",
            short(kind)
        ));
    }
    if let Some(uri) = event.data_schema.as_deref().filter(|uri| !is_uri(uri)) {
        return Err(format!("dataschema should be a URI, as in https://…, not {}", short(uri)));
    }
    for (name, value) in &event.extensions {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || !name.bytes().all(plain) {
            let name = short(name);
            return Err(format!("extension {name} should be named with a to z and 0 to 9 only"));
        }
        if ATTRIBUTES.contains(&name.as_str()) || name == "data" {
            return Err(format!("extension {name:?} has the name of an attribute"));
        }
        match value {
            Extension::String(text) => text_of(name, text, MAX_ATTRIBUTE)?,
            Extension::Json(_) => {
                return Err(format!(
                    "extension {name:?} should be a text, a whole number of 32 bits or a truth value"
                ));
            }
            Extension::Boolean(_) | Extension::Integer(_) => {}
        }
    }
    Ok(())
}

/// Bounded, and without control characters, which 1.0 forbids and terminals and logs obey.
fn text_of(name: &str, text: &str, most: usize) -> Result<(), String> {
    if text.chars().any(char::is_control) {
        return Err(format!("{name} should not have control characters: {}", short(text)));
    }
    at_most(name, text, most)
}

/// What is wrong, for a message: quoted, and not too much of it.
pub(super) fn short(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

fn at_most(name: &str, text: &str, most: usize) -> Result<(), String> {
    if text.len() > most {
        return Err(format!("{name} should be at most {most} bytes long"));
    }
    Ok(())
}

/// RFC 3339: a date, a time and an offset.
fn is_time(text: &str) -> bool {
    // The library takes more than RFC 3339: other separators, a zone in brackets.
    let plain = |byte: u8| byte.is_ascii_digit() || b"-:.TtZz+".contains(&byte);
    text.len() <= 64
        && matches!(text.as_bytes().get(10), Some(b'T' | b't'))
        && text.bytes().all(plain)
        && text.parse::<Timestamp>().is_ok()
}

/// An absolute URI, as far as its scheme tells.
pub(super) fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(fits)
        && !rest.is_empty()
        && !has_space(text)
}

fn has_space(text: &str) -> bool {
    text.contains(char::is_whitespace)
}

/// `type/subtype`, with or without parameters.
pub(super) fn is_media_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim();
    let token = |part: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
        !part.is_empty() && part.bytes().all(fits)
    };
    text.is_ascii() && essence.split_once('/').is_some_and(|(one, two)| token(one) && token(two))
}
