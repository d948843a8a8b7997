//! Schedules: times at which a function is called.

mod ticks;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

pub use ticks::Ticks;

use crate::validate::{self, Invalid};
use crate::wire::{Wire, null_is_default, null_when_empty};
use crate::{Status, Tag};

/// Calls a function at certain times. Each call is a run that nobody waits for, with the function's
/// retries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Schedule {
    /// When it ticks: `minute hour day month weekday`, such as `*/5 8-18 * * mon-fri`; seconds may stand
    /// before, and a year behind six others. Also `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cron: String,
    /// In place of `cron`: the one time at which it ticks, RFC 3339. Without an offset it is a time of
    /// day in `timezone`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub at: String,
    /// A time zone of the IANA database; empty means `UTC`.
    pub timezone: String,
    /// The function it calls.
    pub function: String,
    /// The payload of each call: any JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Secrets merged into the context, beyond the function's own.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub secrets: Vec<String>,
    /// What happens to ticks at which no run could be accepted, because the server did not run or the
    /// function was not ready: `once` (one call for the last of them, the default), `skip` (none, unless
    /// it is less than a minute late) or `all` (a call for each of the last 100).
    pub missed: String,
    /// Whether it stands still. Ticks that pass meanwhile are not missed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// The tick of the last call, RFC 3339. Only answered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_tick: String,
    /// The id of the run of the last call. Only answered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_run: String,
    /// The tick that comes next, RFC 3339; absent when there is none. One that has passed waits for the
    /// function. Only answered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_tick: String,
    /// UUID, set by the server.
    pub id: String,
    /// Always `Schedule`.
    pub kind: String,
    /// Unique in the organization.
    pub name: String,
    /// `ERROR` while the function cannot be called.
    pub status: Status,
    /// Why the function cannot be called, and which ticks were left out before the last.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub reason: Vec<String>,
    /// Free labels; each run has them too.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub tags: Vec<Tag>,
    /// Unix seconds.
    pub created_time: i64,
    /// Unix seconds.
    pub modified_time: i64,
    /// The organization it belongs to.
    pub org: String,
    /// The project it belongs to.
    pub project: String,
    /// Changes with every write of a client, not with ticks; send it back with an update to refuse a
    /// lost update.
    pub revision: String,
}

/// What happens to missed ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// They are left out.
    Skip,
    /// One call is made for all of them.
    Once,
    /// Each has its call.
    All,
}

/// The words of [`Schedule::missed`].
pub const MISSED: [&str; 3] = ["once", "skip", "all"];
/// Bytes of an input.
pub const MAX_INPUT: usize = 256 << 10;
/// Bytes of a cron expression, a time or the name of a time zone.
pub const MAX_TEXT: usize = 256;
/// The most secrets, and the most tags.
pub const MAX_LIST: usize = 64;

impl Schedule {
    /// When it ticks.
    ///
    /// # Errors
    /// The field that says nothing that could be read.
    pub fn ticks(&self) -> Result<Ticks, Invalid> {
        Ticks::read(&self.cron, &self.at, &self.timezone)
    }

    /// What happens to missed ticks.
    pub fn policy(&self) -> Missed {
        match self.missed.as_str() {
            "skip" => Missed::Skip,
            "all" => Missed::All,
            _ => Missed::Once,
        }
    }

    /// The tick that comes next; none while it is paused or when it is over.
    pub fn next(&self) -> Option<Timestamp> {
        self.next_tick.parse().ok().filter(|_| !self.paused)
    }

    /// Whether it ticks at the same times as another.
    pub fn same_times(&self, other: &Schedule) -> bool {
        (&self.cron, &self.at, &self.timezone) == (&other.cron, &other.at, &other.timezone)
    }
}

impl Wire for Schedule {
    const DIALECT: &'static [(&'static str, &'static str)] = &[];
    const FIELDS: &'static [&'static str] = &[
        "cron", "at", "timezone", "function", "input", "secrets", "missed", "paused", "name",
        "status", "tags", "revision",
    ];

    fn validate(&self) -> Result<(), Invalid> {
        validate::name(&self.name)?;
        validate::reference("function", &self.function)?;
        for (field, text) in [("cron", &self.cron), ("at", &self.at), ("timezone", &self.timezone)]
        {
            if text.len() > MAX_TEXT {
                let text = format!("{field} in body should be at most {MAX_TEXT} chars long");
                return Err(Invalid::new(validate::TOO_LONG, text));
            }
        }
        self.ticks()?;
        if !MISSED.contains(&self.missed.as_str()) {
            return Err(Invalid::not_in("missed", "body", &MISSED));
        }
        for (field, length) in [("secrets", self.secrets.len()), ("tags", self.tags.len())] {
            if length > MAX_LIST {
                let text = format!("{field} in body should have at most {MAX_LIST} items");
                return Err(Invalid::new(validate::TOO_LONG, text));
            }
        }
        for secret in &self.secrets {
            validate::path_name("secrets", "body", secret)?;
        }
        if self.input.as_ref().is_some_and(|input| input.to_string().len() > MAX_INPUT) {
            let text = format!("input in body should be at most {MAX_INPUT} bytes long");
            return Err(Invalid::new(validate::TOO_LONG, text));
        }
        Ok(())
    }

    fn settle(&mut self) {
        for (field, default) in [(&mut self.timezone, "UTC"), (&mut self.missed, MISSED[0])] {
            if field.is_empty() {
                default.clone_into(field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::wire;

    fn read(body: &Value) -> Result<Schedule, Invalid> {
        let mut whole = json!({ "name": "s", "function": "f" });
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        wire::from_value(whole)
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let schedule =
            read(&json!({ "CRON": "@daily", "nextTick": "2026-01-01T00:00:00Z" })).unwrap();
        assert_eq!((schedule.timezone.as_str(), schedule.policy()), ("UTC", Missed::Once));
        assert_eq!(schedule.next(), None, "clients do not set it");
    }

    #[test]
    fn mistakes_name_their_field() {
        let long = "x".repeat(MAX_TEXT + 1);
        for (body, code, what) in [
            (json!({}), validate::REQUIRED, "cron in body is required, or at"),
            (
                json!({ "cron": "@daily", "at": "2030-01-01T00:00:00Z" }),
                validate::PATTERN,
                "exclude",
            ),
            (json!({ "cron": "61 * * * *" }), validate::PATTERN, "cron in body: \"61 * * * *\""),
            (json!({ "cron": "* * *" }), validate::PATTERN, "cron in body"),
            (json!({ "cron": long }), validate::TOO_LONG, "cron in body"),
            (
                json!({ "cron": "@daily", "timezone": "Mars/Base" }),
                validate::PATTERN,
                "\"Mars/Base\"",
            ),
            (json!({ "at": "tomorrow" }), validate::PATTERN, "at in body: \"tomorrow\""),
            (json!({ "at": "2030-01-01" }), validate::PATTERN, "at in body"),
            (
                json!({ "cron": "@daily", "missed": "never" }),
                validate::NOT_IN_ENUM,
                "once skip all",
            ),
            (json!({ "cron": "@daily", "function": "" }), validate::REQUIRED, "function in body"),
            (json!({ "cron": "@daily", "secrets": ["a/b"] }), validate::PATTERN, "secrets in body"),
            (json!({ "cron": "@daily", "secrets": vec!["a"; 65] }), validate::TOO_LONG, "secrets"),
            (
                json!({ "cron": "@daily", "input": "x".repeat(MAX_INPUT) }),
                validate::TOO_LONG,
                "input",
            ),
        ] {
            let invalid = read(&body).unwrap_err();
            assert_eq!(invalid.code, code, "{body}: {invalid}");
            assert!(invalid.message.contains(what), "{invalid}");
        }
    }
}
