//! Languages as data: packs of a `language.toml` and a worker script, and the runtimes that this
//! machine has for them.

pub(crate) mod probe;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dispatch_sandbox::Launcher;
use futures_util::stream::{self, StreamExt as _};
use include_dir::{Dir, include_dir};
use serde::Deserialize;

use crate::Runtime;

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../languages");

/// A language, as its `language.toml` describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// The name images carry: `python3`.
    pub name: String,
    /// Other names that mean it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Image repositories that mean it, with any tag.
    #[serde(default)]
    pub base_images: Vec<String>,
    /// How its runtime is found.
    pub runtime: RuntimeSpec,
    /// How a worker is started.
    pub worker: WorkerSpec,
    /// What its sandboxes allow besides.
    #[serde(default)]
    pub sandbox: SandboxSpec,
    /// How dependencies are installed; without it functions can have none.
    #[serde(default)]
    pub dependencies: Option<Dependencies>,
}

/// How a runtime is found.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeSpec {
    /// Program names, looked for on `PATH`; `{dispatch}` stands for this program itself, which has
    /// adapters for what does not speak the protocol.
    pub programs: Vec<String>,
    /// Paths where it may be besides; `*` stands for one directory name, `{home}` for the home
    /// directory of the server's user.
    #[serde(default)]
    pub patterns: Vec<String>,
    /// What each version is called where several are installed: `python{major}.{minor}`. Without it
    /// the first one found is the only one.
    #[serde(default)]
    pub version_name: Option<String>,
    /// Arguments that make it print one line of JSON: `executable`, `version`, `prefixes`, and maybe
    /// `files` to stand beside the pack's own: names with contents in base64. Those are in
    /// `/dispatch`.
    pub probe: Vec<String>,
}

impl RuntimeSpec {
    /// The name of a version: `python3.11` for `3.11.7`.
    fn name_of(&self, version: &str) -> Option<String> {
        let mut parts = version.split('.');
        let name = self.version_name.as_ref()?.replace("{major}", parts.next()?);
        let name = name.replace("{minor}", parts.next().unwrap_or("0"));
        // It becomes the name of a folder, too.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        (name.bytes().all(plain) && !name.starts_with('.')).then_some(name)
    }
}

/// How a worker is started.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSpec {
    /// The command; `{executable}` stands for the runtime. The pack's files are in `/dispatch`.
    pub command: Vec<String>,
    /// Environment variables of every worker.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Environment variables of workers that find their source and layer through links, where there
    /// are no namespaces.
    #[serde(default)]
    pub link_environment: BTreeMap<String, String>,
    /// Where a dependency layer appears inside.
    pub layer_target: String,
    /// Whether a process can be started before its function is known, and wait for it: its worker
    /// script takes the source and the environment only with `init`.
    #[serde(default)]
    pub waits: bool,
    /// Whether a worker that has loaded its handler can fork further ones.
    #[serde(default)]
    pub forks: bool,
    /// Environment variables that take effect only when a process starts, so that a function which
    /// sets one gets no process that waited. `*` at the end stands for any rest; names that begin
    /// with `!` are exceptions.
    #[serde(default)]
    pub start_environment: Vec<String>,
    /// Environment variables of workers with a layer.
    #[serde(default)]
    pub layer_environment: BTreeMap<String, String>,
}

impl WorkerSpec {
    /// Whether the variable `name` must be there when the process starts.
    pub fn takes_at_start(&self, name: &str) -> bool {
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        let (not, yes): (Vec<&str>, Vec<&str>) =
            self.start_environment.iter().map(String::as_str).partition(|p| p.starts_with('!'));
        yes.into_iter().any(fits) && !not.into_iter().any(|pattern| fits(&pattern[1..]))
    }
}

/// What the sandboxes of a language, of workers and of installers, allow besides what all do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSpec {
    /// System calls.
    #[serde(default)]
    pub syscalls: Vec<Syscall>,
}

/// A system call that a language needs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syscall {
    /// Its name; see [`dispatch_sandbox::check_call`].
    pub name: String,
    /// What it is for.
    pub reason: String,
}

impl SandboxSpec {
    /// The names of the calls.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.syscalls.iter().map(|call| call.name.clone()).collect()
    }
}

/// How dependencies are installed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependencies {
    /// The file name of the manifest: `requirements.txt`.
    pub manifest: String,
    /// The part of the installed tree that becomes the layer; by default all of it.
    #[serde(default)]
    pub layer_directory: Option<String>,
    /// Installers in the order of preference.
    pub installers: Vec<Installer>,
}

/// One program that installs dependencies. `{executable}`, `{layer}` and `{manifest}` stand for the
/// runtime, the directory to install into, and the manifest's path.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installer {
    /// Its name; part of a layer's key.
    pub name: String,
    /// A command that succeeds where the installer can be used.
    pub test: Vec<String>,
    /// The command that installs.
    pub command: Vec<String>,
    /// Whether the manifest is put into the layer before the command runs.
    #[serde(default)]
    pub manifest_in_layer: bool,
}

/// A runtime of this machine.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Language, version and executable.
    pub runtime: Runtime,
    /// Directories outside the base view that it needs, to be bound at the same path.
    pub binds: Vec<PathBuf>,
    /// System calls that its sandboxes allow besides the base list.
    pub syscalls: Vec<String>,
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
    installed: HashMap<String, Installed>,
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
            self.installed.insert(pack.name.clone(), found);
        }
        self.directories.insert(pack.name.clone(), path);
        self.packs.push(pack);
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
        let mut inner =
            Inner { packs: Vec::new(), directories: HashMap::new(), installed: HashMap::new() };
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
            pack.name == reference
                || pack.aliases.iter().any(|alias| alias == reference)
                || pack.base_images.iter().any(|image| image == repository)
        })
    }

    /// The runtime of a language, if this machine has one.
    pub fn installed(&self, language: &str) -> Option<&Installed> {
        self.0.installed.get(language)
    }

    /// The folder on the host with a language's worker script.
    pub fn directory(&self, language: &str) -> PathBuf {
        self.0.directories.get(language).cloned().unwrap_or_default()
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
        for other in
            ["missing/image:latest", "python3-base", "evil/dispatchframework/python3-base", ""]
        {
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
        assert_eq!(names.len(), 6, "each file of the worker: {names:?}");
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
