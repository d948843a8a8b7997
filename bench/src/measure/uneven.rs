//! Short calls beside long ones that take all the processor time they get: a thread for each core
//! against one for all.

use anyhow::anyhow;

use super::warm::{Kind, Warm};
use super::{Bench, say};
use crate::cores::Cores;
use crate::load::{self, Bound};
use crate::server::{Server, source};

/// Clients of the short calls, and of the long ones beside them.
pub const SHORT: usize = 8;
/// See [`SHORT`].
pub const LONG: [usize; 2] = [1, 2];
/// The servers, and what they are told.
pub const SERVERS: [(&str, &str); 2] = [(EACH, "2"), (ONE, "1")];
/// The gateway has a thread for each core.
pub const EACH: &str = "a thread for each core";
/// The gateway has one.
pub const ONE: &str = "one thread";

/// What the short calls, or the long ones, are called where this many of these run.
pub fn name(long: usize, short: bool) -> String {
    format!("{} calls, {long} long at a time", if short { "short" } else { "long" })
}

impl Bench {
    /// All calls of uneven load.
    ///
    /// # Errors
    /// A server does not start, or answers something wrong.
    pub fn uneven(&self) -> anyhow::Result<Vec<Warm>> {
        let mut servers = Vec::new();
        for (name, threads) in SERVERS {
            let server = Server::start(&self.setup, Cores::Two, &["--cores", threads])?;
            server.image("python3")?;
            server.deploy("short", "python3", source("python3"))?;
            server.deploy("long", "python3", "long.py")?;
            servers.push((name, server));
        }
        let mut rows = Vec::new();
        for long in LONG {
            for (server, _) in SERVERS {
                for (clients, short) in [(SHORT, true), (long, false)] {
                    let (language, server) = (name(long, short), server.to_owned());
                    let kind = Kind { language, server, cores: Cores::Two, clients };
                    rows.push(Warm { kind, rounds: Vec::new() });
                }
            }
        }
        // Round 0 starts workers and warms code; nothing counts.
        for round in 0..=self.effort.rounds {
            say(&format!("uneven load, round {round} of {}", self.effort.rounds));
            let all = LONG.iter().flat_map(|_| &servers);
            let mut turns: Vec<_> = rows.chunks_mut(2).zip(all).collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for (pair, (_, server)) in turns {
                let rates = self.beside(server, pair[1].kind.clients)?;
                if round > 0 {
                    pair.iter_mut().zip(rates).for_each(|(row, rate)| row.rounds.push(rate));
                }
            }
        }
        Ok(rows)
    }

    /// The rates of short and of long calls at the same time.
    fn beside(&self, server: &Server, long: usize) -> anyhow::Result<[crate::stats::Rate; 2]> {
        let time = self.effort.warm;
        let bound = Bound { time, warm: time / 8, requests: usize::MAX };
        let process = server.process.id();
        std::thread::scope(|scope| {
            let target = server.endpoint("long");
            let beside = scope.spawn(move || load::run(&target, long, bound, Cores::Two, process));
            let short = load::run(&server.endpoint("short"), SHORT, bound, Cores::Two, process);
            let long = beside.join().map_err(|_| anyhow!("the long calls' thread panicked"))?;
            Ok([short?, long?])
        })
    }
}
