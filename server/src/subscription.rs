//! `/v1/event/subscriptions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dispatch_api::{Invalid, Kind, Problem, Status, Subscription, validate};

use crate::app::App;
use crate::event::{self, waiting_for};
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource::{self, Body, ListQuery, created, resource};
use crate::store::{self, Entity};
use crate::watch;

const KIND: Kind = Kind::Subscription;

fn failed(name: &str) -> impl FnOnce(store::Error) -> Error {
    move |error| Error::store(KIND, name, error)
}

fn show(entity: &Entity, status: Status) -> Result<Json<Subscription>, Error> {
    let mut subscription: Subscription = resource(entity)?;
    subscription.status = status;
    Ok(Json(subscription))
}

/// What was sent, as it is stored.
fn check(mut subscription: Subscription) -> Result<Subscription, Error> {
    event::compile(&subscription)
        .map_err(|error| Invalid::new(validate::PATTERN, format!("{error} (in body)")))?;
    subscription.progress = None;
    Ok(subscription)
}

#[utoipa::path(post, path = "/v1/event/subscriptions", tag = "subscription",
    request_body = Subscription,
    responses((status = 201, body = Subscription), (status = 409, body = Problem)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(subscription): Body<Subscription>,
) -> Result<(StatusCode, Json<Subscription>), Error> {
    let subscription = check(subscription)?;
    let name = subscription.name.clone();
    let entity = resource::entity(&caller, KIND, &name, Status::Ready, &subscription)?;
    let entity = app.store.create(entity, Vec::new()).await.map_err(failed(&name))?;
    app.settle().await;
    let Json(subscription) = show(&entity, Status::Creating)?;
    Ok(created(subscription))
}

#[utoipa::path(get, path = "/v1/event/subscriptions", tag = "subscription", params(ListQuery),
    responses((status = 200, body = [Subscription])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, Error> {
    watch::list(&app, &caller, query, |_, _, entity| resource::<Subscription>(entity)).await
}

#[utoipa::path(get, path = "/v1/event/subscriptions/{subscriptionName}", tag = "subscription",
    params(("subscriptionName" = String, Path)),
    responses((status = 200, body = Subscription), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Subscription>, Error> {
    let entity = resource::find(&app, KIND, &caller.org, &name).await?;
    let mut subscription: Subscription = resource(&entity)?;
    let mut progress = app.store.progress(&entity.id).await.map_err(failed(&name))?;
    progress.waiting_for = waiting_for(&app, &entity.id).unwrap_or_default();
    subscription.progress = Some(progress);
    Ok(Json(subscription))
}

#[utoipa::path(put, path = "/v1/event/subscriptions/{subscriptionName}", tag = "subscription",
    params(("subscriptionName" = String, Path)), request_body = Subscription,
    responses((status = 200, body = Subscription), (status = 404, body = Problem)))]
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(subscription): Body<Subscription>,
) -> Result<Json<Subscription>, Error> {
    resource::find(&app, KIND, &caller.org, &name).await?;
    resource::same_name(&name, &subscription.name)?;
    let expected = resource::expected(&subscription.revision);
    let body = resource::body(&check(subscription)?)?;
    let change = move |entity: &mut Entity| {
        entity.body = body;
        Ok(Vec::new())
    };
    let entity = app.store.mutate(KIND, &caller.org, &name, expected, change).await;
    let entity = entity.map_err(failed(&name))?;
    app.settle().await;
    show(&entity, Status::Updating)
}

#[utoipa::path(delete, path = "/v1/event/subscriptions/{subscriptionName}", tag = "subscription",
    params(("subscriptionName" = String, Path)),
    responses((status = 200, body = Subscription), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Subscription>, Error> {
    let entity = resource::remove(&app, KIND, &caller.org, &name).await?;
    app.metrics.forget_subscription(&caller.org, &name);
    show(&entity, Status::Deleting)
}
