//! Images that come as files: `oci:DIRECTORY` and `oci:FILE`.

use std::fs::{self, File};
use std::io::Seek as _;
use std::path::{Path, PathBuf};

use super::Session;
use crate::error::{Error, Result, file_cause};

/// What such a reference begins with, and how the server names what it was given.
const FILE: &str = "oci:";
const GIVEN: &str = "oci:sha256:";

/// Gives the server the file that a reference to an image names, and names it as the server does. `place`
/// says where a path leads.
///
/// # Errors
/// The file cannot be read, or the server does not take it.
pub async fn give(
    session: &Session,
    image: &mut String,
    place: impl FnOnce(&str) -> Result<PathBuf>,
) -> Result {
    let Some(path) = image.strip_prefix(FILE) else { return Ok(()) };
    if image.starts_with(GIVEN) {
        return Ok(());
    }
    let path = place(path)?;
    let failed = |error: std::io::Error| {
        Error::local(file_cause("read", &path.display().to_string(), &error))
    };
    let file = if fs::metadata(&path).map_err(failed)?.is_dir() {
        pack(&path).map_err(failed)?
    } else {
        File::open(&path).map_err(failed)?
    };
    let given = session.client.give_image(file).await?;
    *image = given.reference;
    Ok(())
}

/// A directory as an archive.
fn pack(directory: &Path) -> std::io::Result<File> {
    let mut builder = tar::Builder::new(tempfile::tempfile()?);
    builder.follow_symlinks(false);
    builder.append_dir_all(".", directory)?;
    let mut file = builder.into_inner()?;
    file.rewind()?;
    Ok(file)
}
