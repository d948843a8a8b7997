//! Processes that are started, watched and stopped here, and no others.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cores::{self, Cores};
use crate::load::Target;

/// How long a process may take to be ready, or to stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait before asking again whether a server answers. Short beside what is measured.
const AGAIN: Duration = Duration::from_micros(250);

/// A child that ends with its owner.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts a command on the server's cores and reads its standard error to the end.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(mut command: Command, cores: Cores) -> anyhow::Result<Process> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = cores::on(cores.server(), || command.spawn())?
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let pipe = child.stderr.take();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).lines()).flatten() {
                // Nobody listens any more once it is ready, but the pipe must not fill.
                let _ = sender.send(line);
            }
        });
        Ok(Process { child, lines })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
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

    /// Calls until the first right answer.
    ///
    /// # Errors
    /// The process ended or took too long; its lines so far, or its last answer.
    pub fn wait_until_answered(&mut self, target: &Target) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let Err(error) = target.call() else { return Ok(()) };
            if self.child.try_wait()?.is_some() || Instant::now() > end {
                let said: Vec<String> = self.lines.try_iter().collect();
                return Err(error.context(format!("it does not answer: {}", said.join("\n"))));
            }
            std::thread::sleep(AGAIN);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let end = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
