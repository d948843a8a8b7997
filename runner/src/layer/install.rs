//! Running an installer in a sandbox that may reach the network and write one directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dispatch_sandbox::{Bind, Exit, Launcher, Network, Spec};

use super::{LayerLimits, Plan};
use crate::build::hidden::Hidden;
use crate::build::run::{self, Work, bind};
use crate::build::{BUILD_UID, settle};
use crate::language::{Dependencies, Installed, Installer, probe};
use crate::process::spec::LANGUAGE;
use crate::{BuildError, BuildSecrets};

/// Where the layer and the manifest are inside.
const LAYER: &str = "/build/layer";
const MANIFEST: &str = "/build/manifest";

/// Variables of the server's own environment that tell installers where packages come from and how
/// to get there: the operator's choice. A name ending in `*` is a prefix.
const PASSED: &[&str] = &[
    "PIP_*",
    "UV_*",
    "MAVEN_*",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPRIVATE",
    "GOPROXY",
    "GOSUMDB",
    "npm_config_*",
    "NPM_CONFIG_*",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
];
/// Their configuration files, below the home directory or absolute, and where an image shows those that
/// are: its own `/etc` cannot be changed.
const CONFIGURATION: &[(&str, &str)] = &[
    ("/etc/pip.conf", "~/.pip/pip.conf"),
    ("/etc/npmrc", "~/.npmrc"),
    ("/etc/uv/uv.toml", "~/.config/uv/uv.toml"),
    ("~/.config/pip/pip.conf", ""),
    ("~/.pip/pip.conf", ""),
    ("~/.npmrc", ""),
    ("~/.config/uv/uv.toml", ""),
    ("~/.netrc", ""),
    ("~/.m2/settings.xml", ""),
    ("~/.m2/settings-security.xml", ""),
];
/// Files that secrets may hold, and where installers look for them.
const SECRET_FILES: &[(&str, &str)] = &[
    (".netrc", "/tmp/.netrc"),
    (".npmrc", "/tmp/.npmrc"),
    ("pip.conf", "/tmp/.config/pip/pip.conf"),
    ("settings.xml", "/tmp/.m2/settings.xml"),
    ("uv.toml", "/tmp/.config/uv/uv.toml"),
];
/// Where programs such as npm keep what they need outside `/usr`.
const TOOLS: &[&str] = &["/usr/local/bin", "/usr/bin", "/bin"];

/// The first installer whose test succeeds.
pub(super) async fn choose<'a>(
    launcher: &Launcher,
    dependencies: &'a Dependencies,
    installed: &Installed,
) -> Option<&'a Installer> {
    for installer in &dependencies.installers {
        let argv = words(&installer.test, installed);
        let mut spec = probe::command(in_path(argv, installed), &installed.binds);
        installed.place(&mut spec);
        spec.syscalls.clone_from(&installed.syscalls);
        if let Ok((Exit::Code(0), _)) = probe::run(launcher, &spec).await {
            return Some(installer);
        }
    }
    None
}

fn words(command: &[String], installed: &Installed) -> Vec<String> {
    installed.words(command, &[("{layer}", LAYER), ("{manifest}", MANIFEST)])
}

/// Gives the first word its directory: beside the runtime, or among the usual ones.
fn in_path(mut argv: Vec<String>, installed: &Installed) -> Vec<String> {
    if let Some(program) = argv.first_mut()
        && !program.starts_with('/')
    {
        let beside = installed.runtime.executable.parent().map(Path::to_owned);
        let usual = TOOLS.iter().map(PathBuf::from);
        let found = beside.into_iter().chain(usual).map(|dir| dir.join(&*program));
        if let Some(found) = found.into_iter().find(|path| installed.has(path)) {
            *program = found.display().to_string();
        } else {
            *program = format!("/usr/bin/{program}");
        }
    }
    argv
}

/// Installs into `build`; the installer's lines go to `log` as they come.
pub(super) async fn run(
    launcher: &Launcher,
    plan: &Plan<'_>,
    build: &Path,
    files: &Files<'_>,
    limits: &LayerLimits,
    log: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), BuildError> {
    let argv = in_path(words(&plan.installer.command, plan.installed), plan.installed);
    let failed = |error: std::io::Error| BuildError::Failed(error.to_string());
    let secrets = write(plan.secrets, files.secrets).map_err(failed)?;
    let spec = sandbox(argv, plan, build, files.manifest, secrets, limits);
    let name = plan.installer.name.as_str();
    let work = Work {
        name,
        what: super::DEPENDENCIES,
        spec,
        tree: build,
        limits,
        hidden: hidden(plan.secrets),
        door: None,
    };
    run::run(launcher, &work, log).await
}

fn sandbox(
    argv: Vec<String>,
    plan: &Plan<'_>,
    build: &Path,
    manifest: &Path,
    secrets: Vec<Bind>,
    limits: &LayerLimits,
) -> Spec {
    let mut binds = secrets;
    binds.extend([
        bind(&plan.directory, Path::new(LANGUAGE), false),
        bind(manifest, Path::new(MANIFEST), false),
        bind(build, Path::new(LAYER), true),
    ]);
    let mut spec = run::sandbox(argv, plan.installed, binds, limits);
    spec.network = Network::Host;
    let in_image = plan.installed.root.is_some();
    let is_place = |value: &str| value.starts_with('/');
    // An image has places of its own, and those of the host's are shown where they can be.
    let passed = std::env::vars().filter(|(name, _)| is_passed(name));
    let passed = passed.filter(|(_, value)| !in_image || !is_place(value));
    let own = plan.secrets.values.iter().filter(|(name, _)| is_passed(name));
    let own: BTreeMap<String, String> =
        own.map(|(name, value)| (name.clone(), value.clone())).collect();
    // An index of the image's own takes the place of the operator's.
    let passed = passed.filter(|(name, _)| !own.contains_key(name));
    let known = std::mem::take(&mut spec.env);
    spec.env = passed.chain(known).chain(own.clone()).collect();
    let home = std::env::var("HOME").unwrap_or_default();
    for (file, other) in CONFIGURATION {
        let source = PathBuf::from(file.replace('~', &home));
        let inside = if in_image && !other.is_empty() { other } else { file };
        let target = PathBuf::from(inside.replace('~', "/tmp"));
        let taken = spec.binds.iter().any(|bind| bind.target == target);
        if source.is_file() && !taken {
            spec.binds.push(bind(&source, &target, false));
        }
    }
    if in_image {
        return spec;
    }
    // What the passed variables point at: certificates, directories of packages.
    let operators = spec.env.iter().filter(|(name, _)| !own.contains_key(name));
    for value in operators.map(|(_, value)| value).filter(|value| value.starts_with('/')) {
        let path = Path::new(value);
        let seen = ["/usr", "/bin", "/lib", "/tmp", "/etc/ssl/certs"]
            .iter()
            .any(|base| path.starts_with(base));
        if path.exists() && !seen && !value.contains(':') {
            spec.binds.push(bind(path, path, false));
        }
    }
    spec
}

/// What an installer gets besides the layer.
pub(super) struct Files<'a> {
    /// The manifest.
    pub manifest: &'a Path,
    /// A directory to be made, for secrets.
    pub secrets: &'a Path,
}

/// Whether there is a use for every secret.
///
/// # Errors
/// The first one that is of none.
pub(super) fn check(secrets: &BuildSecrets) -> Result<(), String> {
    let known = |name: &&String| {
        is_passed(name) || SECRET_FILES.iter().any(|(file, _)| file == &name.as_str())
    };
    let Some(name) = secrets.values.keys().find(|name| !known(name)) else { return Ok(()) };
    let files: Vec<&str> = SECRET_FILES.iter().map(|(file, _)| *file).collect();
    Err(format!(
        "{name:?} of the image's secrets is of no use: there are variables of installers, {}, and \
         files, {}",
        PASSED.join(", "),
        files.join(", ")
    ))
}

/// What must not be seen anywhere.
pub(super) fn hidden(secrets: &BuildSecrets) -> Hidden {
    let mut hidden = Hidden::default();
    secrets.values.iter().for_each(|(name, value)| hidden.add(name, value));
    hidden
}

/// Writes the files among the secrets, for the installer alone; where they are shown.
fn write(secrets: &BuildSecrets, directory: &Path) -> std::io::Result<Vec<Bind>> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut binds = Vec::new();
    std::fs::create_dir(directory)?;
    for (name, target) in SECRET_FILES {
        let Some(text) = secrets.values.get(*name) else { continue };
        let path = directory.join(name);
        let mut file =
            std::fs::File::options().write(true).create_new(true).mode(0o400).open(&path)?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        settle::give(&path, BUILD_UID)?;
        binds.push(bind(&path, Path::new(target), false));
    }
    Ok(binds)
}

fn is_passed(name: &str) -> bool {
    PASSED.iter().any(|allowed| match allowed.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *allowed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_installers_need_is_passed_on() {
        assert!(
            is_passed("PIP_INDEX_URL")
                && is_passed("npm_config_registry")
                && is_passed("https_proxy")
        );
        assert!(
            !is_passed("AWS_SECRET_ACCESS_KEY") && !is_passed("PYTHONPATH") && !is_passed("PATH")
        );
    }
}
