//! A running program of the function's, and what it writes.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::FutureExt as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::serve::Log;

/// Bytes read at a time.
const READ: usize = 64 * 1024;
/// Bytes of its errors that are kept to say why it failed.
const TAIL: usize = 8 * 1024;
/// How long what a program wrote may take to arrive after it has ended: it is in the pipe already,
/// unless something that it left behind holds it open.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// A program, which is killed with all it started when this is dropped.
pub struct Program {
    child: Child,
    group: Option<Pid>,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: ChildStderr,
    out: Vec<u8>,
    tail: Vec<u8>,
}

/// What a program did when it was waited for.
pub enum Said {
    /// As many bytes as were waited for, or more, are in its output.
    Enough,
    /// It has ended.
    Ended(ExitStatus),
    /// It wrote more than it may.
    TooMuch,
}

impl Program {
    /// Starts it in this directory, with pipes in place of its standard streams.
    ///
    /// # Errors
    /// It cannot be started.
    #[expect(clippy::disallowed_methods, reason = "the sandbox that is meant is around us")]
    pub fn start(
        command: &[String],
        directory: &Path,
        environment: &[(String, String)],
    ) -> io::Result<Program> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(directory)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let gone = || io::Error::other("a pipe is missing");
        Ok(Program {
            group: child.id().map(|id| Pid::from_raw(id.cast_signed())),
            stdin: child.stdin.take(),
            stdout: child.stdout.take().ok_or_else(gone)?,
            stderr: child.stderr.take().ok_or_else(gone)?,
            child,
            out: Vec::new(),
            tail: Vec::new(),
        })
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Whether it can be given more to read.
    pub fn takes_more(&self) -> bool {
        self.stdin.is_some()
    }

    /// Whether it has written nothing since it was last waited for.
    pub fn is_silent(&self) -> bool {
        self.out.is_empty() && self.tail.is_empty()
    }

    /// What it wrote and nobody took.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// The end of what it wrote to its standard error.
    pub fn last_errors(&self) -> String {
        String::from_utf8_lossy(&self.tail).into_owned()
    }

    /// Writes `input`, then closes its standard input if it is the `last`, and reads until `enough`
    /// says so of its output, it ends, or it has written more than `limit` bytes.
    ///
    /// # Errors
    /// The pipes'.
    pub async fn exchange(
        &mut self,
        input: &[u8],
        last: bool,
        limit: usize,
        log: &Log,
        enough: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Said> {
        let Program { child, stdin, stdout, stderr, out, tail, .. } = self;
        tail.clear();
        let given = stdin.take();
        let write = async {
            let mut given = given?;
            // It may end without having read everything; how it ends says more.
            let _ = given.write_all(input).await;
            (!last).then_some(given)
        };
        tokio::pin!(write);
        let (mut written, mut out_open, mut errors_open) = (false, true, true);
        let mut errors = vec![0; READ];
        let said = loop {
            if enough(out) {
                break Said::Enough;
            }
            if out.len() > limit {
                break Said::TooMuch;
            }
            out.reserve(READ);
            tokio::select! {
                biased;
                back = &mut write, if !written => (written, *stdin) = (true, back),
                count = stderr.read(&mut errors), if errors_open => {
                    let count = count?;
                    errors_open = count > 0;
                    note(&errors[..count], tail, log).await;
                }
                count = stdout.read_buf(out), if out_open => out_open = count? > 0,
                status = child.wait() => break Said::Ended(status?),
            }
        };
        if let Said::Ended(_) = said {
            let rest = async {
                while out.len() <= limit && stdout.read_buf(out).await.is_ok_and(|count| count > 0)
                {
                    out.reserve(READ);
                }
            };
            let _ = timeout(LAST_WORDS, rest).await;
        }
        // What it wrote before its answer is in the pipe.
        while let Some(Ok(count @ 1..)) = stderr.read(&mut errors).now_or_never() {
            note(&errors[..count], tail, log).await;
        }
        Ok(said)
    }
}

async fn note(text: &[u8], tail: &mut Vec<u8>, log: &Log) {
    log.write(text).await;
    tail.extend_from_slice(text);
    tail.drain(..tail.len().saturating_sub(TAIL));
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}
