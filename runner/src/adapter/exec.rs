//! Programs that read calls from their standard input and write results to their standard output:
//! docs/guide/programs.md.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use dispatch_api::ErrorType;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;

use super::channel::Call;
use super::find;
use super::output::{result, whose_fault};
use super::program::{Program, Said};
use super::serve::{Adapter, Init, Loaded, Log, fault};
use crate::frame::Fault;

/// How calls and results travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A program for each call: the payload is all of its standard input, what it writes the result.
    Once,
    /// One line of JSON for each call, and one for each result.
    Lines,
    /// The same, each after its length: four bytes, the highest first.
    Frames,
}

impl Mode {
    const ALL: [(&'static str, Mode); 3] =
        [("once", Mode::Once), ("lines", Mode::Lines), ("frames", Mode::Frames)];
}

/// What a language pack says of its programs.
#[derive(Clone, Debug)]
pub struct Options {
    /// How they are called, unless the handler says so.
    pub mode: Mode,
    /// What runs them, if they do not run by themselves.
    pub interpreter: Option<String>,
    /// An argument that makes the interpreter see whether a program is valid.
    pub check: Option<String>,
    /// The end of their names.
    pub suffix: String,
}

impl Options {
    /// # Errors
    /// A word that means nothing here.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options =
            Options { mode: Mode::Lines, interpreter: None, check: None, suffix: String::new() };
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} has no value"))?;
            match word.as_str() {
                "--mode" => {
                    let mode = Mode::ALL.iter().find(|(name, _)| *name == value);
                    options.mode = mode.ok_or_else(|| format!("there is no mode {value}"))?.1;
                }
                "--interpreter" => options.interpreter = Some(value),
                "--check" => options.check = Some(value),
                "--suffix" => options.suffix = value,
                _ => return Err(format!("there is no option {word}")),
            }
        }
        Ok(options)
    }
}

/// Finds the program.
pub struct Exec(Options);

impl Exec {
    /// Programs as `options` say.
    pub fn new(options: Options) -> Exec {
        Exec(options)
    }
}

impl Adapter for Exec {
    type Loaded = Ready;

    async fn load(self, init: Init) -> Result<Ready, Fault> {
        let source = Path::new(&init.source);
        let refused = |message: String| fault(ErrorType::FunctionError, message);
        let (mode, name) = match init.handler.split_once(':') {
            Some((word, name)) => {
                let mode = Mode::ALL.iter().find(|(name, _)| *name == word);
                let why = || format!("the handler begins with {word:?}: use once, lines or frames");
                (mode.ok_or_else(|| refused(why()))?.1, name)
            }
            None => (self.0.mode, init.handler.as_str()),
        };
        let program = find::program(source, name, &self.0).map_err(refused)?;
        let environment: Vec<_> = init.environment.into_iter().collect();
        if let (Some(check), Some(interpreter)) = (&self.0.check, &self.0.interpreter) {
            let file = program.command.last().cloned().unwrap_or_default();
            let words = [interpreter.clone(), check.clone(), file];
            let mut checked = Program::start(&words, source, &environment)
                .map_err(|error| refused(not_started(&words, &error)))?;
            let limit = init.result_limit;
            let said = checked.exchange(b"", true, limit, &Log::ours(), |_| false).await;
            if !matches!(said, Ok(Said::Ended(status)) if status.success()) {
                return Err(refused(checked.last_errors().trim().to_owned()));
            }
        }
        let handler = match Mode::ALL.iter().find(|(_, other)| *other == mode) {
            Some((word, _)) if mode != self.0.mode => format!("{word}:{}", program.name),
            _ => program.name,
        };
        let ready = Ready {
            handler,
            mode,
            command: program.command,
            source: source.to_owned(),
            environment,
            limit: init.result_limit,
            idle: Mutex::default(),
        };
        if mode != Mode::Once {
            // So that what cannot start is known before the first call.
            let first = ready.start().map_err(refused)?;
            ready.put(first);
        }
        Ok(ready)
    }
}

fn not_started(command: &[String], error: &io::Error) -> String {
    let name = command.first().map_or("", String::as_str);
    let help = match error.raw_os_error() {
        Some(nix::libc::ENOENT) => {
            ": it, or the interpreter in its first line, or its dynamic loader is not there"
        }
        Some(nix::libc::ENOEXEC) => {
            ": it is neither a program of this machine nor has a first line \
                                     that begins with #!"
        }
        Some(nix::libc::EACCES) => ": it is not executable (chmod +x)",
        _ => "",
    };
    format!("{name} cannot be started: {error}{help}")
}

/// A program that was found.
pub struct Ready {
    handler: String,
    mode: Mode,
    command: Vec<String>,
    source: PathBuf,
    environment: Vec<(String, String)>,
    limit: usize,
    idle: Mutex<Vec<Program>>,
}

impl Ready {
    fn start(&self) -> Result<Program, String> {
        Program::start(&self.command, &self.source, &self.environment)
            .map_err(|error| not_started(&self.command, &error))
    }

    fn put(&self, program: Program) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(program);
    }

    /// One that waits for a call, if there is one.
    fn waiting(&self) -> Option<Program> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let able = |program: &mut Program| !program.has_ended() && program.takes_more();
        std::iter::from_fn(|| idle.pop())
            .find_map(|mut program| able(&mut program).then_some(program))
    }

    async fn run(&self, call: &Call, log: &Log) -> Result<Bytes, Fault> {
        match self.mode {
            Mode::Once => self.once(call, log).await,
            Mode::Lines | Mode::Frames => self.exchange(call, log).await,
        }
    }

    /// A program for this call alone.
    async fn once(&self, call: &Call, log: &Log) -> Result<Bytes, Fault> {
        let system = |error: io::Error| fault(ErrorType::SystemError, error.to_string());
        let context = std::env::temp_dir().join(format!(".context-{}.json", call.id));
        std::fs::write(&context, &call.context).map_err(system)?;
        let context = Removed(context);
        let mut environment = self.environment.clone();
        environment.push(("DISPATCH_CONTEXT".to_owned(), context.0.display().to_string()));
        let mut program = Program::start(&self.command, &self.source, &environment)
            .map_err(|error| fault(ErrorType::FunctionError, not_started(&self.command, &error)))?;
        let said = program.exchange(&call.payload, true, self.limit, log, |_| false).await;
        match said.map_err(system)? {
            Said::Ended(status) if status.success() => {
                if program.output().len() > self.limit {
                    return Err(self.too_much());
                }
                result(program.output())
            }
            Said::Ended(status) => Err(ended(status, &program)),
            Said::TooMuch | Said::Enough => Err(self.too_much()),
        }
    }

    /// A program that may have had calls before and may get more.
    async fn exchange(&self, call: &Call, log: &Log) -> Result<Bytes, Fault> {
        let input = request(self.mode, call)?;
        let function = |message: String| fault(ErrorType::FunctionError, message);
        let mut waited = self.waiting();
        loop {
            let first = waited.is_none();
            let mut program = match waited.take() {
                Some(program) => program,
                None => self.start().map_err(function)?,
            };
            let enough = |out: &[u8]| answer(self.mode, out).is_some();
            let said = program.exchange(&input, false, self.limit + 8, log, enough).await;
            let said = said.map_err(|error| fault(ErrorType::SystemError, error.to_string()))?;
            let Some((start, end, next)) = answer(self.mode, program.output()) else {
                match said {
                    // It was on its way out when it got the call.
                    Said::Ended(status) if status.success() && !first && program.is_silent() => {
                        continue;
                    }
                    Said::Ended(status) => return Err(ended(status, &program)),
                    Said::TooMuch | Said::Enough => return Err(self.too_much()),
                }
            };
            let answer = json(Bytes::copy_from_slice(&program.output()[start..end]))?;
            program.output().drain(..next);
            if program.output().is_empty() {
                self.put(program);
            } else {
                // What else it wrote would be taken for the answer to the next call.
                let rest = String::from_utf8_lossy(program.output()).into_owned();
                log.write(format!("{}\n", rest.trim_end()).as_bytes()).await;
            }
            return Ok(answer);
        }
    }

    fn too_much(&self) -> Fault {
        let message =
            format!("the result may have at most {} bytes, and the program wrote more", self.limit);
        fault(ErrorType::FunctionError, message)
    }
}

impl Loaded for Ready {
    fn handler(&self) -> String {
        self.handler.clone()
    }

    fn call(self: Arc<Self>, call: Call, log: Log) -> BoxFuture<'static, Result<Bytes, Fault>> {
        Box::pin(async move { self.run(&call, &log).await })
    }
}

/// A call as the program reads it.
fn request(mode: Mode, call: &Call) -> Result<Vec<u8>, Fault> {
    let (context, payload) = (&call.context, &call.payload);
    let mut text = [&b"{\"context\":"[..], context, b",\"payload\":", payload, b"}"].concat();
    if mode == Mode::Frames {
        let length = u32::try_from(text.len())
            .map_err(|_| fault(ErrorType::InputError, "the call has more than 4 GiB"))?;
        return Ok([&length.to_be_bytes()[..], &text].concat());
    }
    // In JSON there are line breaks between words only.
    text.iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
    text.push(b'\n');
    Ok(text)
}

/// Where the first answer in `out` begins and ends, and what comes after it begins.
fn answer(mode: Mode, out: &[u8]) -> Option<(usize, usize, usize)> {
    if mode == Mode::Frames {
        let length = u32::from_be_bytes(*out.first_chunk()?) as usize;
        return (out.len() - 4 >= length).then_some((4, 4 + length, 4 + length));
    }
    let end = out.iter().position(|byte| *byte == b'\n')?;
    Some((0, end, end + 1))
}

fn json(answer: Bytes) -> Result<Bytes, Fault> {
    if answer.trim_ascii().is_empty() {
        return Ok(Bytes::from_static(b"null"));
    }
    match serde_json::from_slice::<&RawValue>(&answer) {
        Ok(_) => Ok(answer),
        Err(error) => {
            let start = String::from_utf8_lossy(&answer[..answer.len().min(80)]).into_owned();
            let message = format!(
                "the answer is not JSON: {error}: {start:?}; what is not a result belongs on \
                 standard error"
            );
            Err(fault(ErrorType::FunctionError, message))
        }
    }
}

/// How it ended, in its own last words where it has some.
fn ended(status: ExitStatus, program: &Program) -> Fault {
    let errors = program.last_errors();
    let lines: Vec<String> = errors.lines().map(str::to_owned).collect();
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("the program ended with exit code {code}"),
        (None, Some(number)) => format!("the program was ended by signal {number}"),
        (None, None) => "the program ended".to_owned(),
    };
    let last = lines.iter().rev().find(|line| !line.trim().is_empty());
    Fault {
        kind: status.code().map_or(ErrorType::FunctionError, whose_fault),
        message: last.map_or(how.clone(), |last| format!("{last} ({how})")),
        stacktrace: lines,
    }
}

/// A file that is gone when this is.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
