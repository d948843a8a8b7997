//! Dependency layers: what an image's manifest asks for, installed once into a read-only directory
//! that is named by what it was made from.

mod install;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use dispatch_sandbox::Launcher;
use tokio::sync::Mutex;

use crate::build::{BUILD_UID, settle};
use crate::language::{Dependencies, Installed, Installer, Languages, Pack};
use crate::process::source;
use crate::{BuildError, BuildSecrets, Layer, LayerRequest};

/// What is in a layer, for messages.
const DEPENDENCIES: &str = "the dependencies";

/// What a build may take at most.
#[derive(Clone, Copy, Debug)]
pub struct LayerLimits {
    /// Time from the installer's start to its end.
    pub build_time: Duration,
    /// Bytes of all files of a layer.
    pub layer_bytes: u64,
    /// Files of a layer.
    pub files: usize,
}

impl Default for LayerLimits {
    fn default() -> LayerLimits {
        LayerLimits { build_time: Duration::from_secs(600), layer_bytes: 1 << 30, files: 200_000 }
    }
}

/// The layers of a data directory.
pub struct LayerStore {
    dir: PathBuf,
    languages: Languages,
    launcher: Launcher,
    limits: LayerLimits,
    building: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

/// The name of the layer that a request makes: the hex SHA-256 of all that decides about it.
pub fn key(
    request: &LayerRequest,
    pack: &Pack,
    runtime: &Installed,
    installer: &Installer,
) -> String {
    let mut context = Context::new(&SHA256);
    // The patch level does not decide which packages fit.
    let version: Vec<&str> = runtime.runtime.version.split('.').take(2).collect();
    let version = version.join(".");
    let manifest = &request.manifest;
    for part in ["layer-1", &pack.name, &version, &installer.name, manifest] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    // Empty for this machine, and where there are no secrets.
    context.update(runtime.home().as_bytes());
    context.update(request.secrets.scope.as_bytes());
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Plan<'a> {
    dependencies: &'a Dependencies,
    installed: &'a Installed,
    installer: &'a Installer,
    /// The files of the language.
    directory: PathBuf,
    secrets: &'a BuildSecrets,
}

impl LayerStore {
    /// The layers below `dir`. What an interrupted server left half-built is removed.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn new(
        dir: PathBuf,
        languages: Languages,
        launcher: Launcher,
        limits: LayerLimits,
    ) -> std::io::Result<LayerStore> {
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "partial") {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(LayerStore { dir, languages, launcher, limits, building: Mutex::default() })
    }

    /// Builds a layer, or finds it. Two requests for one layer build it once.
    ///
    /// # Errors
    /// [`BuildError::Rejected`] with the installer's own last lines.
    pub async fn build(
        &self,
        request: &LayerRequest,
        log: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Layer, BuildError> {
        let rejected = |text: String| Err(BuildError::Rejected(text));
        let language = &request.language;
        let (Some(pack), Some(installed)) =
            (self.languages.pack(language), self.languages.installed(language))
        else {
            return rejected(format!("the language {language} is not installed on this machine"));
        };
        let Some(dependencies) = &pack.dependencies else {
            return rejected(format!("functions in {language} cannot have dependencies"));
        };
        let Some(installer) = install::choose(&self.launcher, dependencies, &installed).await
        else {
            let names: Vec<&str> =
                dependencies.installers.iter().map(|installer| installer.name.as_str()).collect();
            return rejected(format!(
                "no installer for {language} is on this machine: install one of {}",
                names.join(", ")
            ));
        };
        install::check(&request.secrets).map_err(BuildError::Rejected)?;
        let key = key(request, pack, &installed, installer);
        let place = self.dir.join(&key);
        let turn = Arc::clone(self.building.lock().await.entry(key.clone()).or_default());
        let turn = turn.lock().await;
        let built = if source::found(&place) {
            Ok(Layer { key: key.clone(), path: place, reused: true })
        } else {
            log(&format!("{} installs {}", installer.name, dependencies.manifest));
            let prepared = self.languages.prepare(&self.launcher, language).await;
            prepared.map_err(BuildError::Failed)?;
            let directory = self.languages.directory(language);
            let secrets = &request.secrets;
            let plan = Plan { dependencies, installed: &installed, installer, directory, secrets };
            self.make(&key, &place, &request.manifest, &plan, log).await
        };
        drop(turn);
        self.building.lock().await.remove(&key);
        built
    }

    async fn make(
        &self,
        key: &str,
        place: &Path,
        manifest: &str,
        plan: &Plan<'_>,
        log: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Layer, BuildError> {
        let failed = |error: std::io::Error| {
            BuildError::Failed(format!("the layer {} could not be made: {error}", place.display()))
        };
        let partial = Partial::create(self.dir.join(format!("{key}.partial"))).map_err(failed)?;
        let build = partial.0.join("layer");
        settle::open_to_builder(&build, BUILD_UID).map_err(failed)?;
        let manifest_file = partial.0.join(&plan.dependencies.manifest);
        fs::write(&manifest_file, manifest).map_err(failed)?;
        settle::readable(&manifest_file).map_err(failed)?;
        if plan.installer.manifest_in_layer {
            let inside = build.join(&plan.dependencies.manifest);
            fs::write(&inside, manifest).map_err(failed)?;
            settle::give(&inside, BUILD_UID).map_err(failed)?;
        }
        let files =
            install::Files { manifest: &manifest_file, secrets: &partial.0.join("secrets") };
        install::run(&self.launcher, plan, &build, &files, &self.limits, log).await?;
        let tree = match &plan.dependencies.layer_directory {
            Some(directory) => build.join(directory),
            None => build,
        };
        let (limits, place_to) = (self.limits, place.to_owned());
        let hidden = install::hidden(plan.secrets);
        let settled = tokio::task::spawn_blocking(move || {
            // A manifest may ask for nothing.
            fs::create_dir_all(&tree)?;
            settle::settle(&tree, DEPENDENCIES, &limits)?;
            if let Some(path) = hidden.find(&tree)? {
                let path = path.strip_prefix(&tree).unwrap_or(&path).display();
                let text = format!(
                    "the installer has written a password of the image's secrets to {path}, so the \
                     dependencies are not kept: use a registry that takes it in another way"
                );
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
            }
            fs::rename(&tree, &place_to)?;
            fs::File::open(place_to.parent().unwrap_or(&place_to))?.sync_all()
        });
        match settled.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Err(BuildError::Rejected(error.to_string()));
            }
            Ok(Err(error)) => return Err(failed(error)),
            Err(error) => return Err(BuildError::Failed(error.to_string())),
        }
        Ok(Layer { key: key.to_owned(), path: place.to_owned(), reused: false })
    }
}

/// A directory that is removed again, whatever happens.
struct Partial(PathBuf);

impl Partial {
    fn create(path: PathBuf) -> std::io::Result<Partial> {
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Partial(path))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.0.display(), "a half-built layer is left over");
        }
    }
}

#[cfg(test)]
mod tests;
