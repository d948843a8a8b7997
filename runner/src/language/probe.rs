//! Finding the runtime of a language: each candidate is run in a sandbox and says what it is.

use std::collections::{BTreeMap, HashSet};
use std::future;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dispatch_sandbox::{Bind, Exit, Launcher, Network, Spec};
use futures_util::stream::{self, StreamExt as _};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use super::image::{self, Root};
use super::pack::OURSELVES;
use super::{AT_ONCE, Installed, Pack};
use crate::Runtime;
use crate::process::spec::LANGUAGE;

/// Where programs are.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How long a candidate may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Candidates tried for one language.
const MAX_CANDIDATES: usize = 32;
/// Stands for the candidate, in a probe that is another program.
const CANDIDATE: &str = "{candidate}";
/// Bytes read of what a candidate prints.
const MAX_OUTPUT: u64 = 1 << 20;
/// Directories that every sandbox shows.
const BASE_VIEW: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];

#[derive(Deserialize)]
struct Answer {
    executable: PathBuf,
    version: String,
    prefixes: Vec<PathBuf>,
    #[serde(default)]
    files: Files,
}

/// Files to stand beside those of a pack, in base64.
pub(super) type Files = BTreeMap<PathBuf, String>;

/// The candidates that work and what they have made: the first of each version that has a name of its
/// own, or only the first. `directory` has the pack's files.
pub(super) async fn find(
    launcher: &Launcher,
    pack: &Pack,
    directory: &Path,
) -> Vec<(Installed, Files)> {
    let on_host = !pack.runtime.image_only;
    let candidates = candidates(pack).into_iter().take(MAX_CANDIDATES).filter(|_| on_host);
    let tries = stream::iter(candidates).map(|candidate| async move {
        let found = try_one(launcher, pack, directory, &candidate).await?;
        tracing::debug!(language = pack.name, executable = %candidate.display(), "found");
        Some(found)
    });
    if pack.runtime.version_name.is_none() {
        let mut tries = std::pin::pin!(tries.buffered(1).filter_map(future::ready));
        return tries.next().await.into_iter().collect();
    }
    let mut names = HashSet::new();
    let mut found: Vec<_> = tries.buffered(AT_ONCE).filter_map(future::ready).collect().await;
    found.retain(|(found, _)| names.insert(pack.runtime.name_of(&found.runtime.version)));
    found
}

/// On `PATH` first, then where the patterns point. Links are followed: the real file's directory is
/// what must be visible.
fn candidates(pack: &Pack) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut add = |path: PathBuf| {
        if let Ok(path) = std::fs::canonicalize(path)
            && path.is_file()
            && !found.contains(&path)
        {
            found.push(path);
        }
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in &pack.runtime.programs {
        if program == OURSELVES {
            std::env::current_exe().into_iter().for_each(&mut add);
            continue;
        }
        for directory in std::env::split_paths(&path).filter(|directory| directory.is_absolute()) {
            add(directory.join(program));
        }
    }
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    for pattern in &pack.runtime.patterns {
        for path in expand(&pattern.replace("{home}", &home), names) {
            add(path);
        }
    }
    found
}

/// The names in a directory of this machine.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The paths that a pattern means, the highest version first. `*` stands within one name.
fn expand(pattern: &str, list: impl Fn(&Path) -> Vec<String>) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::from("/")];
    for part in Path::new(pattern).components().skip(1) {
        let part = part.as_os_str().to_string_lossy().into_owned();
        let Some((before, after)) = part.split_once('*') else {
            paths.iter_mut().for_each(|path| path.push(&part));
            continue;
        };
        let mut next = Vec::new();
        for path in paths {
            let mut names: Vec<String> = list(&path)
                .into_iter()
                .filter(|name| name.len() >= before.len() + after.len())
                .filter(|name| name.starts_with(before) && name.ends_with(after))
                .collect();
            names.sort_by_key(|name| std::cmp::Reverse(version(name)));
            next.extend(names.into_iter().map(|name| path.join(name)));
        }
        paths = next;
    }
    paths
}

fn version(name: &str) -> Vec<u64> {
    let numbers = name.split(|c: char| !c.is_ascii_digit());
    numbers.filter_map(|number| number.parse().ok()).collect()
}

async fn try_one(
    launcher: &Launcher,
    pack: &Pack,
    directory: &Path,
    candidate: &Path,
) -> Option<(Installed, Files)> {
    // `<prefix>/bin/python3`: the prefix is what a runtime outside the base view needs. We are one
    // file, and what stands around it is nobody's business.
    let ours = pack.runtime.is_ours();
    let prefix = if ours { candidate } else { candidate.parent()?.parent()? };
    let spec = asking(pack, directory, candidate, &outside_view(&[prefix.to_owned()]));
    let mut answer = ask(launcher, &spec).await?;
    // What a sandbox does not show, a probe cannot look for.
    answer.prefixes.retain(|prefix| prefix.exists());
    let installed = Installed {
        binds: outside_view(&answer.prefixes),
        syscalls: spec.syscalls.clone(),
        runtime: Runtime {
            language: pack.name.clone(),
            version: answer.version,
            executable: answer.executable,
            version_of: None,
        },
        root: None,
    };
    Some((installed, answer.files))
}

/// The runtime of a pack in a container image.
pub(super) async fn find_in(
    launcher: &Launcher,
    pack: &Pack,
    directory: &Path,
    mut root: Root,
) -> Option<Installed> {
    let mut found = Vec::new();
    if pack.runtime.is_ours() {
        found.extend(image::ourselves(&mut root).ok());
    } else {
        let path = root.environment.get("PATH").map_or(PATH, String::as_str);
        let directories = path.split(':').filter(|directory| directory.starts_with('/'));
        for directory in directories {
            found.extend(pack.runtime.programs.iter().map(|name| Path::new(directory).join(name)));
        }
        for pattern in pack.runtime.patterns.iter().filter(|pattern| pattern.starts_with('/')) {
            found.extend(expand(pattern, |path| dispatch_oci::names(&root.path, path)));
        }
        found.retain(|path| root.has(path));
        found.dedup();
    }
    for candidate in found.into_iter().take(MAX_CANDIDATES) {
        let mut installed = image::installed(pack, root.clone(), String::new(), candidate.clone());
        let mut spec = asking(pack, directory, &candidate, &[]);
        spec.env = installed.environment(spec.env).into_iter().collect();
        installed.place(&mut spec);
        let Some(answer) = ask(launcher, &spec).await else { continue };
        installed.runtime.version = answer.version;
        if !pack.runtime.is_ours() {
            installed.runtime.executable = answer.executable;
        }
        return Some(installed);
    }
    None
}

/// The command that asks a candidate what it is.
fn asking(pack: &Pack, directory: &Path, candidate: &Path, view: &[PathBuf]) -> Spec {
    let (program, probe) = (candidate.display().to_string(), &pack.runtime.probe);
    let argv: Vec<String> = if probe.iter().any(|word| word == CANDIDATE) {
        let fill = |word: &String| if word == CANDIDATE { program.clone() } else { word.clone() };
        probe.iter().map(fill).collect()
    } else {
        std::iter::once(program).chain(probe.iter().cloned()).collect()
    };
    let mut spec = command(argv, view);
    let (source, target) = (directory.to_owned(), PathBuf::from(LANGUAGE));
    spec.binds.push(Bind { source, target, writable: false });
    spec.syscalls = pack.sandbox.calls();
    spec
}

async fn ask(launcher: &Launcher, spec: &Spec) -> Option<Answer> {
    let (exit, text) = run(launcher, spec).await.ok()?;
    if exit != Exit::Code(0) {
        return None;
    }
    serde_json::from_str(text.trim()).ok()
}

/// Adds what a runtime has made to a pack: never in the place of a file, nor anywhere else.
///
/// # Errors
/// A name or content that is not valid, or what the system said.
pub(super) fn add(directory: &Path, files: &Files) -> std::io::Result<()> {
    for (name, content) in files {
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(std::io::ErrorKind::InvalidFilename.into());
        }
        let content = STANDARD.decode(content).map_err(std::io::Error::other)?;
        let path = directory.join(name);
        let folder = path.parent().unwrap_or(directory);
        std::fs::create_dir_all(folder)?;
        let mut file = std::fs::File::create_new(&path)?;
        std::io::Write::write_all(&mut file, &content)?;
        super::readable(folder)?;
    }
    Ok(())
}

/// Those directories that the base view does not show already, without ones below others.
fn outside_view(directories: &[PathBuf]) -> Vec<PathBuf> {
    let mut outside: Vec<PathBuf> = Vec::new();
    for directory in directories {
        let seen = BASE_VIEW.iter().any(|base| directory.starts_with(base))
            || directory == Path::new("/")
            || outside.iter().any(|other| directory.starts_with(other));
        if !seen {
            outside.push(directory.clone());
        }
    }
    outside
}

/// A short command with nothing but these directories and the base view.
pub(crate) fn command(argv: Vec<String>, directories: &[PathBuf]) -> Spec {
    let same =
        |path: &PathBuf| Bind { source: path.clone(), target: path.clone(), writable: false };
    let env = [("PATH", PATH), ("HOME", "/tmp"), ("LANG", "C.UTF-8")];
    Spec {
        argv,
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        cwd: PathBuf::from("/tmp"),
        root: None,
        scratch: Vec::new(),
        installs: false,
        binds: directories.iter().map(same).collect(),
        mount_points: Vec::new(),
        network: Network::None,
        tmp_bytes: 16 << 20,
        tmp_inodes: 1024,
        memory_bytes: 1 << 30,
        cpu_millis: 0,
        processes: 64,
        open_files: 256,
        file_bytes: 16 << 20,
        syscalls: Vec::new(),
        host_uid: crate::build::BUILD_UID,
    }
}

/// Runs a short command; how it ended and what it printed.
pub(crate) async fn run(
    launcher: &Launcher,
    spec: &Spec,
) -> Result<(Exit, String), dispatch_sandbox::Error> {
    let mut child = launcher.spawn(spec).await?;
    let read = async {
        let stdout: OwnedFd = child.stdout.try_clone()?;
        let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout)?;
        let mut text = String::new();
        pipe.take(MAX_OUTPUT).read_to_string(&mut text).await?;
        std::io::Result::Ok(text)
    };
    let text = tokio::time::timeout(PATIENCE, read).await;
    let Ok(text) = text else {
        child.kill();
        return Ok((child.wait().await, String::new()));
    };
    let text = text.unwrap_or_default();
    let exit = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap_or(Exit::Signal(9));
    Ok((exit, text))
}
