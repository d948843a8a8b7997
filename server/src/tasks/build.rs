//! Jobs that make base images, images and functions ready.

use std::sync::Arc;

use dispatch_api::{BaseImage, Function, Kind, Status};
use dispatch_runner::image::Credentials;
use dispatch_runner::{
    BuildError, BuildSecrets, LayerRequest, PullRequest, Pulled, SourceRequest, SystemRequest,
};
use serde_json::json;

use super::{backoff, gone};
use crate::app::App;
use crate::build_log::BuildLog;
use crate::function::{Stored, hex};
use crate::package_rules::Rules;
use crate::resource::now;
use crate::store::{self, Entity, Job, JobEnd};
use crate::{base_image, image, sbom};

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

/// The language of this machine that a reference means, or what to do; none where it names a container
/// image.
fn language(app: &App, reference: &str) -> Option<Result<String>> {
    let language = app.runner.resolve_language(reference)?;
    let names = names(app);
    if names.contains(&language) {
        return Some(Ok(language));
    }
    Some(Err(format!(
        "the language {language} is not installed on this machine: install its interpreter, start \
         the server again and update the base image; installed are: {}",
        names.join(", ")
    )))
}

/// The languages of this machine.
fn names(app: &App) -> Vec<String> {
    app.runner.runtimes().into_iter().map(|runtime| runtime.language).collect()
}

/// What a base image turned out to be.
struct Base {
    language: String,
    runtime: String,
    digest: String,
}

/// Resolves a base image to a language of this machine, or gets its container image.
pub(super) async fn base_image(app: &Arc<App>, job: &Job) -> Result<JobEnd> {
    let Some(entity) = entity(app, Kind::BaseImage, job).await? else { return Ok(JobEnd::Done) };
    let stored: base_image::Stored =
        serde_json::from_value(entity.body.clone()).unwrap_or_default();
    let found = match language(app, &stored.base.docker_url) {
        Some(Ok(language)) => {
            let runtime = language.clone();
            let prepared = app.runner.prepare_language(&language).await;
            prepared.map(|()| Base { language, runtime, digest: String::new() })
        }
        Some(Err(reason)) => Err(reason),
        None => match pull(app, &entity, &stored.base).await {
            Ok(base) => Ok(base),
            Err(BuildError::Rejected(reason)) => Err(reason),
            Err(BuildError::Failed(error)) => return Err(error),
        },
    };
    match found {
        Ok(Base { language, runtime, digest }) => {
            let apply = move |entity: &mut Entity| {
                if stored.base.language.is_empty() {
                    entity.body["language"] = json!(language);
                }
                entity.body["runtime"] = json!(runtime);
                entity.body["digest"] = json!(digest);
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

/// Gets a container image.
async fn pull(app: &App, entity: &Entity, base: &BaseImage) -> Result<Base, BuildError> {
    let log = BuildLog::create(app, &entity.id).map_err(BuildError::Failed)?;
    let credentials =
        credentials(app, &entity.org, &base.docker_url, &base.registry_secret).await?;
    let request = PullRequest {
        organization: entity.org.clone(),
        reference: base.docker_url.clone(),
        language: base.language.clone(),
        credentials,
        // The operator's accounts are for nobody else.
        operators_accounts: entity.org == app.config.default_organization,
    };
    let pulled = app.runner.pull_image(&request, &|line| log.line(line)).await;
    let pulled = pulled.inspect_err(|error| log.line(&format!("failed: {error}")));
    let pulled = pulled.map_err(|error| match error {
        // Without a host before it, it may be the name of a language that was meant.
        BuildError::Rejected(reason) if !base.docker_url.contains(['.', ':']) => {
            BuildError::Rejected(format!(
                "{reason}; if a language of this machine is meant, it is one of: {}",
                names(app).join(", ")
            ))
        }
        error => error,
    })?;
    let Pulled { language, runtime, digest, .. } = pulled;
    Ok(Base { language, runtime, digest })
}

/// Who asks the registry, where a secret says it.
pub(crate) async fn credentials(
    app: &App,
    org: &str,
    reference: &str,
    name: &str,
) -> Result<Option<Credentials>, BuildError> {
    if name.is_empty() {
        return Ok(None);
    }
    let secret = app.store.get(Kind::Secret, org, name).await;
    let secret = secret.map_err(|error| BuildError::Failed(error.to_string()))?;
    let secret = secret.ok_or_else(|| {
        BuildError::Rejected(format!("the registry's secret {name} does not exist"))
    })?;
    let mut values = crate::secret::open(app, &secret)
        .map_err(|error| BuildError::Failed(format!("the secret {name}: {error}")))?;
    if let Some(text) = values.get(".dockerconfigjson") {
        return Credentials::for_image(text, reference)
            .map_err(|why| BuildError::Rejected(format!("the secret {name}: {why}")));
    }
    match (values.remove("username"), values.remove("password")) {
        (Some(username), Some(password)) => Ok(Some(Credentials { username, password })),
        _ => Err(BuildError::Rejected(format!(
            "the secret {name} has neither username and password nor .dockerconfigjson"
        ))),
    }
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
        Ok(Built::NotYet) => {
            let error = "the base image is not ready".to_owned();
            return Ok(JobEnd::Retry { at: now() + backoff(job.attempts, 100, 2_000), error });
        }
        Ok(Built::Ready { language, runtime, layer }) => {
            let url = format!("dispatch/{}:latest", seen.id);
            let apply = move |entity: &mut Entity| {
                entity.body["language"] = json!(language);
                entity.body["runtime"] = json!(runtime);
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

/// What an image turned out to be.
enum Built {
    Ready { language: String, runtime: String, layer: Option<String> },
    NotYet,
}

async fn build_image(app: &Arc<App>, entity: &Entity) -> Result<Built, BuildError> {
    let stored: image::Stored = serde_json::from_value(entity.body.clone())
        .map_err(|error| BuildError::Failed(error.to_string()))?;
    let image = stored.image;
    let log = BuildLog::create(app, &entity.id).map_err(BuildError::Failed)?;
    let base = app
        .store
        .get(Kind::BaseImage, &entity.org, &image.base_image_name)
        .await
        .map_err(|error| BuildError::Failed(error.to_string()))?
        .ok_or_else(|| {
            let name = &image.base_image_name;
            BuildError::Rejected(format!("Error fetching base image {name}: it does not exist"))
        })?;
    let found: base_image::Stored =
        serde_json::from_value(base.body).map_err(|error| BuildError::Failed(error.to_string()))?;
    let (language, runtime) = match language(app, &found.base.docker_url) {
        Some(language) => {
            let language = language.map_err(BuildError::Rejected)?;
            log.line(&format!("base image {} is {language} of this machine", base.name));
            (language.clone(), language)
        }
        None => match base.status {
            Status::Ready if !found.runtime.is_empty() => {
                let language = found.base.language;
                log.line(&format!("base image {} is {}", base.name, found.base.docker_url));
                (language, found.runtime)
            }
            Status::Error => {
                let (name, reason) = (&base.name, base.reason.join(", "));
                let text = format!("base image {name} is in error status: {reason}");
                return Err(BuildError::Rejected(text));
            }
            _ => return Ok(Built::NotYet),
        },
    };
    let packages = image.system_dependencies.packages;
    let runtime = if packages.is_empty() {
        runtime
    } else if runtime == language {
        return Err(BuildError::Rejected(format!(
            "system package {} cannot be added to {}: its functions run on the languages of this \
             machine, whose packages its administrator installs; leave out --system-deps, or make the \
             base image of a container image, whose own package manager adds them",
            packages[0].name, base.name
        )));
    } else {
        let packages = packages.into_iter().map(|package| (package.name, package.version));
        let organization = entity.org.clone();
        let request = SystemRequest { organization, runtime, packages: packages.collect() };
        let added = app.runner.add_packages(&request, &|line| log.line(line)).await;
        added.inspect_err(|error| log.line(&format!("failed: {error}")))?.runtime
    };
    let secrets = build_secrets(app, &entity.org, &image.build_secrets).await?;
    let request = LayerRequest {
        organization: entity.org.clone(),
        language: runtime.clone(),
        manifest: image.runtime_dependencies.manifest,
        secrets,
    };
    let layer = layer(app, &request, &log).await?;
    let rules = app.config.package_rules.clone();
    let rules = tokio::task::spawn_blocking(move || Rules::read(&rules)).await;
    let rules = rules.map_err(|error| BuildError::Failed(error.to_string()))?;
    let rules = rules.map_err(BuildError::Failed)?;
    if rules.concern(&entity.org) {
        let built = image::Stored {
            runtime: runtime.clone(),
            layer: layer.clone(),
            ..image::Stored::default()
        };
        let packages = sbom::packages(app, &built).await;
        log.line(&format!("{} packages are held against the rules", packages.len()));
        rules
            .check(&entity.org, &packages)
            .inspect_err(|why| log.line(why))
            .map_err(BuildError::Rejected)?;
    }
    Ok(Built::Ready { language, runtime, layer })
}

/// What only the installer learns.
async fn build_secrets(
    app: &App,
    organization: &str,
    names: &[String],
) -> Result<BuildSecrets, BuildError> {
    let mut secrets = BuildSecrets::default();
    for name in names {
        let secret = app.store.get(Kind::Secret, organization, name).await;
        let secret = secret.map_err(|error| BuildError::Failed(error.to_string()))?;
        let secret = secret.ok_or_else(|| {
            BuildError::Rejected(format!("the image's secret {name} does not exist"))
        })?;
        let values = crate::secret::open(app, &secret)
            .map_err(|error| BuildError::Failed(format!("the secret {name}: {error}")))?;
        secrets.values.extend(values);
        // Its id is of one organization, and its revision of one content.
        secrets.scope += &format!("{} {} ", secret.id, secret.revision);
    }
    Ok(secrets)
}

/// The key of the layer with what a manifest asks for; none if it asks for nothing.
async fn layer(
    app: &App,
    request: &LayerRequest,
    log: &BuildLog,
) -> Result<Option<String>, BuildError> {
    if request.manifest.trim().is_empty() {
        log.line("no dependencies to install");
        return Ok(None);
    }
    let layer = app
        .runner
        .build_layer(request, &|line| log.line(line))
        .await
        .inspect_err(|error| log.line(&format!("failed: {error}")))?;
    let how = if layer.reused { "found" } else { "built" };
    log.line(&format!("layer {} {how}", &layer.key[..12.min(layer.key.len())]));
    Ok(Some(layer.key))
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
    // Images of earlier versions say only this.
    let runtime = if image.runtime.is_empty() { image.image.language } else { image.runtime };
    app.runner.expect(&runtime);
    if seen.status == Status::Initialized {
        change(app, &seen, |entity| entity.status = Status::Creating).await?;
    }
    stored.language = runtime;
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
