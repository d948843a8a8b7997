//! Languages as data: packs of a `language.toml` and a worker script, and the runtimes that this
//! machine has for them.

mod image;
mod pack;
mod prepare;
pub(crate) mod probe;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use dispatch_sandbox::Launcher;
use futures_util::stream::{self, StreamExt as _};
use include_dir::{Dir, include_dir};

pub(crate) use self::image::Found;
pub use self::image::Root;
pub(crate) use self::image::language as name_of;
pub use self::pack::{
    BuildSpec, Dependencies, Installer, Pack, RuntimeSpec, SandboxSpec, Syscall, WorkerSpec,
};
use self::prepare::Prepared;
use crate::Runtime;

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../languages");

/// A runtime of this machine.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Language, version and executable.
    pub runtime: Runtime,
    /// Directories outside the base view that it needs, to be bound at the same path.
    pub binds: Vec<PathBuf>,
    /// System calls that its sandboxes allow besides the base list.
    pub syscalls: Vec<String>,
    /// The container image it lives in; none is this machine.
    pub root: Option<Arc<Root>>,
}

impl Installed {
    /// A command with what `{executable}`, `{bin}` and these words stand for.
    pub(crate) fn words(&self, command: &[String], more: &[(&str, &str)]) -> Vec<String> {
        let executable = &self.runtime.executable;
        let bin = executable.parent().unwrap_or(Path::new("/usr/bin"));
        let own = [("{executable}", executable), ("{bin}", &bin.to_owned())];
        let own = own.map(|(word, path)| (word, path.display().to_string()));
        let own = own.iter().map(|(word, path)| (*word, path.as_str()));
        // In this order: what a user wrote comes last, so that nothing is filled into it.
        let all: Vec<(&str, &str)> = own.chain(more.iter().copied()).collect();
        let fill = |word: &String| {
            all.iter().fold(word.clone(), |word, (name, value)| word.replace(name, value))
        };
        command.iter().map(fill).collect()
    }
}

/// Why language packs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pack's description is not valid.
    #[error("the language pack {} is not valid: {reason}", path.display())]
    Invalid {
        /// Its folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A pack cannot be read, or the built-in ones not be written.
    #[error("cannot use the language packs in {}: {source}", path.display())]
    Files {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The packs and the runtimes found for them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Languages(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    packs: Vec<Pack>,
    directories: HashMap<String, PathBuf>,
    installed: HashMap<String, Arc<Installed>>,
    prepared: HashMap<String, Arc<Prepared>>,
    /// Where languages are prepared.
    place: PathBuf,
    /// Those that live in images.
    images: RwLock<HashMap<String, InImage>>,
}

/// A language in an image.
#[derive(Clone, Debug)]
struct InImage {
    installed: Arc<Installed>,
    prepared: Option<Arc<Prepared>>,
}

impl Inner {
    /// Adds a language, and what its runtime has made of its folder, if that is `ours`: one from
    /// elsewhere may change while we run, and what was made of it would not.
    fn add(
        &mut self,
        pack: Pack,
        path: PathBuf,
        found: Option<Installed>,
        files: &probe::Files,
        ours: bool,
    ) {
        if ours && let Err(error) = probe::add(&path, files) {
            tracing::warn!(language = pack.name, %error, "it starts slower than it could");
        }
        if let Some(mut found) = found {
            found.runtime.language.clone_from(&pack.name);
            self.installed.insert(pack.name.clone(), Arc::new(found));
        }
        self.directories.insert(pack.name.clone(), path);
        self.packs.push(pack);
    }
}

impl Inner {
    /// Finds where the files of languages that prepare them are, or will be.
    fn expect(&mut self, place: PathBuf) -> io::Result<()> {
        std::fs::create_dir_all(&place)?;
        for pack in self.packs.iter().filter(|pack| !pack.runtime.prepare.is_empty()) {
            let (name, from) = (&pack.name, &self.directories[&pack.name]);
            if let Some(installed) = self.installed.get(name) {
                let prepared = Prepared::new(&place, pack, installed, from)?;
                self.prepared.insert(name.clone(), Arc::new(prepared));
            }
        }
        self.place = place;
        Ok(())
    }
}

/// Runtimes that are looked at at a time.
const AT_ONCE: usize = 4;

/// Copies the files of a pack into a folder of its own.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    readable(to)
}

impl Languages {
    /// Writes the built-in packs below `into`, reads them and those of `extra` (which win), and
    /// looks for their runtimes by running each candidate in a sandbox.
    ///
    /// # Errors
    /// A pack that is not valid, or files that cannot be read or written. A runtime that is missing
    /// is no error.
    pub async fn load(
        launcher: &Launcher,
        into: &Path,
        extra: Option<&Path>,
    ) -> Result<Languages, Error> {
        write_built_in(into).map_err(|source| Error::Files { path: into.to_owned(), source })?;
        let mut packs: BTreeMap<String, (Pack, PathBuf)> = BTreeMap::new();
        for folder in [Some(into), extra].into_iter().flatten() {
            for (pack, path) in read_packs(folder)? {
                packs.insert(pack.name.clone(), (pack, path));
            }
        }
        let mut inner = Inner {
            packs: Vec::new(),
            directories: HashMap::new(),
            installed: HashMap::new(),
            prepared: HashMap::new(),
            place: PathBuf::new(),
            images: RwLock::default(),
        };
        let found: Vec<_> = stream::iter(packs.values())
            .map(|(pack, path)| probe::find(launcher, pack, path))
            .buffered(AT_ONCE)
            .collect()
            .await;
        let names: HashSet<String> = packs.keys().cloned().collect();
        for ((pack, path), found) in packs.into_values().zip(found) {
            let ours = path.starts_with(into);
            let mut found = found.into_iter();
            let (first, files) = found.next().unzip();
            let mut pack = pack;
            let version = |found: &Installed| {
                let name = pack.runtime.name_of(&found.runtime.version);
                name.filter(|name| !names.contains(name))
            };
            let mut others = Vec::new();
            for (mut found, files) in found {
                let Some(name) = version(&found) else { continue };
                found.runtime.version_of = Some(pack.name.clone());
                let own = if ours { into.join(&name) } else { path.clone() };
                if ours {
                    copy(&path, &own)
                        .map_err(|source| Error::Files { path: own.clone(), source })?;
                }
                let (aliases, base_images) = (Vec::new(), Vec::new());
                let pack = Pack { name, aliases, base_images, ..pack.clone() };
                others.push((pack, own, Some(found), files));
            }
            let alias = first.as_ref().and_then(version);
            pack.aliases.extend(alias);
            inner.add(pack, path, first, &files.unwrap_or_default(), ours);
            for (pack, own, found, files) in others {
                inner.add(pack, own, found, &files, ours);
            }
        }
        let place = into.with_file_name("prepared");
        inner.expect(place.clone()).map_err(|source| Error::Files { path: place, source })?;
        Ok(Languages(Arc::new(inner)))
    }

    /// All packs, by name.
    pub fn packs(&self) -> &[Pack] {
        &self.0.packs
    }

    /// The pack that a language's name or alias, or the reference of a well-known base image means:
    /// `docker.io/dispatchframework/python3-base:0.0.13-knative`.
    pub fn resolve(&self, reference: &str) -> Option<&Pack> {
        let repository = repository(reference);
        self.0.packs.iter().find(|pack| {
            pack.means(reference) || pack.base_images.iter().any(|image| image == repository)
        })
    }

    /// The pack of a language that is known, of this machine or in an image. Not for what users write:
    /// who knows the name of a language in an image may use it.
    pub(crate) fn pack(&self, language: &str) -> Option<&Pack> {
        let name = image::language(language);
        self.0.packs.iter().find(|pack| pack.name == name)
    }

    /// The runtime of a language, if this machine, or the image it names, has one.
    pub fn installed(&self, language: &str) -> Option<Arc<Installed>> {
        let of_machine = self.0.installed.get(language).cloned();
        of_machine.or_else(|| self.in_image(language).map(|it| it.installed))
    }

    fn in_image(&self, language: &str) -> Option<InImage> {
        let images = self.0.images.read().unwrap_or_else(PoisonError::into_inner);
        images.get(language).cloned()
    }

    fn prepared(&self, language: &str) -> Option<Arc<Prepared>> {
        let of_machine = self.0.prepared.get(language).cloned();
        of_machine.or_else(|| self.in_image(language).and_then(|it| it.prepared))
    }

    /// The files of a pack, as they are in it.
    fn files(&self, pack: &Pack) -> PathBuf {
        self.0.directories.get(&pack.name).cloned().unwrap_or_default()
    }

    /// Makes a language in an image known.
    fn register(&self, name: &str, pack: &Pack, installed: Installed) -> io::Result<()> {
        let prepared = match pack.runtime.prepare.is_empty() {
            true => None,
            false => {
                let files = self.files(pack);
                Some(Arc::new(Prepared::new(&self.0.place, pack, &installed, &files)?))
            }
        };
        let found = InImage { installed: Arc::new(installed), prepared };
        let mut images = self.0.images.write().unwrap_or_else(PoisonError::into_inner);
        images.insert(name.to_owned(), found);
        Ok(())
    }

    /// Forgets the languages of an image that is gone.
    pub(crate) fn forget(&self, image: &dispatch_oci::Image) {
        let mut images = self.0.images.write().unwrap_or_else(PoisonError::into_inner);
        // Others may have the same tree.
        images.retain(|name, _| !image::is_in(name, image));
    }

    /// Removes what was prepared for languages that are not known any more.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        let images = self.0.images.read().unwrap_or_else(PoisonError::into_inner);
        let in_images = images.values().filter_map(|it| it.prepared.as_deref());
        let all = self.0.prepared.values().map(Arc::as_ref).chain(in_images);
        let wanted: Vec<&Path> = all.map(|it| it.place.as_path()).collect();
        prepare::tidy(&self.0.place, &wanted)
    }

    /// The folder on the host with a language's worker script.
    pub fn directory(&self, language: &str) -> PathBuf {
        match self.prepared(language) {
            Some(prepared) => prepared.place.clone(),
            None => self.0.directories.get(image::language(language)).cloned().unwrap_or_default(),
        }
    }

    /// Makes what the workers of a language need, unless it is there. `language` is a pack's name.
    ///
    /// # Errors
    /// What failed, for the log and the image's owner.
    pub async fn prepare(&self, launcher: &Launcher, language: &str) -> Result<(), String> {
        let Some(prepared) = self.prepared(language) else { return Ok(()) };
        let (Some(pack), Some(installed)) = (self.pack(language), self.installed(language)) else {
            return Ok(());
        };
        prepared.make(launcher, pack, &installed).await
    }
}

/// The repository of an image reference: without registry prefix of Docker Hub, tag and digest.
fn repository(reference: &str) -> &str {
    let reference = reference.split('@').next().unwrap_or_default();
    let reference = reference
        .strip_prefix("docker.io/")
        .or_else(|| reference.strip_prefix("index.docker.io/"))
        .unwrap_or(reference);
    match reference.rfind(':') {
        // A colon before the last slash belongs to a port.
        Some(colon) if !reference[colon..].contains('/') => &reference[..colon],
        _ => reference,
    }
}

fn write_built_in(into: &Path) -> io::Result<()> {
    let fresh = into.with_extension("new");
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)?;
    }
    std::fs::create_dir_all(&fresh)?;
    for pack in BUILT_IN.dirs() {
        let folder = fresh.join(pack.path());
        std::fs::create_dir_all(&folder)?;
        for file in pack.files() {
            std::fs::write(fresh.join(file.path()), file.contents())?;
        }
        readable(&folder)?;
    }
    if into.exists() {
        std::fs::remove_dir_all(into)?;
    }
    std::fs::rename(&fresh, into)
}

/// Workers are other users: they must be able to read their script, whatever our umask is.
fn readable(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let mode = if entry.file_type()?.is_dir() { 0o755 } else { 0o644 };
        std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn read_packs(folder: &Path) -> Result<Vec<(Pack, PathBuf)>, Error> {
    let files = |source| Error::Files { path: folder.to_owned(), source };
    let mut packs = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(files)? {
        let path = entry.map_err(files)?.path();
        let description = path.join("language.toml");
        if !description.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&description).map_err(files)?;
        let invalid = |reason: String| Error::Invalid { path: path.clone(), reason };
        let pack: Pack = toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        check(&pack).map_err(invalid)?;
        packs.push((pack, path));
    }
    Ok(packs)
}

fn check(pack: &Pack) -> Result<(), String> {
    if !dispatch_api::validate::is_name(&pack.name) {
        return Err(format!("{:?} is not a name", pack.name));
    }
    let commands =
        [("runtime.programs", &pack.runtime.programs), ("worker.command", &pack.worker.command)];
    for (field, words) in commands {
        if words.is_empty() {
            return Err(format!("{field} is empty"));
        }
    }
    for call in &pack.sandbox.syscalls {
        dispatch_sandbox::check_call(&call.name)
            .map_err(|error| format!("sandbox.syscalls: {error}"))?;
        if call.reason.trim().is_empty() {
            return Err(format!("sandbox.syscalls: {} has no reason", call.name));
        }
    }
    if !pack.worker.layer_target.starts_with('/') {
        return Err("worker.layer_target is not an absolute path".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn repositories_lose_tags_digests_and_the_hub() {
        for (reference, wanted) in [
            ("dispatchframework/python3-base:0.0.13-knative", "dispatchframework/python3-base"),
            ("docker.io/dispatchframework/python3-base", "dispatchframework/python3-base"),
            ("dispatchframework/python3-base@sha256:abc", "dispatchframework/python3-base"),
            ("127.0.0.1:5000/python3-base:1", "127.0.0.1:5000/python3-base"),
            ("127.0.0.1:5000/python3-base", "127.0.0.1:5000/python3-base"),
            ("", ""),
        ] {
            assert_eq!(repository(reference), wanted);
        }
    }

    #[tokio::test]
    async fn the_languages_of_this_machine_are_found_and_references_mean_them() {
        let dir = tempfile::tempdir().unwrap();
        let launcher = Launcher::start().unwrap();
        let languages =
            Languages::load(&launcher, &dir.path().join("languages"), None).await.unwrap();
        let means = |reference| languages.resolve(reference).map(|pack| pack.name.as_str());
        assert_eq!(means("dispatchframework/python3-base:0.0.13-knative"), Some("python3"));
        assert_eq!(means("docker.io/dispatchframework/nodejs-base:0.0.12"), Some("nodejs"));
        assert_eq!(means("node"), Some("nodejs"));
        // The last one is how a language in an image is called, maybe in somebody else's.
        let in_image = format!("python3@sha256:{}", "0".repeat(64));
        for other in [
            "missing/image:latest",
            "python3-base",
            "evil/dispatchframework/python3-base",
            "",
            &in_image,
        ] {
            assert_eq!(means(other), None, "{other}");
        }
        for language in ["python3", "nodejs"] {
            let found = languages.installed(language).unwrap();
            assert!(found.runtime.executable.is_absolute());
            assert!(found.runtime.version.split('.').count() == 3, "{found:?}");
            assert!(languages.directory(language).join("language.toml").is_file());
        }
        let compiled = languages.directory("python3").join("__pycache__");
        let names: Vec<_> = std::fs::read_dir(compiled).unwrap().flatten().collect();
        assert_eq!(names.len(), 7, "each file of the pack: {names:?}");
    }

    #[tokio::test]
    async fn every_version_that_is_installed_has_a_name_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let versions = dir.path().join("versions");
        for (folder, version) in
            [("a", "2.0.1"), ("b", "1.9.0"), ("c", "2.0.0"), ("d", "broken"), ("e", "../x.1")]
        {
            let bin = versions.join(folder).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            let answer =
                "{\"executable\": \"/bin/sh\", \"version\": \"VERSION\", \"prefixes\": []}";
            let script = match version {
                "broken" => "exit 1".to_owned(),
                version => format!("echo '{}'", answer.replace("VERSION", version)),
            };
            std::fs::write(bin.join("toy"), format!("#!/bin/sh\n{script}\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(bin.join("toy"), mode).unwrap();
        }
        let extra = dir.path().join("extra");
        std::fs::create_dir_all(extra.join("toy")).unwrap();
        let description = format!(
            "name = \"toy\"\naliases = [\"plaything\"]\n[runtime]\nprograms = [\"no-such-toy\"]\n\
             patterns = [\"{}/*/bin/toy\"]\nversion_name = \"toy{{major}}.{{minor}}\"\nprobe = [\"x\"]\n\
             [worker]\ncommand = [\"{{executable}}\"]\nlayer_target = \"/layer\"\n",
            versions.display()
        );
        std::fs::write(extra.join("toy/language.toml"), description).unwrap();
        let launcher = Launcher::start().unwrap();
        let into = dir.path().join("languages");
        let languages = Languages::load(&launcher, &into, Some(&extra)).await.unwrap();
        let version = |name: &str| {
            let pack = languages.resolve(name)?;
            let runtime = languages.installed(&pack.name)?.runtime.clone();
            assert_eq!(runtime.language, pack.name);
            Some((pack.name.clone(), runtime.version, runtime.version_of))
        };
        let first = version("toy").unwrap();
        assert_eq!(first.0, "toy");
        let (one, two) = (version("toy1.9").unwrap(), version("toy2.0").unwrap());
        let other = if first == two { &one } else { &two };
        assert!(first == one || first == two, "the first that is found is what the name means");
        assert_eq!((other.2.as_deref(), &first.2), (Some("toy"), &None));
        assert_eq!(one.1, "1.9.0");
        assert!(two.1.starts_with("2.0."), "{two:?}");
        assert_eq!(version("plaything"), Some(first));
        assert_eq!(version("toy../x"), None);
    }

    #[tokio::test]
    async fn a_pack_from_elsewhere_is_added_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let extra = dir.path().join("extra");
        let folder = extra.join("toy");
        std::fs::create_dir_all(&folder).unwrap();
        let description = "name = \"toy\"\n[runtime]\nprograms = [\"sh\"]\n\
            probe = [\"-c\", \"echo '{\\\"executable\\\":\\\"/bin/sh\\\",\\\"version\\\":\\\"1.2.3\\\",\\\"prefixes\\\":[]}'\"]\n\
            [worker]\ncommand = [\"{executable}\"]\nlayer_target = \"/layer\"\n";
        std::fs::write(folder.join("language.toml"), description).unwrap();
        let launcher = Launcher::start().unwrap();
        let into = dir.path().join("languages");
        let languages = Languages::load(&launcher, &into, Some(&extra)).await.unwrap();
        assert_eq!(languages.installed("toy").unwrap().runtime.version, "1.2.3");
        let with = |call: &str| format!("{description}[[sandbox.syscalls]]\n{call}\n");
        for (call, why) in [
            ("name = 'mount'\nreason = 'to see more'", "never allowed"),
            ("name = 'mbind'\nreason = ' '", "no reason"),
            ("name = 'mbind'", "reason"),
        ] {
            std::fs::write(folder.join("language.toml"), with(call)).unwrap();
            let error =
                Languages::load(&launcher, &into, Some(&extra)).await.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let good = with("name = 'mbind'\nreason = 'memory of one processor'");
        std::fs::write(folder.join("language.toml"), good).unwrap();
        let languages = Languages::load(&launcher, &into, Some(&extra)).await.unwrap();
        assert_eq!(languages.installed("toy").unwrap().syscalls, ["mbind"]);
        std::fs::write(folder.join("language.toml"), "name = 'toy'\nunknown = 1\n").unwrap();
        let error = Languages::load(&launcher, &into, Some(&extra)).await.unwrap_err().to_string();
        assert!(error.contains("toy") && error.contains("unknown"), "{error}");
    }
}
