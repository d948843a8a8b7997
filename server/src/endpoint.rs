//! `/v1/endpoint` and `/v1/api`: two views of one store of routes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use dispatch_api::{Endpoint, Invalid, Kind, Problem, Status, validate};

use crate::app::App;
use crate::gateway::table;
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource::{self, Body, ListQuery, resource};
use crate::store::Entity;
use crate::watch;

/// The path a route was addressed by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    Endpoint,
    Api,
}

impl View {
    fn kind(self) -> Kind {
        match self {
            View::Endpoint => Kind::Endpoint,
            View::Api => Kind::Api,
        }
    }

    fn show(self, entity: &Entity) -> Result<Endpoint, Error> {
        let mut endpoint: Endpoint = resource(entity)?;
        self.kind().as_str().clone_into(&mut endpoint.kind);
        Ok(endpoint)
    }

    fn error(self, name: &str, error: crate::store::Error) -> Error {
        Error::store(self.kind(), name, error)
    }
}

/// Puts a route into the form it is stored in.
fn normalise(view: View, org: &str, endpoint: &mut Endpoint) -> Result<(), Error> {
    endpoint.methods.iter_mut().for_each(|method| method.make_ascii_uppercase());
    endpoint.hosts.iter_mut().for_each(|host| host.make_ascii_lowercase());
    for uri in &mut endpoint.uris {
        if !uri.starts_with('/') {
            uri.insert(0, '/');
        }
        // Without a host of its own the route of an API lives under its organization's name. One
        // that has the prefix already was read from here and is left alone.
        let prefix = format!("/{org}/");
        if view == View::Api && endpoint.hosts.is_empty() && !uri.starts_with(&prefix) {
            *uri = format!("{prefix}{}", uri.trim_start_matches('/'));
        }
        table::check_uri(uri).map_err(|reason| {
            Invalid::new(validate::PATTERN, format!("uris in body: {uri:?}: {reason}"))
        })?;
    }
    if endpoint.uris.is_empty() {
        return Err(Invalid::required("uris", "body").into());
    }
    if view == View::Api && endpoint.authentication.is_empty() {
        "public".clone_into(&mut endpoint.authentication);
    }
    if !matches!(endpoint.authentication.as_str(), "" | "public") {
        let text = format!(
            "authentication in body is {:?}: this version enforces none but public, and a route \
             must not look protected when it is not",
            endpoint.authentication
        );
        return Err(Invalid::new(validate::NOT_IN_ENUM, text).into());
    }
    Ok(())
}

/// Refuses hosts that are another organization's.
fn check_hosts(app: &App, org: &str, endpoint: &Endpoint) -> Result<(), Error> {
    let routes = Arc::clone(&app.live.load().routes);
    let conflict = |text| Error::new(StatusCode::CONFLICT, text);
    endpoint.hosts.iter().try_for_each(|host| routes.check_host(host, org).map_err(conflict))
}

async fn create(
    view: View,
    app: &App,
    caller: &Caller,
    mut endpoint: Endpoint,
) -> Result<Json<Endpoint>, Error> {
    normalise(view, &caller.org, &mut endpoint)?;
    check_hosts(app, &caller.org, &endpoint)?;
    let name = endpoint.name.clone();
    let entity = resource::entity(caller, Kind::Endpoint, &name, Status::Ready, &endpoint)?;
    let entity =
        app.store.create(entity, Vec::new()).await.map_err(|error| view.error(&name, error))?;
    app.settle().await;
    let mut endpoint = view.show(&entity)?;
    endpoint.status = Status::Creating;
    Ok(Json(endpoint))
}

async fn find(view: View, app: &App, caller: &Caller, name: &str) -> Result<Entity, Error> {
    validate::path_name(validate::path_field(view.kind()), "path", name)?;
    app.store
        .get(Kind::Endpoint, &caller.org, name)
        .await
        .map_err(|error| view.error(name, error))?
        .ok_or_else(|| Error::not_found(view.kind().noun(), name))
}

async fn update(
    view: View,
    app: &App,
    caller: &Caller,
    name: String,
    mut endpoint: Endpoint,
) -> Result<Json<Endpoint>, Error> {
    find(view, app, caller, &name).await?;
    resource::same_name(&name, &endpoint.name)?;
    normalise(view, &caller.org, &mut endpoint)?;
    check_hosts(app, &caller.org, &endpoint)?;
    let expected = resource::expected(&endpoint.revision);
    let body = resource::body(&endpoint)?;
    let change = move |entity: &mut Entity| {
        entity.body = body;
        Ok(Vec::new())
    };
    let entity = app
        .store
        .mutate(Kind::Endpoint, &caller.org, &name, expected, change)
        .await
        .map_err(|error| view.error(&name, error))?;
    app.settle().await;
    let mut endpoint = view.show(&entity)?;
    endpoint.status = Status::Updating;
    Ok(Json(endpoint))
}

async fn delete(
    view: View,
    app: &App,
    caller: &Caller,
    name: &str,
) -> Result<Json<Endpoint>, Error> {
    find(view, app, caller, name).await?;
    let entity = app
        .store
        .remove(Kind::Endpoint, &caller.org, name)
        .await
        .map_err(|error| view.error(name, error))?;
    app.settle().await;
    let mut endpoint = view.show(&entity)?;
    endpoint.status = Status::Deleting;
    Ok(Json(endpoint))
}

macro_rules! view {
    ($module:ident, $view:expr, $tag:literal, $all:literal, $one:literal, $parameter:literal) => {
        pub(crate) mod $module {
            use super::*;

            #[utoipa::path(post, path = $all, tag = $tag, request_body = Endpoint,
                        operation_id = concat!("create ", $tag),
                        responses((status = 200, body = Endpoint), (status = 409, body = Problem)))]
            pub(crate) async fn create(
                State(app): State<Arc<App>>,
                caller: Caller,
                Body(endpoint): Body<Endpoint>,
            ) -> Result<Json<Endpoint>, Error> {
                super::create($view, &app, &caller, endpoint).await
            }

            #[utoipa::path(get, path = $all, tag = $tag, params(ListQuery),
                        operation_id = concat!("list ", $tag),
                        responses((status = 200, body = [Endpoint])))]
            pub(crate) async fn list(
                State(app): State<Arc<App>>,
                caller: Caller,
                Query(query): Query<ListQuery>,
            ) -> Result<Response, Error> {
                watch::list(&app, &caller, query, |_, _, entity| $view.show(entity)).await
            }

            #[utoipa::path(get, path = $one, tag = $tag, params(($parameter = String, Path)),
                        operation_id = concat!("get ", $tag),
                        responses((status = 200, body = Endpoint), (status = 404, body = Problem)))]
            pub(crate) async fn get(
                State(app): State<Arc<App>>,
                caller: Caller,
                Path(name): Path<String>,
            ) -> Result<Json<Endpoint>, Error> {
                Ok(Json($view.show(&find($view, &app, &caller, &name).await?)?))
            }

            #[utoipa::path(put, path = $one, tag = $tag, params(($parameter = String, Path)),
                        operation_id = concat!("update ", $tag), request_body = Endpoint,
                        responses((status = 200, body = Endpoint), (status = 404, body = Problem)))]
            pub(crate) async fn update(
                State(app): State<Arc<App>>,
                caller: Caller,
                Path(name): Path<String>,
                Body(endpoint): Body<Endpoint>,
            ) -> Result<Json<Endpoint>, Error> {
                super::update($view, &app, &caller, name, endpoint).await
            }

            #[utoipa::path(delete, path = $one, tag = $tag, params(($parameter = String, Path)),
                        operation_id = concat!("delete ", $tag),
                        responses((status = 200, body = Endpoint), (status = 404, body = Problem)))]
            pub(crate) async fn delete(
                State(app): State<Arc<App>>,
                caller: Caller,
                Path(name): Path<String>,
            ) -> Result<Json<Endpoint>, Error> {
                super::delete($view, &app, &caller, &name).await
            }
        }
    };
}

view!(endpoints, View::Endpoint, "endpoint", "/v1/endpoint", "/v1/endpoint/{endpoint}", "endpoint");
view!(apis, View::Api, "API", "/v1/api", "/v1/api/{api}", "api");
