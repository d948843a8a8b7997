//! Measures Dispatch beside raw interpreter servers that do the same work, all in one run.
//!
//! Only ratios within one run carry over to another machine or another day.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for a terminal")]

mod load;
mod machine;
mod measure;
mod process;
mod report;
mod server;
mod stats;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;

use machine::Machine;
use measure::Effort;
use process::Language;
use report::Report;

/// Measure Dispatch beside raw interpreter servers that do the same work
///
/// Prints tables on standard output, progress on standard error. Needs a release build of dispatch
/// and a quiet machine.
#[derive(Parser)]
#[command(name = "dispatch-bench")]
struct Args {
    /// Fewer rounds and fewer functions: less than a minute
    #[arg(long)]
    quick: bool,
    /// Also write the figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The dispatch program to measure; default: the one beside this program
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Where the servers' data directories are made; default: the directory for temporary files
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let program = match args.program {
        Some(program) => program,
        None => std::env::current_exe()?.with_file_name("dispatch"),
    };
    ensure!(
        program.is_file(),
        "{} is missing: build it with cargo build --release, or name it with --program",
        program.display()
    );
    let languages = Language::installed();
    ensure!(!languages.is_empty(), "neither python3 nor node is installed: install one of them");
    let data = args.data.unwrap_or_else(std::env::temp_dir);
    let mut report = Report {
        machine: Machine::look(&data)?,
        version: String::new(),
        quick: args.quick,
        calls: Vec::new(),
        starts: Vec::new(),
        queue: Vec::new(),
        memory: Vec::new(),
    };
    let (effort, most) = if args.quick {
        let warm = Duration::from_millis(500);
        (Effort { rounds: 1, warm, starts: 4, queued: 1000, functions: 50 }, 120)
    } else {
        let warm = Duration::from_millis(1500);
        (Effort { rounds: 3, warm, starts: 20, queued: 5000, functions: 1000 }, 300)
    };
    // One thread: the clients shall not take more from the servers than they must.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let work = measure::all(&program, &data, &effort, &languages, &mut report);
        tokio::time::timeout(Duration::from_secs(most), work)
            .await
            .with_context(|| format!("not done within {most} s: is the machine busy?"))?
    })?;
    print!("{}", report.markdown());
    if let Some(path) = args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
