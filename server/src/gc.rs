//! Files that nothing refers to any more: archives, sources, what was built of them, layers.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Query, State};
use dispatch_api::Kind;
use dispatch_api::gc::{Garbage, Unused};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::App;
use crate::function::{Stored, hex};
use crate::iam::Caller;
use crate::problem::Error;
use crate::{base_image, image, store};

/// Archives and sources without a revision may belong to one that is just being made.
const YOUNG: Duration = Duration::from_secs(3600);
/// The same of everything, whoever asks: it takes so long at most from finding something to saying so.
const YOUNGEST: Duration = Duration::from_secs(60);
/// The begin and the end of the names of what is being removed; the runner clears such away at its
/// start.
const GOING: [&str; 2] = [".partial-", ".partial"];

/// How long what nobody refers to is kept.
#[derive(Clone, Copy)]
struct Ages {
    sources: Duration,
    layers: Duration,
}

/// What to remove.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", default)]
#[into_params(parameter_in = Query)]
pub(crate) struct GcQuery {
    /// Only say what would be removed.
    dry_run: bool,
    /// Remove what was last used so many hours ago, at least a minute; the server's own settings if
    /// left out.
    older_than: Option<u32>,
}

#[utoipa::path(post, path = "/v1/gc", tag = "gc", params(GcQuery),
    responses((status = 200, body = Garbage)))]
pub(crate) async fn collect(
    State(app): State<Arc<App>>,
    _caller: Caller,
    Query(query): Query<GcQuery>,
) -> Result<Json<Garbage>, Error> {
    let age = query.older_than.map(|hours| Duration::from_secs(u64::from(hours) * 3600));
    let ages = age.map_or_else(|| ages(&app), |age| Ages { sources: age, layers: age });
    let swept = sweep(&app, ages, query.dry_run).await;
    Ok(Json(swept.map_err(|error| Error::store(Kind::Function, "", error))?))
}

/// Removes what is old enough by the server's settings. Returns how many.
///
/// # Errors
/// The database's.
pub(crate) async fn tidy(app: &App) -> Result<usize, store::Error> {
    Ok(sweep(app, ages(app), false).await?.items.len())
}

fn ages(app: &App) -> Ages {
    let hours = u64::try_from(app.config.layer_retention_hours).unwrap_or_default();
    Ages { sources: YOUNG, layers: Duration::from_secs(hours.saturating_mul(3600)) }
}

/// Names that revisions and images refer to.
#[derive(Default)]
struct Used {
    archives: HashSet<String>,
    sources: HashSet<String>,
    layers: HashSet<String>,
    /// Languages, also those in container images.
    runtimes: HashSet<String>,
    /// Archives of images.
    images: HashSet<String>,
}

async fn used(app: &App) -> Result<Used, store::Error> {
    let mut used = Used::default();
    for function in app.store.all(Kind::Function).await? {
        for row in app.store.revisions(&function.id).await? {
            let stored: Stored = serde_json::from_value(row.body).unwrap_or_default();
            let digest = hex(&stored.source_digest).to_owned();
            used.archives.insert(digest.clone());
            used.sources.extend([digest, stored.built]);
            used.runtimes.insert(stored.language);
            used.layers.extend(stored.layer);
        }
    }
    for image in app.store.all(Kind::Image).await? {
        let stored: image::Stored = serde_json::from_value(image.body).unwrap_or_default();
        used.layers.extend(stored.layer);
        used.runtimes.insert(stored.runtime);
    }
    used.runtimes.extend(app.drivers.languages());
    for driver_type in app.store.all(Kind::DriverType).await? {
        let image = driver_type.body.get("image").and_then(serde_json::Value::as_str);
        let archive = image.and_then(|image| image.strip_prefix("oci:")).unwrap_or_default();
        used.images.insert(hex(archive).to_owned());
    }
    for base in app.store.all(Kind::BaseImage).await? {
        let stored: base_image::Stored = serde_json::from_value(base.body).unwrap_or_default();
        used.runtimes.insert(stored.runtime);
        let archive = stored.base.docker_url.strip_prefix("oci:").unwrap_or_default();
        used.images.insert(hex(archive).to_owned());
    }
    Ok(used)
}

async fn sweep(app: &App, ages: Ages, dry_run: bool) -> Result<Garbage, store::Error> {
    // What is made from now on is too young.
    let (now, used) = (SystemTime::now(), used(app).await?);
    let data_dir = app.config.data_dir.clone();
    let runner = Arc::clone(&app.runner);
    let swept = tokio::task::spawn_blocking(move || {
        let mut garbage = Garbage { dry_run, ..Garbage::default() };
        for (kind, directory, used, age) in [
            ("archive", "archives", &used.archives, ages.sources),
            ("source", "sources", &used.sources, ages.sources),
            ("layer", "layers", &used.layers, ages.layers),
            ("image archive", "images/archives", &used.images, ages.layers),
            ("download", "images/blobs", &HashSet::new(), ages.layers),
        ] {
            for (path, name, since) in unused(&data_dir.join(directory), used, now, age) {
                let bytes = size(&path);
                if !dry_run && let Err(error) = remove(&path) {
                    tracing::warn!(%error, path = %path.display(), "what nobody uses is left over");
                    continue;
                }
                add(&mut garbage, kind, name, bytes, since);
            }
        }
        match runner.collect_images(&used.runtimes, ages.layers.max(YOUNGEST), dry_run) {
            Ok(images) => {
                for (name, bytes, since) in images {
                    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                    add(&mut garbage, "image", name, bytes, since);
                }
            }
            Err(error) => tracing::warn!(%error, "an image nobody uses is left over"),
        }
        garbage
    });
    let garbage = swept.await.map_err(|error| store::Error::Unavailable(error.to_string()))?;
    if !dry_run && !garbage.items.is_empty() {
        tracing::info!(items = garbage.items.len(), bytes = garbage.bytes, "unused files removed");
    }
    Ok(garbage)
}

fn add(garbage: &mut Garbage, kind: &str, name: String, bytes: i64, since: SystemTime) {
    let used_time = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let used_time = i64::try_from(used_time.as_secs()).unwrap_or(i64::MAX);
    garbage.bytes = garbage.bytes.saturating_add(bytes);
    garbage.items.push(Unused { kind: kind.to_owned(), name, bytes, used_time });
}

/// What is in a directory, is none of the `used` names, and was made or used longer than `age` ago.
/// What is used is marked as used now.
fn unused(
    directory: &Path,
    used: &HashSet<String>,
    now: SystemTime,
    age: Duration,
) -> Vec<(PathBuf, String, SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let modified = entry.metadata().and_then(|data| data.modified());
        let Ok(modified) = modified else { continue };
        let idle = now.duration_since(modified).unwrap_or_default();
        if used.contains(&name) {
            if idle > YOUNG / 2 {
                let file = fs::File::open(entry.path());
                let _ = file.and_then(|file| file.set_modified(now));
            }
        } else if !name.contains('.') && idle >= age.max(YOUNGEST) {
            found.push((entry.path(), name, modified));
        }
    }
    found
}

/// Bytes of all files below.
fn size(path: &Path) -> i64 {
    let Ok(data) = fs::symlink_metadata(path) else { return 0 };
    let below = fs::read_dir(path).into_iter().flatten().flatten().filter(|_| data.is_dir());
    let own = if data.is_dir() { 0 } else { i64::try_from(data.len()).unwrap_or(i64::MAX) };
    below.fold(own, |sum, entry| sum.saturating_add(size(&entry.path())))
}

/// Removes it at once, so that nobody finds a part of it.
fn remove(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        return fs::remove_file(path);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let going = path.with_file_name(format!("{}{name}{}", GOING[0], GOING[1]));
    fs::rename(path, &going)?;
    fs::remove_dir_all(&going)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_old_and_nobodys_is_found_and_removed_whole() {
        let place = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let ago = |hours: u64| now - Duration::from_secs(hours * 3600);
        for (name, hours) in [("a1", 5), ("b2", 5), ("c3", 0), ("d4.partial", 5), (".partial-x", 5)]
        {
            let path = place.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::create_dir(path.join("sub")).unwrap();
            fs::write(path.join("sub/file"), "12345").unwrap();
            std::os::unix::fs::symlink("/etc/passwd", path.join("link")).unwrap();
            fs::File::open(&path).unwrap().set_modified(ago(hours)).unwrap();
        }
        let used = HashSet::from(["a1".to_owned()]);
        let names = |age: Duration| {
            let found = unused(place.path(), &used, now, age);
            found.into_iter().map(|(_, name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(Duration::from_secs(6 * 3600)), Vec::<String>::new());
        assert_eq!(names(Duration::ZERO), ["b2"], "what is young stays, whoever asks");
        let (used, path) = (HashSet::new(), place.path().join("b2"));
        let found = unused(place.path(), &used, now, Duration::from_secs(60));
        assert!(!found.iter().any(|(_, name, _)| name == "a1"), "it was marked as used");
        assert_eq!(size(&path), 5 + 11, "files and links");
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 4);
        assert!(Path::new("/etc/passwd").exists());
    }
}
