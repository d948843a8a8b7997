//! Measures Dispatch beside other ways to serve the same function, all in one run, and holds the
//! figures against the bars of the project.
//!
//! Only ratios within one run carry over to another machine or another day.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for a terminal")]

mod bars;
mod cores;
mod http;
mod load;
mod machine;
mod measure;
mod nats;
mod peers;
mod process;
mod report;
mod server;
mod stats;
mod toys;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand, ValueEnum as _};

use machine::Machine;
use measure::{Bench, Effort, Events, Part};
use peers::{Interpreter, Peer, Peers};
use report::Report;
use server::{Server, Setup};

/// Measure Dispatch beside other ways to serve the same function
///
/// Prints tables on standard output, progress on standard error. Needs a release build of dispatch
/// and a quiet machine; installs what it compares with.
#[derive(Parser)]
#[command(name = "dispatch-bench")]
struct Args {
    /// Fewer rounds, functions and starts: to see that everything works
    #[arg(long)]
    quick: bool,
    /// Only these parts, separated by commas
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    only: Vec<Part>,
    /// Rounds of the warm calls
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<usize>,
    /// Also write the figures of all rounds to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The dispatch program to measure; default: the one beside this program
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Where the servers' data directories are made; default: the directory for temporary files
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where the peers are installed; default: dispatch-bench in the directory for caches
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// What this program starts for itself
    #[command(hide = true, subcommand)]
    Toy(Toy),
}

#[derive(Subcommand)]
enum Toy {
    /// A server that is nothing but hyper
    Serve { port: u16 },
    /// A worker that answers at once
    Worker,
    /// The runtime of such workers
    Probe,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.command {
        Some(Command::Toy(Toy::Serve { port })) => toys::serve(port),
        Some(Command::Toy(Toy::Worker)) => toys::worker(),
        Some(Command::Toy(Toy::Probe)) => {
            println!("{}", toys::probe()?);
            Ok(())
        }
        None => measure(args),
    }
}

fn measure(args: Args) -> anyhow::Result<()> {
    let program = match args.program {
        Some(program) => program,
        None => std::env::current_exe()?.with_file_name("dispatch"),
    };
    ensure!(
        program.is_file(),
        "{} is missing: build it with cargo build --release, or name it with --program",
        program.display()
    );
    let interpreters = Interpreter::installed();
    ensure!(!interpreters.is_empty(), "neither python3 nor node is installed: install one of them");
    let Peers { peers, brokers, missing } =
        peers::all(&args.cache.map_or_else(cache, Ok)?, &interpreters)?;
    let data = args.data.unwrap_or_else(std::env::temp_dir);
    let setup = Setup { program, data };
    let mut report = Report {
        machine: Machine::look(&setup.data)?,
        versions: versions(&setup, &interpreters, &[peers.as_slice(), &brokers].concat())?,
        quick: args.quick,
        missing,
        warm: Vec::new(),
        starts: Vec::new(),
        queue: Vec::new(),
        events: Events::default(),
        memory: Vec::new(),
        calls: Vec::new(),
        bars: Vec::new(),
    };
    let mut effort = if args.quick {
        let warm = Duration::from_millis(400);
        Effort { rounds: 1, warm, starts: 4, burst: 10, queued: 1000, functions: 50 }
    } else {
        let warm = Duration::from_millis(1200);
        Effort { rounds: 5, warm, starts: 50, burst: 100, queued: 5000, functions: 10_000 }
    };
    effort.rounds = args.rounds.unwrap_or(effort.rounds).max(1);
    let languages = interpreters.iter().map(|interpreter| interpreter.language).collect();
    let parts = if args.only.is_empty() { Part::value_variants() } else { &args.only };
    let failed = Bench { setup, effort, languages, peers, brokers }.run(parts, &mut report);
    print!("{}", report.markdown());
    if let Some(path) = args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(failed == 0, "{failed} parts could not be measured: see what is missing, above");
    Ok(())
}

/// Where peers are installed.
fn cache() -> anyhow::Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(caches
        .context("neither HOME nor --cache says where to install peers")?
        .join("dispatch-bench"))
}

fn versions(
    setup: &Setup,
    interpreters: &[Interpreter],
    peers: &[Peer],
) -> anyhow::Result<Vec<String>> {
    let server = Server::start(setup, cores::Cores::Two, &[])?;
    let ours = format!("dispatch {}", server.version()?);
    let interpreters = interpreters.iter().map(|it| format!("{} {}", it.language, it.version));
    let packages = peers.iter().flat_map(|peer| peer.packages.iter().cloned());
    Ok([ours].into_iter().chain(interpreters).chain(packages).collect())
}
