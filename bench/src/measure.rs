//! The measurements, in the order they are made.

mod calls;
mod events;
mod memory;
mod queue;
mod starts;
pub mod uneven;
mod warm;

pub use calls::Calls;
pub use events::{Arrival, Delivered, Emit, Events};
pub use memory::{FORKED, Memory, SERVER, STEM};
pub use queue::Queue;
pub use starts::{AGAIN, BURST, FIRST, READY, Start};
pub use warm::{DISPATCH, HYPER, Kind, Warm};

use std::time::Duration;

use clap::ValueEnum;

use crate::bars;
use crate::peers::{Missing, Peer};
use crate::report::Report;
use crate::server::Setup;

/// A part of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Warm calls of functions and of the peers
    Warm,
    /// Short calls beside long ones
    Uneven,
    /// First answers, from zero workers
    Cold,
    /// Many functions from zero at once
    Burst,
    /// From creating a function to its being ready
    Deploy,
    /// Runs that nobody waits for
    Queue,
    /// Events: accepted, on their way, delivered
    Events,
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
    pub peers: Vec<Peer>,
    /// The brokers that are installed.
    pub brokers: Vec<Peer>,
}

impl Bench {
    /// Makes the measurements of these parts, and returns how many could not be made. What they lack
    /// is in the report.
    pub fn run(&self, parts: &[Part], report: &mut Report) -> usize {
        let mut failed = 0;
        for part in parts {
            if let Err(error) = self.part(*part, report) {
                eprintln!("{part:?} could not be measured: {error:#}");
                missing(&mut report.missing, &format!("{part:?}"), &error);
                failed += 1;
            }
        }
        report.bars = bars::all(report, parts);
        failed
    }

    fn part(&self, part: Part, report: &mut Report) -> anyhow::Result<()> {
        match part {
            Part::Warm => report.warm.extend(self.warm()?),
            Part::Uneven => report.warm.extend(self.uneven()?),
            Part::Cold => report.starts.extend(self.cold()?),
            Part::Burst => report.starts.extend(self.burst()?),
            Part::Deploy => report.starts.extend(self.ready()?),
            Part::Memory => report.memory = self.memory()?,
            Part::Calls => report.calls = self.calls(&mut report.missing)?,
            Part::Queue => report.queue = self.queue()?,
            Part::Events => report.events = self.events()?,
        }
        Ok(())
    }
}

/// Notes once what could not be measured.
fn missing(list: &mut Vec<Missing>, what: &str, error: &anyhow::Error) {
    if !list.iter().any(|missing| missing.what == what) {
        list.push(Missing { what: what.to_owned(), reason: format!("{error:#}") });
    }
}

fn say(what: &str) {
    eprintln!("measuring {what}");
}
