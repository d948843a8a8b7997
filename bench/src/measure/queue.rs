//! Runs that nobody waits for: how fast they are accepted, and how fast they are made.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Bench, say};
use crate::cores::Cores;
use crate::load::{self, Bound};
use crate::server::{Server, source};
use crate::stats::Rate;

/// Runs that nobody waits for.
#[derive(Clone, Debug, Serialize)]
pub struct Queue {
    /// The language of the function.
    pub language: &'static str,
    /// Clients in a closed loop.
    pub clients: usize,
    /// Acceptance: the answer 202, after the run is on the disk.
    pub accepted: Rate,
    /// From the first request to the end of the last run.
    pub made_per_second: f64,
}

impl Bench {
    /// Accepts runs and makes them, on two cores.
    ///
    /// # Errors
    /// The server does not take them.
    pub fn queue(&self) -> anyhow::Result<Vec<Queue>> {
        let Some(&language) = self.languages.first() else { return Ok(Vec::new()) };
        let server = Server::start(&self.setup, Cores::Two, &[])?;
        server.image(language)?;
        server.deploy(language, language, source(language))?;
        let target = server.queued_run(language);
        let mut rows = Vec::new();
        for clients in [1, 16] {
            say(&format!("{language}, runs that nobody waits for, {clients} clients"));
            let (time, warm) = (Duration::from_secs(5), Duration::ZERO);
            let bound = Bound { time, warm, requests: self.effort.queued };
            let start = Instant::now();
            let accepted = load::run(&target, clients, bound, Cores::Two, server.process.id())?;
            server.until("dispatch_queued_jobs", "", |sum| sum == 0.0)?;
            let made_per_second = accepted.requests as f64 / start.elapsed().as_secs_f64();
            rows.push(Queue { language, clients, accepted, made_per_second });
        }
        Ok(rows)
    }
}
