//! The figures, as tables for people and as JSON for programs.

use serde::Serialize;

use crate::bars::Bar;
use crate::machine::Machine;
use crate::measure::{Arrival, Calls, Delivered, Emit, Events, Memory, Queue, Start, Warm};
use crate::peers::Missing;
use crate::stats::{Rate, Times};

/// Everything that was measured in one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it was measured on.
    pub machine: Machine,
    /// Version of the program, of the interpreters and of the peers.
    pub versions: Vec<String>,
    /// Whether it was the short form.
    pub quick: bool,
    /// What could not be measured.
    pub missing: Vec<Missing>,
    /// Warm calls.
    pub warm: Vec<Warm>,
    /// What happens without a warm worker.
    pub starts: Vec<Start>,
    /// Runs that nobody waits for.
    pub queue: Vec<Queue>,
    /// Events.
    pub events: Events,
    /// Memory of processes.
    pub memory: Vec<Memory>,
    /// What warm calls cost besides time.
    pub calls: Vec<Calls>,
    /// What the figures are held against.
    pub bars: Vec<Bar>,
}

impl Report {
    /// Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "{}{}\n\n{}\n",
            if self.quick { "Short form; its figures say little. " } else { "" },
            self.machine.line(),
            self.versions.join(", ")
        );
        for Missing { what, reason } in &self.missing {
            text += &format!("\nMissing: {what}: {reason}\n");
        }
        self.warm(&mut text);
        self.starts(&mut text);
        self.queue(&mut text);
        self.events(&mut text);
        self.memory(&mut text);
        self.calls(&mut text);
        if !self.bars.is_empty() {
            text += "\n| bar | wanted | figure | | foreign % |\n|---|---|---|---|---|\n";
            text.extend(self.bars.iter().map(Bar::line));
        }
        text
    }

    fn warm(&self, text: &mut String) {
        if self.warm.is_empty() {
            return;
        }
        *text += "\n| warm calls | cores | clients | req/s | p50 µs | p90 µs | p99 µs \
                  | server CPU µs/req | foreign % |\n|---|---|---|---|---|---|---|---|---|\n";
        for Warm { kind, rounds } in &self.warm {
            let Some(rate) = Rate::median(rounds) else { continue };
            let Rate { per_second, p50_us, p90_us, p99_us, server_us, .. } = rate;
            let (cores, clients, foreign) =
                (kind.cores.count(), kind.clients, rate.foreign_percent);
            let note = if rate.reopened > 0 { " (closes connections)" } else { "" };
            *text += &format!(
                "| {}, {}{note} | {cores} | {clients} | {per_second:.0} | {p50_us:.0} | {p90_us:.0} \
                 | {p99_us:.0} | {server_us:.0} | {foreign:.0} |\n",
                kind.language, kind.server
            );
        }
    }

    fn starts(&self, text: &mut String) {
        if self.starts.is_empty() {
            return;
        }
        *text += "\n| starts | cores | count | p50 ms | p90 ms | p95 ms | p99 ms | foreign % |\n\
                  |---|---|---|---|---|---|---|---|\n";
        for Start { what, language, server, cores, times } in &self.starts {
            let Times { count, p50_ms, p90_ms, p95_ms, p99_ms, foreign_percent } = times;
            *text += &format!(
                "| {language}, {server}: {what} | {} | {count} | {p50_ms:.1} | {p90_ms:.1} \
                 | {p95_ms:.1} | {p99_ms:.1} | {foreign_percent:.0} |\n",
                cores.count()
            );
        }
    }

    fn memory(&self, text: &mut String) {
        if self.memory.is_empty() {
            return;
        }
        *text +=
            "\n| memory | functions | processes | RSS MiB | PSS MiB |\n|---|---|---|---|---|\n";
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        for Memory { what, functions, processes, resident, proportional } in &self.memory {
            *text += &format!(
                "| {what} | {functions} | {processes} | {:.1} | {:.1} |\n",
                mib(*resident),
                mib(*proportional)
            );
        }
    }

    fn calls(&self, text: &mut String) {
        if self.calls.is_empty() {
            return;
        }
        *text +=
            "\n| a warm call | cores | clients | in | for a request |\n|---|---|---|---|---|\n";
        for Calls { language, cores, clients, processes, counts } in &self.calls {
            let counts: Vec<String> =
                counts.iter().map(|(name, count)| format!("{name} {count:.2}")).collect();
            *text += &format!(
                "| {language} | {} | {clients} | {processes} | {} |\n",
                cores.count(),
                counts.join(", ")
            );
        }
    }

    fn events(&self, text: &mut String) {
        let Events { emits, arrivals, delivered } = &self.events;
        if emits.is_empty() {
            return;
        }
        *text += "\n| events that are accepted | publishers | of a request | events/s | p50 ms | p99 ms \
                  | server CPU µs/event | foreign % |\n|---|---|---|---|---|---|---|---|\n";
        for Emit { server, clients, batch, rounds } in emits {
            let Some(rate) = Rate::median(rounds) else { continue };
            let each = *batch as f64;
            *text += &format!(
                "| {server} | {clients} | {batch} | {:.0} | {:.2} | {:.2} | {:.0} | {:.0} |\n",
                rate.per_second * each,
                rate.p50_us / 1e3,
                rate.p99_us / 1e3,
                rate.server_us / each,
                rate.foreign_percent
            );
        }
        *text += "\n| from emitting to seeing | events | p50 ms | p90 ms | p99 ms | foreign % |\n\
                  |---|---|---|---|---|---|\n";
        for Arrival { seen_by, times } in arrivals {
            let Times { count, p50_ms, p90_ms, p99_ms, foreign_percent, .. } = times;
            *text += &format!(
                "| {seen_by} | {count} | {p50_ms:.2} | {p90_ms:.2} | {p99_ms:.2} \
                 | {foreign_percent:.0} |\n"
            );
        }
        *text +=
            "\n| events that are delivered | events | events/s | foreign % |\n|---|---|---|---|\n";
        for Delivered { taken_by, events, per_second, foreign_percent } in delivered {
            *text +=
                &format!("| {taken_by} | {events} | {per_second:.0} | {foreign_percent:.0} |\n");
        }
    }

    fn queue(&self, text: &mut String) {
        if self.queue.is_empty() {
            return;
        }
        *text += "\n| runs that nobody waits for | clients | accepted/s | p50 µs | p99 µs | made/s \
                  | foreign % |\n|---|---|---|---|---|---|---|\n";
        for Queue { language, clients, accepted, made_per_second } in &self.queue {
            let Rate { per_second, p50_us, p99_us, foreign_percent, .. } = accepted;
            *text += &format!(
                "| {language} | {clients} | {per_second:.0} | {p50_us:.0} | {p99_us:.0} \
                 | {made_per_second:.0} | {foreign_percent:.0} |\n"
            );
        }
    }
}
