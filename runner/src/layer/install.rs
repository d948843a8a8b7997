//! Running an installer in a sandbox that may reach the network and write one directory.

use std::path::{Path, PathBuf};

use dispatch_sandbox::{Exit, Launcher, Network, Spec};

use super::{LayerLimits, Plan};
use crate::BuildError;
use crate::build::run::{self, Work, bind};
use crate::language::{Dependencies, Installed, Installer, probe};
use crate::process::spec::LANGUAGE;

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
    manifest: &Path,
    limits: &LayerLimits,
    log: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), BuildError> {
    let argv = in_path(words(&plan.installer.command, plan.installed), plan.installed);
    let spec = sandbox(argv, plan, build, manifest, limits);
    let name = plan.installer.name.as_str();
    let work = Work { name, what: super::DEPENDENCIES, spec, tree: build, limits };
    run::run(launcher, &work, log).await
}

fn sandbox(
    argv: Vec<String>,
    plan: &Plan<'_>,
    build: &Path,
    manifest: &Path,
    limits: &LayerLimits,
) -> Spec {
    let binds = vec![
        bind(&plan.directory, Path::new(LANGUAGE), false),
        bind(manifest, Path::new(MANIFEST), false),
        bind(build, Path::new(LAYER), true),
    ];
    let mut spec = run::sandbox(argv, plan.installed, binds, limits);
    spec.network = Network::Host;
    let in_image = plan.installed.root.is_some();
    let is_place = |value: &str| value.starts_with('/');
    // An image has places of its own, and those of the host's are shown where they can be.
    let passed = std::env::vars().filter(|(name, _)| passed(name));
    let passed = passed.filter(|(_, value)| !in_image || !is_place(value));
    spec.env = passed.chain(std::mem::take(&mut spec.env)).collect();
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
    for value in spec.env.iter().map(|(_, value)| value).filter(|value| value.starts_with('/')) {
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

fn passed(name: &str) -> bool {
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
        assert!(passed("PIP_INDEX_URL") && passed("npm_config_registry") && passed("https_proxy"));
        assert!(!passed("AWS_SECRET_ACCESS_KEY") && !passed("PYTHONPATH") && !passed("PATH"));
    }
}
