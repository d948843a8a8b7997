//! The measurements, in the order they are made.

mod calls;
mod memory;
mod queue;
mod starts;
mod warm;

pub use calls::Calls;
pub use memory::{FORKED, Memory, SERVER, STEM, WORKER};
pub use queue::Queue;
pub use starts::{BURST, FIRST, READY, Start};
pub use warm::{DISPATCH, HYPER, Kind, Warm};

use std::time::Duration;

use clap::ValueEnum;

use crate::bars;
use crate::peers::Ready;
use crate::report::Report;
use crate::server::Setup;

/// A part of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Warm calls of functions and of the peers
    Warm,
    /// First answers, from zero workers
    Cold,
    /// Many functions from zero at once
    Burst,
    /// From creating a function to its being ready
    Deploy,
    /// Runs that nobody waits for
    Queue,
    /// Memory of the server and of idle workers
    Memory,
    /// System calls, switches and allocations of a warm call
    Calls,
}

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Rounds of the warm calls.
    pub rounds: usize,
    /// How long one warm measurement takes.
    pub warm: Duration,
    /// Starts of each kind and language.
    pub starts: usize,
    /// Functions from zero at once.
    pub burst: usize,
    /// Runs that nobody waits for.
    pub queued: usize,
    /// Functions in the measurement of memory.
    pub functions: usize,
}

/// Everything that measurements share.
pub struct Bench {
    /// What servers are started with.
    pub setup: Setup,
    /// How much is measured.
    pub effort: Effort,
    /// The languages whose interpreters are installed.
    pub languages: Vec<&'static str>,
    /// The peers that are installed.
    pub peers: Vec<Ready>,
}

impl Bench {
    /// Makes the measurements of these parts.
    ///
    /// # Errors
    /// One of them cannot be made.
    pub fn run(&self, parts: &[Part], report: &mut Report) -> anyhow::Result<()> {
        for part in parts {
            match part {
                Part::Warm => report.warm = self.warm()?,
                Part::Cold => report.starts.extend(self.cold()?),
                Part::Burst => report.starts.extend(self.burst()?),
                Part::Deploy => report.starts.extend(self.ready()?),
                Part::Memory => report.memory = self.memory()?,
                Part::Calls => report.calls = self.calls(&mut report.missing)?,
                Part::Queue => report.queue = self.queue()?,
            }
        }
        report.bars = bars::all(report, parts);
        Ok(())
    }
}

fn say(what: &str) {
    eprintln!("measuring {what}");
}
