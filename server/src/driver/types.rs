//! `/v1/event/drivertypes`: those that were made, and those that are built in.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use dispatch_api::driver::BUILTIN;
use dispatch_api::{DriverType, Invalid, Kind, Problem, Status, validate};

use crate::app::App;
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource::{self, Body, ListQuery, created, resource};
use crate::store::{self, Entity};
use crate::watch;

const KIND: Kind = Kind::DriverType;

/// Images of the old Dispatch that mean a built-in type, with any tag.
const KNOWN: [(&str, &str); 3] = [
    ("dispatchframework/ticker", "ticker"),
    ("dispatchframework/dispatch-events-ticker", "ticker"),
    ("kars7e/timer", "ticker"),
];

fn failed(name: &str) -> impl FnOnce(store::Error) -> Error {
    move |error| Error::store(KIND, name, error)
}

/// A built-in type as a resource.
fn built_in(kind: &dispatch_drivers::DriverType, org: &str) -> DriverType {
    DriverType {
        name: kind.name.to_owned(),
        image: format!("{BUILTIN}{}", kind.name),
        expose: kind.exposed,
        built_in: true,
        kind: KIND.as_str().to_owned(),
        org: org.to_owned(),
        ..DriverType::default()
    }
}

/// The built-in type that an image means.
pub(super) fn means(image: &str) -> Option<Result<&'static dispatch_drivers::DriverType, String>> {
    let repository = image.rsplit_once(':').map_or(image, |(repository, _)| repository);
    let known = KNOWN.iter().find(|(known, _)| *known == repository).map(|(_, name)| *name);
    let name = image.strip_prefix(BUILTIN).or(known)?;
    Some(dispatch_drivers::find(name).ok_or_else(|| {
        let names: Vec<_> = dispatch_drivers::types().iter().map(|kind| kind.name).collect();
        format!("no driver type {name} is built in, only {}", names.join(", "))
    }))
}

/// A type by its name; those that were made come first.
///
/// # Errors
/// What the store says.
pub(super) async fn find(
    app: &App,
    org: &str,
    name: &str,
) -> Result<Option<DriverType>, store::Error> {
    if let Some(entity) = app.store.get(KIND, org, name).await? {
        return resource(&entity)
            .map(Some)
            .map_err(|error| store::Error::Corrupt(error.problem.message));
    }
    Ok(dispatch_drivers::find(name).map(|kind| built_in(kind, org)))
}

fn check(mut driver_type: DriverType) -> Result<DriverType, Error> {
    if let Some(Err(text)) = means(&driver_type.image) {
        return Err(Invalid::new(validate::NOT_IN_ENUM, format!("image in body: {text}")).into());
    }
    driver_type.built_in = false;
    Ok(driver_type)
}

#[utoipa::path(post, path = "/v1/event/drivertypes", tag = "driver type", request_body = DriverType,
    responses((status = 201, body = DriverType), (status = 409, body = Problem)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(driver_type): Body<DriverType>,
) -> Result<(StatusCode, Json<DriverType>), Error> {
    let driver_type = check(driver_type)?;
    let name = driver_type.name.clone();
    let entity = resource::entity(&caller, KIND, &name, Status::Ready, &driver_type)?;
    let entity = app.store.create(entity, Vec::new()).await.map_err(failed(&name))?;
    Ok(created(resource(&entity)?))
}

#[utoipa::path(get, path = "/v1/event/drivertypes", tag = "driver type", params(ListQuery),
    responses((status = 200, body = [DriverType])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, Error> {
    if query.watch == Some(true) || query.limit.is_some() || query.tags.is_some() {
        return watch::list(&app, &caller, query, |_, _, entity| resource::<DriverType>(entity))
            .await;
    }
    let (mut all, _) = resource::list::<DriverType>(&app, &caller.org, &query, resource).await?;
    for kind in dispatch_drivers::types() {
        if !all.iter().any(|made| made.name == kind.name) {
            all.push(built_in(kind, &caller.org));
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(all).into_response())
}

#[utoipa::path(get, path = "/v1/event/drivertypes/{driverTypeName}", tag = "driver type",
    params(("driverTypeName" = String, Path)),
    responses((status = 200, body = DriverType), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<DriverType>, Error> {
    validate::path_name(validate::path_field(KIND), "path", &name)?;
    let found = find(&app, &caller.org, &name).await.map_err(failed(&name))?;
    found.map(Json).ok_or_else(|| Error::not_found(KIND.noun(), &name))
}

#[utoipa::path(put, path = "/v1/event/drivertypes/{driverTypeName}", tag = "driver type",
    params(("driverTypeName" = String, Path)), request_body = DriverType,
    responses((status = 200, body = DriverType), (status = 404, body = Problem)))]
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(driver_type): Body<DriverType>,
) -> Result<Json<DriverType>, Error> {
    resource::find(&app, KIND, &caller.org, &name).await?;
    resource::same_name(&name, &driver_type.name)?;
    let expected = resource::expected(&driver_type.revision);
    let body = resource::body(&check(driver_type)?)?;
    let change = move |entity: &mut Entity| {
        entity.body = body;
        Ok(Vec::new())
    };
    let entity = app.store.mutate(KIND, &caller.org, &name, expected, change).await;
    Ok(Json(resource(&entity.map_err(failed(&name))?)?))
}

#[utoipa::path(delete, path = "/v1/event/drivertypes/{driverTypeName}", tag = "driver type",
    params(("driverTypeName" = String, Path)),
    responses((status = 200, body = DriverType), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<DriverType>, Error> {
    let entity = resource::remove(&app, KIND, &caller.org, &name).await?;
    Ok(Json(resource(&entity)?))
}
