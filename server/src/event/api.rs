//! `/v1/event`: events in, the log, deliveries, redriving and replaying.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dispatch_api::delivery::{DELIVERIES_HEADER, DUPLICATES_HEADER, EVENTS_HEADER};
use dispatch_api::{
    CloudEvent, Delivery, DeliveryState, Invalid, Kind, LoggedEvent, Problem, Receipt, Redriven,
    Replay, Replayed, validate,
};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{MAX_BODY, Subscription};
use crate::app::App;
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource::{self, Body, CONTINUE};
use crate::store::{self, DeliveryRow};

/// Items of a list that names no limit, and the most of one.
const LIMITS: (usize, usize) = (100, 1000);

#[utoipa::path(post, path = "/v1/event", tag = "event",
    request_body(content = Object, description = "CloudEvents 1.0, structured, binary or in a \
        batch, or the JSON of 0.1", content_type = "application/cloudevents+json"),
    responses((status = 200, description = "accepted; an event of 0.1 is echoed"),
        (status = 202, description = "accepted"), (status = 400, body = Problem)))]
pub(crate) async fn emit(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: axum::extract::Request,
) -> Result<Response, Error> {
    take(&app, &caller.org, request).await
}

/// Accepts the events of a request and answers it.
///
/// # Errors
/// What is wrong with them; then none is accepted.
pub(crate) async fn take(
    app: &App,
    org: &str,
    request: axum::extract::Request,
) -> Result<Response, Error> {
    let headers = request.headers().clone();
    let body = resource::bounded(request, MAX_BODY).await?;
    let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let events = CloudEvent::from_http(pairs, &body).map_err(|error| {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
        Error::new(status, error.to_string())
    })?;
    // A caller who has just subscribed gets what he sends now.
    app.settle().await;
    let receipt = super::accept(app, org, events).await?;
    let mut response = if is_old(&headers) {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    } else {
        // With a body it would be a reply.
        StatusCode::ACCEPTED.into_response()
    };
    count(&mut response, &receipt);
    Ok(response)
}

/// Whether the request is of the old API, whose answer repeats it.
fn is_old(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    !headers.contains_key("ce-id") && !kind.unwrap_or_default().contains("cloudevents")
}

fn count(response: &mut Response, receipt: &Receipt) {
    for (name, count) in [
        (EVENTS_HEADER, receipt.events),
        (DELIVERIES_HEADER, receipt.deliveries),
        (DUPLICATES_HEADER, receipt.duplicates),
    ] {
        if let Ok(name) = header::HeaderName::from_bytes(name.as_bytes()) {
            response.headers_mut().insert(name, HeaderValue::from(count));
        }
    }
}

/// Which events of the log are wanted.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogQuery {
    /// Only of this type.
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// At most this many, 1 to 1000, the newest first; 100 without it.
    limit: Option<usize>,
}

#[utoipa::path(get, path = "/v1/event/log", tag = "event", params(LogQuery),
    responses((status = 200, body = [LoggedEvent])))]
pub(crate) async fn log(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<LogQuery>,
) -> Result<Json<Vec<LoggedEvent>>, Error> {
    let limit = limit(query.limit)?;
    let rows = app.store.newest_events(&caller.org, query.event_type.as_deref(), limit).await;
    let show = |row: store::EventRow| LoggedEvent {
        number: row.seq,
        accepted: moment(row.accepted),
        event: serde_json::from_str(&row.body).unwrap_or_default(),
    };
    Ok(Json(rows.map_err(failed)?.into_iter().map(show).collect()))
}

fn limit(given: Option<usize>) -> Result<usize, Error> {
    let (usual, most) = LIMITS;
    match given.unwrap_or(usual) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        _ => {
            let text = "limit in query should be 1 to 1000";
            Err(Invalid::new(validate::TOO_LONG, text).into())
        }
    }
}

fn moment(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map(|time| time.to_string()).unwrap_or_default()
}

fn failed(error: store::Error) -> Error {
    Error::store(Kind::Subscription, "event", error)
}

/// Which deliveries are wanted.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeliveryQuery {
    /// Only of this subscription.
    subscription: Option<String>,
    /// Only in this state: `waiting`, `blocked`, `delivered` or `dead`.
    state: Option<String>,
    /// At most this many, 1 to 1000, the newest first; 100 without it.
    limit: Option<usize>,
    /// The `X-Dispatch-Continue` header of the page before.
    #[serde(rename = "continue")]
    after: Option<String>,
}

/// A delivery as clients see it; none where its subscription has gone meanwhile.
fn show(row: &DeliveryRow, names: &HashMap<String, String>) -> Option<Delivery> {
    let event: CloudEvent = serde_json::from_str(&row.event).unwrap_or_default();
    Some(Delivery {
        id: row.id.to_string(),
        subscription: names.get(&row.subscription)?.clone(),
        state: row.state,
        event_id: event.id,
        event_source: event.source,
        event_type: event.event_type,
        attempts: row.attempts,
        error: row.error.clone(),
        run: row.run.clone(),
        dead_lettered: row.dead_lettered,
        created: moment(row.created),
        modified: moment(row.modified),
        due: if row.state == DeliveryState::Waiting { moment(row.due) } else { String::new() },
    })
}

/// The subscriptions of an organization, or the one with this name: their names by their ids.
async fn names(
    app: &App,
    org: &str,
    name: Option<&String>,
) -> Result<HashMap<String, String>, Error> {
    let entities = match name {
        Some(name) => vec![resource::find(app, Kind::Subscription, org, name).await?],
        None => {
            app.store.list(Kind::Subscription, org, store::Page::default()).await.map_err(failed)?
        }
    };
    Ok(entities.into_iter().map(|entity| (entity.id, entity.name)).collect())
}

#[utoipa::path(get, path = "/v1/event/deliveries", tag = "event", params(DeliveryQuery),
    responses((status = 200, body = [Delivery]), (status = 404, body = Problem)))]
pub(crate) async fn deliveries(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<DeliveryQuery>,
) -> Result<Response, Error> {
    let limit = limit(query.limit)?;
    let state = match &query.state {
        None => None,
        Some(word) => Some(DeliveryState::parse(word).ok_or_else(|| {
            Invalid::not_in("state", "query", &DeliveryState::ALL.map(DeliveryState::as_str))
        })?),
    };
    let before = match &query.after {
        None => i64::MAX,
        Some(text) => {
            text.parse().map_err(|_| Invalid::wrong_type("continue", "query", "int64", text))?
        }
    };
    let names = names(&app, &caller.org, query.subscription.as_ref()).await?;
    let ids: Vec<String> = names.keys().cloned().collect();
    let rows = app.store.deliveries(&ids, state, before, limit).await.map_err(failed)?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|row| row.id);
    let shown: Vec<Delivery> = rows.iter().filter_map(|row| show(row, &names)).collect();
    let mut response = Json(shown).into_response();
    if let Some(next) = next {
        response.headers_mut().insert(CONTINUE, HeaderValue::from(next));
    }
    Ok(response)
}

async fn one(app: &App, org: &str, id: &str) -> Result<(DeliveryRow, Delivery), Error> {
    let missing = || Error::not_found("delivery", id);
    let number = id.parse().map_err(|_| Invalid::wrong_type("delivery", "path", "int64", id))?;
    let row = app.store.delivery(org, number).await.map_err(failed)?.ok_or_else(missing)?;
    let delivery = show(&row, &names(app, org, None).await?).ok_or_else(missing)?;
    Ok((row, delivery))
}

#[utoipa::path(get, path = "/v1/event/deliveries/{delivery}", tag = "event",
    params(("delivery" = String, Path)),
    responses((status = 200, body = Delivery), (status = 404, body = Problem)))]
pub(crate) async fn delivery(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Delivery>, Error> {
    Ok(Json(one(&app, &caller.org, &id).await?.1))
}

#[utoipa::path(post, path = "/v1/event/deliveries/{delivery}/redrive", tag = "event",
    params(("delivery" = String, Path)),
    responses((status = 202, body = Delivery), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn redrive(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Delivery>), Error> {
    let (row, _) = one(&app, &caller.org, &id).await?;
    app.store.redrive_delivery(row.id).await.map_err(failed)?;
    Ok((StatusCode::ACCEPTED, Json(one(&app, &caller.org, &id).await?.1)))
}

/// Which deliveries are started over.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct RedriveQuery {
    /// All dead ones of this subscription.
    subscription: String,
}

#[utoipa::path(post, path = "/v1/event/redrive", tag = "event", params(RedriveQuery),
    responses((status = 202, body = Redriven), (status = 404, body = Problem)))]
pub(crate) async fn redrive_all(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<RedriveQuery>,
) -> Result<(StatusCode, Json<Redriven>), Error> {
    if query.subscription.is_empty() {
        return Err(Invalid::required("subscription", "query").into());
    }
    let entity = resource::find(&app, Kind::Subscription, &caller.org, &query.subscription).await?;
    let deliveries = app.store.redrive_deliveries(&entity.id).await.map_err(failed)?;
    Ok((StatusCode::ACCEPTED, Json(Redriven { deliveries })))
}

#[utoipa::path(post, path = "/v1/event/replay", tag = "event", request_body = Replay,
    responses((status = 202, body = Replayed), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(crate) async fn replay(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(replay): Body<Replay>,
) -> Result<(StatusCode, Json<Replayed>), Error> {
    let entity =
        resource::find(&app, Kind::Subscription, &caller.org, &replay.subscription).await?;
    let stored = resource::resource(&entity)?;
    let subscription = Subscription::new(&entity.id, &entity.org, stored)
        .map_err(|error| Error::internal("the filters of the subscription are none", &error))?;
    let replayed = super::replay::replay(&app, &subscription, &replay).await?;
    Ok((StatusCode::ACCEPTED, Json(replayed)))
}
