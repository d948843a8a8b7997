//! `dispatch create schedule` and `dispatch update schedule`.

use std::path::Path;

use dispatch_api::Schedule;
use serde_json::Value;

use super::{Session, create};
use crate::args::{CreateSchedule, Missed, ScheduleSettings, UpdateSchedule};
use crate::error::{Error, Result};
use crate::{input, output};

/// A schedule of what was given.
///
/// # Errors
/// An input that is not JSON.
pub fn new(args: CreateSchedule) -> Result<Schedule> {
    let mut schedule = Schedule { name: args.name, function: args.function, ..Schedule::default() };
    settings(&mut schedule, args.settings)?;
    Ok(schedule)
}

/// Changes what was given and leaves the rest.
///
/// # Errors
/// An input that is not JSON, or what the server says.
pub async fn update(session: &Session, args: UpdateSchedule) -> Result {
    let mut schedule: Schedule = session.client.get(&args.name).await?;
    if let Some(function) = args.function {
        schedule.function = function;
    }
    schedule.paused &= !args.resume;
    settings(&mut schedule, args.settings)?;
    let updated = session.client.update(&schedule).await?;
    let message = format!("Updated schedule: {}", updated.name);
    output::done(&message, &updated, &session.settings)
}

fn settings(schedule: &mut Schedule, settings: ScheduleSettings) -> Result {
    if let Some(cron) = settings.cron {
        (schedule.cron, schedule.at) = (cron, String::new());
    }
    if let Some(at) = settings.at {
        (schedule.at, schedule.cron) = (at, String::new());
    }
    if let Some(zone) = settings.tz {
        schedule.timezone = zone;
    }
    if let Some(text) = &settings.input {
        schedule.input = Some(payload(text)?);
    }
    if !settings.secret.is_empty() {
        schedule.secrets = settings.secret;
        schedule.secrets.retain(|name| !name.is_empty());
    }
    if let Some(missed) = settings.missed {
        schedule.missed = match missed {
            Missed::Once => "once",
            Missed::Skip => "skip",
            Missed::All => "all",
        }
        .to_owned();
    }
    schedule.paused |= settings.paused;
    create::retag(&mut schedule.tags, settings.application);
    Ok(())
}

fn payload(text: &str) -> Result<Value> {
    let file = text.strip_prefix('@').filter(|file| *file != "-");
    if let Some(file) = file {
        return input::json(Path::new(file));
    }
    let bytes = match text {
        "-" | "@-" => input::stdin()?,
        text => text.as_bytes().to_vec(),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::local(format!("error when parsing JSON from --input: {error}")))
}
