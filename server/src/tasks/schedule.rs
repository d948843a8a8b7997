//! Schedules that tick.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use dispatch_api::schedule::{Missed, Ticks};
use dispatch_api::{Kind, Schedule, Status, Tag};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::backoff;
use crate::app::App;
use crate::live::Function;
use crate::resource::{self, now, resource};
use crate::runs::{self, Invocation};
use crate::schedule::{job as alarm, obstacle};
use crate::store::{Entity, Job, JobEnd, Tick};
use crate::trace::Trace;

/// How late a tick may be that is made although missed ones are left out.
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// The most missed ticks that are made up for.
const MAX_MISSED: usize = 100;
/// The tag of runs that names the schedule they were made for.
const TAG: &str = "Schedule";
/// The event behind each call.
const EVENT_TYPE: &str = "dispatch.schedule.tick";

/// Makes the tick that is due: accepts its run and says when the next one is, in one write. One tick at a
/// time, so that a crash finds each either made or not. Answers how the job ends, or none where that was
/// stored with the tick.
pub(super) async fn due(app: &Arc<App>, job: &Job) -> Result<Option<JobEnd>, String> {
    let read = app.store.get(Kind::Schedule, &job.org, &job.key).await;
    let Some(mut entity) = read.map_err(|error| error.to_string())? else {
        return Ok(Some(JobEnd::Done));
    };
    let mut schedule: Schedule = resource(&entity).map_err(|error| error.problem.message)?;
    let Some(next) = schedule.next() else { return Ok(Some(JobEnd::Done)) };
    let time = Timestamp::now();
    if next > time {
        let at = next.as_microsecond();
        return Ok(Some(JobEnd::Retry { at, error: String::new() }));
    }
    let ticks = schedule.ticks().map_err(|invalid| invalid.message)?;
    let tick = choose(schedule.policy(), &ticks, next, time);
    entity.status = Status::Ready;
    entity.reason = left_out(&schedule, next, tick, time).into_iter().collect();
    for what in &entity.reason {
        tracing::warn!(org = job.org, schedule = job.key, "{what}");
    }
    let mut run = None;
    if let Some(tick) = tick {
        // A function that was made a moment ago is to be seen.
        app.settle().await;
        let error = obstacle(app, &job.org, &schedule.function);
        let snapshot = app.live.load();
        let function = snapshot.function(&job.org, &schedule.function);
        let Some(function) = function.filter(|_| error.is_none()) else {
            let at = now() + backoff(job.attempts, 500, 30_000);
            return Ok(Some(JobEnd::Retry { at, error: error.unwrap_or_default() }));
        };
        let invocation = invocation(&entity, &schedule, tick, function);
        let id = run_id(&entity.id, tick);
        schedule.last_tick = tick.to_string();
        schedule.last_run.clone_from(&id);
        let (row, job) = runs::accepted(&invocation, &id);
        run = Some((row, job, app.config.max_queued_runs));
    } else if schedule.cron.is_empty() {
        entity.status = Status::Error;
    }
    let next = ticks.after(tick.unwrap_or(time));
    schedule.next_tick = next.map(|next| next.to_string()).unwrap_or_default();
    let next = next.map(|next| alarm(&job.org, &job.key, next));
    entity.body = resource::body(&schedule).map_err(|error| error.problem.message)?;
    let stored = app.store.tick(job, Tick { schedule: entity, run, next }).await;
    stored.map(|_| None).map_err(|error| error.to_string())
}

/// The tick that is to be made of those from `next` until `now`.
fn choose(policy: Missed, ticks: &Ticks, next: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let mut back = ticks.back(next, now);
    match policy {
        Missed::Skip => back.next().filter(|tick| now.duration_since(*tick) <= GRACE),
        Missed::Once => back.next().or(Some(next)),
        Missed::All => back.take(MAX_MISSED).last().or(Some(next)),
    }
}

/// What is said of ticks that are not made.
fn left_out(
    schedule: &Schedule,
    next: Timestamp,
    tick: Option<Timestamp>,
    now: Timestamp,
) -> Option<String> {
    let missed = &schedule.missed;
    match tick {
        Some(tick) if tick == next => None,
        Some(tick) => Some(format!(
            "ticks from {next} on, before that of {tick}, were missed and left out (missed: {missed})"
        )),
        None => Some(format!(
            "ticks from {next} until {now:.0} were missed and left out (missed: {missed})"
        )),
    }
}

/// The same for the same tick of the same schedule.
fn run_id(schedule: &str, tick: Timestamp) -> String {
    let hash = digest(&SHA256, format!("{schedule} {tick}").as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

fn invocation(
    entity: &Entity,
    schedule: &Schedule,
    tick: Timestamp,
    function: &Arc<Function>,
) -> Invocation {
    let (org, name) = (&entity.org, &entity.name);
    let mut tags = schedule.tags.clone();
    tags.retain(|tag| tag.key != TAG);
    tags.push(Tag { key: TAG.to_owned(), value: name.clone() });
    Invocation {
        org: org.clone(),
        function: Arc::clone(function),
        input: Bytes::from(schedule.input.as_ref().unwrap_or(&Value::Null).to_string()),
        http_context: None,
        request: None,
        event: Some(json!({
            "specversion": "1.0",
            "id": tick.to_string(),
            "source": format!("/{org}/schedule/{name}"),
            "type": EVENT_TYPE,
            "time": tick.to_string(),
        })),
        secrets: schedule.secrets.clone(),
        services: Vec::new(),
        tags,
        trace: Trace::default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn chosen(missed: Missed, cron: &str, next: &str, now: &str) -> Option<String> {
        let schedule = Schedule { cron: cron.to_owned(), ..Schedule::default() };
        let tick = choose(missed, &schedule.ticks().unwrap(), time(next), time(now));
        tick.map(|tick| tick.to_string())
    }

    #[test]
    fn the_policy_decides_which_tick_is_made() {
        let (next, now) = ("2026-11-27T08:00:00Z", "2026-11-27T11:00:30.5Z");
        let is = |missed, cron, wanted: Option<&str>| {
            assert_eq!(chosen(missed, cron, next, now).as_deref(), wanted, "{missed:?} {cron}");
        };
        // Half a minute late.
        is(Missed::Skip, "0 * * * *", Some("2026-11-27T11:00:00Z"));
        is(Missed::Once, "0 * * * *", Some("2026-11-27T11:00:00Z"));
        is(Missed::All, "0 * * * *", Some("2026-11-27T08:00:00Z"));
        // Three hours late.
        is(Missed::Skip, "0 8 * * *", None);
        is(Missed::Once, "0 8 * * *", Some("2026-11-27T08:00:00Z"));
        is(Missed::All, "0 8 * * *", Some("2026-11-27T08:00:00Z"));
        // 181 were missed, of which the last 100 count.
        is(Missed::Skip, "* * * * *", Some("2026-11-27T11:00:00Z"));
        is(Missed::All, "* * * * *", Some("2026-11-27T09:21:00Z"));
    }

    #[test]
    fn a_tick_has_one_id() {
        let (one, two) = (time("2026-11-27T08:00:00Z"), time("2026-11-27T08:00:01Z"));
        assert_eq!(run_id("a", one), run_id("a", one));
        assert_ne!(run_id("a", one), run_id("a", two));
        assert_ne!(run_id("a", one), run_id("b", one));
        assert_eq!(uuid::Uuid::parse_str(&run_id("a", one)).unwrap().get_version_num(), 8);
    }
}
