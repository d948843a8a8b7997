//! The logs of what is built: images and base images.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use dispatch_api::Status;
use serde::Deserialize;

use crate::app::App;
use crate::store::Entity;

/// Bytes of a build log.
const MAX_LOG: usize = 4 << 20;
/// How often a log that grows is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How a build log is read.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogQuery {
    /// Go on until the build has ended.
    pub follow: Option<bool>,
}

/// The log of the newest build.
pub(crate) struct BuildLog(Mutex<(std::fs::File, usize)>);

impl BuildLog {
    /// Begins a new one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(app: &App, id: &str) -> Result<BuildLog, String> {
        let path = app.build_log(id);
        let file = std::fs::File::create(&path)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(BuildLog(Mutex::new((file, 0))))
    }

    /// Adds a line, as far as there is room.
    pub fn line(&self, line: &str) {
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

/// Removes the log of what is gone.
pub(crate) async fn remove(app: &App, id: &str) {
    let log = app.build_log(id);
    if let Err(error) = tokio::fs::remove_file(&log).await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, log = %log.display(), "a build log is left over");
    }
}

/// The log as text, to the end of the build if it is followed.
pub(crate) async fn answer(app: Arc<App>, entity: Entity, follow: bool) -> Response {
    let body = if follow {
        axum::body::Body::from_stream(as_it_grows(app, entity))
    } else {
        let mut log = tokio::fs::read(app.build_log(&entity.id)).await.unwrap_or_default();
        log.truncate(MAX_LOG);
        log.into()
    };
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

/// The log as it grows, until what is built is ready or gone.
fn as_it_grows(
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
            let current = app.store.get(entity.kind, &entity.org, &entity.name).await;
            let building = current.ok().flatten().is_some_and(|image| {
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
            tokio::time::sleep(LOOK).await;
        }
    })
}
