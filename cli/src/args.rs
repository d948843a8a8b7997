//! The words of the command line. The texts of `--help` are the comments here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod create;
mod driver;
mod event;
mod get;
mod global;
mod schedule;

pub use create::{
    Create, CreateBaseImage, CreateEndpoint, CreateFunction, CreateImage, CreateSecret, Egress,
    FunctionSettings, ImageSettings, Update,
};
pub use driver::{CreateDriver, CreateDriverType, Log, Set};
pub use event::{
    CreateSubscription, Emit, Filters, GetDelivery, GetEvent, GetSubscription, RedriveDelivery,
    Replay, Spec, SubscriptionSettings, UpdateSubscription,
};
pub use get::{
    By, Get, GetBuilt, GetEndpoint, GetFunction, GetNamed, GetRun, GetSecret, SbomFormat,
};
pub use global::{Format, Global};
pub use schedule::{CreateSchedule, Missed, ScheduleSettings, UpdateSchedule};

/// Functions, and what they need and what calls them
///
/// Settings come from flags, else from the environment, else from the current context of the
/// configuration file (~/.dispatch/config.json), else they are the defaults.
#[derive(Debug, Parser)]
#[command(name = "dispatch", max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create or update resources from a file
    Apply(Apply),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        #[arg(default_value = "bash")]
        shell: Shell,
    },
    /// Show or change the contexts of the configuration file
    Context(ContextArgs),
    /// Create resources
    Create(Verb<Create>),
    /// Delete resources
    Delete(Verb<Delete>),
    /// Change a resource in an editor
    ///
    /// Opens the resource as YAML in $EDITOR (default: vi) and sends what was changed.
    Edit {
        #[command(subcommand)]
        noun: Option<Noun>,
        /// Directory of the files that are named in the resource
        #[arg(short, long, default_value = "", hide_default_value = true, value_name = "DIR")]
        work_dir: String,
    },
    /// Emit an event
    ///
    /// Once this succeeds the event is on the server's disk, and will be delivered to every
    /// subscription that wants it.
    Emit(Box<Emit>),
    /// Call a function
    ///
    /// Without --input the payload is read from standard input, if that is not a terminal. Prints
    /// what the function answered: {"context": ..., "payload": ...}; with --wait or --output json
    /// the whole run.
    Exec(Exec),
    /// Show resources
    ///
    /// Nouns may be in the plural.
    Get {
        #[command(subcommand)]
        noun: Option<Get>,
    },
    /// Manage this program's configuration, and check this machine
    Manage {
        #[command(subcommand)]
        noun: Option<Manage>,
    },
    /// Show the log of an event driver
    #[command(alias = "logs")]
    Log {
        #[command(subcommand)]
        noun: Option<Log>,
    },
    /// Try again what failed
    Redrive {
        #[command(subcommand)]
        noun: Option<Redrive>,
    },
    /// Deliver events of the log to a subscription again
    ///
    /// Those that the subscription wants now, in the order in which they were accepted.
    Replay(Replay),
    /// Go back to an earlier revision
    Rollback {
        #[command(subcommand)]
        noun: Option<Rollback>,
    },
    /// Update resources
    Update(Verb<Update>),
    /// Show the versions of this program and of the server
    Version,
}

/// A verb that works on nouns, or on all resources of a file.
#[derive(Debug, Args)]
pub struct Verb<T: Subcommand> {
    #[command(subcommand)]
    pub noun: Option<T>,
    #[command(flatten)]
    pub file: FileArgs,
}

/// A file of resources.
#[derive(Clone, Debug, Default, Args)]
pub struct FileArgs {
    /// YAML file with resources: a path or an http(s) URL
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
    /// Directory of the files that are named in the file
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "DIR")]
    pub work_dir: String,
    /// Accepted for old scripts.
    #[arg(short, long, hide = true)]
    pub application: Option<String>,
}

/// Create or update resources from a file.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(subcommand)]
    pub noun: Option<ApplyNoun>,
    #[command(flatten)]
    pub file: FileArgs,
}

/// What `apply` knows besides files.
#[derive(Debug, Subcommand)]
pub enum ApplyNoun {
    /// Create or update the base images and images to start with
    #[command(alias = "seed")]
    SeedImages(SeedImages),
}

/// The images to start with.
#[derive(Clone, Debug, Args)]
pub struct SeedImages {
    /// Write them to this YAML file instead, and create nothing
    #[arg(short = 'O', long, value_name = "FILE")]
    pub output_file: Option<PathBuf>,
}

/// A resource by its name.
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// A base image
    #[command(aliases = ["base-images", "baseimage", "baseimages"])]
    BaseImage(Named),
    /// An image
    #[command(alias = "images")]
    Image(Named),
    /// A function
    #[command(alias = "functions")]
    Function(Named),
    /// A secret
    #[command(alias = "secrets")]
    Secret(Named),
    /// An API: an endpoint whose paths begin with the organization
    #[command(alias = "apis")]
    Api(Named),
    /// An endpoint
    #[command(alias = "endpoints")]
    Endpoint(Named),
    /// A schedule
    #[command(alias = "schedules")]
    Schedule(Named),
    /// A subscription
    #[command(alias = "subscriptions")]
    Subscription(Named),
    /// An event driver
    #[command(name = "eventdriver", aliases = ["eventdrivers", "event-driver", "event-drivers"])]
    EventDriver(Named),
    /// A type of event drivers
    #[command(name = "eventdrivertype", aliases = ["eventdrivertypes", "event-driver-type", "event-driver-types", "eventdriver-types", "eventdriver-type"])]
    EventDriverType(Named),
}

/// The name of a resource.
#[derive(Debug, Args)]
pub struct Named {
    /// Its name
    pub name: String,
    /// Accepted for old scripts.
    #[arg(short, long, hide = true)]
    pub application: Option<String>,
}

/// What can be deleted.
#[derive(Debug, Subcommand)]
pub enum Delete {
    #[command(flatten)]
    Noun(Noun),
    /// The base images and images to start with
    #[command(alias = "seed")]
    SeedImages,
}

/// Shells with completion.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// The Z shell.
    Zsh,
    /// fish.
    Fish,
}

/// The contexts of the configuration file.
#[derive(Debug, Args)]
pub struct ContextArgs {
    #[command(subcommand)]
    pub verb: Option<ContextVerb>,
}

/// What can be done with contexts.
#[derive(Debug, Subcommand)]
pub enum ContextVerb {
    /// Show the current context
    Current,
    /// Make a context the current one
    Set {
        /// The context's name
        context: String,
    },
    /// Delete a context
    Delete {
        /// The context's name
        context: String,
    },
}

/// What can be managed.
#[derive(Debug, Subcommand)]
pub enum Manage {
    /// Show or change the contexts of the configuration file
    Context {
        /// Make this context the current one
        #[arg(short, long, value_name = "NAME")]
        set: Option<String>,
    },
    /// Show what keeps functions in, on this machine and on the server
    ///
    /// Makes a sandbox on this machine, as the server would at its start, lists every layer of it,
    /// and says how to get the next better tier. Fails where functions cannot run.
    Check,
    /// Remove files that no function and no image refers to
    ///
    /// The server does that by itself, for what has not been used for a while: source archives,
    /// unpacked and built sources, dependency layers.
    Gc {
        /// Only show what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Remove what was last used so many hours ago; default: as the server is configured
        #[arg(long, value_name = "HOURS")]
        older_than: Option<u32>,
    },
}

/// What can be tried again.
#[derive(Debug, Subcommand)]
pub enum Redrive {
    /// A run whose last try failed (see `dispatch get runs --dead`)
    #[command(alias = "runs")]
    Run {
        /// The run's id
        id: String,
    },
    /// A delivery that failed for good, or all of a subscription (see `dispatch get deliveries
    /// --state dead`)
    #[command(alias = "deliveries")]
    Delivery(RedriveDelivery),
}

/// What has revisions.
#[derive(Debug, Subcommand)]
pub enum Rollback {
    /// A function
    #[command(alias = "functions")]
    Function {
        /// Its name
        name: String,
        /// Number of the revision (see `dispatch get function NAME --revisions`); default: the
        /// one before
        #[arg(long, value_name = "REVISION")]
        to: Option<i64>,
    },
}

/// Call a function.
#[derive(Debug, Args)]
pub struct Exec {
    /// Its name
    pub function: String,
    /// Payload: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    pub input: Option<String>,
    /// Print the run; standard input is not read
    #[arg(long)]
    pub wait: bool,
    /// Do not wait for the end of the run
    #[arg(long = "async", conflicts_with = "wait")]
    pub asynchronous: bool,
    /// Fail (exit code 1) if the function fails
    #[arg(long, conflicts_with = "asynchronous")]
    pub fail: bool,
    /// Name of a secret for this run; can be repeated
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub secret: Vec<String>,
    /// Media type of the payload; what is not JSON becomes a text
    #[arg(short, long, default_value = "application/json", value_name = "TYPE")]
    pub content_type: String,
    /// Accepted for old scripts.
    #[arg(short, long, hide = true, alias = "accept")]
    pub application: Option<String>,
    /// Accepted for old scripts.
    #[arg(long, hide = true)]
    pub all: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_words_fit_together() {
        Cli::command().debug_assert();
    }

    /// The help of every command, as one text.
    #[test]
    fn help() {
        fn all(command: &mut clap::Command, text: &mut String) {
            if command.is_hide_set() || command.get_name() == "help" {
                return;
            }
            let help = command.render_long_help();
            *text += &format!("\n===== {} =====\n{help}", command.get_bin_name().unwrap_or(""));
            for inner in command.get_subcommands_mut() {
                all(inner, text);
            }
        }
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut text = String::new();
        all(&mut command, &mut text);
        // The global options stand in each of them: once is enough.
        let mut seen = false;
        let mut kept = String::new();
        let mut skipping = false;
        for line in text.lines() {
            if line.starts_with("=====") {
                skipping = false;
            }
            if line == "Global options:" {
                skipping = seen;
                seen = true;
            }
            if !skipping {
                kept += line.trim_end();
                kept.push('\n');
            }
        }
        insta::assert_snapshot!(kept);
    }
}
