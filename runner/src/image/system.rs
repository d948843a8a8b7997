//! Packages of an image's own manager: it works on a copy of the image, and what it changes becomes one
//! more layer.
//!
//! Scripts of packages run as they do anywhere, as root. Here root is one user without rights in a
//! sandbox whose network leads to a proxy; the tree that comes of it is checked as any layer is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use dispatch_oci::{Error, Image};
use dispatch_sandbox::{Network, Spec};
use serde::Deserialize;

use super::{ImageStore, Pulled};
use crate::build::run::{self, Work};
use crate::build::{BUILD_UID, settle};
use crate::egress::{self, Door, Egress, Gate, Reach};
use crate::language::Installed;
use crate::layer::LayerLimits;
use crate::{BuildError, SystemRequest};

static MANAGERS: &str = include_str!("managers.toml");

/// Packages of one image, and characters of a name or version.
const MAX_PACKAGES: usize = 500;
const MAX_WORD: usize = 200;
/// Where programs of managers and of package's scripts are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Directories at the top that packages may expect: none can be made there later.
const TOP: [&str; 9] = ["boot", "etc", "home", "media", "mnt", "opt", "run", "srv", "var"];
/// Waits until there is a proxy.
const WAIT: &str = "read -r _ <&3; exec \"$@\" 3<&-";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    manager: Vec<Manager>,
}

/// A package manager; `managers.toml` says what is what.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manager {
    name: String,
    program: PathBuf,
    versioned: String,
    steps: Vec<Vec<String>>,
    #[serde(default)]
    forget: Vec<PathBuf>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

impl Manager {
    fn all() -> Result<Vec<Manager>, BuildError> {
        let table: Table = toml::from_str(MANAGERS)
            .map_err(|error| BuildError::Failed(format!("managers.toml: {error}")))?;
        Ok(table.manager)
    }

    /// A package in its own words.
    fn word(&self, (name, version): &(String, String)) -> String {
        match version.as_str() {
            "" => name.clone(),
            version => self.versioned.replace("{name}", name).replace("{version}", version),
        }
    }

    fn commands(&self, packages: &[(String, String)]) -> impl Iterator<Item = Vec<String>> {
        let words: Vec<String> = packages.iter().map(|package| self.word(package)).collect();
        self.steps.iter().map(move |step| {
            let filled = step.iter().flat_map(|word| match word.as_str() {
                "{packages}" => words.clone(),
                word => vec![word.to_owned()],
            });
            ["/bin/sh", "-c", WAIT, "sh"].map(str::to_owned).into_iter().chain(filled).collect()
        })
    }

    /// Names an image with these packages.
    fn purpose(&self, image: &Image, packages: &[(String, String)]) -> String {
        let mut context = Context::new(&SHA256);
        let id = image.id.to_string();
        let words = packages.iter().flat_map(|(name, version)| [name, version]);
        for part in ["system-1", &id, &self.name].into_iter().chain(words.map(String::as_str)) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The packages in order, each once, if a manager can only take them for what they are.
fn checked(packages: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
    let plain = |word: &str, more: &str| {
        word.len() <= MAX_WORD
            && word.starts_with(|first: char| first.is_ascii_alphanumeric())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    for (name, version) in packages {
        // What ends in a dash is to be removed; paths are files.
        if !plain(name, "+-._:@") || name.ends_with('-') {
            return Err(format!("{name:?} cannot be the name of a system package"));
        }
        if !version.is_empty() && !plain(version, "+-._:~^") {
            return Err(format!("{version:?} cannot be a version of the system package {name}"));
        }
    }
    if packages.len() > MAX_PACKAGES {
        return Err(format!("there are more than {MAX_PACKAGES} system packages"));
    }
    let mut packages = packages.to_vec();
    packages.sort_unstable();
    packages.dedup();
    Ok(packages)
}

impl ImageStore {
    /// Makes an image with further packages, or finds it.
    ///
    /// # Errors
    /// [`BuildError::Rejected`] with what the manager said last.
    pub async fn add(
        &self,
        request: &SystemRequest,
        gate: &Arc<Gate>,
        limits: &LayerLimits,
        log: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Pulled, BuildError> {
        let rejected = |text: &str| Err(BuildError::Rejected(text.to_owned()));
        let runtime = &request.runtime;
        let id = runtime.split_once('@').and_then(|(_, id)| id.parse().ok());
        let (Some(image), Some(installed)) =
            (id.and_then(|id| self.images.get(&id)), self.languages.installed(runtime))
        else {
            return rejected("the container image is gone: update the base image");
        };
        if !self.launcher.can_install() {
            return rejected(
                "system packages cannot be added here: that needs user namespaces, which this \
                 machine does not allow; `dispatch manage check` says how to get them",
            );
        }
        let packages = checked(&request.packages).map_err(BuildError::Rejected)?;
        let managers = Manager::all()?;
        let Some(manager) = managers.iter().find(|manager| installed.has(&manager.program)) else {
            let names: Vec<&str> = managers.iter().map(|manager| manager.name.as_str()).collect();
            return Err(BuildError::Rejected(format!(
                "the image has no package manager that is known ({}), so system packages cannot be \
                 added: leave out --system-deps, or choose another base image",
                names.join(", ")
            )));
        };
        let purpose = manager.purpose(&image, &packages);
        let _turn = self.adding.lock().await;
        let made = match self.images.extension(&purpose) {
            Some(made) => {
                log("an image with the system packages is here already");
                made
            }
            None => {
                let words: Vec<String> = packages.iter().map(|it| manager.word(it)).collect();
                log(&format!("{} installs {}", manager.name, words.join(", ")));
                // To what is public, and to all that the operator permits besides.
                let door =
                    Door::new(gate, &request.organization, "", &Egress::Learn(Reach::default()));
                let work =
                    Adding { manager, packages: &packages, image: &image, purpose: &purpose };
                self.change(&work, &installed, door.as_ref(), limits, log).await?
            }
        };
        let language = crate::language::name_of(runtime);
        let found = self.languages.find_in(&self.launcher, &made, language).await;
        let (runtime, found) = found.map_err(|why| {
            BuildError::Rejected(format!("with the system packages added, {why}"))
        })?;
        self.pulled(&made, runtime, found)
    }

    async fn change(
        &self,
        work: &Adding<'_>,
        installed: &Installed,
        door: Option<&Door>,
        limits: &LayerLimits,
        log: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Image, BuildError> {
        let failed = |error: &dyn std::fmt::Display| BuildError::Failed(error.to_string());
        let (images, of) = (self.images.clone(), work.image.clone());
        let owner = settle::is_root().then_some(BUILD_UID);
        let copy = tokio::task::spawn_blocking(move || {
            let copy = images.copy(&of, owner)?;
            let root = copy.root();
            for path in TOP.map(|name| root.join(name)) {
                // One that is there, or a link, is as it should be.
                let _ = settle::open_to_builder(&path, BUILD_UID);
            }
            Ok::<_, Error>(copy)
        });
        let copy = copy.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let root = copy.root();
        let most = LayerLimits {
            layer_bytes: limits.layer_bytes.saturating_add(copy.bytes),
            files: limits.files.saturating_add(copy.files),
            ..*limits
        };
        let (name, what) = (work.manager.name.as_str(), "the image and its packages");
        for command in work.manager.commands(work.packages) {
            let spec = sandbox(command, work.manager, installed, &root, limits);
            let hidden = crate::build::hidden::Hidden::default();
            let tree = root.as_path();
            let work = Work { name, what, spec, tree, limits: &most, hidden, door };
            run::run(&self.launcher, &work, log).await?;
        }
        let (images, of) = (self.images.clone(), work.image.clone());
        let (purpose, forget) = (work.purpose.to_owned(), work.manager.forget.clone());
        let extended = tokio::task::spawn_blocking(move || {
            for path in &forget {
                dispatch_oci::empty(&copy.root(), path);
            }
            settle::measure(&copy.root(), what, &most)
                .map_err(|error| Error::Invalid(error.to_string()))?;
            images.extend(&of, &copy, &purpose)
        });
        extended.await.map_err(|error| failed(&error))?.map_err(|error| match error {
            Error::Files { .. } | Error::Unavailable(_) => failed(&error),
            Error::Invalid(why) => BuildError::Rejected(format!("the changes of {name}: {why}")),
        })
    }
}

/// What is to be added to what.
struct Adding<'a> {
    manager: &'a Manager,
    packages: &'a [(String, String)],
    image: &'a Image,
    purpose: &'a str,
}

fn sandbox(
    command: Vec<String>,
    manager: &Manager,
    installed: &Installed,
    root: &Path,
    limits: &LayerLimits,
) -> Spec {
    let mut spec = run::sandbox(command.clone(), installed, Vec::new(), limits);
    let own = [("PATH", PATH), ("HOME", "/tmp"), ("LANG", "C.UTF-8")];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let all = own.into_iter().chain(manager.environment.clone()).chain(egress::environment());
    // Nothing of the language is needed, nor of this program, which some languages bring along.
    spec.argv = command;
    spec.env = all.collect();
    spec.binds = Vec::new();
    spec.cwd = "/".into();
    spec.root = Some(root.to_owned());
    spec.scratch = Vec::new();
    spec.installs = true;
    spec.network = Network::None;
    spec
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn package(name: &str, version: &str) -> (String, String) {
        (name.to_owned(), version.to_owned())
    }

    #[test]
    fn every_manager_is_told_of_packages_in_its_own_words() {
        let managers = Manager::all().unwrap();
        let names: Vec<&str> = managers.iter().map(|manager| manager.name.as_str()).collect();
        assert_eq!(names, ["apt", "apk", "dnf", "microdnf", "tdnf", "zypper"]);
        let packages = [package("jq", ""), package("curl", "8.1-2")];
        for manager in &managers {
            assert!(manager.program.is_absolute());
            assert!(manager.forget.iter().all(|path| path.starts_with("/var")));
            let commands: Vec<Vec<String>> = manager.commands(&packages).collect();
            let all = commands.concat();
            let one = if manager.versioned.contains('=') { "curl=8.1-2" } else { "curl-8.1-2" };
            assert!(all.contains(&"jq".to_owned()) && all.contains(&one.to_owned()), "{all:?}");
            assert!(commands.iter().all(|words| words[2] == WAIT && words.len() > 4));
            assert!(all.iter().all(|word| !word.contains("{packages}")), "{all:?}");
            // Only one is asked anew what there is: those of rpm have no list that is read.
            let lists = all.iter().any(|word| word.contains("packages.rpm"));
            assert_eq!(lists, !["apt", "apk"].contains(&manager.name.as_str()));
        }
    }

    #[test]
    fn no_package_is_an_option_a_file_or_a_removal() {
        for name in ["-y", "--option=x", "jq-", "./x.deb", "/x.deb", "a b", "a;b", "", "*", "a\nb"]
        {
            assert!(checked(&[package(name, "")]).is_err(), "{name:?}");
        }
        for version in ["-1", "1 2", "1/2", "*", "$(x)"] {
            assert!(checked(&[package("jq", version)]).is_err(), "{version:?}");
        }
        let good = [package("libstdc++6", "4:12.2.0-14~deb12u1"), package("g++", "")];
        let twice = [&good[..], &good[..]].concat();
        assert_eq!(checked(&twice).unwrap(), [good[1].clone(), good[0].clone()]);
        assert!(checked(&vec![package("a", ""); MAX_PACKAGES + 1]).is_err());
    }
}
