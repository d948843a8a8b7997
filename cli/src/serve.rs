//! `dispatch server` and `dispatch up`, and the event drivers that the server starts. They are told apart
//! from the client's commands before anything else happens: no thread may exist yet, and their flags are
//! flags of their own.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches as _};
use dispatch_server::config::{self, Config};
use dispatch_server::{Launcher, Server, ServerArgs, serve, server, up};

use crate::config::{Context, write_context};
use crate::{output, usage};

const PRINT_CONFIG: &str = "print-config";

/// The two commands, as help and completion show them.
pub fn commands() -> [Command; 2] {
    let print = Arg::new(PRINT_CONFIG)
        .long(PRINT_CONFIG)
        .action(ArgAction::SetTrue)
        .help("Print the settings in force, and where each comes from");
    let server = Command::new("server").arg(print);
    // The texts last: the flags bring one of their own.
    let server = ServerArgs::augment_args(server).about("Run the server").long_about(None);
    let up = ServerArgs::augment_args(Command::new("up"))
        .about("Run the server, ready to use")
        .long_about(
            "Run the server, ready to use: with an image for every language of this machine, and \
             a context for this program",
        );
    [server, up]
}

/// Serves, where the words say so.
pub fn main() -> Option<ExitCode> {
    dispatch_sandbox::run_if_launcher();
    if let Some(code) = dispatch_server::run_if_adapter(&[("wasm", dispatch_wasm::serve)]) {
        return Some(code);
    }
    let word = std::env::args_os().nth(1)?;
    if word == "driver" {
        let words = std::env::args_os().skip(2).map(|word| word.to_string_lossy().into_owned());
        return Some(dispatch_drivers::main(&words.collect::<Vec<_>>()));
    }
    if word != "server" && word != "up" {
        return None;
    }
    let command = Command::new("dispatch").subcommands(commands());
    let matches = match command.try_get_matches() {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            // Help that nobody reads any more is no failure.
            let _ = error.print();
            return Some(ExitCode::SUCCESS);
        }
        Err(error) => {
            output::failure(&usage::plain(&error), None);
            return Some(ExitCode::FAILURE);
        }
    };
    let (word, matches) = matches.subcommand()?;
    Some(match run(word == "up", matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::failure(&format!("{error:#}"), None);
            ExitCode::FAILURE
        }
    })
}

fn run(friendly: bool, matches: &ArgMatches) -> anyhow::Result<()> {
    let (config, settings) = Config::load(ServerArgs::from_arg_matches(matches)?, Some(matches))?;
    if matches.try_get_one::<bool>(PRINT_CONFIG).ok().flatten() == Some(&true) {
        return Ok(output::print(&config::print(&settings))?);
    }
    // Before there are threads.
    let launcher = Launcher::start_with(config.wish())?;
    if friendly { welcome(config, launcher) } else { server::run(config, launcher) }
}

/// `dispatch up`: makes images, writes a context and says what to do next.
fn welcome(config: Config, launcher: Launcher) -> anyhow::Result<()> {
    dispatch_server::log::init(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let signal = serve::stop_signal()?;
        let organization = config.default_organization.clone();
        let server = Server::start(config, launcher).await?;
        let images = up::seed(server.app()).await?;
        let (api, gateway) = (server.api(), server.gateway());
        let mut context = Context::default();
        context.host = api.ip().to_string();
        context.port = api.port();
        context.scheme = "http".to_owned();
        context.organization = organization;
        context.api_http_port = gateway.port();
        let given = std::env::var("DISPATCH_CONFIG").ok();
        let context = match write_context(given.as_deref(), "local", context) {
            Ok((path, true)) => format!("local, in {}", path.display()),
            Ok((path, false)) => {
                format!("local, in {}; to use it: dispatch context set local", path.display())
            }
            Err(error) => format!("not written: {error}"),
        };
        let isolation = server.isolation();
        let sandbox = match isolation.warning() {
            Some(warning) => format!("{warning}; dispatch manage check says more"),
            None => format!("tier {}: {}", isolation.tier, isolation.tier.meaning()),
        };
        output::print(&format!(
            "Dispatch is running. Ctrl-C stops it.\n\n  API      http://{api}\n  Gateway  \
             http://{gateway}\n  Images   {}\n  Sandbox  {sandbox}\n  Context  {context}\n\nNext, in another terminal:\n\n  \
             dispatch create function hello hello.py --image python3 --wait\n  dispatch exec hello\n",
            if images.is_empty() { "none".to_owned() } else { images.join(", ") },
        ))?;
        signal.await;
        server.stop().await;
        anyhow::Ok(())
    })
}
