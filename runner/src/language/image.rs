//! Runtimes that live in container images: a language in an image is a further version of it, with a
//! root of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dispatch_oci::{Config, Image};
use dispatch_sandbox::{Bind, Launcher, Spec};
use serde::{Deserialize, Serialize};

use super::{Installed, Languages, Pack, probe};
use crate::Runtime;

/// Stands between a language and the image it is found in.
const IN: char = '@';
/// Where images show this program and what it is linked with, which they may not have.
const OURSELVES: &str = "/.dispatch";
/// What an image's processes write to besides its own volumes.
const SCRATCH: [&str; 5] = ["/run", "/var/cache", "/var/log", "/var/run", "/var/tmp"];
/// The port of an image that names none.
const PORT: u16 = 8080;
/// The label of images that functions of the first Dispatch were built on.
const TEMPLATE: &str = "io.dispatchframework.functionTemplate";

/// The root that a runtime lives in.
#[derive(Clone, Debug)]
pub struct Root {
    /// The tree on the host.
    pub path: PathBuf,
    /// What the image gives its processes.
    pub environment: BTreeMap<String, String>,
    /// The command of the image itself.
    pub command: Vec<String>,
    /// Where that is run.
    pub directory: PathBuf,
    /// The ports it serves on, the likeliest first.
    pub ports: Vec<u16>,
    scratch: Vec<PathBuf>,
    /// This program, where that is the runtime: how it is started, and what it is linked with.
    loader: Vec<String>,
    own: Vec<(PathBuf, PathBuf)>,
}

/// What is kept of a runtime that was found in an image.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Found {
    pub language: String,
    pub version: String,
    executable: PathBuf,
}

impl Root {
    fn new(image: &Image) -> Root {
        let Config { env, entrypoint, cmd, working_dir, exposed_ports, volumes, .. } =
            &image.config;
        let pair = |line: &String| {
            line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let environment: BTreeMap<_, _> = env.iter().filter_map(pair).collect();
        let port = |text: &String| text.trim_end_matches("/tcp").parse::<u16>().ok();
        let given = environment.get("PORT").and_then(port);
        let ports = given.into_iter().chain(exposed_ports.keys().filter_map(port)).chain([PORT]);
        let place = |path: &str| -> Option<PathBuf> {
            (path.starts_with('/') && path != "/" && !path.split('/').any(|part| part == ".."))
                .then(|| path.trim_end_matches('/').into())
        };
        let scratch = SCRATCH.iter().copied().chain(volumes.keys().map(String::as_str));
        Root {
            path: image.root.clone(),
            environment,
            command: entrypoint.iter().chain(cmd).cloned().collect(),
            directory: place(working_dir).unwrap_or_else(|| "/".into()),
            ports: ports.collect(),
            scratch: scratch.filter_map(place).collect(),
            loader: Vec::new(),
            own: Vec::new(),
        }
    }

    /// Makes this program able to run in it, whatever C library it has or has not.
    fn bring_ourselves(&mut self) -> io::Result<PathBuf> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let ours = fs::read_link("/proc/self/exe")?;
        let program = Path::new(OURSELVES).join("dispatch");
        let mut libraries: Vec<&Path> = maps
            .lines()
            .filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])))
            .filter(|path| *path != ours && is_library(path))
            .collect();
        libraries.sort_unstable();
        libraries.dedup();
        self.own = vec![(ours, program.clone())];
        for library in libraries {
            let name = library.file_name().unwrap_or_default();
            let inside = Path::new(OURSELVES).join(name);
            if name.to_string_lossy().starts_with("ld-") {
                let words = [inside.display().to_string(), "--library-path".to_owned()];
                self.loader = words.into_iter().chain([OURSELVES.to_owned()]).collect();
            }
            self.own.push((library.to_owned(), inside));
        }
        Ok(program)
    }

    /// Whether a file is there, links being followed as inside.
    pub(crate) fn has(&self, path: &Path) -> bool {
        dispatch_oci::open_file(&self.path, path).is_ok()
    }
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".so") || name.contains(".so.")
}

impl Installed {
    /// Makes `spec`, whose command is in this runtime's own terms, one of processes where it lives.
    pub(crate) fn place(&self, spec: &mut Spec) {
        let Some(root) = &self.root else { return };
        spec.root = Some(root.path.clone());
        spec.scratch.clone_from(&root.scratch);
        spec.argv = self.command(std::mem::take(&mut spec.argv));
        let own = root.own.iter().map(|(source, target)| Bind {
            source: source.clone(),
            target: target.clone(),
            writable: false,
        });
        spec.binds.splice(0..0, own);
    }

    /// A command of this program, as it is started where the runtime lives.
    pub(crate) fn command(&self, mut words: Vec<String>) -> Vec<String> {
        if let Some(root) = &self.root {
            words.splice(0..0, root.loader.iter().cloned());
        }
        words
    }

    /// What the image it lives in gives its processes, over what all get.
    pub(crate) fn environment(
        &self,
        all: impl IntoIterator<Item = (String, String)>,
    ) -> BTreeMap<String, String> {
        let own = self.root.iter().flat_map(|root| &root.environment);
        let own = own.map(|(name, value)| (name.clone(), value.clone()));
        all.into_iter().chain(own).collect()
    }

    /// Says where it lives, for keys of what is made with it.
    pub(crate) fn home(&self) -> &str {
        let name = self.root.as_ref().and_then(|root| root.path.file_name());
        name.and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Whether there is such a program where it lives.
    pub(crate) fn has(&self, path: &Path) -> bool {
        match &self.root {
            Some(root) => root.has(path),
            None => path.is_file(),
        }
    }
}

/// The name of a language in an image.
pub(super) fn name(language: &str, image: &Image) -> String {
    format!("{language}{IN}{}", image.id)
}

/// Whether a name is that of a language in this image.
pub(super) fn is_in(name: &str, image: &Image) -> bool {
    name.split_once(IN).is_some_and(|(_, id)| id == image.id.to_string())
}

/// The language itself.
pub(crate) fn language(name: &str) -> &str {
    name.split_once(IN).map_or(name, |(language, _)| language)
}

impl Languages {
    /// Finds the language of an image: the wanted one, or what it looks made for. Returns the name
    /// that it has as a language from now on, and what to keep of it.
    ///
    /// # Errors
    /// What the image does not have.
    pub(crate) async fn find_in(
        &self,
        launcher: &Launcher,
        image: &Image,
        wanted: &str,
    ) -> Result<(String, Found), String> {
        let mut packs: Vec<&Pack> = Vec::new();
        if wanted.is_empty() {
            packs.extend(self.likely(&image.config));
        } else {
            let pack = self.packs().iter().find(|pack| pack.means(wanted));
            packs.push(pack.ok_or_else(|| {
                let names: Vec<&str> = self.packs().iter().map(|pack| pack.name.as_str()).collect();
                format!("there is no language {wanted}; use one of: {}", names.join(", "))
            })?);
        }
        for pack in &packs {
            let root = Root::new(image);
            if let Some(installed) = probe::find_in(launcher, pack, &self.files(pack), root).await {
                let runtime = &installed.runtime;
                let found = Found {
                    language: pack.name.clone(),
                    version: runtime.version.clone(),
                    executable: runtime.executable.clone(),
                };
                let name = name(&pack.name, image);
                self.register(&name, pack, installed).map_err(|error| error.to_string())?;
                return Ok((name, found));
            }
        }
        let names: Vec<&str> = packs.iter().map(|pack| pack.name.as_str()).collect();
        Err(format!("the image has no runtime for {}", names.join(" or ")))
    }

    /// Makes known again what was found in an image.
    ///
    /// # Errors
    /// The files of the language cannot be read.
    pub(crate) fn know(&self, image: &Image, found: &Found) -> io::Result<()> {
        let Some(pack) = self.packs().iter().find(|pack| pack.name == found.language) else {
            return Ok(());
        };
        let mut root = Root::new(image);
        if pack.runtime.is_ours() {
            root.bring_ourselves()?;
        }
        let installed = installed(pack, root, found.version.clone(), found.executable.clone());
        self.register(&name(&pack.name, image), pack, installed)
    }

    /// What an image is made for, the likeliest first.
    fn likely(&self, config: &Config) -> Vec<&Pack> {
        let names = |pack: &&Pack, word: &str| {
            let program = Path::new(word).file_name().unwrap_or_default();
            pack.runtime.programs.iter().any(|name| program == name.as_str())
        };
        let command: Vec<&String> = config.entrypoint.iter().chain(&config.cmd).collect();
        let first = command.first().map_or("", |word| word.as_str());
        let mut ranked: Vec<&Pack> =
            self.packs().iter().filter(|pack| pack.runtime.image_rank.is_some()).collect();
        ranked.sort_by_key(|pack| (!names(pack, first), pack.runtime.image_rank));
        let is_base = config.labels.contains_key(TEMPLATE);
        let watchdog = config.env.iter().any(|line| line.starts_with("fprocess="));
        let serves = watchdog || (!config.exposed_ports.is_empty() && !is_base);
        let server = self.packs().iter().find(|pack| pack.runtime.image_only);
        if serves && !command.is_empty() {
            return server.into_iter().chain(ranked).collect();
        }
        ranked.into_iter().chain(server.filter(|_| !command.is_empty())).collect()
    }
}

/// A runtime of a pack in an image.
pub(super) fn installed(
    pack: &Pack,
    root: Root,
    version: String,
    executable: PathBuf,
) -> Installed {
    Installed {
        runtime: Runtime { language: pack.name.clone(), version, executable, version_of: None },
        binds: Vec::new(),
        syscalls: pack.sandbox.calls(),
        root: Some(Arc::new(root)),
    }
}

/// The same, of a pack whose runtime is this program.
///
/// # Errors
/// This program cannot be found.
pub(super) fn ourselves(root: &mut Root) -> io::Result<PathBuf> {
    root.bring_ourselves()
}
