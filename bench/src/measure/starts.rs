//! What happens without a warm worker: the first answer of a function that has none, of a hundred at
//! once, and from creating a function to its being ready.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use super::{Bench, DISPATCH, say};
use crate::cores::{self, Cores};
use crate::load::{self, Target};
use crate::machine::Watch;
use crate::server::{Server, source};
use crate::stats::Times;

/// Seconds an idle worker is kept here.
const IDLE: [&str; 2] = ["--idle-seconds", "1"];

/// Times of one kind of start.
#[derive(Clone, Debug, Serialize)]
pub struct Start {
    /// What happens.
    pub what: &'static str,
    /// The language of the function.
    pub language: &'static str,
    /// What serves it.
    pub server: String,
    /// The cores.
    pub cores: Cores,
    /// How long it took.
    pub times: Times,
}

/// From nothing, or from a server with no worker for the function, to the answer.
pub const FIRST: &str = "from zero to the answer";
/// As many functions at once as [`Effort`](super::Effort) says.
pub const BURST: &str = "functions from zero at once";
/// The same once more, after as many processes wait as were needed then.
pub const AGAIN: &str = "functions from zero at once, again";
/// From asking for a function to its being ready.
pub const READY: &str = "create to READY";

impl Bench {
    /// First answers: of functions without a worker, and of peers that are started for it, in turns.
    ///
    /// # Errors
    /// A function does not become ready, or answers something wrong.
    pub fn cold(&self) -> anyhow::Result<Vec<Start>> {
        let mut rows = Vec::new();
        for cores in Cores::ALL {
            let server = Server::start(&self.setup, cores, &IDLE)?;
            for language in &self.languages {
                say(&format!("{language}, first answers, {}", cores.label()));
                let targets = self.at_zero(&server, language, self.effort.starts)?;
                let peers = self.peers.iter().filter(|peer| peer.language == *language);
                let peers: Vec<_> = peers.filter(|peer| peer.cold).collect();
                let mut times = vec![Vec::new(); peers.len() + 1];
                let watch = Watch::start(server.process.id());
                for target in &targets {
                    let call = || {
                        let start = Instant::now();
                        target.call().map(|()| start.elapsed())
                    };
                    times[0].push(cores::on(cores.clients(), call)??);
                    for (times, peer) in times[1..].iter_mut().zip(&peers) {
                        times.push(peer.first_answer(cores)?);
                    }
                }
                let seen = watch.stop();
                let names = [DISPATCH].into_iter().chain(peers.iter().map(|it| &*it.name));
                rows.extend(names.zip(times).map(|(name, times)| Start {
                    what: FIRST,
                    language,
                    server: name.to_owned(),
                    cores,
                    times: Times::new(times, seen),
                }));
            }
        }
        Ok(rows)
    }

    /// Many functions that have no worker, each called once and all at the same time; and once
    /// more, when the workers have gone and processes wait for such a crowd.
    ///
    /// # Errors
    /// As [`Bench::cold`].
    pub fn burst(&self) -> anyhow::Result<Vec<Start>> {
        let mut rows = Vec::new();
        for &language in &self.languages {
            say(&format!("{language}, {} {BURST}", self.effort.burst));
            let server = Server::start(&self.setup, Cores::Two, &IDLE)?;
            let targets = self.at_zero(&server, language, self.effort.burst)?;
            for what in [BURST, AGAIN] {
                let watch = Watch::start(server.process.id());
                let times = load::burst(&targets, Cores::Two)?;
                rows.push(ours(what, language, Times::new(times, watch.stop())));
                server.until("dispatch_workers", "", |sum| sum == 0.0)?;
                let label = format!("language=\"{language}\"");
                let wanted = |sum| sum >= targets.len() as f64;
                server.until("dispatch_stem_cells", &label, wanted)?;
            }
        }
        Ok(rows)
    }

    /// From asking for a function to its being ready: source stored and unpacked, handler loaded.
    ///
    /// # Errors
    /// A function does not become ready.
    pub fn ready(&self) -> anyhow::Result<Vec<Start>> {
        let mut rows = Vec::new();
        let server = Server::start(&self.setup, Cores::Two, &IDLE)?;
        for &language in &self.languages {
            say(&format!("{language}, {READY}"));
            server.image(language)?;
            // The first of a language finds its runtime.
            server.deploy(language, language, source(language))?;
            let (watch, mut times) = (Watch::start(server.process.id()), Vec::<Duration>::new());
            for number in 0..self.effort.starts {
                let name = format!("ready-{language}-{number}");
                let start = Instant::now();
                server.api.create_function(&name, language, source(language))?;
                server.ready(&name)?;
                times.push(start.elapsed());
            }
            rows.push(ours(READY, language, Times::new(times, watch.stop())));
        }
        Ok(rows)
    }

    /// Deploys functions of a language and waits until none has a worker any more.
    fn at_zero(
        &self,
        server: &Server,
        language: &str,
        count: usize,
    ) -> anyhow::Result<Vec<Target>> {
        server.image(language)?;
        let names: Vec<String> = (0..count).map(|number| format!("{language}-{number}")).collect();
        for name in &names {
            server.deploy(name, language, source(language))?;
        }
        let label = format!("function=\"{language}-0\"");
        server.endpoint(&names[0]).call()?;
        // Or the wait below would see nothing because there is nothing of this name.
        let workers = server.sum("dispatch_workers", &label)?;
        ensure!(workers > 0.0, "/metrics does not show the worker that was started");
        server.until("dispatch_workers", "", |sum| sum == 0.0)?;
        Ok(names.iter().map(|name| server.endpoint(name)).collect())
    }
}

fn ours(what: &'static str, language: &'static str, times: Times) -> Start {
    Start { what, language, server: DISPATCH.to_owned(), cores: Cores::Two, times }
}
