//! What CI runs and what keeps the project in order: `cargo xtask ci`, `cargo xtask check-layout`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for a terminal")]

mod ci;
mod layout;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks around the project
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must pass, in the order of what fails fastest
    Ci,
    /// Rules about where code may live
    CheckLayout,
}

/// The project's root. What cargo says now counts, not where this program was once built: clones may
/// share a target directory.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR");
    let here = here.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().unwrap_or(Path::new(".")).to_owned()
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Ci => ci::run(&root()),
        Task::CheckLayout => layout::run(&root()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
