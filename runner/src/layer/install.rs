//! Running an installer in a sandbox that may reach the network and write one directory.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatch_sandbox::{Bind, Child, Exit, Launcher, Network, Spec};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{BUILD_UID, LayerLimits, Plan, settle};
use crate::BuildError;
use crate::language::{Dependencies, Installed, Installer, probe};

/// Where the layer and the manifest are inside.
const LAYER: &str = "/build/layer";
const MANIFEST: &str = "/build/manifest";

/// Variables of the server's own environment that tell installers where packages come from and how
/// to get there: the operator's choice. A name ending in `*` is a prefix.
const PASSED: &[&str] = &[
    "PIP_*",
    "UV_*",
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
/// Their configuration files, below the home directory or absolute.
const CONFIGURATION: &[&str] = &[
    "/etc/pip.conf",
    "/etc/npmrc",
    "/etc/uv/uv.toml",
    "~/.config/pip/pip.conf",
    "~/.pip/pip.conf",
    "~/.npmrc",
    "~/.config/uv/uv.toml",
    "~/.netrc",
];
/// Where programs such as npm keep what they need outside `/usr`.
const TOOLS: &[&str] = &["/usr/local/bin", "/usr/bin", "/bin"];

/// Lines and bytes of the installer's output that a failure shows.
const LAST_LINES: usize = 20;
const LAST_BYTES: usize = 2048;
/// Bytes of one line.
const MAX_LINE: usize = 4096;
/// How often the growing layer is measured.
const MEASURE: Duration = Duration::from_millis(500);

/// The first installer whose test succeeds.
pub(super) async fn choose<'a>(
    launcher: &Launcher,
    dependencies: &'a Dependencies,
    installed: &Installed,
) -> Option<&'a Installer> {
    for installer in &dependencies.installers {
        let argv = words(&installer.test, installed);
        let mut spec = probe::command(in_path(argv, installed), &installed.binds);
        spec.syscalls.clone_from(&installed.syscalls);
        if let Ok((Exit::Code(0), _)) = probe::run(launcher, &spec).await {
            return Some(installer);
        }
    }
    None
}

fn words(command: &[String], installed: &Installed) -> Vec<String> {
    let executable = installed.runtime.executable.display().to_string();
    command
        .iter()
        .map(|word| {
            word.replace("{executable}", &executable)
                .replace("{layer}", LAYER)
                .replace("{manifest}", MANIFEST)
        })
        .collect()
}

/// Gives the first word its directory: beside the runtime, or among the usual ones.
fn in_path(mut argv: Vec<String>, installed: &Installed) -> Vec<String> {
    if let Some(program) = argv.first_mut()
        && !program.starts_with('/')
    {
        let beside = installed.runtime.executable.parent().map(Path::to_owned);
        let usual = TOOLS.iter().map(PathBuf::from);
        let found = beside.into_iter().chain(usual).map(|dir| dir.join(&*program));
        if let Some(found) = found.into_iter().find(|path| path.is_file()) {
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
    let child =
        launcher.spawn(&spec).await.map_err(|error| BuildError::Failed(error.to_string()))?;
    let mut last = Last::default();
    let end = tokio::time::timeout(limits.build_time, watch(child, build, limits, &mut last, log));
    let end = end.await.map_err(|_| {
        BuildError::Rejected(format!(
            "the installation took longer than {} s and was stopped; its last lines:\n{}",
            limits.build_time.as_secs(),
            last.text()
        ))
    })??;
    let name = &plan.installer.name;
    match end {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => Err(BuildError::Rejected(format!(
            "{name} failed with code {code}; its last lines:\n{}",
            last.text()
        ))),
        Exit::OutOfMemory { limit_bytes } => Err(BuildError::Rejected(format!(
            "{name} used more than {} MiB of memory and was stopped",
            limit_bytes >> 20
        ))),
        Exit::ForbiddenCall => Err(BuildError::Rejected(format!(
            "{name} was killed because it, or a package's build script, made a system call that is \
             not allowed; its last lines:\n{}",
            last.text()
        ))),
        Exit::Signal(signal) => {
            Err(BuildError::Failed(format!("{name} was killed by signal {signal}")))
        }
        Exit::Lost => Err(BuildError::Failed(format!("what watched over {name} has ended"))),
    }
}

async fn watch(
    mut child: Child,
    build: &Path,
    limits: &LayerLimits,
    last: &mut Last,
    log: &(dyn Fn(&str) + Send + Sync),
) -> Result<Exit, BuildError> {
    let failed = |error: std::io::Error| BuildError::Failed(error.to_string());
    let pipe = |fd: &std::os::fd::OwnedFd| {
        let pipe = fd.try_clone().and_then(tokio::net::unix::pipe::Receiver::from_owned_fd);
        pipe.map(BufReader::new)
    };
    let (mut out, mut err) =
        (pipe(&child.stdout).map_err(failed)?, pipe(&child.stderr).map_err(failed)?);
    let (mut out_open, mut err_open) = (true, true);
    let mut measure = tokio::time::interval(MEASURE);
    while out_open || err_open {
        tokio::select! {
            line = line(&mut out), if out_open => out_open = last.take(line, log),
            line = line(&mut err), if err_open => err_open = last.take(line, log),
            _ = measure.tick() => {
                let (tree, most) = (build.to_owned(), *limits);
                let size = tokio::task::spawn_blocking(move || settle::measure(&tree, &most)).await;
                if let Ok(Err(error)) = size {
                    child.kill();
                    child.wait().await;
                    return Err(BuildError::Rejected(error.to_string()));
                }
            }
        }
    }
    Ok(child.wait().await)
}

/// One line, bounded; none at the end.
async fn line<R: tokio::io::AsyncBufRead + Unpin>(reader: &mut R) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let buffer = reader.fill_buf().await.ok()?;
        if buffer.is_empty() {
            return (!line.is_empty()).then_some(line);
        }
        // Progress is redrawn after a carriage return: each drawing is a line of its own.
        let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let length = end.map_or(buffer.len(), |end| end + 1);
        let room = MAX_LINE.saturating_sub(line.len());
        line.extend_from_slice(&buffer[..length.min(room)]);
        reader.consume(length);
        if end.is_some() {
            return Some(line);
        }
    }
}

/// The last lines of an installer.
#[derive(Default)]
struct Last(VecDeque<String>);

impl Last {
    fn take(&mut self, line: Option<Vec<u8>>, log: &(dyn Fn(&str) + Send + Sync)) -> bool {
        let Some(line) = line else { return false };
        let line = redact(String::from_utf8_lossy(&line).trim_end());
        if !line.is_empty() {
            log(&line);
            self.0.push_back(line);
            while self.0.len() > LAST_LINES
                || self.0.iter().map(String::len).sum::<usize>() > LAST_BYTES && self.0.len() > 1
            {
                self.0.pop_front();
            }
        }
        true
    }

    fn text(&self) -> String {
        Vec::from(self.0.clone()).join("\n")
    }
}

/// Takes passwords out of a line: in addresses, and the tokens of npm.
fn redact(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        text += before;
        let end = after.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(at) => {
                text += "***";
                rest = &after[at..];
            }
            None => rest = after,
        }
    }
    text += rest;
    match text.find("_authToken=") {
        Some(start) => format!("{}***", &text[..start + "_authToken=".len()]),
        None => text,
    }
}

fn sandbox(
    argv: Vec<String>,
    plan: &Plan<'_>,
    build: &Path,
    manifest: &Path,
    limits: &LayerLimits,
) -> Spec {
    let bind = |source: &Path, target: &Path, writable| Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        writable,
    };
    let mut env: Vec<(String, String)> =
        std::env::vars().filter(|(name, _)| passed(name)).collect();
    let path = format!(
        "{}:/usr/local/bin:/usr/bin:/bin",
        plan.installed.runtime.executable.parent().unwrap_or(Path::new("/usr/bin")).display()
    );
    for (name, value) in
        [("PATH", path.as_str()), ("HOME", "/tmp"), ("LANG", "C.UTF-8"), ("CI", "true")]
    {
        env.push((name.to_owned(), value.to_owned()));
    }
    let mut binds: Vec<Bind> =
        plan.installed.binds.iter().map(|path| bind(path, path, false)).collect();
    binds.push(bind(build, Path::new(LAYER), true));
    binds.push(bind(manifest, Path::new(MANIFEST), false));
    let home = std::env::var("HOME").unwrap_or_default();
    for file in CONFIGURATION {
        let source = PathBuf::from(file.replace('~', &home));
        let target = PathBuf::from(file.replace('~', "/tmp"));
        if source.is_file() {
            binds.push(bind(&source, &target, false));
        }
    }
    // What the passed variables point at: certificates, directories of packages.
    for value in env.iter().map(|(_, value)| value).filter(|value| value.starts_with('/')) {
        let path = Path::new(value);
        let seen = ["/usr", "/bin", "/lib", "/tmp", "/etc/ssl/certs"]
            .iter()
            .any(|base| path.starts_with(base));
        if path.exists() && !seen && !value.contains(':') {
            binds.push(bind(path, path, false));
        }
    }
    Spec {
        argv,
        env,
        cwd: PathBuf::from(LAYER),
        binds,
        mount_points: Vec::new(),
        network: Network::Host,
        tmp_bytes: 2 << 30,
        tmp_inodes: 200_000,
        memory_bytes: 4 << 30,
        cpu_millis: 0,
        processes: 512,
        open_files: 4096,
        file_bytes: limits.layer_bytes,
        syscalls: plan.installed.syscalls.clone(),
        host_uid: BUILD_UID,
    }
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
    fn passwords_do_not_reach_the_log() {
        for (line, wanted) in [
            (
                "Looking in indexes: https://user:pass@host/simple",
                "Looking in indexes: https://***@host/simple",
            ),
            ("plain https://host/a@b text", "plain https://host/a@b text"),
            ("//host/:_authToken=abc", "//host/:_authToken=***"),
            ("http://a:b@x http://c:d@y/z", "http://***@x http://***@y/z"),
        ] {
            assert_eq!(redact(line), wanted);
        }
    }

    #[test]
    fn only_what_installers_need_is_passed_on() {
        assert!(passed("PIP_INDEX_URL") && passed("npm_config_registry") && passed("https_proxy"));
        assert!(!passed("AWS_SECRET_ACCESS_KEY") && !passed("PYTHONPATH") && !passed("PATH"));
    }
}
