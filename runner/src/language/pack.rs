//! What a `language.toml` says.

use std::collections::BTreeMap;

use serde::Deserialize;

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
    /// How sources are built; without it they are run as they are.
    #[serde(default)]
    pub build: Option<BuildSpec>,
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
    /// Its place among those that are looked for in a container image whose language nobody says.
    #[serde(default)]
    pub image_rank: Option<u32>,
    /// Whether it is of use in a container image only.
    #[serde(default)]
    pub image_only: bool,
    /// Arguments that make it print one line of JSON: `executable`, `version`, `prefixes`, and maybe
    /// `files` to stand beside the pack's own: names with contents in base64. Those are in
    /// `/dispatch`. With the word `{candidate}` in it, it is a whole command instead.
    pub probe: Vec<String>,
    /// Commands that are run, in this order, before the first worker starts. What they leave in their
    /// working directory stands beside the pack's own files from then on. `{executable}` stands for
    /// the runtime and `{bin}` for the directory it is in.
    #[serde(default)]
    pub prepare: Vec<Vec<String>>,
}

/// How sources are built.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildSpec {
    /// The command. `{source}`, `{output}` and `{handler}` stand for the directory of the source, the
    /// one to write to, which workers get for a source, and the handler, which may be empty.
    pub command: Vec<String>,
}

/// Stands for this program.
pub(super) const OURSELVES: &str = "{dispatch}";

impl Pack {
    /// Whether a user who writes `name` means it.
    pub(crate) fn means(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }
}

impl RuntimeSpec {
    /// Whether the runtime is this program.
    pub(crate) fn is_ours(&self) -> bool {
        self.programs.iter().any(|program| program == OURSELVES)
    }

    /// The name of a version: `python3.11` for `3.11.7`.
    pub(super) fn name_of(&self, version: &str) -> Option<String> {
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
    /// The command; `{executable}` stands for the runtime; `{command}`, `{directory}` and `{ports}`
    /// for what the container image says that it lives in. The pack's files are in `/dispatch`.
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
