//! Running a program that makes files: in a sandbox, for a bounded time, into one directory.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatch_sandbox::{Bind, Child, Exit, Launcher, Network, Spec};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::hidden::Hidden;
use super::{BUILD_UID, LayerLimits, settle};
use crate::BuildError;
use crate::egress::Door;
use crate::language::Installed;

/// Lines and bytes of the program's output that a failure shows.
const LAST_LINES: usize = 20;
const LAST_BYTES: usize = 2048;
/// Bytes of one line.
const MAX_LINE: usize = 4096;
/// How often the growing tree is measured.
const MEASURE: Duration = Duration::from_millis(500);

/// A program and what it is to make.
pub(crate) struct Work<'a> {
    /// What users call it: `npm`, `the build`.
    pub name: &'a str,
    /// What it makes: `the dependencies`.
    pub what: &'a str,
    /// The program and its sandbox.
    pub spec: Spec,
    /// Where it writes, on the host.
    pub tree: &'a Path,
    /// What it may take.
    pub limits: &'a LayerLimits,
    /// What it knows and its log must not.
    pub hidden: Hidden,
    /// The proxy of one that has a network of its own; it waits until a line on descriptor 3 says that
    /// this is there.
    pub door: Option<&'a Door>,
}

/// Runs it; its lines go to `log` as they come.
///
/// # Errors
/// [`BuildError::Rejected`] with its last lines.
pub(crate) async fn run(
    launcher: &Launcher,
    work: &Work<'_>,
    log: &(dyn Fn(&str) + Send + Sync),
) -> Result<(), BuildError> {
    let (name, limits) = (work.name, work.limits);
    let failed = |error: dispatch_sandbox::Error| BuildError::Failed(error.to_string());
    let child = launcher.spawn(&work.spec).await.map_err(failed)?;
    let _open = match work.door {
        Some(door) => {
            let open = door.open(&child, None).await.map_err(failed)?;
            nix::unistd::write(&child.channel, b"\n")
                .map_err(|error| BuildError::Failed(error.to_string()))?;
            Some(open)
        }
        None => None,
    };
    let mut last = Last { lines: VecDeque::new(), hidden: work.hidden.clone() };
    let end = tokio::time::timeout(limits.build_time, watch(child, work, &mut last, log));
    let end = end.await.map_err(|_| {
        BuildError::Rejected(format!(
            "{name} took longer than {} s and was stopped; its last lines:\n{}",
            limits.build_time.as_secs(),
            last.text()
        ))
    })??;
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

/// A sandbox without a network for a program that sees `binds` and what `installed` needs, and writes
/// to the last of them.
pub(crate) fn sandbox(
    argv: Vec<String>,
    installed: &Installed,
    binds: Vec<Bind>,
    limits: &LayerLimits,
) -> Spec {
    let path = format!(
        "{}:/usr/local/bin:/usr/bin:/bin",
        installed.runtime.executable.parent().unwrap_or(Path::new("/usr/bin")).display()
    );
    let env = [("PATH", path.as_str()), ("HOME", "/tmp"), ("LANG", "C.UTF-8"), ("CI", "true")];
    let cwd = binds.last().map_or_else(|| PathBuf::from("/tmp"), |bind| bind.target.clone());
    let own = installed.binds.iter().map(|path| bind(path, path, false));
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut spec = Spec {
        argv,
        env: installed.environment(env).into_iter().collect(),
        cwd,
        root: None,
        scratch: Vec::new(),
        installs: false,
        binds: own.chain(binds).collect(),
        mount_points: Vec::new(),
        network: Network::None,
        tmp_bytes: 2 << 30,
        tmp_inodes: 200_000,
        memory_bytes: 4 << 30,
        cpu_millis: 0,
        processes: 512,
        open_files: 4096,
        file_bytes: limits.layer_bytes,
        syscalls: installed.syscalls.clone(),
        host_uid: BUILD_UID,
    };
    installed.place(&mut spec);
    spec
}

/// Shows `source` at `target`.
pub(crate) fn bind(source: &Path, target: &Path, writable: bool) -> Bind {
    Bind { source: source.to_owned(), target: target.to_owned(), writable }
}

async fn watch(
    mut child: Child,
    work: &Work<'_>,
    last: &mut Last,
    log: &(dyn Fn(&str) + Send + Sync),
) -> Result<Exit, BuildError> {
    let failed = |error: std::io::Error| BuildError::Failed(error.to_string());
    let pipe = |fd: &std::os::fd::OwnedFd| {
        let pipe = fd.try_clone().and_then(tokio::net::unix::pipe::Receiver::from_owned_fd);
        pipe.map(Lines::new)
    };
    let (mut out, mut err) =
        (pipe(&child.stdout).map_err(failed)?, pipe(&child.stderr).map_err(failed)?);
    let (mut out_open, mut err_open) = (true, true);
    let mut measure = tokio::time::interval(MEASURE);
    while out_open || err_open {
        tokio::select! {
            line = out.next(), if out_open => out_open = last.take(line, log),
            line = err.next(), if err_open => err_open = last.take(line, log),
            _ = measure.tick() => {
                let (tree, most, what) = (work.tree.to_owned(), *work.limits, work.what.to_owned());
                let size = tokio::task::spawn_blocking(move || {
                    settle::measure(&tree, &what, &most)?;
                    settle::leave_room(&tree)
                });
                let size = size.await;
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

/// Lines of a stream, bounded. What was read of one is kept when waiting for its end is given up.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
}

impl<R: tokio::io::AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R) -> Lines<R> {
        Lines { reader: BufReader::new(reader), line: Vec::new() }
    }

    /// The next one; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let buffer = self.reader.fill_buf().await.ok()?;
            if buffer.is_empty() {
                return Some(std::mem::take(&mut self.line)).filter(|line| !line.is_empty());
            }
            // Progress is redrawn after a carriage return: each drawing is a line of its own.
            let end = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let length = end.map_or(buffer.len(), |end| end + 1);
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&buffer[..length.min(room)]);
            self.reader.consume(length);
            if end.is_some() {
                return Some(std::mem::take(&mut self.line));
            }
        }
    }
}

/// The last lines of an installer.
struct Last {
    lines: VecDeque<String>,
    hidden: Hidden,
}

impl Last {
    fn take(&mut self, line: Option<Vec<u8>>, log: &(dyn Fn(&str) + Send + Sync)) -> bool {
        let Some(line) = line else { return false };
        let line = self.hidden.cover(redact(String::from_utf8_lossy(&line).trim_end()));
        if !line.is_empty() {
            log(&line);
            let lines = &mut self.lines;
            lines.push_back(line);
            while lines.len() > LAST_LINES
                || lines.iter().map(String::len).sum::<usize>() > LAST_BYTES && lines.len() > 1
            {
                lines.pop_front();
            }
        }
        true
    }

    fn text(&self) -> String {
        Vec::from(self.lines.clone()).join("\n")
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
}
