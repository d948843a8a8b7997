//! How many workers a function has, and why.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use dispatch_api::scale::{Change, Room, Scale, Workers};
use dispatch_api::{Kind, Problem};
use dispatch_runner::{Reason, Settings, Step};

use crate::app::App;
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource;

#[utoipa::path(get, path = "/v1/function/{functionName}/scale", tag = "function",
    params(("functionName" = String, Path)),
    responses((status = 200, body = Scale), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Scale>, Error> {
    resource::find(&app, Kind::Function, &caller.org, &name).await?;
    let snapshot = app.live.load();
    let function = snapshot.function(&caller.org, &name);
    let Some(serving) = function.and_then(|function| function.serving.as_ref()) else {
        let explanation = format!(
            "No revision of {name} serves yet, so it has no workers; see: dispatch get function \
             {name} --revisions"
        );
        let reason = Reason::Zero.word().to_owned();
        return Ok(Json(Scale { reason, explanation, ..Scale::default() }));
    };
    let settings = &serving.revision.settings;
    Ok(Json(show(&app.runner.scale(&serving.revision), settings)))
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn show(scale: &dispatch_runner::Scale, settings: &Settings) -> Scale {
    let (seen, room) = (&scale.seen, &scale.room);
    let crowded = (room.waiting > 0).then_some(match room.organization < room.share {
        true => Reason::Room,
        false if room.share < room.most => Reason::Share,
        false => Reason::Room,
    });
    let reason = seen.reason(crowded);
    Scale {
        reason: reason.word().to_owned(),
        explanation: explain(reason, scale, settings),
        workers: Workers {
            busy: number(seen.busy),
            idle: number(seen.idle),
            frozen: number(scale.frozen.min(seen.idle)),
            starting: number(seen.starting),
            waiting: number(room.waiting.min(seen.starting)),
        },
        wanted: number(seen.wanted()),
        calls: number(seen.calls),
        queued: number(seen.queued),
        concurrency: number(seen.concurrency),
        least: number(seen.least),
        most: number(seen.most),
        room: Room {
            used: number(room.taken),
            most: number(room.most),
            organization_used: number(room.organization),
            organization_most: number(room.share),
        },
        changes: scale.steps.iter().rev().map(change).collect(),
    }
}

fn change(step: &Step) -> Change {
    let since = step.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Change {
        time: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        change: step.change,
        workers: number(step.workers),
        reason: step.reason.word().to_owned(),
    }
}

fn explain(reason: Reason, scale: &dispatch_runner::Scale, settings: &Settings) -> String {
    let (seen, room) = (&scale.seen, &scale.room);
    let calls = count(seen.calls, "call runs", "calls run");
    let queued = count(seen.queued, "call waits", "calls wait");
    match reason {
        Reason::Demand if seen.concurrency > 1 => {
            format!("{calls} and {queued}; a worker takes up to {} at a time", seen.concurrency)
        }
        Reason::Demand => format!("{calls} and {queued}; a worker takes one at a time"),
        Reason::Maximum => format!(
            "{queued}, and the function may have no more than {}; raise --max-scale, or \
             --concurrency if its calls mostly wait themselves",
            workers(seen.most)
        ),
        Reason::Room => format!(
            "{queued}, and all {} that the server may have are in use; the operator can raise \
             --max-workers",
            workers(room.most)
        ),
        Reason::Share => format!(
            "{queued}, and all {} that the organization may have are in use; the operator can raise \
             --organization-workers",
            workers(room.share)
        ),
        Reason::Failing => {
            let next = scale.next_try.unwrap_or(Duration::ZERO).as_secs() + 1;
            format!(
                "the last {} failed; the next one is tried within {next} s, or with the next call, \
                 which gets the error",
                count(scale.failures as usize, "start", "starts")
            )
        }
        Reason::Pressure => {
            "the machine is short of memory, so no worker starts before a call needs one".to_owned()
        }
        Reason::Idle => format!(
            "workers without a call are kept for {} s after their last one",
            settings.idle.as_secs()
        ),
        Reason::Minimum => format!("minScale keeps {} ready", workers(seen.least)),
        Reason::Schedule => {
            let asking = settings.schedules.iter().find(|it| it.workers() == seen.least);
            let name = asking.map(ToString::to_string).unwrap_or_default();
            format!("the schedule \"{name}\" keeps {} ready now", workers(seen.least))
        }
        Reason::Retired => "another revision serves: these end with their calls".to_owned(),
        Reason::Zero | Reason::Ended => {
            "no call runs or waits, and nothing keeps a worker ready; the next call starts one"
                .to_owned()
        }
    }
}

fn count(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

fn workers(number: usize) -> String {
    count(number, "worker", "workers")
}
