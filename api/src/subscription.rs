//! Subscriptions: which events go where, and how.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::validate::{self, Invalid};
use crate::wire::{Wire, null_is_default, null_when_empty};
use crate::{Status, Tag};

/// What is done with the events of some types: each is delivered to a function, or posted to a URL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Subscription {
    /// Unix seconds.
    pub created_time: i64,
    /// A type, `order.*` for all types below `order`, or `*`; may be empty where there are filters.
    pub event_type: String,
    /// The function that is called with each event.
    pub function: String,
    /// Always `Subscription`.
    pub kind: String,
    /// Unix seconds.
    pub modified_time: i64,
    /// Unique in the organization.
    pub name: String,
    /// Secrets merged into the context, beyond the function's own.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub secrets: Vec<String>,
    /// Where it is in its life.
    pub status: Status,
    /// Free labels.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub tags: Vec<Tag>,
    /// In place of a function: the URL that each event is posted to, as CloudEvents over HTTP has it, or
    /// `driver:NAME` for an event driver that takes them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Filters of the CloudEvents Subscriptions API, all of which an event must pass.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    #[schema(value_type = Vec<Object>)]
    pub filters: Vec<Value>,
    /// How often, and how far apart, a delivery that failed is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Deliveries at the same time; 0 means 16.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub concurrency: i64,
    /// An attribute, such as `subject` or an extension: events with the same value of it are delivered
    /// one after the other, in the order in which they were accepted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ordering_key: String,
    /// The most events of one call. More than 1 makes the payload a list; 0 means 1.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub batch: i64,
    /// Where events go whose deliveries failed for good, besides staying in the list of the dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<Target>,
    /// The event that the result of a delivery becomes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// Whether deliveries wait until it is set back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// How far it is. Only answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The organization it belongs to.
    pub org: String,
    /// The project it belongs to.
    pub project: String,
    /// Changes with every write; send it back with an update to refuse a lost update.
    pub revision: String,
}

/// How often, and how far apart, a delivery that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Retry {
    /// Tries in all, 1 to 100.
    pub attempts: i64,
    /// Milliseconds before the second try; doubled before each further one, and varied by a fifth.
    pub backoff: i64,
    /// The longest pause between two tries, in milliseconds.
    pub max_backoff: i64,
    /// Milliseconds a try may take at a URL; 0 means 30000. A function has its own timeout.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub timeout: i64,
}

impl Default for Retry {
    fn default() -> Retry {
        Retry { attempts: 8, backoff: 1000, max_backoff: 300_000, timeout: 0 }
    }
}

/// A function or a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    /// The function.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub function: String,
    /// The URL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
}

/// What the event is called that the result of a delivery becomes. A result of `null` becomes none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Reply {
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its source; empty means `/ORGANIZATION/subscription/NAME`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// How far a subscription is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// Deliveries that wait or are tried at the moment.
    pub lag: i64,
    /// Deliveries that succeeded, since it was created.
    pub delivered: i64,
    /// Deliveries that failed for good and were not redriven.
    pub dead: i64,
    /// The last error of a delivery, empty after a success.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_error: String,
    /// When the last delivery succeeded, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_delivered: String,
    /// Why nothing is delivered at the moment.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub waiting_for: String,
}

/// The most deliveries of a subscription at the same time.
pub const MAX_CONCURRENCY: i64 = 1000;
/// The most events of one call.
pub const MAX_BATCH: i64 = 1000;
/// Deliveries at the same time where a subscription does not say.
pub const DEFAULT_CONCURRENCY: i64 = 16;
/// The most filters at the top of a subscription.
pub const MAX_FILTERS: usize = 64;
/// The most secrets of a subscription.
pub const MAX_SECRETS: usize = 64;
/// What begins the URI of an event driver.
pub const DRIVER: &str = "driver:";
/// The longest URL in bytes.
pub const MAX_URI: usize = 2048;
const MAX_TYPE: usize = 128;

impl Subscription {
    /// Deliveries at the same time.
    pub fn width(&self) -> i64 {
        if self.concurrency == 0 { DEFAULT_CONCURRENCY } else { self.concurrency }
    }

    /// Where its events go.
    pub fn target(&self) -> Target {
        Target { function: self.function.clone(), uri: self.uri.clone() }
    }
}

fn range(field: &str, value: i64, least: i64, most: i64) -> Result<(), Invalid> {
    if value < least {
        return Err(Invalid::too_small(field, least));
    }
    if value > most {
        return Err(Invalid::too_large(field, most));
    }
    Ok(())
}

fn is_pattern(text: &str) -> bool {
    let stem = text.strip_suffix(".*").unwrap_or(text);
    text == "*" || is_type(stem)
}

fn is_type(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn event_type(field: &str, value: &str, fits: fn(&str) -> bool) -> Result<(), Invalid> {
    if value.len() > MAX_TYPE {
        let text = format!("{field} in body should be at most {MAX_TYPE} chars long");
        return Err(Invalid::new(validate::TOO_LONG, text));
    }
    if !fits(value) {
        let text = format!(r"{field} in body should match '^[\w\d\-\.]+$'");
        return Err(Invalid::new(validate::PATTERN, text));
    }
    Ok(())
}

fn target(field: &str, target: &Target) -> Result<(), Invalid> {
    let (function, uri) = (&target.function, &target.uri);
    match (function.is_empty(), uri.is_empty()) {
        (false, true) => validate::reference(field, function),
        (true, false) => {
            let url = (uri.len() <= MAX_URI).then(|| url(uri)).flatten();
            url.ok_or_else(|| {
                let text =
                    "uri in body should be driver:NAME, or an http or https URL of at most 2048 bytes";
                Invalid::new(validate::PATTERN, text)
            })
        }
        (true, true) => Err(Invalid::required(field, "body")),
        (false, false) => {
            let text = format!("{field} and uri in body exclude each other");
            Err(Invalid::new(validate::PATTERN, text))
        }
    }
}

/// Whether it is a URL that can be posted to; the server parses it in full.
fn url(text: &str) -> Option<()> {
    if let Some(name) = text.strip_prefix(DRIVER) {
        return validate::is_name(name).then_some(());
    }
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    let host = rest.split(['/', '?', '#']).next()?;
    let plain = !text.bytes().any(|b| b.is_ascii_control() || b == b' ');
    (plain && !host.is_empty() && !host.contains('@')).then_some(())
}

impl Wire for Subscription {
    const DIALECT: &'static [(&'static str, &'static str)] = &[];
    const FIELDS: &'static [&'static str] = &[
        "eventType",
        "function",
        "uri",
        "name",
        "secrets",
        "filters",
        "retry",
        "concurrency",
        "orderingKey",
        "batch",
        "deadLetter",
        "reply",
        "paused",
        "status",
        "tags",
        "revision",
    ];

    fn validate(&self) -> Result<(), Invalid> {
        validate::name(&self.name)?;
        if self.event_type.is_empty() && self.filters.is_empty() {
            return Err(Invalid::required("eventType", "body"));
        }
        if !self.event_type.is_empty() {
            event_type("eventType", &self.event_type, is_pattern)?;
        }
        target("function", &self.target())?;
        for (field, length, most) in [
            ("filters", self.filters.len(), MAX_FILTERS),
            ("secrets", self.secrets.len(), MAX_SECRETS),
        ] {
            if length > most {
                let text = format!("{field} in body should have at most {most} items");
                return Err(Invalid::new(validate::TOO_LONG, text));
            }
        }
        for secret in &self.secrets {
            validate::path_name("secrets", "body", secret)?;
        }
        range("concurrency", self.concurrency, 0, MAX_CONCURRENCY)?;
        range("batch", self.batch, 0, MAX_BATCH)?;
        if let Some(retry) = &self.retry {
            range("retry.attempts", retry.attempts, 1, 100)?;
            range("retry.backoff", retry.backoff, 0, 3_600_000)?;
            range("retry.maxBackoff", retry.max_backoff, 0, 86_400_000)?;
            range("retry.timeout", retry.timeout, 0, 3_600_000)?;
        }
        if let Some(dead) = &self.dead_letter {
            target("deadLetter.function", dead)?;
        }
        if let Some(reply) = &self.reply {
            event_type("reply.type", &reply.event_type, is_type)?;
        }
        let key = &self.ordering_key;
        if key.len() > 64 || !key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            let text = "orderingKey in body should be the name of an attribute: lower-case letters and digits";
            return Err(Invalid::new(validate::PATTERN, text));
        }
        if self.batch > 1 && !self.ordering_key.is_empty() {
            let text = "batch and orderingKey in body exclude each other";
            return Err(Invalid::new(validate::PATTERN, text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription() -> Subscription {
        Subscription {
            name: "s".into(),
            event_type: "order.created".into(),
            function: "f".into(),
            ..Subscription::default()
        }
    }

    #[test]
    fn one_target_and_a_type_or_a_filter_are_needed() {
        assert_eq!(subscription().validate(), Ok(()));
        let code = |change: fn(&mut Subscription)| {
            let mut subscription = subscription();
            change(&mut subscription);
            subscription.validate().map_err(|invalid| invalid.code)
        };
        assert_eq!(code(|s| s.event_type.clear()), Err(validate::REQUIRED));
        assert_eq!(code(|s| s.function.clear()), Err(validate::REQUIRED));
        assert_eq!(code(|s| s.uri = "http://x/".into()), Err(validate::PATTERN));
        let uri = |s: &mut Subscription, uri: &str| {
            s.function.clear();
            uri.clone_into(&mut s.uri);
        };
        let with = |text: &str| {
            let mut subscription = subscription();
            uri(&mut subscription, text);
            subscription.validate().is_ok()
        };
        assert!(with("https://example.com/in?x=1") && with("driver:to-kafka") && !with("driver:"));
        for bad in ["ftp://x", "http://", "http://user:pw@x/", "http://x y/", "http://x\n/"] {
            assert!(!with(bad), "{bad}");
        }
        for (pattern, fits) in [
            ("*", true),
            ("order.*", true),
            ("a-b_c.d", true),
            ("o*", false),
            ("", false),
            (".*", false),
        ] {
            assert_eq!(is_pattern(pattern), fits, "{pattern}");
        }
        assert_eq!(code(|s| s.concurrency = -1), Err(validate::TOO_SHORT));
        assert_eq!(code(|s| s.batch = 1001), Err(validate::TOO_LONG));
    }
}
