//! What a language makes of its own files before its first worker starts: a compiled worker, an
//! archive of its classes. Made once for each version, and found again after a restart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use dispatch_sandbox::Launcher;
use tokio::sync::OnceCell;

use super::{Installed, Pack, copy};
use crate::BuildError;
use crate::build::hidden::Hidden;
use crate::build::run::{self, Work, bind};
use crate::build::{BUILD_UID, OUTPUT, settle};
use crate::layer::LayerLimits;
use crate::process::source::PARTIAL;
use crate::process::spec::LANGUAGE;

/// What it may take, of the limits of layers.
const TIME: Duration = Duration::from_secs(120);
const BYTES: u64 = 256 << 20;

/// The folder with a language's files and what was made of them.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The files as the pack has them.
    from: PathBuf,
    /// The folder, once it is there.
    pub place: PathBuf,
    done: OnceCell<()>,
}

impl Prepared {
    /// Below `all`, by the SHA-256 of all that decides about it.
    ///
    /// # Errors
    /// The pack's files cannot be read.
    pub fn new(
        all: &Path,
        pack: &Pack,
        installed: &Installed,
        from: &Path,
    ) -> io::Result<Prepared> {
        let mut names = Vec::new();
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name());
            }
        }
        names.sort();
        let mut context = Context::new(&SHA256);
        let mut add = |part: &[u8]| {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        };
        let executable = installed.runtime.executable.to_string_lossy();
        for part in
            ["prepared-2", &pack.name, &installed.runtime.version, &executable, installed.home()]
        {
            add(part.as_bytes());
        }
        for name in names {
            add(name.as_encoded_bytes());
            add(&fs::read(from.join(name))?);
        }
        let key: String =
            context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Prepared { from: from.to_owned(), place: all.join(key), done: OnceCell::new() })
    }

    /// Makes it, unless it is there. Those who come meanwhile wait.
    ///
    /// # Errors
    /// What failed, for the log and the image's owner.
    pub async fn make(
        &self,
        launcher: &Launcher,
        pack: &Pack,
        installed: &Installed,
    ) -> Result<(), String> {
        let make = || async {
            if self.place.is_dir() {
                return Ok(());
            }
            let made = self.fill(launcher, pack, installed).await;
            made.map_err(|error| {
                format!("the language {} could not be prepared: {error}", pack.name)
            })
        };
        self.done.get_or_try_init(make).await.copied()
    }

    async fn fill(
        &self,
        launcher: &Launcher,
        pack: &Pack,
        installed: &Installed,
    ) -> Result<(), BuildError> {
        let failed = |error: io::Error| BuildError::Failed(error.to_string());
        let all = self.place.parent().unwrap_or(Path::new("/"));
        let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(all).map_err(failed)?;
        let way = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        fs::set_permissions(partial.path(), way).map_err(failed)?;
        let files = partial.path().join("files");
        copy(&self.from, &files).map_err(failed)?;
        let limits = LayerLimits { build_time: TIME, layer_bytes: BYTES, ..LayerLimits::default() };
        for command in &pack.runtime.prepare {
            let tree = partial.path().join("output");
            settle::open_to_builder(&tree, BUILD_UID).map_err(failed)?;
            let binds = vec![
                bind(&files, Path::new(LANGUAGE), false),
                bind(&tree, Path::new(OUTPUT), true),
            ];
            let spec = run::sandbox(installed.words(command, &[]), installed, binds, &limits);
            let (name, what) = (pack.name.as_str(), "the prepared files");
            let work = Work {
                name,
                what,
                spec,
                tree: &tree,
                limits: &limits,
                hidden: Hidden::default(),
                door: None,
            };
            run::run(launcher, &work, &|line| tracing::debug!(language = name, "{line}")).await?;
            let files = files.clone();
            let moved = tokio::task::spawn_blocking(move || {
                settle::settle(&tree, "the prepared files", &limits)?;
                for entry in fs::read_dir(&tree)? {
                    let entry = entry?;
                    fs::rename(entry.path(), files.join(entry.file_name()))?;
                }
                fs::remove_dir(&tree)
            });
            moved.await.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
        }
        fs::rename(&files, &self.place).map_err(failed)?;
        fs::File::open(all).and_then(|all| all.sync_all()).map_err(failed)
    }
}

/// The directory of all of them, without those that nobody has any more and without what an
/// interrupted server left.
///
/// # Errors
/// What the system said.
pub(super) fn tidy(all: &Path, wanted: &[&Path]) -> io::Result<()> {
    for entry in fs::read_dir(all)? {
        let path = entry?.path();
        if !wanted.contains(&path.as_path()) {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}
