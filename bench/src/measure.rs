//! The measurements, in the order they are made.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::load::{self, Bound, Target};
use crate::process::Language;
use crate::report::{Latency, Memory, Queue, Report, Throughput};
use crate::server::{Server, call};
use crate::stats::Rate;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Rounds of the warm calls; the median one counts.
    pub rounds: usize,
    /// How long one warm measurement takes.
    pub warm: Duration,
    /// Cold starts, and functions made, of each language.
    pub starts: usize,
    /// Runs that nobody waits for.
    pub queued: usize,
    /// Functions in the measurement of memory.
    pub functions: usize,
}

/// Numbers of clients of the warm calls.
const CLIENTS: [usize; 2] = [1, 16];

fn say(what: &str) {
    eprintln!("measuring {what}");
}

/// Everything, on two servers: one as it comes, and one that soon lets idle workers go.
pub async fn all(
    program: &Path,
    data: &Path,
    effort: &Effort,
    languages: &[Language],
    report: &mut Report,
) -> anyhow::Result<()> {
    let server = Server::start(program, data, &[])?;
    report.version = server.version().await?;
    for language in languages {
        server.deploy(language).await?;
        report.calls.extend(warm(&server, effort, language).await?);
    }
    if let Some(language) = languages.first() {
        report.queue = queue(&server, effort, language).await?;
    }
    drop(server);

    let server = Server::start(program, data, &["--idle-seconds", "1"])?;
    let empty = server.process.resident()?;
    for language in languages {
        server.deploy(language).await?;
        report.starts.extend(cold(&server, effort, language).await?);
        report.starts.push(ready(&server, effort, language).await?);
    }
    if let Some(language) = languages.first() {
        report.memory = memory(&server, effort, language, empty).await?;
    }
    Ok(())
}

/// Warm calls: the raw server, the gateway and the API take turns, so that what disturbs the machine
/// disturbs all of them.
async fn warm(
    server: &Server,
    effort: &Effort,
    language: &Language,
) -> anyhow::Result<Vec<Throughput>> {
    let name = language.name;
    let (_raw, port) = language.raw_server()?;
    let subjects: [(&'static str, Target); 3] = [
        ("raw server", call(port, "/".to_owned())),
        ("gateway", server.endpoint(name)),
        ("POST /v1/runs", server.run(name)),
    ];
    let bound = |time| Bound { time, requests: 1_000_000 };
    let mut rounds = vec![Vec::new(); subjects.len() * CLIENTS.len()];
    for round in 0..=effort.rounds {
        for (index, (subject, target)) in subjects.iter().enumerate() {
            for (place, clients) in CLIENTS.into_iter().enumerate() {
                if round == 0 {
                    // Workers are started and code is warmed; nothing counts.
                    load::run(target, clients, bound(effort.warm / 2)).await?;
                    continue;
                }
                say(&format!("{name}, {subject}, {clients} clients, round {round}"));
                let rate = load::run(target, clients, bound(effort.warm)).await?;
                rounds[index * CLIENTS.len() + place].push(rate);
            }
        }
    }
    let mut rows = Vec::new();
    let kinds = subjects.iter().flat_map(|(subject, _)| CLIENTS.map(|clients| (*subject, clients)));
    for ((subject, clients), rates) in kinds.zip(rounds) {
        let rate = Rate::median(rates).context("there were no rounds")?;
        rows.push(Throughput { language: name, subject, clients, rate });
    }
    Ok(rows)
}

/// First answers: of a function without a worker, and of a raw server that is started for it.
async fn cold(
    server: &Server,
    effort: &Effort,
    language: &Language,
) -> anyhow::Result<[Latency; 2]> {
    let name = language.name;
    say(&format!("{name}, cold starts"));
    let (mut raw, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..effort.starts {
        let start = Instant::now();
        let (_process, port) = language.raw_server()?;
        call(port, "/".to_owned()).call_once().await?;
        raw.push(start.elapsed());
    }
    let (target, label) = (server.endpoint(name), format!("function=\"{name}\""));
    for _ in 0..effort.starts {
        server.zero("dispatch_workers", &label).await?;
        let start = Instant::now();
        target.call_once().await?;
        ours.push(start.elapsed());
        // Or the wait above had seen nothing because there is nothing of this name.
        let workers = server.sum("dispatch_workers", &label).await?;
        anyhow::ensure!(workers > 0.0, "/metrics does not show the worker that was started");
    }
    Ok([
        Latency::new(name, "raw server: start to first answer", raw),
        Latency::new(name, "no worker: call to answer", ours),
    ])
}

/// From asking for a function to its being ready: source stored and unpacked, handler loaded.
async fn ready(server: &Server, effort: &Effort, language: &Language) -> anyhow::Result<Latency> {
    let name = language.name;
    say(&format!("{name}, creation to READY"));
    let mut times = Vec::new();
    for number in 0..effort.starts {
        let function = format!("ready-{name}-{number}");
        let start = Instant::now();
        server.create_function(&function, language).await?;
        server.ready(&function).await?;
        times.push(start.elapsed());
    }
    Ok(Latency::new(name, "create function to READY", times))
}

/// Runs that nobody waits for: how fast they are accepted, and how fast they are made.
async fn queue(
    server: &Server,
    effort: &Effort,
    language: &Language,
) -> anyhow::Result<Vec<Queue>> {
    let target = server.queued_run(language.name);
    let mut rows = Vec::new();
    for clients in CLIENTS {
        say(&format!("{}, runs that nobody waits for, {clients} clients", language.name));
        let bound = Bound { time: Duration::from_secs(5), requests: effort.queued };
        let start = Instant::now();
        let accepted = load::run(&target, clients, bound).await?;
        server.zero("dispatch_queued_jobs", "").await?;
        let made_per_second = accepted.requests as f64 / start.elapsed().as_secs_f64();
        rows.push(Queue { language: language.name, clients, accepted, made_per_second });
    }
    Ok(rows)
}

/// Memory of the server's own process, without its workers, with no and with many functions.
async fn memory(
    server: &Server,
    effort: &Effort,
    language: &Language,
    empty: u64,
) -> anyhow::Result<Vec<Memory>> {
    say(&format!("memory with {} functions", effort.functions));
    let before = server.count_ready().await?;
    let start = Instant::now();
    for number in before..effort.functions {
        server.create_function(&format!("many-{number}"), language).await?;
    }
    while server.count_ready().await? < effort.functions {
        let rest = Duration::from_secs(120).checked_sub(start.elapsed());
        rest.context("not all functions became ready within 120 s")?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    eprintln!("{} functions became ready in {:.1?}", effort.functions - before, start.elapsed());
    server.zero("dispatch_workers", "").await?;
    let full = server.process.resident()?;
    Ok(vec![
        Memory { functions: 0, resident_bytes: empty },
        Memory { functions: effort.functions, resident_bytes: full },
    ])
}
