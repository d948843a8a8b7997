//! Memory: of the server without functions and with many, of processes that wait, and of workers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

use super::{Bench, say};
use crate::cores::Cores;
use crate::load;
use crate::machine;
use crate::server::Server;
use crate::toys;

/// Clients that ask for functions at the same time.
const CLIENTS: usize = 4;
/// Workers of the function whose workers are measured, as text for the flag.
const WORKERS: &str = "10";
/// How long what ends or is replaced after the last call may take.
const SETTLE: Duration = Duration::from_secs(3);

/// Memory of processes of one kind; the sizes are the median's.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Of what.
    pub what: String,
    /// Functions that were ready meanwhile.
    pub functions: usize,
    /// How many processes.
    pub processes: usize,
    /// Resident set, in bytes.
    pub resident: u64,
    /// The same with shared pages divided among those that share them.
    pub proportional: u64,
}

/// The server's own process.
pub const SERVER: &str = "server";
/// A process of a language that waits for a function.
pub const STEM: &str = "stem cell";
/// A worker that was started for its function.
const WORKER: &str = "idle worker";
/// A worker that was forked from a process that has loaded the source.
pub const FORKED: &str = "idle forked worker";
/// That process.
const FORKS: &str = "process that forks";

impl Bench {
    /// All of it.
    ///
    /// # Errors
    /// A function does not become ready.
    pub fn memory(&self) -> anyhow::Result<Vec<Memory>> {
        let mut rows = self.many()?;
        for language in &self.languages {
            rows.extend(self.workers(language, false)?);
            if *language == "python3" {
                rows.extend(self.workers(language, true)?);
            }
        }
        Ok(rows)
    }

    /// The server's own process with no functions, then with many, without workers. The functions are
    /// of the toy language, whose workers cost the least time to check them.
    fn many(&self) -> anyhow::Result<Vec<Memory>> {
        let server = Server::start(&self.setup, Cores::Two, &["--idle-seconds", "1"])?;
        let pid = server.process.id();
        // What starts later than the server says it is ready.
        std::thread::sleep(SETTLE);
        let mut rows = vec![median(SERVER, 0, &[pid])?];
        say(&format!("memory with {} functions", self.effort.functions));
        server.image(toys::LANGUAGE)?;
        let (api, next) = (server.api, AtomicUsize::new(0));
        let names: Vec<String> = (0..self.effort.functions).map(|n| format!("many-{n}")).collect();
        let start = Instant::now();
        std::thread::scope(|scope| {
            let make = || {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    api.create_function(name, toys::LANGUAGE, "hello.py")?;
                }
                anyhow::Ok(())
            };
            let all: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(make)).collect();
            all.into_iter()
                .try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a panic"))?)
        })?;
        for name in &names {
            // One after the other: a list of all would grow what is measured.
            server.ready(name)?;
        }
        eprintln!("{} functions became ready in {:.1?}", names.len(), start.elapsed());
        std::thread::sleep(SETTLE);
        rows.push(median(SERVER, names.len(), &[pid])?);
        server.until("dispatch_workers", "", |sum| sum == 0.0)?;
        Ok(rows)
    }

    /// What waits and what works, of one language, in a server that has been called a little.
    fn workers(&self, language: &str, forking: bool) -> anyhow::Result<Vec<Memory>> {
        say(&format!("{language}, memory of workers{}", if forking { ", forked" } else { "" }));
        let server = Server::start(&self.setup, Cores::Two, &["--default-max-scale", WORKERS])?;
        server.image(language)?;
        let source = if language == "nodejs" { "slow.js" } else { "slow.py" };
        if forking {
            server.api.create_forking(language, language, source)?;
        } else {
            server.api.create_function(language, language, source)?;
        }
        server.expose(language)?;
        let targets = vec![server.endpoint(language); WORKERS.parse()?];
        load::burst(&targets, Cores::Two)?;
        std::thread::sleep(SETTLE);
        let mut kinds: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for pid in machine::tree(server.process.id()) {
            if let Some(kind) = kind(pid, language, forking) {
                kinds.entry(kind).or_default().push(pid);
            }
        }
        // The processes that wait are the same whatever the function wants.
        kinds.retain(|kind, _| !forking || *kind != STEM);
        let rows = kinds.into_iter();
        rows.map(|(kind, pids)| median(&format!("{language}, {kind}"), 1, &pids)).collect()
    }
}

/// What a process below the server is, if it is an interpreter of this language.
fn kind(pid: u32, language: &str, forking: bool) -> Option<&'static str> {
    let is_interpreter = |pid: u32| {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let name = program.file_name()?.to_str()?.to_owned();
        name.starts_with(if language == "nodejs" { "node" } else { "python" }).then_some(())
    };
    is_interpreter(pid)?;
    // A function's code is bound into the sandbox of its workers, and of them only.
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mounts")).ok()?;
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some("/function")) {
        return Some(STEM);
    }
    let forked = machine::parent(pid).and_then(is_interpreter).is_some();
    Some(match (forked, forking) {
        (true, _) => FORKED,
        (false, true) => FORKS,
        (false, false) => WORKER,
    })
}

fn median(what: &str, functions: usize, processes: &[u32]) -> anyhow::Result<Memory> {
    let sizes = processes.iter().map(|pid| machine::memory(*pid));
    let mut sizes: Vec<(u64, u64)> = sizes.collect::<Result<_, _>>()?;
    sizes.sort_by_key(|(_, proportional)| *proportional);
    let middle = sizes.len().saturating_sub(1) / 2;
    let (resident, proportional) = *sizes.get(middle).context("there are no processes")?;
    Ok(Memory { what: what.to_owned(), functions, processes: sizes.len(), resident, proportional })
}
