//! How many workers a function has, and why.

mod schedule;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use schedule::ScaleSchedule;

/// What `GET /v1/function/{name}/scale` answers, of the revision that serves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Scale {
    /// Why there are as many as there are: `demand`, `minimum`, `schedule`, `maximum`, `room`,
    /// `share`, `failing`, `pressure`, `idle`, `retired` or `zero`.
    pub reason: String,
    /// The same as a sentence with what can be done.
    pub explanation: String,
    /// The workers.
    pub workers: Workers,
    /// Workers that it should have for its calls and its least.
    pub wanted: i64,
    /// Calls that run.
    pub calls: i64,
    /// Calls that wait.
    pub queued: i64,
    /// Calls that one worker takes at a time.
    pub concurrency: i64,
    /// Workers that are kept ready now, by `minScale` or a schedule.
    pub least: i64,
    /// The most workers.
    pub most: i64,
    /// The places that workers of all functions share.
    pub room: Room,
    /// The last changes, the newest first.
    pub changes: Vec<Change>,
}

/// Workers by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Workers {
    /// In calls.
    pub busy: i64,
    /// Without a call.
    pub idle: i64,
    /// Those of the idle ones that stand still until the next call.
    pub frozen: i64,
    /// To come.
    pub starting: i64,
    /// Those of them that wait for a place.
    pub waiting: i64,
}

/// Places for workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Room {
    /// In use, by all functions.
    pub used: i64,
    /// There are.
    pub most: i64,
    /// In use by the organization.
    pub organization_used: i64,
    /// The most that the organization may use.
    pub organization_most: i64,
}

/// One change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Change {
    /// Unix seconds.
    pub time: i64,
    /// How many workers more, or fewer.
    pub change: i64,
    /// How many there were after it, with those that were to come.
    pub workers: i64,
    /// Why: one of the reasons above, or `ended`.
    pub reason: String,
}
