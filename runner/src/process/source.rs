//! Unpacked sources: one read-only directory for each digest.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::Error;
use crate::BuildError;
use crate::archive::{self, ArchiveError, Limits};

/// The start of the names of directories that are being filled.
pub(crate) const PARTIAL: &str = ".partial-";

/// Makes the directory of the sources and removes what an interrupted server left half-done.
pub fn prepare(data_dir: &Path) -> Result<PathBuf, Error> {
    let path = data_dir.join("sources");
    let prepared = fs::create_dir_all(&path).and_then(|()| {
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    });
    match prepared {
        Ok(()) => Ok(path),
        Err(source) => Err(Error::DataDir { path, source }),
    }
}

/// Lets the users of functions pass to what they run, where they have no view of their own that shows
/// it: past the data directory, whose files keep to themselves.
pub fn let_pass(data_dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    for name in ["", "sources", "layers", "languages", "prepared"] {
        let path = data_dir.join(name);
        let opened =
            fs::create_dir_all(&path).and_then(|()| fs::metadata(&path)).and_then(|data| {
                let mode = data.permissions().mode() | 0o011;
                fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            });
        opened.map_err(|source| Error::DataDir { path, source })?;
    }
    Ok(())
}

/// Unpacks `archive` to the directory named by its digest, unless it is there.
pub async fn unpack(
    sources: &Path,
    digest: &str,
    archive: &Path,
    limits: &Limits,
) -> Result<PathBuf, BuildError> {
    let name = digest.strip_prefix("sha256:").unwrap_or(digest);
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(BuildError::Failed(format!("{digest:?} is not the digest of a source")));
    }
    let target = sources.join(name);
    let (archive, place, limits) = (archive.to_owned(), target.clone(), limits.clone());
    let unpacked = tokio::task::spawn_blocking(move || unpack_to(&archive, &place, &limits));
    match unpacked.await {
        Ok(result) => result.map(|()| target),
        Err(error) => Err(BuildError::Failed(format!("cannot unpack the source: {error}"))),
    }
}

/// Whether it is there already. Marks it as used now, so that it stays until somebody refers to it.
pub(crate) fn found(place: &Path) -> bool {
    let marked = File::open(place).and_then(|file| file.set_modified(SystemTime::now()));
    marked.is_ok() && place.is_dir()
}

fn unpack_to(archive: &Path, target: &Path, limits: &Limits) -> Result<(), BuildError> {
    let failed = |error: io::Error| {
        BuildError::Failed(format!("cannot unpack the source to {}: {error}", target.display()))
    };
    if found(target) {
        return Ok(());
    }
    let parent = target.parent().unwrap_or(Path::new("/"));
    let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(parent).map_err(failed)?;
    let place = partial.path().join("source");
    archive::unpack_file(archive, &place, limits).map_err(|error| match error {
        ArchiveError::Io(error) => failed(error),
        error => BuildError::Rejected(error.to_string()),
    })?;
    // It is found by its name from now on, so all of it must be on the disk before it has the name.
    sync_tree(&place).map_err(failed)?;
    match fs::rename(&place, target) {
        Err(_) if target.is_dir() => Ok(()),
        Err(error) => Err(failed(error)),
        Ok(()) => File::open(parent).and_then(|directory| directory.sync_all()).map_err(failed),
    }
}

fn sync_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(directory)?.sync_all()
}
