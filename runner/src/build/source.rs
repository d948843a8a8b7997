//! Sources of languages that have a build step: what it leaves is what workers run.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};

use super::hidden::Hidden;
use super::run::{self, Work, bind};
use super::{OUTPUT, settle};
use crate::language::{Installed, Pack};
use crate::process::Shared;
use crate::process::source::{PARTIAL, found};
use crate::process::spec::LANGUAGE;
use crate::{BuildError, SourceRequest};

/// Where the source is inside.
const SOURCE: &str = "/build/source";
/// What is made, for messages.
const FILES: &str = "the built files";

/// The name of what is made of a request: the hex SHA-256 of all that decides about it.
fn key(request: &SourceRequest, pack: &Pack, installed: &Installed, worker: &Path) -> String {
    let mut context = Context::new(&SHA256);
    let layer = request.layer.as_deref().and_then(Path::file_name).unwrap_or_default();
    let (worker, layer) = (worker.to_string_lossy(), layer.to_string_lossy());
    let version = &installed.runtime.version;
    for part in
        ["source-1", &pack.name, version, &worker, &request.digest, &layer, &request.handler]
    {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    // Empty for this machine.
    context.update(installed.home().as_bytes());
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Builds a source below `sources`, or finds it built. Returns its name there; none where the language
/// has no build step.
///
/// # Errors
/// [`BuildError::Rejected`] with what the compiler said.
pub(crate) async fn build(
    shared: &Shared,
    sources: &Path,
    request: &SourceRequest,
) -> Result<Option<String>, BuildError> {
    let languages = &shared.languages;
    let (Some(pack), Some(installed)) =
        (languages.pack(&request.language), languages.installed(&request.language))
    else {
        let language = &request.language;
        return Err(BuildError::Rejected(format!(
            "the language {language} is not installed on this machine"
        )));
    };
    let Some(step) = &pack.build else { return Ok(None) };
    languages.prepare(&shared.launcher, &request.language).await.map_err(BuildError::Failed)?;
    let worker = languages.directory(&request.language);
    let name = key(request, pack, &installed, &worker);
    let place = sources.join(&name);
    if found(&place) {
        return Ok(Some(name));
    }
    let failed = |error: io::Error| {
        BuildError::Failed(format!("cannot build the source to {}: {error}", place.display()))
    };
    let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(sources).map_err(failed)?;
    // Builders are other users, and where they have no view of their own they pass here.
    let way = Permissions::from_mode(0o711);
    fs::set_permissions(partial.path(), way).map_err(failed)?;
    let tree = partial.path().join("output");
    settle::open_to_builder(&tree, super::BUILD_UID).map_err(failed)?;
    let argv = installed.words(
        &step.command,
        &[("{source}", SOURCE), ("{output}", OUTPUT), ("{handler}", &request.handler)],
    );
    let source = sources.join(request.digest.trim_start_matches("sha256:"));
    let mut binds =
        vec![bind(&worker, Path::new(LANGUAGE), false), bind(&source, Path::new(SOURCE), false)];
    if let Some(layer) = &request.layer {
        binds.push(bind(layer, Path::new(&pack.worker.layer_target), false));
    }
    binds.push(bind(&tree, Path::new(OUTPUT), true));
    let limits = &shared.options.layer_limits;
    let spec = run::sandbox(argv, &installed, binds, limits);
    let work = Work {
        name: "the build",
        what: FILES,
        spec,
        tree: &tree,
        limits,
        hidden: Hidden::default(),
        door: None,
    };
    let function = &request.function;
    run::run(&shared.launcher, &work, &|line| tracing::debug!(function, "build: {line}")).await?;
    let (limits, place_to) = (*limits, place.clone());
    let settled = tokio::task::spawn_blocking(move || {
        settle::settle(&tree, FILES, &limits)?;
        match fs::rename(&tree, &place_to) {
            // Somebody else built the same.
            Err(_) if place_to.is_dir() => {}
            renamed => renamed?,
        }
        fs::File::open(place_to.parent().unwrap_or(&place_to))?.sync_all()
    });
    match settled.await.map_err(|error| BuildError::Failed(error.to_string()))? {
        Ok(()) => Ok(Some(name)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(BuildError::Rejected(error.to_string()))
        }
        Err(error) => Err(failed(error)),
    }
}
