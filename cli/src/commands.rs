//! What the verbs do.

use dispatch_api::client::Client;
use dispatch_api::{
    BaseImage, Driver, DriverType, Endpoint, Function, Image, Schedule, Secret, Subscription,
};

use crate::args::{Cli, Command, Delete, Log, Manage, Noun, Redrive, Rollback};
use crate::config::{self, Settings};
use crate::error::{Error, Result};
use crate::{output, usage};

mod archive;
mod check;
mod context;
mod create;
mod delete;
mod driver;
mod edit;
mod emit;
mod event;
mod exec;
mod file;
mod gc;
mod get;
mod schedule;
mod subscription;
mod update;
mod version;
mod wait;
mod watch;

/// A server to talk to, and how to talk about it.
pub struct Session {
    /// The server.
    pub client: Client,
    /// The settings in force.
    pub settings: Settings,
}

/// Does what was asked for.
///
/// # Errors
/// Why it could not be done.
pub fn run(cli: Cli) -> Result {
    let Some(command) = cli.command else { return usage::help(&[]) };
    let command = match command {
        Command::Completion { shell } => return completion(shell),
        Command::Get { noun: None } => return usage::help(&["get"]),
        Command::Edit { noun: None, .. } => return usage::help(&["edit"]),
        Command::Manage { noun: None } => return usage::help(&["manage"]),
        Command::Log { noun: None } => return usage::help(&["log"]),
        Command::Redrive { noun: None } => return usage::help(&["redrive"]),
        Command::Rollback { noun: None } => return usage::help(&["rollback"]),
        Command::Create(verb) if verb.noun.is_none() && verb.file.file.is_none() => {
            return usage::help(&["create"]);
        }
        Command::Update(verb) if verb.noun.is_none() && verb.file.file.is_none() => {
            return usage::help(&["update"]);
        }
        Command::Delete(verb) if verb.noun.is_none() && verb.file.file.is_none() => {
            return usage::help(&["delete"]);
        }
        Command::Apply(apply) if apply.noun.is_none() && apply.file.file.is_none() => {
            return usage::help(&["apply"]);
        }
        command => command,
    };
    let path = cli.global.config.as_deref();
    let mut config = config::load(path)?;
    let settings = Settings::new(&cli.global, &config)?;
    let command = match command {
        Command::Context(args) => return context::run(args.verb, path, &mut config, &settings),
        Command::Manage { noun: Some(Manage::Context { set }) } => {
            return context::manage(set, path, &mut config, &settings);
        }
        command => command,
    };
    // Only one provider is built in, but the TLS library wants to be told.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if let Command::Manage { noun: Some(Manage::Check) } = command {
        return check::run(&settings);
    }
    runtime()?.block_on(async {
        let session = Session { client: Client::new(&settings.client)?, settings };
        talk(&session, command).await
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::local(format!("error starting: {error}")))
}

async fn talk(session: &Session, command: Command) -> Result {
    match command {
        Command::Create(verb) => match verb.noun {
            Some(noun) => create::run(session, noun).await,
            None => file::run(session, file::Action::Create, &verb.file).await,
        },
        Command::Update(verb) => match verb.noun {
            Some(noun) => update::run(session, noun).await,
            None => file::run(session, file::Action::Update, &verb.file).await,
        },
        Command::Apply(apply) => match apply.noun {
            Some(crate::args::ApplyNoun::SeedImages(seed)) => {
                file::seed(session, file::Action::Apply, seed.output_file.as_deref()).await
            }
            None => file::run(session, file::Action::Apply, &apply.file).await,
        },
        Command::Delete(verb) => match verb.noun {
            Some(Delete::Noun(noun)) => delete::run(session, &noun).await,
            Some(Delete::SeedImages) => file::seed(session, file::Action::Delete, None).await,
            None => file::run(session, file::Action::Delete, &verb.file).await,
        },
        Command::Get { noun: Some(noun) } => get::run(session, noun).await,
        Command::Edit { noun: Some(noun), work_dir } => edit::run(session, &noun, &work_dir).await,
        Command::Emit(emit) => emit::run(session, *emit).await,
        Command::Exec(exec) => exec::run(session, exec).await,
        Command::Redrive { noun: Some(Redrive::Run { id }) } => {
            let run = session.client.redrive(&id).await?;
            output::done(&format!("Redriven run: {}", run.name), &run, &session.settings)
        }
        Command::Redrive { noun: Some(Redrive::Delivery(args)) } => {
            event::redrive(session, &args).await
        }
        Command::Replay(replay) => event::replay(session, replay).await,
        Command::Rollback { noun: Some(Rollback::Function { name, to }) } => {
            let function = session.client.rollback(&name, to).await?;
            let (name, number) = (&function.name, function.serving_revision);
            let text = format!("Rolled back function: {name} to revision {number}");
            output::done(&text, &function, &session.settings)
        }
        Command::Log { noun: Some(Log::Driver { name, follow }) } => {
            get::log::<Driver>(session, &name, follow).await
        }
        Command::Manage { noun: Some(Manage::Gc { dry_run, older_than }) } => {
            gc::run(session, dry_run, older_than).await
        }
        Command::Version => version::run(session).await,
        // Those without a noun have shown their help; the others need no server.
        _ => Ok(()),
    }
}

fn completion(shell: crate::args::Shell) -> Result {
    use clap_complete::Shell as Known;
    let shell = match shell {
        crate::args::Shell::Bash => Known::Bash,
        crate::args::Shell::Zsh => Known::Zsh,
        crate::args::Shell::Fish => Known::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut usage::command(), "dispatch", &mut script);
    output::raw(&script)
}

/// Calls a generic function for the type and the name of a noun.
macro_rules! for_noun {
    ($noun:expr, $function:ident($($argument:expr),*)) => {
        match $noun {
            Noun::BaseImage(named) => $function::<BaseImage>($($argument,)* &named.name).await,
            Noun::Image(named) => $function::<Image>($($argument,)* &named.name).await,
            Noun::Function(named) => $function::<Function>($($argument,)* &named.name).await,
            Noun::Secret(named) => $function::<Secret>($($argument,)* &named.name).await,
            Noun::Endpoint(named) => $function::<Endpoint>($($argument,)* &named.name).await,
            Noun::Schedule(named) => $function::<Schedule>($($argument,)* &named.name).await,
            Noun::Subscription(named) => $function::<Subscription>($($argument,)* &named.name).await,
            Noun::EventDriver(named) => $function::<Driver>($($argument,)* &named.name).await,
            Noun::EventDriverType(named) => $function::<DriverType>($($argument,)* &named.name).await,
            Noun::Api(named) => {
                $function::<dispatch_api::client::Api>($($argument,)* &named.name).await
            }
        }
    };
}
use for_noun;
