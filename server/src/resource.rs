//! What all resources have in common: from stored entities to answers, lists, pages and filters.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::FromRequest;
use axum::http::{StatusCode, header};
use dispatch_api::wire::{self, Wire};
use dispatch_api::{
    BaseImage, Driver, DriverType, Endpoint, Function, Image, Kind, Schedule, Secret, Status,
    Subscription, Tag, tag,
};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::app::App;
use crate::problem::Error;
use crate::store::{Entity, Page};

/// Bytes of a request body of the API. A source of the largest size fits, in base64.
pub const MAX_BODY: usize = 96 << 20;

/// How long a request body may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(300);

/// A resource that is stored as an entity: its body is the resource itself, and what every entity
/// has (times, status, …) is filled in from the entity when it is read.
pub trait Resource: Serialize + DeserializeOwned + Wire + Send + Sync + 'static {
    /// The kind it is stored under.
    const KIND: Kind;

    /// Fills in what the entity knows.
    fn fill(&mut self, entity: &Entity);

    /// The resource's tags, for filters.
    fn tags(&self) -> &[Tag];

    /// Where it is in its life, for filters.
    fn status(&self, entity: &Entity) -> Status {
        entity.status
    }
}

macro_rules! fill_common {
    ($resource:expr, $entity:expr) => {{
        let (resource, entity) = ($resource, $entity);
        resource.id.clone_from(&entity.id);
        entity.kind.as_str().clone_into(&mut resource.kind);
        resource.name.clone_from(&entity.name);
        resource.org.clone_from(&entity.org);
        resource.project.clone_from(&entity.project);
        resource.status = entity.status;
        resource.created_time = seconds(entity.created);
        resource.modified_time = seconds(entity.modified);
        resource.revision = entity.revision.to_string();
    }};
}

impl Resource for BaseImage {
    const KIND: Kind = Kind::BaseImage;

    fn fill(&mut self, entity: &Entity) {
        fill_common!(&mut *self, entity);
        self.reason.clone_from(&entity.reason);
        self.image_url.clone_from(&self.docker_url);
    }

    fn tags(&self) -> &[Tag] {
        &self.tags
    }
}

impl Resource for Image {
    const KIND: Kind = Kind::Image;

    fn fill(&mut self, entity: &Entity) {
        fill_common!(&mut *self, entity);
        self.reason.clone_from(&entity.reason);
        self.base_image.clone_from(&self.base_image_name);
        self.image_url.clone_from(&self.docker_url);
    }

    fn tags(&self) -> &[Tag] {
        &self.tags
    }
}

impl Resource for Function {
    const KIND: Kind = Kind::Function;

    fn fill(&mut self, entity: &Entity) {
        fill_common!(&mut *self, entity);
        self.reason.clone_from(&entity.reason);
    }

    fn tags(&self) -> &[Tag] {
        &self.tags
    }
}

impl Resource for Endpoint {
    const KIND: Kind = Kind::Endpoint;

    fn fill(&mut self, entity: &Entity) {
        fill_common!(&mut *self, entity);
    }

    fn tags(&self) -> &[Tag] {
        &self.tags
    }
}

impl Resource for Schedule {
    const KIND: Kind = Kind::Schedule;

    fn fill(&mut self, entity: &Entity) {
        fill_common!(&mut *self, entity);
        self.reason.clone_from(&entity.reason);
    }

    fn tags(&self) -> &[Tag] {
        &self.tags
    }

    fn status(&self, _: &Entity) -> Status {
        self.status
    }
}

impl Resource for Secret {
    const KIND: Kind = Kind::Secret;

    fn fill(&mut self, entity: &Entity) {
        self.id.clone_from(&entity.id);
        entity.kind.as_str().clone_into(&mut self.kind);
        self.name.clone_from(&entity.name);
        self.meta = dispatch_api::secret::Meta {
            created_time: seconds(entity.created),
            id: entity.id.clone(),
            kind: self.kind.clone(),
            modified_time: seconds(entity.modified),
            name: entity.name.clone(),
            org: entity.org.clone(),
            project: entity.project.clone(),
            revision: entity.revision.to_string(),
        };
    }

    fn tags(&self) -> &[Tag] {
        &self.tags
    }
}

macro_rules! fill_unnamed {
    ($resource:expr, $entity:expr) => {{
        let (resource, entity) = ($resource, $entity);
        entity.kind.as_str().clone_into(&mut resource.kind);
        resource.name.clone_from(&entity.name);
        resource.org.clone_from(&entity.org);
        resource.project.clone_from(&entity.project);
        resource.created_time = seconds(entity.created);
        resource.modified_time = seconds(entity.modified);
        resource.revision = entity.revision.to_string();
    }};
}

impl Resource for DriverType {
    const KIND: Kind = Kind::DriverType;

    fn fill(&mut self, entity: &Entity) {
        fill_unnamed!(self, entity);
    }

    fn tags(&self) -> &[Tag] {
        &self.tags
    }
}

impl Resource for Driver {
    const KIND: Kind = Kind::Driver;

    fn fill(&mut self, entity: &Entity) {
        fill_unnamed!(&mut *self, entity);
        self.status = entity.status;
        self.reason.clone_from(&entity.reason);
    }

    fn tags(&self) -> &[Tag] {
        &self.tags
    }
}

impl Resource for Subscription {
    const KIND: Kind = Kind::Subscription;

    fn fill(&mut self, entity: &Entity) {
        fill_unnamed!(&mut *self, entity);
        self.status = entity.status;
    }

    fn tags(&self) -> &[Tag] {
        &self.tags
    }
}

/// Whole seconds of a time in microseconds.
pub fn seconds(micros: i64) -> i64 {
    micros.div_euclid(1_000_000)
}

/// Now, in microseconds since 1970.
pub fn now() -> i64 {
    Timestamp::now().as_microsecond()
}

/// The resource of an entity.
///
/// # Errors
/// 500 when the stored body is not one.
pub fn resource<T: Resource>(entity: &Entity) -> Result<T, Error> {
    let mut resource: T = serde_json::from_value(entity.body.clone()).map_err(|error| {
        Error::internal(
            &format!("internal error when processing {} {}", T::KIND.noun(), entity.name),
            &error,
        )
    })?;
    resource.fill(entity);
    Ok(resource)
}

/// An entity that is to be stored, from a resource that a client sent.
///
/// # Errors
/// 500 when the resource cannot be written as JSON.
pub fn entity<T: Serialize>(
    caller: &crate::iam::Caller,
    kind: Kind,
    name: &str,
    status: Status,
    resource: &T,
) -> Result<Entity, Error> {
    Ok(Entity {
        kind,
        org: caller.org.clone(),
        project: caller.project.clone(),
        name: name.to_owned(),
        id: uuid::Uuid::new_v4().to_string(),
        revision: 0,
        status,
        reason: Vec::new(),
        created: now(),
        modified: now(),
        body: body(resource)?,
    })
}

/// The stored form of a resource.
///
/// # Errors
/// 500 when it cannot be written as JSON.
pub fn body<T: Serialize>(resource: &T) -> Result<serde_json::Value, Error> {
    serde_json::to_value(resource)
        .map_err(|error| Error::internal("internal error when storing a resource", &error))
}

/// The revision a client read before it changed something: a number, or nothing to overwrite.
pub fn expected(revision: &str) -> Option<i64> {
    revision.parse().ok()
}

/// Filters and paging of lists, all optional: without them a list is whole, as it always was.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// At most this many, 1 to 1000.
    pub limit: Option<usize>,
    /// The `X-Dispatch-Continue` header of the page before.
    #[serde(rename = "continue")]
    pub after: Option<String>,
    /// Only resources in this status.
    pub status: Option<String>,
    /// Only resources with this tag, `key=value`; `app=NAME` means the application.
    pub tags: Option<String>,
    /// Follow changes as server-sent events.
    pub watch: Option<bool>,
    /// Only routes to this function.
    pub function: Option<String>,
    /// Only images of this language.
    pub language: Option<String>,
}

/// The header that names the start of the next page.
pub const CONTINUE: &str = "x-dispatch-continue";

impl ListQuery {
    /// The page that is asked for.
    ///
    /// # Errors
    /// 422 for a limit out of range.
    pub fn page(&self) -> Result<Page, Error> {
        if let Some(limit) = self.limit
            && !(1..=1000).contains(&limit)
        {
            let text = "limit in query should be 1 to 1000";
            return Err(dispatch_api::Invalid::new(dispatch_api::validate::TOO_LONG, text).into());
        }
        Ok(Page { limit: self.limit, after: self.after.clone() })
    }

    fn admits<T: Resource>(&self, entity: &Entity, resource: &T) -> bool {
        let tag = self.tags.as_deref().is_none_or(|wanted| {
            let (key, value) = wanted.split_once('=').unwrap_or((wanted, ""));
            let key = if key.eq_ignore_ascii_case("app") { tag::APPLICATION } else { key };
            resource
                .tags()
                .iter()
                .any(|tag| tag.key.eq_ignore_ascii_case(key) && tag.value == value)
        });
        let text = |field: &str, wanted: &Option<String>| {
            wanted.as_deref().is_none_or(|wanted| {
                entity.body.get(field).and_then(serde_json::Value::as_str) == Some(wanted)
            })
        };
        tag && self
            .status
            .as_deref()
            .is_none_or(|status| resource.status(entity).as_str() == status)
            && text("function", &self.function)
            && text("language", &self.language)
    }
}

/// A list of resources in name order, inside the caller's organization, and where the next page
/// starts.
///
/// # Errors
/// What the store says.
pub async fn list<T: Resource>(
    app: &App,
    org: &str,
    query: &ListQuery,
    show: impl Fn(&Entity) -> Result<T, Error>,
) -> Result<(Vec<T>, Option<String>), Error> {
    let mut page = query.page()?;
    let mut resources = Vec::new();
    loop {
        let entities = app
            .store
            .list(T::KIND, org, page.clone())
            .await
            .map_err(|error| Error::store(T::KIND, "list", error))?;
        let full = page.limit.is_some_and(|limit| entities.len() == limit);
        page.after = entities.last().map(|entity| entity.name.clone());
        for entity in &entities {
            let resource = show(entity)?;
            if query.admits(entity, &resource) {
                resources.push(resource);
                if query.limit == Some(resources.len()) {
                    return Ok((resources, Some(entity.name.clone())));
                }
            }
        }
        if !full {
            return Ok((resources, None));
        }
    }
}

/// Reads one entity.
///
/// # Errors
/// 422 for a malformed name, 404 where it does not exist in the organization.
pub async fn find(app: &App, kind: Kind, org: &str, name: &str) -> Result<Entity, Error> {
    dispatch_api::validate::path_name(dispatch_api::validate::path_field(kind), "path", name)?;
    let found = app.store.get(kind, org, name).await;
    // A caller who is told that a function is READY may call it.
    app.settle().await;
    found
        .map_err(|error| Error::store(kind, name, error))?
        .ok_or_else(|| Error::not_found(kind.noun(), name))
}

/// A resource in a request body.
pub struct Body<T>(pub T);

impl<T: Wire> FromRequest<Arc<App>> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: axum::extract::Request, _: &Arc<App>) -> Result<Self, Error> {
        let bytes = read(request).await?;
        if bytes.is_empty() {
            return Err(dispatch_api::Invalid::required("body", "body").into());
        }
        Ok(Body(wire::decode(&bytes)?))
    }
}

/// Reads a JSON request body, bounded. A body without a content type is read as JSON, as clients of
/// the old API may send.
///
/// # Errors
/// 415 for another content type, 413 for too large a body.
pub async fn read(request: axum::extract::Request) -> Result<bytes::Bytes, Error> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
    let json = kind.as_deref().is_none_or(|kind| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence == "application/json"
            || (essence.starts_with("application/") && essence.ends_with("+json"))
    });
    if !json {
        let text = format!(
            "unsupported media type {:?}, only [application/json] are allowed",
            kind.unwrap_or_default()
        );
        return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    bounded(request, MAX_BODY).await
}

/// Reads a request body of any type, at most so many bytes.
///
/// # Errors
/// 408 when it does not arrive in time, 413 for too large a body.
pub async fn bounded(request: axum::extract::Request, most: usize) -> Result<bytes::Bytes, Error> {
    #[expect(clippy::disallowed_methods, reason = "the one place, with a bound")]
    let body = axum::body::to_bytes(request.into_body(), most);
    let body = tokio::time::timeout(BODY_TIMEOUT, body).await.map_err(|_| {
        let text = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
        Error::new(StatusCode::REQUEST_TIMEOUT, text)
    })?;
    body.map_err(|_| {
        let text = format!("the body could not be read, or is larger than {most} bytes");
        Error::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    })
}

/// 201 with the resource.
pub fn created<T>(resource: T) -> (StatusCode, Json<T>) {
    (StatusCode::CREATED, Json(resource))
}

/// Removes an entity.
///
/// # Errors
/// 422 for a malformed name, 404 where it does not exist in the organization.
pub async fn remove(app: &App, kind: Kind, org: &str, name: &str) -> Result<Entity, Error> {
    dispatch_api::validate::path_name(dispatch_api::validate::path_field(kind), "path", name)?;
    let mut entity =
        app.store.remove(kind, org, name).await.map_err(|error| Error::store(kind, name, error))?;
    entity.status = Status::Deleting;
    app.settle().await;
    Ok(entity)
}

/// A PUT must name what its path names: nothing is renamed.
///
/// # Errors
/// 400 when the names differ.
pub fn same_name(path: &str, body: &str) -> Result<(), Error> {
    if path == body {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "the path names {path} but the body names {body}: a resource cannot be renamed"
    )))
}
