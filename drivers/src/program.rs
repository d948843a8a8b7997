//! `dispatch driver TYPE --key=value …`.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::kind::Open;
use crate::{DriverType, Emitter, Error, Given, Need, Settings, find, sink, types};

/// Exit code when what the driver was told is wrong: starting it again changes nothing.
const WRONG: u8 = 2;

/// Runs a driver: the words after `dispatch driver`. Logs to standard error.
pub fn main(words: &[String]) -> ExitCode {
    let settings = match read(words) {
        Ok(Some(settings)) => settings,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("Error: {error}"));
            return ExitCode::from(WRONG);
        }
    };
    log(settings.is_on("debug"));
    // What was installed before is the same provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Failed(format!("no runtime: {error}")))
        .and_then(|runtime| runtime.block_on(until_signal(settings)));
    match done {
        Ok(()) | Err(Error::Stopped) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{error}");
            if matches!(error, Error::Config(_)) {
                ExitCode::from(WRONG)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Runs a driver until `stop` fires.
///
/// # Errors
/// Why it cannot go on; [`Error::Stopped`], or nothing, when it was asked to stop.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), Error> {
    match settings.kind().open {
        Open::Source(open) => {
            let emitter = Emitter::new(&settings, stop.clone())?;
            open(&settings)?.run(emitter, stop).await
        }
        Open::Sink(open) => sink::run(open(&settings)?, &settings, stop).await,
    }
}

async fn until_signal(settings: Settings) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let watch = |kind| {
        signal(kind).map_err(|error| Error::Failed(format!("cannot watch signals: {error}")))
    };
    let (mut terminate, mut interrupt) =
        (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let fired = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        fired.cancel();
    });
    tracing::info!("driver {} of type {} starts", settings.name(), settings.kind().name);
    run(settings, stop).await
}

/// The settings; nothing where help was asked for and given.
fn read(words: &[String]) -> Result<Option<Settings>, Error> {
    let is_help = |word: &String| word == "--help" || word == "-h";
    let Some((name, rest)) = words.split_first().filter(|(name, _)| !is_help(name)) else {
        say("Usage: dispatch driver TYPE [--KEY[=VALUE]]...\n\nTypes:");
        for kind in types() {
            say(&format!("  {:18}{}", kind.name, kind.about));
        }
        return if words.is_empty() {
            Err(Error::Config("a type is missing".into()))
        } else {
            Ok(None)
        };
    };
    let kind = find(name).ok_or_else(|| {
        let names: Vec<_> = types().iter().map(|kind| kind.name).collect();
        let more = if cfg!(feature = "full") {
            ""
        } else {
            "; those for brokers and databases are in a program that is built with --features brokers"
        };
        Error::Config(format!("no driver type {name:?} is built in, only {}{more}", names.join(", ")))
    })?;
    if rest.iter().any(is_help) {
        help(kind);
        return Ok(None);
    }
    let mut args = Vec::new();
    for word in rest {
        let pair = word.strip_prefix("--").filter(|pair| !pair.is_empty()).ok_or_else(|| {
            Error::Config(format!("{word:?} is no argument of a driver: use --key=value"))
        })?;
        args.push(pair.split_once('=').unwrap_or((pair, "")));
    }
    Settings::new(kind, args, |name| std::env::var(name).ok()).map(Some)
}

fn help(kind: &DriverType) {
    say(&format!("{}: {}\n", kind.name, kind.about));
    for key in kind.all_keys() {
        let need = match key.need {
            Need::Required => "; required".to_owned(),
            Need::Optional => String::new(),
            Need::Default(value) => format!("; default: {value}"),
        };
        let from = if key.given == Given::Secret { "; from a secret" } else { "" };
        say(&format!("  --{:24}{}{need}{from}", key.name, key.about));
    }
}

#[allow(clippy::print_stderr, reason = "the words to whoever types them; all else is the log")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// One line for each thing that is logged. Libraries are heard when something is wrong.
fn log(debug: bool) {
    let filter = if debug { "info,dispatch_drivers=debug" } else { "error,dispatch_drivers=info" };
    let _ = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .try_init();
}
