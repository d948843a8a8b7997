//! Warm calls: every server takes its turn in every round, so that what disturbs the machine disturbs
//! all of them.

use std::process::Command;

use serde::Serialize;

use super::{Bench, say};
use crate::cores::Cores;
use crate::load::{self, Bound, Target, hello};
use crate::peers::free_port;
use crate::process::Process;
use crate::server::{Server, source};
use crate::stats::Rate;
use crate::toys;

/// Numbers of clients.
const CLIENTS: [usize; 2] = [1, 16];

/// What was called, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kind {
    /// The language of the function; `instant` where none is run.
    pub language: String,
    /// What serves it.
    pub server: String,
    /// The cores.
    pub cores: Cores,
    /// Clients in a closed loop.
    pub clients: usize,
}

/// All rounds of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Warm {
    /// The kind.
    #[serde(flatten)]
    pub kind: Kind,
    /// Its rounds, in the order they were made.
    pub rounds: Vec<Rate>,
}

/// A server that is running.
struct Subject {
    language: String,
    server: String,
    target: Target,
    process: u32,
}

/// Servers of one division of the machine; they end with this.
struct Field {
    cores: Cores,
    subjects: Vec<Subject>,
    _server: Server,
    _peers: Vec<Process>,
}

impl Bench {
    /// All warm calls.
    ///
    /// # Errors
    /// A server does not start, or answers something wrong.
    pub fn warm(&self) -> anyhow::Result<Vec<Warm>> {
        let fields: Vec<Field> =
            Cores::ALL.into_iter().map(|cores| self.field(cores)).collect::<Result<_, _>>()?;
        let mut rows: Vec<Warm> = Vec::new();
        for clients in CLIENTS {
            for field in &fields {
                for subject in &field.subjects {
                    let (language, server) = (subject.language.clone(), subject.server.clone());
                    let kind = Kind { language, server, cores: field.cores, clients };
                    rows.push(Warm { kind, rounds: Vec::new() });
                }
            }
        }
        let time = self.effort.warm;
        let bound = Bound { time, warm: time / 8, requests: usize::MAX };
        let all = || fields.iter().flat_map(|field| &field.subjects);
        // Round 0 starts workers and warms code; nothing counts.
        for round in 0..=self.effort.rounds {
            say(&format!("warm calls, round {round} of {}", self.effort.rounds));
            let mut turns: Vec<_> =
                rows.iter_mut().zip(CLIENTS.iter().flat_map(|_| all())).collect();
            if round % 2 == 1 {
                // Or one server would always come after the same other.
                turns.reverse();
            }
            for (row, subject) in turns {
                let Kind { cores, clients, .. } = row.kind;
                let rate = load::run(&subject.target, clients, bound, cores, subject.process)?;
                row.rounds.extend((round > 0).then_some(rate));
            }
        }
        Ok(rows)
    }

    fn field(&self, cores: Cores) -> anyhow::Result<Field> {
        let server = Server::start(&self.setup, cores, &[])?;
        let process = server.process.id();
        let (mut subjects, mut peers) = (Vec::new(), Vec::new());
        for language in self.languages.iter().copied().chain([toys::LANGUAGE]) {
            server.image(language)?;
            server.deploy(language, language, source(language))?;
            let mut add = |name: &str, target, process| {
                let (language, server) = (language.to_owned(), name.to_owned());
                subjects.push(Subject { language, server, target, process });
            };
            add(DISPATCH, server.endpoint(language), process);
            for peer in self.peers.iter().filter(|peer| peer.language == language) {
                let (process, port) = peer.start(cores)?;
                add(&peer.name, hello(port, "/"), process.id());
                peers.push(process);
            }
            if language == toys::LANGUAGE {
                let port = free_port()?;
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["toy", "serve", &port.to_string()]);
                let mut process = Process::start(command, cores)?;
                process.wait_until_answered(&hello(port, "/"))?;
                add(HYPER, hello(port, "/"), process.id());
                peers.push(process);
            }
        }
        Ok(Field { cores, subjects, _server: server, _peers: peers })
    }
}

/// What is measured, in the tables.
pub const DISPATCH: &str = "dispatch";
/// A server that is nothing but hyper.
pub const HYPER: &str = "plain hyper";
