//! Jobs that make base images, images and functions ready.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use dispatch_api::{BaseImage, Function, Kind, Status};
use dispatch_runner::{BuildError, LayerRequest, SourceRequest};
use serde_json::json;

use super::{backoff, gone};
use crate::app::App;
use crate::function::{Stored, hex};
use crate::image;
use crate::resource::now;
use crate::store::{self, Entity, Job, JobEnd};

type Result<T, E = String> = std::result::Result<T, E>;

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn text(error: store::Error) -> String {
    error.to_string()
}

async fn entity(app: &App, kind: Kind, job: &Job) -> Result<Option<Entity>> {
    let name = job.payload.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
    app.store.get(kind, &job.org, name).await.map_err(text)
}

/// Changes an entity if it is still the one the job is about.
async fn change(
    app: &App,
    seen: &Entity,
    apply: impl FnOnce(&mut Entity) + Send + 'static,
) -> Result<bool> {
    let id = seen.id.clone();
    let change = move |entity: &mut Entity| {
        if entity.id != id {
            return Err(gone());
        }
        apply(entity);
        Ok(Vec::new())
    };
    // Only what the job has seen is changed: an update meanwhile has queued the job again.
    let expected = Some(seen.revision);
    match app.store.mutate(seen.kind, &seen.org, &seen.name, expected, change).await {
        Ok(_) => Ok(true),
        Err(store::Error::Missing | store::Error::Refused(_) | store::Error::Conflict { .. }) => {
            Ok(false)
        }
        Err(error) => Err(text(error)),
    }
}

fn failed(reason: String) -> impl FnOnce(&mut Entity) + Send + 'static {
    move |entity| {
        entity.status = Status::Error;
        entity.reason = vec![reason];
    }
}

/// The language a reference means, installed here, or what to do.
fn language(app: &App, reference: &str) -> Result<String> {
    let installed = app.runner.runtimes();
    let names: Vec<&str> = installed.iter().map(|runtime| runtime.language.as_str()).collect();
    let Some(language) = app.runner.resolve_language(reference) else {
        return Err(format!(
            "error when pulling image {reference}: only the languages of this machine can be \
             used here, not images of a registry; use the reference \
             dispatchframework/<language>-base with one of: {}",
            names.join(", ")
        ));
    };
    if names.contains(&language.as_str()) {
        return Ok(language);
    }
    Err(format!(
        "the language {language} is not installed on this machine: install its interpreter, start \
         the server again and update the base image; installed are: {}",
        names.join(", ")
    ))
}

/// Resolves a base image to a language of this machine.
pub(super) async fn base_image(app: &Arc<App>, job: &Job) -> Result<JobEnd> {
    let Some(entity) = entity(app, Kind::BaseImage, job).await? else { return Ok(JobEnd::Done) };
    let base: BaseImage = serde_json::from_value(entity.body.clone()).unwrap_or_default();
    let found = match language(app, &base.docker_url) {
        Ok(language) => app.runner.prepare_language(&language).await.map(|()| language),
        Err(reason) => Err(reason),
    };
    match found {
        Ok(language) => {
            let apply = move |entity: &mut Entity| {
                if base.language.is_empty() {
                    entity.body["language"] = json!(language);
                }
                entity.status = Status::Ready;
                entity.reason.clear();
            };
            change(app, &entity, apply).await?;
        }
        Err(reason) => {
            change(app, &entity, failed(reason)).await?;
        }
    }
    Ok(JobEnd::Done)
}

/// Builds the dependency layer of an image.
pub(super) async fn image(app: &Arc<App>, job: &Job) -> Result<JobEnd> {
    let Some(seen) = entity(app, Kind::Image, job).await? else { return Ok(JobEnd::Done) };
    let mut seen = seen;
    if seen.status == Status::Initialized {
        if !change(app, &seen, |entity| entity.status = Status::Creating).await? {
            return Ok(JobEnd::Done);
        }
        let Some(fresh) = entity(app, Kind::Image, job).await? else { return Ok(JobEnd::Done) };
        seen = fresh;
    }
    match build_image(app, &seen).await {
        Ok((language, layer)) => {
            let url = format!("dispatch/{}:latest", seen.id);
            let apply = move |entity: &mut Entity| {
                entity.body["language"] = json!(language);
                entity.body["dockerUrl"] = json!(url);
                entity.body["layer"] = json!(layer);
                entity.status = Status::Ready;
                entity.reason.clear();
            };
            change(app, &seen, apply).await?;
        }
        Err(BuildError::Rejected(reason)) => {
            change(app, &seen, failed(reason)).await?;
        }
        Err(BuildError::Failed(error)) => return Err(error),
    }
    Ok(JobEnd::Done)
}

/// The language and the layer's key.
async fn build_image(
    app: &Arc<App>,
    entity: &Entity,
) -> Result<(String, Option<String>), BuildError> {
    let stored: image::Stored = serde_json::from_value(entity.body.clone())
        .map_err(|error| BuildError::Failed(error.to_string()))?;
    let image = stored.image;
    let log = BuildLog::create(app, &entity.id)?;
    let base = app
        .store
        .get(Kind::BaseImage, &entity.org, &image.base_image_name)
        .await
        .map_err(|error| BuildError::Failed(error.to_string()))?
        .ok_or_else(|| {
            let name = &image.base_image_name;
            BuildError::Rejected(format!("Error fetching base image {name}: it does not exist"))
        })?;
    let reference = base.body.get("dockerUrl").and_then(serde_json::Value::as_str);
    let language = language(app, reference.unwrap_or_default()).map_err(BuildError::Rejected)?;
    log.line(&format!("base image {} is {language} of this machine", base.name));
    if let Some(package) = image.system_dependencies.packages.first() {
        return Err(BuildError::Rejected(format!(
            "system package {} cannot be added to {}: its functions run on the languages of this \
             machine, whose packages its administrator installs; leave out --system-deps",
            package.name, base.name
        )));
    }
    let manifest = image.runtime_dependencies.manifest;
    if manifest.trim().is_empty() {
        log.line("no dependencies to install");
        return Ok((language, None));
    }
    let request =
        LayerRequest { organization: entity.org.clone(), language: language.clone(), manifest };
    let layer = app
        .runner
        .build_layer(&request, &|line| log.line(line))
        .await
        .inspect_err(|error| log.line(&format!("failed: {error}")))?;
    let how = if layer.reused { "found" } else { "built" };
    log.line(&format!("layer {} {how}", &layer.key[..12.min(layer.key.len())]));
    Ok((language, Some(layer.key)))
}

/// The log of the newest build of an image.
struct BuildLog(Mutex<(std::fs::File, usize)>);

/// Bytes of a build log.
const MAX_LOG: usize = 4 << 20;

impl BuildLog {
    fn create(app: &App, id: &str) -> Result<BuildLog, BuildError> {
        let path = app.build_log(id);
        let file = std::fs::File::create(&path).map_err(|error| {
            BuildError::Failed(format!("cannot write {}: {error}", path.display()))
        })?;
        Ok(BuildLog(Mutex::new((file, 0))))
    }

    fn line(&self, line: &str) {
        let Ok(mut guard) = self.0.lock() else { return };
        let (file, written) = &mut *guard;
        *written += line.len() + 1;
        if *written <= MAX_LOG
            && let Err(error) = writeln!(file, "{line}")
        {
            tracing::warn!(%error, "a line of a build log is lost");
        }
    }
}

/// Builds a revision of a function, checks its handler and makes it serve.
pub(super) async fn function(app: &Arc<App>, job: &Job) -> Result<JobEnd> {
    let Some(seen) = entity(app, Kind::Function, job).await? else { return Ok(JobEnd::Done) };
    let field = |key: &str| job.payload.get(key).and_then(serde_json::Value::as_str);
    let faas_id = field("faasId").unwrap_or_default();
    let function: Function = serde_json::from_value(seen.body.clone()).unwrap_or_default();
    if function.faas_id != faas_id {
        // A newer revision has a job of its own.
        return Ok(JobEnd::Done);
    }
    let Some(row) = app.store.revision(faas_id).await.map_err(text)? else {
        return Ok(JobEnd::Done);
    };
    let mut stored: Stored = serde_json::from_value(row.body).unwrap_or_default();
    if stored.source_digest.is_empty() {
        let reason = format!(
            "store error when retrieving source: Received non-supported source url {}: send the \
             source itself",
            stored.function.source_url
        );
        return finish(app, &seen, faas_id, Err(reason)).await;
    }
    let image = match image_of(app, &seen, &stored.function).await? {
        Found::Ready(image) => *image,
        Found::NotYet => {
            let error = "the image is not ready".to_owned();
            let at = now() + backoff(job.attempts, 100, 2_000);
            return Ok(JobEnd::Retry { at, error });
        }
        Found::Never(reason) => return finish(app, &seen, faas_id, Err(reason)).await,
    };
    app.runner.expect(&image.image.language);
    if seen.status == Status::Initialized {
        change(app, &seen, |entity| entity.status = Status::Creating).await?;
    }
    stored.language.clone_from(&image.image.language);
    stored.layer = image.layer;
    let built = build_function(app, &seen, faas_id, stored).await;
    match built {
        Ok(stored) => finish(app, &seen, faas_id, Ok(stored)).await,
        Err(BuildError::Rejected(reason)) => finish(app, &seen, faas_id, Err(reason)).await,
        Err(BuildError::Failed(error)) => Err(error),
    }
}

enum Found {
    Ready(Box<image::Stored>),
    NotYet,
    Never(String),
}

async fn image_of(app: &App, seen: &Entity, function: &Function) -> Result<Found> {
    let name = &function.image;
    let Some(entity) = app.store.get(Kind::Image, &seen.org, name).await.map_err(text)? else {
        return Ok(Found::Never(format!(
            "Error when fetching image for function {}: image {name} not found; make it with: \
             dispatch create image {name} BASE_IMAGE, then update the function",
            seen.name
        )));
    };
    Ok(match entity.status {
        Status::Ready => Found::Ready(Box::new(
            serde_json::from_value(entity.body).map_err(|error| error.to_string())?,
        )),
        Status::Error => Found::Never(format!(
            "image in error status for function '{}', image name: '{name}', reason: [{}]",
            seen.id,
            entity.reason.join(", ")
        )),
        _ => Found::NotYet,
    })
}

async fn build_function(
    app: &Arc<App>,
    seen: &Entity,
    faas_id: &str,
    mut stored: Stored,
) -> Result<Stored, BuildError> {
    let digest = hex(&stored.source_digest);
    app.runner.unpack_source(digest, &app.archive(digest)).await?;
    let unbuilt = stored.revision(app, &seen.org, &seen.name, faas_id);
    let request = SourceRequest {
        organization: unbuilt.organization,
        function: unbuilt.function,
        language: unbuilt.language,
        digest: stored.source_digest.clone(),
        layer: unbuilt.layer,
        handler: unbuilt.handler,
    };
    stored.built = app.runner.build_source(&request).await?.unwrap_or_default();
    let revision = Arc::new(stored.revision(app, &seen.org, &seen.name, faas_id));
    stored.handler = app.runner.prepare(&revision).await?;
    Ok(stored)
}

async fn finish(app: &App, seen: &Entity, faas_id: &str, result: Result<Stored>) -> Result<JobEnd> {
    let result = match result {
        Ok(stored) => Ok(serde_json::to_value(stored).map_err(|error| error.to_string())?),
        Err(reason) => {
            app.runner.retire(faas_id);
            Err(reason)
        }
    };
    let finished = app.store.finish_revision(&seen.org, &seen.name, faas_id, result).await;
    if finished.map_err(text)?.is_none() {
        // Deleted or updated while it was built: its workers are not wanted.
        app.runner.retire(faas_id);
    }
    Ok(JobEnd::Done)
}
