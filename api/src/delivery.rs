//! Events that were accepted, and their deliveries.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::validate::{self, Invalid};
use crate::wire::Wire;

/// What became of events that were sent. HTTP answers carry it in headers, see
/// [`DELIVERIES_HEADER`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Receipt {
    /// Events that are in the log now.
    pub events: u64,
    /// Deliveries that will be made.
    pub deliveries: u64,
    /// Events that were in the log already, by source and id, and are not delivered again.
    pub duplicates: u64,
}

/// The header with the number of events that were accepted.
pub const EVENTS_HEADER: &str = "X-Dispatch-Events";
/// The header with the number of deliveries that will be made.
pub const DELIVERIES_HEADER: &str = "X-Dispatch-Deliveries";
/// The header with the number of events that were accepted before.
pub const DUPLICATES_HEADER: &str = "X-Dispatch-Duplicates";

/// An event in the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoggedEvent {
    /// Its place in the log; grows.
    pub number: i64,
    /// When it was accepted, RFC 3339.
    pub accepted: String,
    /// The event, in JSON of its own version of CloudEvents.
    #[schema(value_type = Object)]
    pub event: Value,
}

/// Where a delivery is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// It is tried when its time comes.
    #[default]
    Waiting,
    /// An earlier event with the same ordering key comes first.
    Blocked,
    /// It succeeded.
    Delivered,
    /// It failed for good; `redrive` starts it over.
    Dead,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [DeliveryState; 4] = [
        DeliveryState::Waiting,
        DeliveryState::Blocked,
        DeliveryState::Delivered,
        DeliveryState::Dead,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Waiting => "waiting",
            DeliveryState::Blocked => "blocked",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Dead => "dead",
        }
    }

    /// The state of a word.
    pub fn parse(word: &str) -> Option<DeliveryState> {
        DeliveryState::ALL.into_iter().find(|state| state.as_str().eq_ignore_ascii_case(word))
    }
}

/// One event on its way to one subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Delivery {
    /// A number, unique on the server.
    pub id: String,
    /// The subscription's name.
    pub subscription: String,
    /// Where it is in its life.
    pub state: DeliveryState,
    /// The event's id.
    pub event_id: String,
    /// The event's source.
    pub event_source: String,
    /// The event's type.
    pub event_type: String,
    /// Tries so far.
    pub attempts: i64,
    /// Why the last try failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The run of the last try.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// Whether it goes to the subscription's dead letter target now, or went there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dead_lettered: bool,
    /// When it was made, RFC 3339.
    pub created: String,
    /// When it changed last, RFC 3339.
    pub modified: String,
    /// When the next try is due, RFC 3339, while it waits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub due: String,
}

/// Which deliveries a list holds.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// Only of this subscription.
    pub subscription: Option<String>,
    /// Only in this state.
    pub state: Option<DeliveryState>,
    /// At most this many, the newest first.
    pub limit: Option<u32>,
}

impl DeliveryFilter {
    /// The filter as a query: `subscription`, `state`, `limit`.
    pub fn query(&self) -> Vec<(&'static str, String)> {
        [
            ("subscription", self.subscription.clone()),
            ("state", self.state.map(|state| state.as_str().to_owned())),
            ("limit", self.limit.map(|limit| limit.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

/// Which events of the log a subscription is to get again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Replay {
    /// The subscription.
    pub subscription: String,
    /// From when on, RFC 3339.
    pub since: String,
    /// Up to when, RFC 3339; empty means now.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// Filters besides the subscription's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub filters: Vec<Value>,
    /// Only count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl Wire for Replay {
    const DIALECT: &'static [(&'static str, &'static str)] = &[];
    const FIELDS: &'static [&'static str] =
        &["subscription", "since", "until", "filters", "dryRun"];

    fn validate(&self) -> Result<(), Invalid> {
        validate::reference("subscription", &self.subscription)?;
        if self.since.is_empty() {
            return Err(Invalid::required("since", "body"));
        }
        Ok(())
    }
}

/// What a replay did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Replayed {
    /// Events of the log that were looked at.
    pub events: u64,
    /// Deliveries that were made, or would be.
    pub deliveries: u64,
}

/// How many dead deliveries were started over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Redriven {
    /// Deliveries that wait again.
    pub deliveries: u64,
}
