//! Memory: of the server without functions and with many, and of idle workers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use super::{Bench, say};
use crate::cores::Cores;
use crate::machine;
use crate::server::Server;

/// How long all functions may take to become ready.
const PATIENCE: Duration = Duration::from_secs(1200);
/// Clients that ask for functions at the same time.
const CLIENTS: usize = 8;

/// Memory of one kind of process.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Of what.
    pub what: String,
    /// Functions that were ready meanwhile.
    pub functions: usize,
    /// Processes; the sizes are the median's.
    pub processes: usize,
    /// Resident set, in bytes.
    pub resident: u64,
    /// The same with shared pages divided among those that share them.
    pub proportional: u64,
}

/// The server's own process.
pub const SERVER: &str = "server";

impl Bench {
    /// The server's own process with no functions, then with many, without workers.
    ///
    /// # Errors
    /// A function does not become ready.
    pub fn memory(&self) -> anyhow::Result<Vec<Memory>> {
        let Some(&language) = self.languages.first() else { return Ok(Vec::new()) };
        let server = Server::start(&self.setup, Cores::Two, &["--idle-seconds", "1"])?;
        let pid = server.process.id();
        // What starts later than the server says it is ready.
        std::thread::sleep(Duration::from_secs(2));
        let mut rows = vec![measure(SERVER, 0, &[pid])?];
        say(&format!("memory with {} functions", self.effort.functions));
        server.image(language)?;
        let (api, next) = (server.api, AtomicUsize::new(0));
        let start = Instant::now();
        std::thread::scope(|scope| {
            let make = || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= self.effort.functions {
                        return anyhow::Ok(());
                    }
                    api.create_function(&format!("many-{number}"), language)?;
                }
            };
            let all: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(make)).collect();
            all.into_iter()
                .try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a panic"))?)
        })?;
        while server.count_ready()? < self.effort.functions {
            let rest = PATIENCE.checked_sub(start.elapsed());
            rest.context("not all functions became ready within 20 minutes")?;
            std::thread::sleep(Duration::from_secs(1));
        }
        eprintln!("{} functions became ready in {:.1?}", self.effort.functions, start.elapsed());
        server.zero("dispatch_workers", "")?;
        rows.push(measure(SERVER, self.effort.functions, &[pid])?);
        Ok(rows)
    }
}

fn measure(what: &str, functions: usize, processes: &[u32]) -> anyhow::Result<Memory> {
    let sizes = processes.iter().map(|pid| machine::memory(*pid));
    let mut sizes: Vec<(u64, u64)> = sizes.collect::<Result<_, _>>()?;
    sizes.sort_by_key(|(_, proportional)| *proportional);
    let middle = sizes.len().saturating_sub(1) / 2;
    let (resident, proportional) = *sizes.get(middle).context("there are no processes")?;
    Ok(Memory { what: what.to_owned(), functions, processes: sizes.len(), resident, proportional })
}
