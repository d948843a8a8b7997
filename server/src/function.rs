//! `/v1/function`: source, image, settings, and the revisions they make.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dispatch_api::{Function, Kind, Problem, Revision, Status};
use dispatch_runner::{ScaleSchedule, Settings};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::app::App;
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource::{self, Body, ListQuery, created, resource, seconds};
use crate::store::{Entity, NewJob, RevisionRow};
use crate::{egress, image, schema, tasks, watch};

/// What is stored of a revision: the function as it was sent, and what building it found out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Stored {
    /// The function without its source.
    pub function: Function,
    /// `sha256:…` of the source archive.
    pub source_digest: String,
    /// What was built of the source, by its name beside the sources; empty where it is run as it is.
    pub built: String,
    /// The language pack's name.
    pub language: String,
    /// The key of the dependency layer.
    pub layer: Option<String>,
    /// The handler, inferred where none was given.
    pub handler: String,
}

impl Stored {
    /// What the runner needs to run it.
    pub(crate) fn revision(
        &self,
        app: &App,
        org: &str,
        name: &str,
        faas_id: &str,
    ) -> dispatch_runner::Revision {
        let (function, config) = (&self.function, &app.config);
        let or = |value: i64, default: usize| {
            usize::try_from(value).ok().filter(|value| *value > 0).unwrap_or(default)
        };
        let given = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
        let min_scale = or(function.min_scale, 0);
        let schedules: Vec<ScaleSchedule> =
            function.schedules.iter().filter_map(|text| text.parse().ok()).collect();
        let kept = schedules.iter().map(ScaleSchedule::workers).chain([min_scale]).max();
        dispatch_runner::Revision {
            organization: org.to_owned(),
            function: name.to_owned(),
            faas_id: faas_id.to_owned(),
            language: self.language.clone(),
            layer: self.layer.as_ref().map(|key| config.data_dir.join("layers").join(key)),
            source: config.data_dir.join("sources").join(match self.built.as_str() {
                "" => hex(&self.source_digest),
                built => built,
            }),
            handler: self.handler.clone(),
            settings: Settings {
                memory_bytes: given(function.memory).unwrap_or(config.default_memory) << 20,
                cpu_millis: given(function.cpu).unwrap_or(config.default_cpu),
                concurrency: or(function.concurrency, 1),
                min_scale,
                max_scale: or(function.max_scale, config.default_max_scale.max(kept.unwrap_or(0))),
                schedules,
                queue: config.max_waiting,
                idle: Duration::from_secs(config.idle_seconds),
                environment: function.environment.clone().into_iter().collect(),
                preload: function.preload,
                egress: egress::of(config, function),
            },
        }
    }
}

/// A digest without the name of its algorithm.
pub(crate) fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

/// The job that builds a revision and makes it serve.
fn job(org: &str, name: &str, faas_id: &str) -> NewJob {
    NewJob {
        kind: tasks::FUNCTION,
        key: faas_id.to_owned(),
        org: org.to_owned(),
        payload: json!({ "name": name, "faasId": faas_id }),
        run_at: 0,
    }
}

/// Checks what is more than shape, and keeps the source. Returns its digest, or none where no
/// source was sent.
async fn accept(app: &App, function: &mut Function) -> Result<Option<String>, Error> {
    schema::check("schema.in", function.schema.input.as_ref())?;
    schema::check("schema.out", function.schema.output.as_ref())?;
    egress::check(&app.config, function)?;
    function.source_path.clear();
    function.reason.clear();
    function.isolation.clear();
    let source = std::mem::take(&mut function.source);
    if source.is_empty() {
        return Ok(None);
    }
    let archive = STANDARD
        .decode(source.as_bytes())
        .map_err(|error| Error::bad_request(format!("source in body is not base64: {error}")))?;
    let limit = app.config.max_source << 20;
    if archive.len() as u64 > limit {
        let text = format!(
            "the source archive has {} bytes; at most {limit} are allowed: leave out what the \
             function does not need, such as dependencies that belong into an image",
            archive.len()
        );
        return Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, text).page("archive-refused"));
    }
    keep(app, archive).await.map(Some)
}

/// Writes an archive under its digest, durably, unless it is there already.
async fn keep(app: &App, archive: Vec<u8>) -> Result<String, Error> {
    let hash = digest(&SHA256, &archive);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let path = app.archive(&hex);
    let write = move || -> std::io::Result<()> {
        use std::io::Write as _;
        if path.exists() {
            // Kept from being collected as unused.
            return std::fs::File::options()
                .write(true)
                .open(&path)?
                .set_modified(std::time::SystemTime::now());
        }
        let dir = path.parent().unwrap_or(&path);
        let unfinished = dir.join(format!(".{}", Uuid::new_v4()));
        let mut file = std::fs::File::create_new(&unfinished)?;
        let written = file
            .write_all(&archive)
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&unfinished, &path))
            .and_then(|()| std::fs::File::open(dir)?.sync_all());
        if written.is_err() {
            let _ = std::fs::remove_file(&unfinished);
        }
        written
    };
    let text = "the source could not be stored: the server's operator finds the cause in its log";
    tokio::task::spawn_blocking(write)
        .await
        .map_err(|error| Error::internal(text, &error))?
        .map_err(|error| {
            tracing::error!(%error, "a source archive could not be written");
            Error::new(StatusCode::SERVICE_UNAVAILABLE, text)
        })?;
    Ok(format!("sha256:{hex}"))
}

fn show(app: &App, entity: &Entity) -> Result<Function, Error> {
    let mut function: Function = resource(entity)?;
    let number = entity.body.get("servingRevision").and_then(serde_json::Value::as_i64);
    function.serving_revision = number.unwrap_or(0);
    if function.serving_revision > 0 {
        function.function_image_url = format!("dispatch/func-{}:latest", function.faas_id);
    }
    function.isolation = app.runner.isolation().tier.to_string();
    Ok(function)
}

#[utoipa::path(post, path = "/v1/function", tag = "function", request_body = Function,
    responses((status = 201, body = Function), (status = 400, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(mut function): Body<Function>,
) -> Result<(StatusCode, Json<Function>), Error> {
    let mut digest = accept(&app, &mut function).await?;
    if digest.is_none() && function.source_url.is_empty() {
        if !image::serves_itself(&app, &caller.org, &function.image).await {
            return Err(Error::bad_request("either source or sourceURL must be specified"));
        }
        let nothing = dispatch_runner::archive::empty();
        let nothing = nothing.map_err(|error| Error::internal("no archive", &error))?;
        digest = Some(keep(&app, nothing).await?);
    }
    let name = function.name.clone();
    function.faas_id = Uuid::new_v4().to_string();
    let entity = resource::entity(&caller, Kind::Function, &name, Status::Initialized, &function)?;
    let jobs = vec![job(&caller.org, &name, &function.faas_id)];
    let row = RevisionRow {
        function_id: entity.id.clone(),
        number: 0,
        faas_id: function.faas_id.clone(),
        status: Status::Initialized,
        reason: Vec::new(),
        created: resource::now(),
        body: revision_body(function, digest.unwrap_or_default())?,
    };
    let (entity, _) = app
        .store
        .create_function(entity, row, jobs)
        .await
        .map_err(|error| Error::store(Kind::Function, &name, error))?;
    app.settle().await;
    Ok(created(show(&app, &entity)?))
}

fn revision_body(function: Function, source_digest: String) -> Result<serde_json::Value, Error> {
    let handler = function.handler.clone();
    resource::body(&Stored { function, source_digest, handler, ..Stored::default() })
}

#[utoipa::path(get, path = "/v1/function", tag = "function", params(ListQuery),
    responses((status = 200, body = [Function])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, Error> {
    watch::list(&app, &caller, query, |app, _, entity| show(app, entity)).await
}

#[utoipa::path(get, path = "/v1/function/{functionName}", tag = "function",
    params(("functionName" = String, Path)),
    responses((status = 200, body = Function), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Function>, Error> {
    Ok(Json(show(&app, &resource::find(&app, Kind::Function, &caller.org, &name).await?)?))
}

#[utoipa::path(put, path = "/v1/function/{functionName}", tag = "function",
    params(("functionName" = String, Path)), request_body = Function,
    responses((status = 200, body = Function), (status = 404, body = Problem)))]
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(mut function): Body<Function>,
) -> Result<Json<Function>, Error> {
    let current = resource::find(&app, Kind::Function, &caller.org, &name).await?;
    resource::same_name(&name, &function.name)?;
    let expected = resource::expected(&function.revision);
    let digest = match accept(&app, &mut function).await? {
        Some(digest) => digest,
        // Without a source the newest revision's stays.
        None => newest_source(&app, &current.id, &name).await?,
    };
    let faas_id = Uuid::new_v4().to_string();
    function.faas_id.clone_from(&faas_id);
    let stored = revision_body(function.clone(), digest)?;
    let body = resource::body(&function)?;
    let change = move |entity: &mut Entity| {
        let before = std::mem::replace(&mut entity.body, body);
        for key in ["servingFaasId", "servingRevision"] {
            // Nothing serves before the first revision could be built.
            if let Some(value) = before.get(key).filter(|value| !value.is_null()) {
                entity.body[key] = value.clone();
            }
        }
        entity.status = Status::Updating;
        entity.reason.clear();
        Ok((stored, faas_id))
    };
    let (org, job_name) = (caller.org.clone(), name.clone());
    let jobs = move |row: &RevisionRow| vec![job(&org, &job_name, &row.faas_id)];
    let (entity, _) = app
        .store
        .update_function(&caller.org, &name, expected, change, jobs)
        .await
        .map_err(|error| Error::store(Kind::Function, &name, error))?;
    app.settle().await;
    Ok(Json(show(&app, &entity)?))
}

async fn newest_source(app: &App, id: &str, name: &str) -> Result<String, Error> {
    let rows = app.store.revisions(id).await;
    let rows = rows.map_err(|error| Error::store(Kind::Function, name, error))?;
    let stored =
        rows.first().and_then(|row| serde_json::from_value::<Stored>(row.body.clone()).ok());
    stored
        .map(|stored| stored.source_digest)
        .ok_or_else(|| Error::bad_request("either source or sourceURL must be specified"))
}

#[utoipa::path(delete, path = "/v1/function/{functionName}", tag = "function",
    params(("functionName" = String, Path)),
    responses((status = 200, body = Function), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Function>, Error> {
    // Runs that ended a moment ago are on their way to the store: they must be there to be deleted.
    app.recorder.flush().await;
    Ok(Json(show(&app, &resource::remove(&app, Kind::Function, &caller.org, &name).await?)?))
}

#[utoipa::path(get, path = "/v1/function/{functionName}/revisions", tag = "function",
    params(("functionName" = String, Path)),
    responses((status = 200, body = [Revision]), (status = 404, body = Problem)))]
pub(crate) async fn revisions(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Vec<Revision>>, Error> {
    let entity = resource::find(&app, Kind::Function, &caller.org, &name).await?;
    let rows = app.store.revisions(&entity.id).await;
    let rows = rows.map_err(|error| Error::store(Kind::Function, &name, error))?;
    let serving = entity.body.get("servingFaasId").and_then(serde_json::Value::as_str);
    let show = |row: RevisionRow| {
        let stored: Stored = serde_json::from_value(row.body).unwrap_or_default();
        Revision {
            serving: serving == Some(row.faas_id.as_str()),
            number: row.number,
            faas_id: row.faas_id,
            status: row.status,
            reason: row.reason,
            created_time: seconds(row.created),
            image: stored.function.image,
            handler: stored.handler,
            source_digest: stored.source_digest,
        }
    };
    Ok(Json(rows.into_iter().map(show).collect()))
}

/// Which revision is to serve again.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub(crate) struct Rollback {
    /// Its number; without one the newest good one before the revision that serves.
    revision: Option<i64>,
}

#[utoipa::path(post, path = "/v1/function/{functionName}/rollback", tag = "function",
    params(("functionName" = String, Path)), request_body = Rollback,
    responses((status = 200, body = Function), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn rollback(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    request: axum::extract::Request,
) -> Result<Json<Function>, Error> {
    let body = resource::read(request).await?;
    let wanted: Rollback = if body.is_empty() {
        Rollback::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            Error::bad_request(format!("parsing body body from \"\" failed, because {error}"))
        })?
    };
    let entity = resource::find(&app, Kind::Function, &caller.org, &name).await?;
    let failed = |error| Error::store(Kind::Function, &name, error);
    let number = match wanted.revision {
        Some(number) => number,
        None => {
            let serving = entity.body.get("servingRevision").and_then(serde_json::Value::as_i64);
            let rows = app.store.revisions(&entity.id).await.map_err(failed)?;
            let before = rows.iter().find(|row| {
                row.status == Status::Ready && serving.is_some_and(|serving| row.number < serving)
            });
            before.map(|row| row.number).ok_or_else(|| {
                Error::bad_request(format!("function {name} has no earlier revision to go back to"))
            })?
        }
    };
    let entity = app.store.serve_revision(&caller.org, &name, number).await.map_err(failed)?;
    app.settle().await;
    Ok(Json(show(&app, &entity)?))
}
