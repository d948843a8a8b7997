//! `/v1/imagearchive`: images that come as files instead of from a registry.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use dispatch_api::Problem;
use dispatch_api::image::Archive;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use crate::app::App;
use crate::iam::Caller;
use crate::problem::Error;

/// The start of the names of archives that are coming; the runner clears such away at its start.
const PARTIAL: &str = ".partial-";

#[utoipa::path(post, path = "/v1/imagearchive", tag = "base image",
    request_body(content = String, content_type = "application/x-tar",
        description = "A tar archive, compressed or not: an OCI layout, or what docker save writes"),
    responses((status = 201, body = Archive), (status = 413, body = Problem)))]
pub(crate) async fn put(
    State(app): State<Arc<App>>,
    _caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<Archive>), Error> {
    let limit = app.config.max_image << 20;
    // Any digest has the same directory.
    let place = app.runner.image_archive(&"0".repeat(64)).map_err(Error::bad_request)?;
    let directory = place.parent().unwrap_or(Path::new("/"));
    let partial = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(directory);
    let partial = partial.map_err(|error| unwritten(&error))?;
    let file = partial.as_file().try_clone().map_err(|error| unwritten(&error))?;
    let mut file = tokio::fs::File::from_std(file);
    let (mut context, mut bytes) = (Context::new(&SHA256), 0u64);
    let mut body = body.into_data_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| {
            Error::bad_request(format!("the archive did not come whole: {error}"))
        })?;
        bytes += chunk.len() as u64;
        if bytes > limit {
            let text = format!(
                "the archive has more than {limit} bytes: the server's operator allows more with \
                 --max-image"
            );
            return Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
        context.update(&chunk);
        file.write_all(&chunk).await.map_err(|error| unwritten(&error))?;
    }
    file.sync_all().await.map_err(|error| unwritten(&error))?;
    let hex: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let place = app.runner.image_archive(&hex).map_err(Error::bad_request)?;
    partial.persist(place).map_err(|error| unwritten(&error.error))?;
    let reference = format!("oci:sha256:{hex}");
    Ok((StatusCode::CREATED, Json(Archive { reference, bytes: i64::try_from(bytes).unwrap_or(0) })))
}

fn unwritten(error: &std::io::Error) -> Error {
    tracing::error!(%error, "an archive of an image could not be written");
    let text = "the archive could not be stored: the server's operator finds the cause in its log";
    Error::new(StatusCode::SERVICE_UNAVAILABLE, text)
}
