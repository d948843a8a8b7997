//! The program `dispatch`: the command line client, and (feature `server`) the server itself.

use std::process::ExitCode;

mod args;
mod auth;
mod commands;
mod config;
mod error;
mod files;
mod input;
mod model;
mod names;
mod nouns;
mod output;
mod pack;
#[cfg(feature = "server")]
mod serve;
mod table;
mod tree;
mod usage;

#[cfg(feature = "server")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "server")]
    if let Some(code) = serve::main() {
        return code;
    }
    let cli = match usage::parse(&std::env::args_os().collect::<Vec<_>>()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    match commands::run(cli) {
        Ok(()) | Err(error::Error::Pipe) => ExitCode::SUCCESS,
        Err(error::Error::Silent) => ExitCode::FAILURE,
        Err(error) => {
            output::failure(&error.to_string(), error.hint());
            ExitCode::FAILURE
        }
    }
}
