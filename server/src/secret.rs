//! `/v1/secret`: named maps of texts, encrypted at rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dispatch_api::{Kind, Problem, Secret, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app::App;
use crate::iam::{Action, Caller};
use crate::problem::Error;
use crate::resource::{self, Body, ListQuery, created, resource};
use crate::store::Entity;
use crate::watch;

/// What is stored of a secret: the resource without its values, and the values sealed.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    secret: Secret,
    sealed: Value,
}

/// Decrypts the values of a stored secret.
///
/// # Errors
/// The record was changed or moved, or the master key is another one.
pub fn open(app: &App, entity: &Entity) -> anyhow::Result<BTreeMap<String, String>> {
    let sealed = entity.body.get("sealed").cloned().unwrap_or_default();
    let plain = app.vault.open_sealed(&entity.org, &entity.name, entity.revision, &sealed)?;
    Ok(serde_json::from_slice(&plain)?)
}

/// The stored form, sealed to its organization, name and revision.
fn seal(app: &App, secret: &Secret, org: &str, revision: i64) -> Result<Value, Problem> {
    let failed = || Problem::new(500, "the secret could not be encrypted");
    let plain = serde_json::to_vec(&secret.secrets).map_err(|_| failed())?;
    let sealed = app.vault.seal(org, &secret.name, revision, &plain).map_err(|error| {
        tracing::error!(%error, "a secret could not be encrypted");
        failed()
    })?;
    let secret = Secret { secrets: BTreeMap::new(), ..secret.clone() };
    serde_json::to_value(Stored { secret, sealed }).map_err(|_| failed())
}

fn show(app: &App, caller: &Caller, entity: &Entity) -> Result<Secret, Error> {
    let mut secret: Secret = resource(entity)?;
    let text = format!("internal error when processing secret {}", entity.name);
    secret.secrets = open(app, entity).map_err(|error| Error::internal(&text, &error))?;
    if !caller.may(Action::Reveal) {
        secret.hidden = true;
        secret.secrets.values_mut().for_each(String::clear);
    }
    Ok(secret)
}

/// One secret that cannot be decrypted must not keep the others from being listed.
fn show_or_hide(app: &App, caller: &Caller, entity: &Entity) -> Result<Secret, Error> {
    show(app, caller, entity).or_else(|_| Ok(Secret { hidden: true, ..resource(entity)? }))
}

#[utoipa::path(post, path = "/v1/secret", tag = "secret", request_body = Secret,
    responses((status = 201, body = Secret), (status = 409, body = Problem)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(secret): Body<Secret>,
) -> Result<(StatusCode, Json<Secret>), Error> {
    let sealed = seal(&app, &secret, &caller.org, crate::store::FIRST_REVISION)
        .map_err(Error::from_problem)?;
    let entity = resource::entity(&caller, Kind::Secret, &secret.name, Status::Ready, &sealed)?;
    let entity = app
        .store
        .create(entity, Vec::new())
        .await
        .map_err(|error| Error::store(Kind::Secret, &secret.name, error))?;
    app.settle().await;
    Ok(created(show(&app, &caller, &entity)?))
}

#[utoipa::path(get, path = "/v1/secret", tag = "secret", params(ListQuery),
    responses((status = 200, body = [Secret])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response, Error> {
    watch::list(&app, &caller, query, show_or_hide).await
}

#[utoipa::path(get, path = "/v1/secret/{secretName}", tag = "secret",
    params(("secretName" = String, Path)),
    responses((status = 200, body = Secret), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Secret>, Error> {
    let entity = resource::find(&app, Kind::Secret, &caller.org, &name).await?;
    Ok(Json(show(&app, &caller, &entity)?))
}

#[utoipa::path(put, path = "/v1/secret/{secretName}", tag = "secret",
    params(("secretName" = String, Path)), request_body = Secret,
    responses((status = 201, body = Secret), (status = 404, body = Problem)))]
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(secret): Body<Secret>,
) -> Result<(StatusCode, Json<Secret>), Error> {
    resource::find(&app, Kind::Secret, &caller.org, &name).await?;
    resource::same_name(&name, &secret.name)?;
    let expected = resource::expected(&secret.meta.revision);
    let sealer = Arc::clone(&app);
    let change = move |entity: &mut Entity| {
        entity.body = seal(&sealer, &secret, &entity.org, entity.revision)?;
        Ok(Vec::new())
    };
    let entity = app
        .store
        .mutate(Kind::Secret, &caller.org, &name, expected, change)
        .await
        .map_err(|error| Error::store(Kind::Secret, &name, error))?;
    app.settle().await;
    Ok(created(show(&app, &caller, &entity)?))
}

#[utoipa::path(delete, path = "/v1/secret/{secretName}", tag = "secret",
    params(("secretName" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Error> {
    resource::remove(&app, Kind::Secret, &caller.org, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
