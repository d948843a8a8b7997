//! Workers for programs that do not speak the worker protocol. This program itself is started in the
//! sandbox, as the *adapter*: it speaks the protocol, and runs the function's own program the way
//! that program understands.

mod channel;
mod exec;
pub mod find;
pub mod http;
pub mod output;
mod program;
mod serve;
mod server;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use tokio::runtime::Builder;

pub use self::channel::Call;
use self::channel::Channel;
use self::exec::Exec;
pub use self::serve::{Adapter, Init, Loaded, Log, fault};

/// What the first word is where this program is to be an adapter. No command has this name.
pub(crate) const WORD: &str = "run-adapter";

/// What the second word is where it only waits until it is told to become the program that the rest
/// of the words name, so that this finds all it needs when it starts.
pub(crate) const SERVICE: &str = "service";

/// An adapter of another room: its name, and what serves with the words after that.
pub type Other = (&'static str, fn(&[String]) -> Result<(), String>);

/// Serves as an adapter, ours or one of the `others`, where the words say so. To be called in `main`
/// before anything else is made of them.
pub fn run_if_adapter(others: &[Other]) -> Option<ExitCode> {
    let mut words = std::env::args().skip(1);
    if words.next()? != WORD {
        return None;
    }
    let kind = words.next().unwrap_or_default();
    let done = match kind.as_str() {
        "probe" => probe(&words.collect::<Vec<_>>()),
        "exec" => exec::Options::parse(words).and_then(|options| run(|| Exec::new(options))),
        SERVICE => become_service(words),
        "http" => server::Server::parse(words).and_then(|server| run(|| server)),
        kind => match others.iter().find(|(name, _)| *name == kind) {
            Some((_, serve)) => serve(&words.collect::<Vec<_>>()),
            None => Err(format!("there is no adapter {kind:?}")),
        },
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // In the sandbox this ends up in the log of the worker that did not start.
            let _ = std::io::stderr().write_all(reason.as_bytes());
            ExitCode::FAILURE
        }
    })
}

/// Waits for a byte on the channel, then becomes a program: a directory and a command.
fn become_service(mut words: impl Iterator<Item = String>) -> Result<(), String> {
    let channel = dispatch_sandbox::inherited_channel().map_err(text)?;
    File::from(channel).read_exact(&mut [0]).map_err(text)?;
    let directory = words.next().unwrap_or_default();
    let program = words.next().ok_or("the image has no command")?;
    let error = Command::new(&program).args(words).current_dir(&directory).exec();
    Err(format!("cannot start {program} in {directory}: {error}"))
}

/// What a language pack wants to know of its runtime, where that is this program; the version is our
/// own, or what this command prints.
fn probe(command: &[String]) -> Result<(), String> {
    let executable = std::env::current_exe().map_err(text)?;
    let version = match command.split_first() {
        None => env!("CARGO_PKG_VERSION").to_owned(),
        Some((program, arguments)) => {
            let output = Command::new(program).args(arguments).output().map_err(text)?;
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
    };
    let answer = serde_json::json!({
        "executable": executable, "version": version, "prefixes": [executable],
    });
    std::io::stdout().write_all(answer.to_string().as_bytes()).map_err(text)
}

/// Serves on the inherited channel until the supervisor closes it.
///
/// # Errors
/// The channel's, as a text.
pub fn run<A: serve::Adapter>(make: impl FnOnce() -> A) -> Result<(), String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(text)?;
    runtime.block_on(async {
        let inherited = dispatch_sandbox::inherited_channel().map_err(text)?;
        let channel = Channel::new(inherited.into()).map_err(text)?;
        serve::serve(channel, make()).await.map_err(text)
    })
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn text(error: impl ToString) -> String {
    error.to_string()
}
