//! `/v1/image`: base images with dependencies.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use dispatch_api::{Image, Kind, Problem, Status};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::app::App;
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
    let log = app.build_log(&entity.id);
    if let Err(error) = tokio::fs::remove_file(&log).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, log = %log.display(), "a build log is left over");
    }
    let mut image: Image = resource(&entity)?;
    image.status = Status::Deleted;
    Ok(Json(image))
}

/// Bytes of a build log that are shown.
const MAX_LOG: usize = 4 << 20;

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
    let body = if query.follow == Some(true) {
        axum::body::Body::from_stream(follow(app, entity))
    } else {
        let mut log = tokio::fs::read(app.build_log(&entity.id)).await.unwrap_or_default();
        log.truncate(MAX_LOG);
        log.into()
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// How a build log is read.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogQuery {
    /// Go on until the build has ended.
    follow: Option<bool>,
}

/// The log as it grows, until the image is built or gone.
fn follow(
    app: Arc<App>,
    entity: Entity,
) -> impl futures_util::Stream<Item = Result<bytes::Bytes, std::io::Error>> {
    let path = app.build_log(&entity.id);
    futures_util::stream::unfold((app, entity, path, 0usize, false), |state| async move {
        let (app, entity, path, mut sent, last) = state;
        if last {
            return None;
        }
        loop {
            // The state first: what was logged before the end is then certainly in the file.
            let current =
                app.store.get(Kind::Image, &entity.org, &entity.name).await.ok().flatten();
            let building = current.is_some_and(|image| {
                matches!(image.status, Status::Initialized | Status::Creating | Status::Updating)
            });
            let log = tokio::fs::read(&path).await.unwrap_or_default();
            let more = log.get(sent..).unwrap_or_default().to_vec();
            let done = !building || app.stopping.is_cancelled();
            if !more.is_empty() || done {
                sent += more.len();
                let done = done || sent >= MAX_LOG;
                return Some((Ok(bytes::Bytes::from(more)), (app, entity, path, sent, done)));
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
}
