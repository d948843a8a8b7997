//! `/v1/schedule`: times at which functions are called. `tasks/schedule.rs` calls them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dispatch_api::{Invalid, Kind, Problem, Schedule, Status, validate};
use jiff::Timestamp;
use serde_json::Value;

use crate::app::App;
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource::{self, Body, ListQuery, created, resource};
use crate::store::{Entity, NewJob};
use crate::{tasks, watch};

/// The job that is due at the next tick.
pub(crate) fn job(org: &str, name: &str, next: Timestamp) -> NewJob {
    NewJob {
        kind: tasks::SCHEDULE,
        key: name.to_owned(),
        org: org.to_owned(),
        payload: Value::Null,
        run_at: next.as_microsecond(),
    }
}

/// Why a function cannot be called at the moment.
pub(crate) fn obstacle(app: &App, org: &str, function: &str) -> Option<String> {
    let snapshot = app.live.load();
    match snapshot.function(org, function) {
        None => Some(format!(
            "function {function} does not exist: make it with dispatch create function {function}"
        )),
        Some(found) if found.serving.is_none() => {
            Some(format!("function {function} is not READY: see dispatch get function {function}"))
        }
        Some(_) => None,
    }
}

/// A schedule as it is answered: one that is to tick has the state of its function.
fn show(app: &App, entity: &Entity) -> Result<Schedule, Error> {
    let mut schedule: Schedule = resource(entity)?;
    if schedule.next().is_some()
        && let Some(obstacle) = obstacle(app, &entity.org, &schedule.function)
    {
        schedule.status = Status::Error;
        schedule.reason.insert(0, obstacle);
    }
    Ok(schedule)
}

/// Sets the next tick of a schedule that is new, ticks at other times than before, or goes on.
fn begin(schedule: &mut Schedule) -> Result<(), Invalid> {
    let now = Timestamp::now();
    let next = schedule.ticks()?.after(now).ok_or_else(|| {
        let text = match (schedule.cron.as_str(), schedule.at.as_str()) {
            ("", at) => format!("at in body: {at} has passed; it is {now:.0} now"),
            (cron, _) => format!("cron in body: {cron:?} has no tick after now"),
        };
        Invalid::new(validate::PATTERN, text)
    })?;
    schedule.next_tick = if schedule.paused { String::new() } else { next.to_string() };
    Ok(())
}

fn jobs(org: &str, schedule: &Schedule) -> Vec<NewJob> {
    schedule.next().map(|next| job(org, &schedule.name, next)).into_iter().collect()
}

#[utoipa::path(post, path = "/v1/schedule", tag = "schedule", request_body = Schedule,
    responses((status = 201, body = Schedule), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(mut schedule): Body<Schedule>,
) -> Result<(StatusCode, Json<Schedule>), Error> {
    begin(&mut schedule)?;
    let name = schedule.name.clone();
    let entity = resource::entity(&caller, Kind::Schedule, &name, Status::Ready, &schedule)?;
    let entity = app
        .store
        .create(entity, jobs(&caller.org, &schedule))
        .await
        .map_err(|error| Error::store(Kind::Schedule, &name, error))?;
    app.settle().await;
    Ok(created(show(&app, &entity)?))
}

#[utoipa::path(get, path = "/v1/schedule", tag = "schedule", params(ListQuery),
    responses((status = 200, body = [Schedule])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, Error> {
    watch::list(&app, &caller, query, |app, _, entity| show(app, entity)).await
}

#[utoipa::path(get, path = "/v1/schedule/{scheduleName}", tag = "schedule",
    params(("scheduleName" = String, Path)),
    responses((status = 200, body = Schedule), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Schedule>, Error> {
    Ok(Json(show(&app, &resource::find(&app, Kind::Schedule, &caller.org, &name).await?)?))
}

/// What was a schedule's before a change of it stays, as far as the change leaves it its times.
fn go_on(schedule: &mut Schedule, before: &Schedule) -> Result<(), Invalid> {
    schedule.last_tick.clone_from(&before.last_tick);
    schedule.last_run.clone_from(&before.last_run);
    if schedule.same_times(before) && schedule.paused == before.paused {
        schedule.next_tick.clone_from(&before.next_tick);
        return Ok(());
    }
    let over = before.next_tick.is_empty() && !before.paused;
    if schedule.same_times(before) && (schedule.paused || over) {
        return Ok(());
    }
    begin(schedule)
}

#[utoipa::path(put, path = "/v1/schedule/{scheduleName}", tag = "schedule",
    params(("scheduleName" = String, Path)), request_body = Schedule,
    responses((status = 200, body = Schedule), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(mut schedule): Body<Schedule>,
) -> Result<Json<Schedule>, Error> {
    resource::find(&app, Kind::Schedule, &caller.org, &name).await?;
    resource::same_name(&name, &schedule.name)?;
    let expected = resource::expected(&schedule.revision);
    let change = move |entity: &mut Entity| {
        let before: Schedule = resource(entity).map_err(|error| error.problem)?;
        go_on(&mut schedule, &before)
            .map_err(|invalid| Problem::new(invalid.code, invalid.message))?;
        entity.body = resource::body(&schedule).map_err(|error| error.problem)?;
        entity.status = Status::Ready;
        entity.reason.clear();
        Ok(jobs(&entity.org, &schedule))
    };
    let entity = app
        .store
        .mutate(Kind::Schedule, &caller.org, &name, expected, change)
        .await
        .map_err(|error| Error::store(Kind::Schedule, &name, error))?;
    app.settle().await;
    Ok(Json(show(&app, &entity)?))
}

#[utoipa::path(delete, path = "/v1/schedule/{scheduleName}", tag = "schedule",
    params(("scheduleName" = String, Path)),
    responses((status = 200, body = Schedule), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Schedule>, Error> {
    let entity = resource::remove(&app, Kind::Schedule, &caller.org, &name).await?;
    Ok(Json(resource(&entity)?))
}
