//! Processes that are started, watched and stopped here, and no others.

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take to be ready, or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// A child that ends with its owner.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
}

/// Which stream of a child is read.
#[derive(Clone, Copy)]
pub enum Stream {
    /// Standard output; standard error is dropped.
    Out,
    /// Standard error; standard output is dropped.
    Err,
}

impl Process {
    /// Starts a command and reads one of its streams to the end.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(mut command: Command, stream: Stream) -> anyhow::Result<Process> {
        let (out, err) = match stream {
            Stream::Out => (Stdio::piped(), Stdio::null()),
            Stream::Err => (Stdio::null(), Stdio::piped()),
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let pipe: Option<Box<dyn Read + Send>> = match stream {
            Stream::Out => child.stdout.take().map(|pipe| Box::new(pipe) as _),
            Stream::Err => child.stderr.take().map(|pipe| Box::new(pipe) as _),
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).lines()).flatten() {
                // Nobody listens any more once it is ready, but the pipe must not fill.
                let _ = sender.send(line);
            }
        });
        Ok(Process { child, lines })
    }

    /// Waits for the first line in which `find` finds something.
    ///
    /// # Errors
    /// The process ended or took too long; its lines so far.
    pub fn wait_for<T>(&self, find: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let end = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            if let Some(found) = find(&line) {
                return Ok(found);
            }
            seen.push(line);
        }
        bail!("process {} did not become ready; it said:\n{}", self.child.id(), seen.join("\n"))
    }

    /// Its resident memory, in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib << 10).with_context(|| format!("{path} has no VmRSS"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let end = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An interpreter of this machine and what is measured in its language.
pub struct Language {
    /// Its name, also that of its image.
    pub name: &'static str,
    /// The file with the handler, in `peers/`.
    pub source: &'static str,
    /// The file with the raw server, in `peers/`.
    server: &'static str,
    executable: PathBuf,
}

impl Language {
    /// The languages that are installed. Programs that only lead to an interpreter are followed to
    /// it, since starting it is what is measured.
    pub fn installed() -> Vec<Language> {
        let known = [
            ("python3", "hello.py", "server.py", &["-c", "import sys; print(sys.executable)"]),
            ("nodejs", "hello.js", "server.js", &["-p", "process.execPath"]),
        ];
        let find = |(name, source, server, ask): (_, _, _, &[&str; 2])| {
            let program = if name == "nodejs" { "node" } else { name };
            let output = Command::new(program).args(ask).stdin(Stdio::null()).output().ok()?;
            let path = String::from_utf8(output.stdout).ok()?;
            let executable = Path::new(path.trim()).canonicalize().ok()?;
            output.status.success().then_some(Language { name, source, server, executable })
        };
        known.into_iter().filter_map(find).collect()
    }

    /// Starts the raw server and returns it with its port.
    ///
    /// # Errors
    /// It does not start.
    pub fn raw_server(&self) -> anyhow::Result<(Process, u16)> {
        let mut command = Command::new(&self.executable);
        // Nothing is left beside the sources.
        command.arg(self.server).current_dir(peers()).env("PYTHONDONTWRITEBYTECODE", "1");
        let process = Process::start(command, Stream::Out)?;
        let port = process.wait_for(|line| line.trim().parse().ok())?;
        Ok((process, port))
    }
}

/// The directory of the raw servers and of the handlers.
pub fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}
