//! The figures, as a table for people and as JSON for programs.

use std::time::Duration;

use serde::Serialize;

use crate::machine::Machine;
use crate::stats::{Rate, Sample};

/// Everything that was measured in one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it was measured on.
    pub machine: Machine,
    /// Version of the program.
    pub version: String,
    /// Whether it was the short form.
    pub quick: bool,
    /// Warm calls.
    pub calls: Vec<Throughput>,
    /// First answers, and creations.
    pub starts: Vec<Latency>,
    /// Runs that nobody waits for.
    pub queue: Vec<Queue>,
    /// Memory of the server.
    pub memory: Vec<Memory>,
}

/// Warm calls of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// The language of the function.
    pub language: &'static str,
    /// What was called.
    pub subject: &'static str,
    /// Clients in a closed loop.
    pub clients: usize,
    /// The median round.
    pub rate: Rate,
}

/// Times of one kind of thing that happens seldom.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    language: &'static str,
    subject: &'static str,
    count: usize,
    p50_ms: f64,
    p99_ms: f64,
}

impl Latency {
    /// From the times.
    pub fn new(language: &'static str, subject: &'static str, times: Vec<Duration>) -> Latency {
        let sample = Sample::new(times);
        let millis = |percent| sample.percentile(percent).as_secs_f64() * 1e3;
        let (p50_ms, p99_ms) = (millis(50), millis(99));
        Latency { language, subject, count: sample.len(), p50_ms, p99_ms }
    }
}

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

/// Memory of the server's process.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Functions that were ready, without workers.
    pub functions: usize,
    /// Its resident set, in bytes.
    pub resident_bytes: u64,
}

impl Report {
    /// Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "Dispatch {}{}\n\n{}\n\n",
            self.version,
            if self.quick { ", short form" } else { "" },
            self.machine.line()
        );
        text += "| warm calls | clients | req/s | p50 µs | p99 µs | req/s against raw |\n";
        text += "|---|---|---|---|---|---|\n";
        for row in &self.calls {
            let Rate { per_second, p50_us, p99_us, .. } = row.rate;
            text += &format!(
                "| {}, {} | {} | {per_second:.0} | {p50_us:.0} | {p99_us:.0} | {} |\n",
                row.language,
                row.subject,
                row.clients,
                self.against_raw(row).map_or_else(String::new, |ratio| format!("{ratio:.2}"))
            );
        }
        text += "\n| starts | count | p50 ms | p99 ms |\n|---|---|---|---|\n";
        for row in &self.starts {
            let Latency { language, subject, count, p50_ms, p99_ms } = row;
            text += &format!("| {language}, {subject} | {count} | {p50_ms:.1} | {p99_ms:.1} |\n");
        }
        text +=
            "\n| runs that nobody waits for | clients | accepted/s | p50 µs | p99 µs | made/s |\n";
        text += "|---|---|---|---|---|---|\n";
        for row in &self.queue {
            let Rate { per_second, p50_us, p99_us, .. } = row.accepted;
            let (clients, made) = (row.clients, row.made_per_second);
            text += &format!(
                "| {} | {clients} | {per_second:.0} | {p50_us:.0} | {p99_us:.0} | {made:.0} |\n",
                row.language
            );
        }
        text += "\n| functions | resident memory of the server, MiB |\n|---|---|\n";
        for row in &self.memory {
            let mib = row.resident_bytes as f64 / f64::from(1 << 20);
            text += &format!("| {} | {mib:.1} |\n", row.functions);
        }
        text
    }

    /// Throughput as a part of the raw server's with as many clients; none for the raw server.
    fn against_raw(&self, row: &Throughput) -> Option<f64> {
        let raw = self.calls.iter().find(|other| {
            (other.language, other.subject, other.clients)
                == (row.language, "raw server", row.clients)
        })?;
        (row.subject != raw.subject).then(|| row.rate.per_second / raw.rate.per_second)
    }
}
