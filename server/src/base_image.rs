//! `/v1/baseimage`: what images are built on.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dispatch_api::{BaseImage, Kind, Problem, Status};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::app::App;
use crate::build_log::{self, LogQuery};
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource::{self, Body, ListQuery, created, resource};
use crate::store::NewJob;
use crate::{tasks, watch};

/// What is stored of a base image: the resource, and what its image turned out to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Stored {
    /// The resource.
    #[serde(flatten)]
    pub base: BaseImage,
    /// The name of the language where it runs: that of a container image has one of its own.
    pub runtime: String,
    /// The digest of its manifest.
    pub digest: String,
}

/// How long a new base image stays `INITIALIZED`: scripts of the old system look for that state with
/// one GET right after the POST.
const SETTLE_MICROS: i64 = 500_000;

fn job(org: &str, name: &str, id: &str) -> NewJob {
    NewJob {
        kind: tasks::BASE_IMAGE,
        key: id.to_owned(),
        org: org.to_owned(),
        payload: json!({ "name": name }),
        run_at: resource::now() + SETTLE_MICROS,
    }
}

#[utoipa::path(post, path = "/v1/baseimage", tag = "base image", request_body = BaseImage,
    responses((status = 201, body = BaseImage), (status = 409, body = Problem)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(image): Body<BaseImage>,
) -> Result<(StatusCode, Json<BaseImage>), Error> {
    let entity =
        resource::entity(&caller, Kind::BaseImage, &image.name, Status::Initialized, &image)?;
    let jobs = vec![job(&entity.org, &entity.name, &entity.id)];
    let entity = app
        .store
        .create(entity, jobs)
        .await
        .map_err(|error| Error::store(Kind::BaseImage, &image.name, error))?;
    Ok(created(resource(&entity)?))
}

#[utoipa::path(get, path = "/v1/baseimage", tag = "base image", params(ListQuery),
    responses((status = 200, body = [BaseImage])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, Error> {
    watch::list(&app, &caller, query, |_, _, entity| resource::<BaseImage>(entity)).await
}

#[utoipa::path(get, path = "/v1/baseimage/{baseImageName}", tag = "base image",
    params(("baseImageName" = String, Path)),
    responses((status = 200, body = BaseImage), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<BaseImage>, Error> {
    let entity = resource::find(&app, Kind::BaseImage, &caller.org, &name).await?;
    Ok(Json(resource(&entity)?))
}

#[utoipa::path(put, path = "/v1/baseimage/{baseImageName}", tag = "base image",
    params(("baseImageName" = String, Path)), request_body = BaseImage,
    responses((status = 200, body = BaseImage), (status = 404, body = Problem)))]
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(image): Body<BaseImage>,
) -> Result<Json<BaseImage>, Error> {
    let entity = resource::find(&app, Kind::BaseImage, &caller.org, &name).await?;
    resource::same_name(&name, &image.name)?;
    let body = resource::body(&image)?;
    let job = NewJob { run_at: 0, ..job(&caller.org, &name, &entity.id) };
    let change = move |entity: &mut crate::store::Entity| {
        entity.body = body;
        entity.status = Status::Updating;
        entity.reason.clear();
        Ok(vec![job])
    };
    let expected = resource::expected(&image.revision);
    let entity = app
        .store
        .mutate(Kind::BaseImage, &caller.org, &name, expected, change)
        .await
        .map_err(|error| Error::store(Kind::BaseImage, &name, error))?;
    Ok(Json(resource(&entity)?))
}

#[utoipa::path(delete, path = "/v1/baseimage/{baseImageName}", tag = "base image",
    params(("baseImageName" = String, Path)),
    responses((status = 200, body = BaseImage), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<BaseImage>, Error> {
    let entity = resource::remove(&app, Kind::BaseImage, &caller.org, &name).await?;
    build_log::remove(&app, &entity.id).await;
    Ok(Json(resource(&entity)?))
}

#[utoipa::path(get, path = "/v1/baseimage/{baseImageName}/logs", tag = "base image",
    params(("baseImageName" = String, Path), LogQuery),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 404, body = Problem)))]
pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Error> {
    let entity = resource::find(&app, Kind::BaseImage, &caller.org, &name).await?;
    Ok(build_log::answer(app, entity, query.follow == Some(true)).await)
}
