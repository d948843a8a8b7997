//! `/v1/image/{name}/sbom`: what is in an image.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use dispatch_api::{Kind, Problem, Status};
use dispatch_runner::packages::Package;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::App;
use crate::iam::Caller;
use crate::image::Stored;
use crate::problem::Error;
use crate::resource;
use crate::store::Entity;

/// The form of a bill of materials.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Form {
    /// CycloneDX 1.6.
    #[default]
    CycloneDx,
    /// SPDX 2.3.
    Spdx,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct SbomQuery {
    /// `cyclonedx` or `spdx`.
    format: Form,
}

#[utoipa::path(get, path = "/v1/image/{imageName}/sbom", tag = "image",
    params(("imageName" = String, Path), SbomQuery),
    responses((status = 200, body = Object), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<SbomQuery>,
) -> Result<Json<Value>, Error> {
    let entity = resource::find(&app, Kind::Image, &caller.org, &name).await?;
    if entity.status != Status::Ready {
        let text =
            format!("image {name} is {}: what is in it is known once it is READY", entity.status);
        return Err(Error::new(axum::http::StatusCode::CONFLICT, text));
    }
    let stored: Stored = serde_json::from_value(entity.body.clone())
        .map_err(|error| Error::internal("the image cannot be read", &error))?;
    let packages = packages(&app, &stored).await;
    Ok(Json(match query.format {
        Form::CycloneDx => cyclonedx(&entity, &packages),
        Form::Spdx => spdx(&entity, &packages),
    }))
}

/// The packages of an image that is built.
pub(crate) async fn packages(app: &App, image: &Stored) -> BTreeSet<Package> {
    let runner = Arc::clone(&app.runner);
    let runtime = if image.runtime.is_empty() { &image.image.language } else { &image.runtime };
    let layer = image.layer.as_ref().map(|key| app.config.data_dir.join("layers").join(key));
    let runtime = runtime.clone();
    let found = tokio::task::spawn_blocking(move || runner.packages(&runtime, layer.as_deref()));
    found.await.unwrap_or_default()
}

/// What names a package everywhere: `pkg:npm/%40a/b@1.0`.
fn url(package: &Package) -> String {
    let Package { kind, name, version, .. } = package;
    let encode =
        |text: &str| -> String {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte);
            text.bytes()
                .map(|byte| {
                    if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
                })
                .collect()
        };
    let name: Vec<String> = name.split('/').map(encode).collect();
    let version = if version.is_empty() { String::new() } else { format!("@{}", encode(version)) };
    format!("pkg:{kind}/{}{version}", name.join("/"))
}

/// A name that is the same for the same packages, so that two bills can be compared.
fn serial(entity: &Entity, packages: &BTreeSet<Package>) -> Uuid {
    let mut text = entity.id.clone();
    packages.iter().for_each(|package| text += &url(package));
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn time(entity: &Entity) -> String {
    let time = jiff::Timestamp::from_microsecond(entity.modified).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn cyclonedx(entity: &Entity, packages: &BTreeSet<Package>) -> Value {
    let component = |package: &Package| {
        let mut component = json!({"type": "library", "bom-ref": url(package),
            "name": package.name, "version": package.version, "purl": url(package)});
        if !package.licence.is_empty() {
            component["licenses"] = json!([{"license": {"name": package.licence}}]);
        }
        component
    };
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", serial(entity, packages)),
        "version": 1,
        "metadata": {
            "timestamp": time(entity),
            "tools": {"components": [{"type": "application", "name": "dispatch",
                "version": env!("CARGO_PKG_VERSION")}]},
            "component": {"type": "container", "name": entity.name, "bom-ref": entity.id},
        },
        "components": packages.iter().map(component).collect::<Vec<_>>(),
    })
}

fn spdx(entity: &Entity, packages: &BTreeSet<Package>) -> Value {
    let id = |index: usize| format!("SPDXRef-Package-{index}");
    let one = |(index, package): (usize, &Package)| {
        let mut one = json!({"SPDXID": id(index), "name": package.name, "versionInfo": package.version,
            "downloadLocation": "NOASSERTION", "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl", "referenceLocator": url(package)}]});
        if !package.licence.is_empty() {
            // What packages write is rarely one of the expressions that the field is for.
            one["licenseComments"] = json!(format!("The package says: {}", package.licence));
        }
        one
    };
    let describes = |index: usize| {
        json!({"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
            "relatedSpdxElement": id(index)})
    };
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": entity.name,
        "documentNamespace": format!("urn:uuid:{}", serial(entity, packages)),
        "creationInfo": {"created": time(entity),
            "creators": [concat!("Tool: dispatch-", env!("CARGO_PKG_VERSION"))]},
        "packages": packages.iter().enumerate().map(one).collect::<Vec<_>>(),
        "relationships": (0..packages.len()).map(describes).collect::<Vec<_>>(),
    })
}
