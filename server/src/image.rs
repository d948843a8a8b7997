//! `/v1/image`: base images with dependencies.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dispatch_api::{Image, Kind, Problem, Status};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::app::App;
use crate::build_log::{self, LogQuery};
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource::{self, Body, ListQuery, created, resource};
use crate::store::{Entity, NewJob};
use crate::{tasks, watch};

/// What is stored of an image: the resource, and what its last good build made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Stored {
    /// The resource.
    #[serde(flatten)]
    pub image: Image,
    /// The key of the dependency layer; none without dependencies.
    pub layer: Option<String>,
    /// The name of the language where it runs: that of a container image has one of its own.
    pub runtime: String,
}

fn job(org: &str, name: &str, id: &str) -> NewJob {
    NewJob {
        kind: tasks::IMAGE,
        key: id.to_owned(),
        org: org.to_owned(),
        payload: json!({ "name": name }),
        run_at: 0,
    }
}

/// Whether functions on an image need no source of their own.
pub(crate) async fn serves_itself(app: &App, org: &str, name: &str) -> bool {
    let found = app.store.get(Kind::Image, org, name).await.ok().flatten();
    let stored = found.and_then(|image| serde_json::from_value::<Stored>(image.body).ok());
    stored.is_some_and(|stored| app.runner.serves_itself(&stored.runtime))
}

/// The base image must exist: asked before anything else, as the old server did.
async fn check_base(app: &App, org: &str, image: &mut Image) -> Result<(), Error> {
    let base = &image.base_image_name;
    let found = app
        .store
        .get(Kind::BaseImage, org, base)
        .await
        .map_err(|error| Error::store(Kind::BaseImage, base, error))?
        .ok_or_else(|| Error::bad_request(format!("Error fetching base image {base}")))?;
    let language = found.body.get("language").and_then(serde_json::Value::as_str);
    language.unwrap_or_default().clone_into(&mut image.language);
    image.docker_url.clear();
    Ok(())
}

#[utoipa::path(post, path = "/v1/image", tag = "image", request_body = Image,
    responses((status = 201, body = Image), (status = 400, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(mut image): Body<Image>,
) -> Result<(StatusCode, Json<Image>), Error> {
    check_base(&app, &caller.org, &mut image).await?;
    let entity = resource::entity(&caller, Kind::Image, &image.name, Status::Initialized, &image)?;
    let jobs = vec![job(&entity.org, &entity.name, &entity.id)];
    let entity = app
        .store
        .create(entity, jobs)
        .await
        .map_err(|error| Error::store(Kind::Image, &image.name, error))?;
    Ok(created(resource(&entity)?))
}

#[utoipa::path(get, path = "/v1/image", tag = "image", params(ListQuery),
    responses((status = 200, body = [Image])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, Error> {
    watch::list(&app, &caller, query, |_, _, entity| resource::<Image>(entity)).await
}

#[utoipa::path(get, path = "/v1/image/{imageName}", tag = "image",
    params(("imageName" = String, Path)),
    responses((status = 200, body = Image), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Image>, Error> {
    let entity = resource::find(&app, Kind::Image, &caller.org, &name).await?;
    Ok(Json(resource(&entity)?))
}

#[utoipa::path(put, path = "/v1/image/{imageName}", tag = "image",
    params(("imageName" = String, Path)), request_body = Image,
    responses((status = 200, body = Image), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(mut image): Body<Image>,
) -> Result<Json<Image>, Error> {
    check_base(&app, &caller.org, &mut image).await?;
    let entity = resource::find(&app, Kind::Image, &caller.org, &name).await?;
    resource::same_name(&name, &image.name)?;
    let job = job(&caller.org, &name, &entity.id);
    let expected = resource::expected(&image.revision);
    let change = move |entity: &mut Entity| {
        // What was built before serves until the new build is ready.
        let mut stored: Stored = serde_json::from_value(entity.body.clone()).unwrap_or_default();
        image.docker_url = stored.image.docker_url;
        stored.image = image;
        entity.body = serde_json::to_value(&stored).unwrap_or_default();
        entity.status = Status::Updating;
        entity.reason.clear();
        Ok(vec![job])
    };
    let entity = app
        .store
        .mutate(Kind::Image, &caller.org, &name, expected, change)
        .await
        .map_err(|error| Error::store(Kind::Image, &name, error))?;
    Ok(Json(resource(&entity)?))
}

#[utoipa::path(delete, path = "/v1/image/{imageName}", tag = "image",
    params(("imageName" = String, Path)),
    responses((status = 200, body = Image), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Image>, Error> {
    let entity = resource::remove(&app, Kind::Image, &caller.org, &name).await?;
    build_log::remove(&app, &entity.id).await;
    let mut image: Image = resource(&entity)?;
    image.status = Status::Deleted;
    Ok(Json(image))
}

#[utoipa::path(get, path = "/v1/image/{imageName}/logs", tag = "image",
    params(("imageName" = String, Path), LogQuery),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 404, body = Problem)))]
pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, Error> {
    let entity = resource::find(&app, Kind::Image, &caller.org, &name).await?;
    Ok(build_log::answer(app, entity, query.follow == Some(true)).await)
}
