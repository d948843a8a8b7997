//! `/v1/event/drivers`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dispatch_api::{Driver, Kind, Problem, Status, validate};

use super::{front, log, prepare, types};
use crate::app::App;
use crate::build_log::LogQuery;
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource::{self, Body, ListQuery, created, resource};
use crate::store::{self, Entity};
use crate::watch;

const KIND: Kind = Kind::Driver;

fn failed(name: &str) -> impl FnOnce(store::Error) -> Error {
    move |error| Error::store(KIND, name, error)
}

fn show(app: &App, entity: &Entity) -> Result<Driver, Error> {
    let mut driver: Driver = resource(entity)?;
    if driver.expose {
        driver.url = front::url(app, &entity.org, &entity.name);
    }
    Ok(driver)
}

fn showing(app: &App, entity: &Entity, status: Status) -> Result<Json<Driver>, Error> {
    let mut driver = show(app, entity)?;
    driver.status = status;
    Ok(Json(driver))
}

/// What was sent, as it is stored; the type says the rest.
async fn check(app: &App, org: &str, mut driver: Driver) -> Result<Driver, Error> {
    let name = driver.name.clone();
    let found = types::find(app, org, &driver.driver_type).await.map_err(failed(&name))?;
    let bad = |text: String| {
        Error::bad_request(format!("bad request when processing event driver {name}: {text}"))
    };
    let Some(driver_type) = found else {
        return Err(bad(format!("driver type {} does not exist", driver.driver_type)));
    };
    if driver.egress == "full" && app.config.forbid_full_egress {
        let text = "egress full is forbidden by the server's operator (--forbid-full-egress)";
        return Err(Error::new(StatusCode::FORBIDDEN, text).page("egress"));
    }
    prepare::check(app, org, &driver, &driver_type).map_err(bad)?;
    driver.expose = driver_type.expose;
    driver.reason.clear();
    Ok(driver)
}

#[utoipa::path(post, path = "/v1/event/drivers", tag = "driver", request_body = Driver,
    responses((status = 201, body = Driver), (status = 400, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(driver): Body<Driver>,
) -> Result<(StatusCode, Json<Driver>), Error> {
    let driver = check(&app, &caller.org, driver).await?;
    let name = driver.name.clone();
    let entity = resource::entity(&caller, KIND, &name, Status::Creating, &driver)?;
    let entity = app.store.create(entity, Vec::new()).await.map_err(failed(&name))?;
    Ok(created(show(&app, &entity)?))
}

#[utoipa::path(get, path = "/v1/event/drivers", tag = "driver", params(ListQuery),
    responses((status = 200, body = [Driver])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, Error> {
    watch::list(&app, &caller, query, |app, _, entity| show(app, entity)).await
}

#[utoipa::path(get, path = "/v1/event/drivers/{driverName}", tag = "driver",
    params(("driverName" = String, Path)),
    responses((status = 200, body = Driver), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Driver>, Error> {
    Ok(Json(show(&app, &resource::find(&app, KIND, &caller.org, &name).await?)?))
}

#[utoipa::path(put, path = "/v1/event/drivers/{driverName}", tag = "driver",
    params(("driverName" = String, Path)), request_body = Driver,
    responses((status = 200, body = Driver), (status = 404, body = Problem)))]
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(driver): Body<Driver>,
) -> Result<Json<Driver>, Error> {
    resource::find(&app, KIND, &caller.org, &name).await?;
    resource::same_name(&name, &driver.name)?;
    let expected = resource::expected(&driver.revision);
    let body = resource::body(&check(&app, &caller.org, driver).await?)?;
    let change = move |entity: &mut Entity| {
        // What has not changed goes on running.
        if entity.body != body {
            entity.status = Status::Updating;
            entity.reason.clear();
        }
        entity.body = body;
        Ok(Vec::new())
    };
    let entity = app.store.mutate(KIND, &caller.org, &name, expected, change).await;
    showing(&app, &entity.map_err(failed(&name))?, Status::Updating)
}

#[utoipa::path(delete, path = "/v1/event/drivers/{driverName}", tag = "driver",
    params(("driverName" = String, Path)),
    responses((status = 200, body = Driver), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Driver>, Error> {
    let entity = resource::remove(&app, KIND, &caller.org, &name).await?;
    app.metrics.forget_driver(&caller.org, &name);
    showing(&app, &entity, Status::Deleting)
}

#[utoipa::path(get, path = "/v1/event/drivers/{driverName}/logs", tag = "driver",
    params(("driverName" = String, Path), LogQuery),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 404, body = Problem)))]
pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Error> {
    validate::path_name(validate::path_field(KIND), "path", &name)?;
    let entity = resource::find(&app, KIND, &caller.org, &name).await?;
    Ok(log::answer(app, entity, query.follow == Some(true)))
}
