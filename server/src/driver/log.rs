//! The logs of drivers: the last lines of each, on disk, bounded.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use jiff::Timestamp;

use crate::app::App;
use crate::store::Entity;

/// Bytes of a log before it begins anew; what was before is kept once.
const MAX_LOG: u64 = 1 << 20;
/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The log of one driver.
pub(super) struct Log {
    path: PathBuf,
    open: Mutex<Option<(File, u64)>>,
}

fn path(app: &App, id: &str) -> PathBuf {
    app.config.data_dir.join("logs").join(format!("driver-{id}.log"))
}

fn before(path: &std::path::Path) -> PathBuf {
    path.with_extension("log.1")
}

impl Log {
    /// The log of the driver with this id.
    pub fn new(app: &App, id: &str) -> Log {
        Log { path: path(app, id), open: Mutex::default() }
    }

    /// Adds a line, with its time.
    pub fn line(&self, line: &str) {
        let Ok(mut open) = self.open.lock() else { return };
        if let Err(error) = self.write(&mut open, line) {
            *open = None;
            tracing::warn!(%error, log = %self.path.display(), "a line of a driver's log is lost");
        }
    }

    fn write(&self, open: &mut Option<(File, u64)>, line: &str) -> std::io::Result<()> {
        let (file, length) = match open {
            Some((file, length)) if *length < MAX_LOG => (file, length),
            other => {
                if fs::metadata(&self.path).is_ok_and(|data| data.len() >= MAX_LOG) {
                    fs::rename(&self.path, before(&self.path))?;
                }
                let file = File::options().create(true).append(true).open(&self.path)?;
                let length = file.metadata()?.len();
                let (file, length) = other.insert((file, length));
                (file, length)
            }
        };
        let text = format!("{:.3} {line}\n", Timestamp::now());
        *length += text.len() as u64;
        file.write_all(text.as_bytes())
    }
}

/// Removes the log of a driver that is gone.
pub(super) fn remove(app: &App, id: &str) {
    let path = path(app, id);
    for path in [before(&path), path] {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, log = %path.display(), "a driver's log is left over");
        }
    }
}

/// The log as text; followed until the driver is gone.
pub(super) fn answer(app: Arc<App>, entity: Entity, follow: bool) -> Response {
    let path = path(&app, &entity.id);
    let old = fs::read(before(&path)).unwrap_or_default();
    let now = fs::read(&path).unwrap_or_default();
    let sent = now.len();
    let first = Bytes::from([old, now].concat());
    let body = if follow {
        let start = (app, entity, path, sent, Some(first));
        Body::from_stream(futures_util::stream::unfold(start, |state| async move {
            let (app, entity, path, mut sent, first) = state;
            if let Some(first) = first.filter(|first| !first.is_empty()) {
                return Some((Ok::<_, std::io::Error>(first), (app, entity, path, sent, None)));
            }
            loop {
                tokio::time::sleep(LOOK).await;
                let found = app.store.get(entity.kind, &entity.org, &entity.name).await;
                let exists = found.ok().flatten().is_some_and(|found| found.id == entity.id);
                let log = tokio::fs::read(&path).await.unwrap_or_default();
                if log.len() < sent {
                    // It began anew.
                    sent = 0;
                }
                if log.len() > sent {
                    let more = Bytes::copy_from_slice(&log[sent..]);
                    return Some((Ok(more), (app, entity, path, log.len(), None)));
                }
                if !exists || app.stopping.is_cancelled() {
                    return None;
                }
            }
        }))
    } else {
        first.into()
    };
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}
