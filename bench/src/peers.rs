//! What Dispatch is measured beside: `peers/peers.toml`, installed and started here.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::cores::Cores;
use crate::load::hello;
use crate::process::Process;

/// Another way to serve the same function.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name in the tables.
    pub name: String,
    /// The language of the function it serves.
    pub language: String,
    /// What installs its packages; without it the interpreter is enough.
    #[serde(default)]
    installer: Option<Installer>,
    /// Packages with versions.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Program and arguments.
    command: Vec<String>,
    /// Environment variables for warm calls.
    #[serde(default)]
    warm_environment: BTreeMap<String, String>,
    /// Whether its start to the first answer is measured too.
    #[serde(default)]
    pub cold: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Installer {
    Pip,
    Npm,
}

/// What could not be measured, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Missing {
    /// What.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// An interpreter of this machine: the language's name and the file.
pub struct Interpreter {
    /// The name of the language, as of its image.
    pub language: &'static str,
    executable: PathBuf,
    /// As it says itself.
    pub version: String,
}

impl Interpreter {
    /// Those that are installed. Programs that only lead to an interpreter are followed to it, since
    /// starting it is what is measured.
    pub fn installed() -> Vec<Interpreter> {
        let python =
            "import sys, platform; print(sys.executable); print(platform.python_version())";
        let known = [
            ("python3", "python3", ["-c", python]),
            ("nodejs", "node", ["-p", "process.execPath + '\\n' + process.versions.node"]),
        ];
        let find = |(language, program, ask): (_, _, [&str; 2])| {
            let text = run(Command::new(program).args(ask)).ok()?;
            let (path, version) = text.trim().split_once('\n')?;
            let executable = Path::new(path).canonicalize().ok()?;
            Some(Interpreter { language, executable, version: version.to_owned() })
        };
        known.into_iter().filter_map(find).collect()
    }
}

/// The directory of the peers' sources and of the handlers.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// What Dispatch can be measured beside on this machine.
pub struct Peers {
    /// Those that serve the function.
    pub peers: Vec<Peer>,
    /// Those that take events.
    pub brokers: Vec<Peer>,
    /// Those that cannot be installed.
    pub missing: Vec<Missing>,
}

/// All peers, installed below `cache` where they are not yet, and those that cannot be.
///
/// # Errors
/// The list of peers is not valid.
pub fn all(cache: &Path, interpreters: &[Interpreter]) -> anyhow::Result<Peers> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        peer: Vec<Peer>,
        broker: Vec<Peer>,
    }
    let list: List = toml::from_str(include_str!("../peers/peers.toml"))?;
    let mut missing = Vec::new();
    let mut ready = |peers: Vec<Peer>| {
        let mut ready = Vec::new();
        for peer in peers {
            let what = format!("{} ({})", peer.name, peer.language);
            match prepare(peer, cache, interpreters) {
                Ok(peer) => ready.push(peer),
                Err(error) => missing.push(Missing { what, reason: format!("{error:#}") }),
            }
        }
        ready
    };
    let (peers, brokers) = (ready(list.peer), ready(list.broker));
    Ok(Peers { peers, brokers, missing })
}

/// Fills in everything but the port.
fn prepare(mut peer: Peer, cache: &Path, interpreters: &[Interpreter]) -> anyhow::Result<Peer> {
    let find = |language| interpreters.iter().find(|known| known.language == language);
    let interpreter =
        find(&peer.language).with_context(|| format!("{} is not installed", peer.language))?;
    let env = match peer.installer {
        Some(installer) => install(&peer.packages, installer, cache, interpreter)?,
        None => PathBuf::new(),
    };
    for word in &mut peer.command {
        let program = interpreter.executable.display().to_string();
        *word = word
            .replace("{python}", &program)
            .replace("{node}", &program)
            .replace("{env}", &env.display().to_string())
            .replace("{peers}", &directory().display().to_string());
    }
    Ok(peer)
}

/// Installs packages into a directory named after them; one that is there is complete.
fn install(
    packages: &[String],
    installer: Installer,
    cache: &Path,
    interpreter: &Interpreter,
) -> anyhow::Result<PathBuf> {
    let name = format!("{} {} {}", interpreter.language, interpreter.version, packages.join(" "));
    let name: String =
        name.chars().map(|c| if c.is_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let (target, done) = (cache.join(&name), cache.join(&name).join("complete"));
    if done.exists() {
        return Ok(target);
    }
    eprintln!("installing {}", packages.join(" "));
    std::fs::create_dir_all(&target)
        .with_context(|| format!("cannot make {}", target.display()))?;
    match installer {
        Installer::Pip => {
            let mut venv = Command::new(&interpreter.executable);
            run(venv.args(["-m", "venv"]).arg(&target))?;
            let mut pip = Command::new(target.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
            run(pip.args(packages))?;
        }
        Installer::Npm => {
            let mut npm = Command::new("npm");
            npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]);
            run(npm.arg(&target).args(packages))?;
        }
    }
    std::fs::write(&done, "")?;
    Ok(target)
}

/// Runs a program to its end: what it printed.
///
/// # Errors
/// It cannot be started, or fails; what it said.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().display().to_string();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed ({}): {}", output.status, errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A port of loopback that was free a moment ago.
///
/// # Errors
/// There is none.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

impl Peer {
    /// Starts it for warm calls: the process, once it answers, and its port.
    ///
    /// # Errors
    /// It does not answer.
    pub fn start(&self, cores: Cores) -> anyhow::Result<(Process, u16)> {
        let port = free_port()?;
        let mut command = self.command(port);
        command.envs(&self.warm_environment);
        let mut process = Process::start(command, cores)?;
        process.wait_until_answered(&hello(port, "/")).with_context(|| self.name.clone())?;
        Ok((process, port))
    }

    /// Starts it as it comes, and stops it: the time from the start to the first right answer.
    ///
    /// # Errors
    /// It does not answer.
    pub fn first_answer(&self, cores: Cores) -> anyhow::Result<Duration> {
        let port = free_port()?;
        let (command, target) = (self.command(port), hello(port, "/"));
        let start = Instant::now();
        let mut process = Process::start(command, cores)?;
        crate::cores::on(cores.clients(), || process.wait_until_answered(&target))??;
        Ok(start.elapsed())
    }

    /// Starts a broker with a configuration file, to be waited for.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_with(&self, config: &Path, cores: Cores) -> anyhow::Result<Process> {
        let words = self.command.iter();
        let words: Vec<_> =
            words.map(|word| word.replace("{config}", &config.display().to_string())).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        Process::start(command, cores)
    }

    fn command(&self, port: u16) -> Command {
        let words = self.command.iter().map(|word| word.replace("{port}", &port.to_string()));
        let words: Vec<String> = words.collect();
        let mut command = Command::new(&words[0]);
        // Nothing is left beside the sources.
        command.args(&words[1..]).current_dir(directory()).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}
