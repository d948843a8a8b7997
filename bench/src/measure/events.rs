//! Events: how fast they are accepted, how soon they arrive, and how fast they are delivered, beside a broker
//! that syncs every message to the same disk.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use serde_json::Value;

use super::{Bench, DISPATCH, say};
use crate::cores::{self, Cores};
use crate::http::Connection;
use crate::load::{self, Bound, Caller, Client as _, PAYLOAD, renumber};
use crate::machine::Watch;
use crate::nats::{Nats, Publisher};
use crate::peers::{Peer, free_port};
use crate::process::Process;
use crate::server::{Server, source};
use crate::stats::{Rate, Times};
use crate::toys;

/// Publishers, and events of a request.
const EMITS: [(usize, usize); 4] = [(1, 1), (16, 1), (1, 100), (16, 100)];
/// Events of a request where it does not matter.
const BATCH: usize = 100;
/// Between two events whose way is measured: each finds the one before delivered.
const PAUSE: Duration = Duration::from_millis(20);
/// How long all deliveries may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// What handlers see of an event that says when it was emitted.
const STAMPED: &str = "stamp";
/// Events that nobody subscribed to.
const ALONE: &str = "alone";

/// Events that are accepted.
#[derive(Clone, Debug, Serialize)]
pub struct Emit {
    /// What accepts them.
    pub server: String,
    /// Publishers in a closed loop.
    pub clients: usize,
    /// Events of a request.
    pub batch: usize,
    /// Rounds of requests, in the order they were made.
    pub rounds: Vec<Rate>,
}

/// From just before an event is emitted to its being seen.
#[derive(Clone, Debug, Serialize)]
pub struct Arrival {
    /// What sees it.
    pub seen_by: String,
    /// How long it took.
    pub times: Times,
}

/// Events that are delivered and acknowledged.
#[derive(Clone, Debug, Serialize)]
pub struct Delivered {
    /// What takes them.
    pub taken_by: String,
    /// How many there were.
    pub events: usize,
    /// From the first request to the acknowledgement of the last event.
    pub per_second: f64,
    /// Who else used the machine.
    pub foreign_percent: f64,
}

/// What was measured of events.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Events {
    /// Acceptance.
    pub emits: Vec<Emit>,
    /// The way of single events.
    pub arrivals: Vec<Arrival>,
    /// Many at once.
    pub delivered: Vec<Delivered>,
}

/// A broker that is running.
struct Broker {
    name: String,
    process: Process,
    port: u16,
    _data: tempfile::TempDir,
}

impl Broker {
    fn start(peer: &Peer, data: &Path) -> anyhow::Result<Broker> {
        let data = tempfile::tempdir_in(data)?;
        let (port, config) = (free_port()?, data.path().join("nats.conf"));
        let store = data.path().join("store");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {:?}, sync_interval: always }}\n",
            store.display().to_string()
        );
        std::fs::write(&config, text)?;
        let process = peer.start_with(&config, Cores::Two)?;
        process.wait_for(|line| line.contains("Server is ready").then_some(()))?;
        Nats::open(port)?.create_stream()?;
        Ok(Broker { name: peer.name.clone(), process, port, _data: data })
    }

    fn emit(&self, clients: usize, batch: usize, bound: Bound) -> anyhow::Result<Rate> {
        let open = |_| Publisher::open(self.port, ALONE, batch, PAYLOAD);
        let publishers = (0..clients).map(open).collect::<Result<Vec<_>, _>>()?;
        load::drive(publishers, bound, Cores::Two, self.process.id())
    }

    /// Publishes one after the other, and sees them arrive on another connection.
    fn arrivals(&self, count: usize) -> anyhow::Result<Arrival> {
        let mut subscriber = Nats::open(self.port)?;
        subscriber.subscribe(STAMPED, 1000)?;
        let watch = Watch::start(self.process.id());
        let times = cores::on(Cores::Two.clients(), || {
            std::thread::scope(|scope| {
                let seeing = scope.spawn(move || {
                    let mut times = Vec::new();
                    while times.len() < count {
                        let messages = subscriber.read()?;
                        let seen = now();
                        for message in &messages {
                            let data: Value = serde_json::from_slice(&message.payload)?;
                            times.push(since(&data["emitted"], seen)?);
                        }
                        subscriber.acknowledge(&messages)?;
                    }
                    anyhow::Ok(times)
                });
                let mut publisher = Publisher::open(self.port, STAMPED, 1, &stamp(now()))?;
                for _ in 0..count {
                    publisher.set_data(&stamp(now()))?;
                    publisher.send()?;
                    while !publisher.receive()? {}
                    sleep(PAUSE);
                }
                seeing.join().map_err(|_| anyhow::anyhow!("the subscriber panicked"))?
            })
        })??;
        let times = Times::new(times, watch.stop());
        Ok(Arrival { seen_by: format!("{}, a subscriber", self.name), times })
    }

    /// Publishes in batches, and acknowledges on another connection.
    fn delivered(&self, events: usize) -> anyhow::Result<Delivered> {
        const TYPE: &str = "many";
        let mut subscriber = Nats::open(self.port)?;
        subscriber.subscribe(TYPE, 1000)?;
        let (watch, start) = (Watch::start(self.process.id()), Instant::now());
        cores::on(Cores::Two.clients(), || {
            std::thread::scope(|scope| {
                let taking = scope.spawn(move || {
                    let mut left = events;
                    while left > 0 {
                        let messages = subscriber.read()?;
                        left = left.saturating_sub(messages.len());
                        subscriber.acknowledge(&messages)?;
                    }
                    while !subscriber.is_done(TYPE)? {}
                    anyhow::Ok(())
                });
                let mut publisher = Publisher::open(self.port, TYPE, BATCH, PAYLOAD)?;
                for _ in 0..events / BATCH {
                    publisher.send()?;
                    while !publisher.receive()? {}
                }
                taking.join().map_err(|_| anyhow::anyhow!("the subscriber panicked"))?
            })
        })??;
        let per_second = events as f64 / start.elapsed().as_secs_f64();
        let taken_by = format!("{}, a subscriber", self.name);
        let foreign_percent = watch.stop().foreign_percent;
        Ok(Delivered { taken_by, events, per_second, foreign_percent })
    }
}

impl Bench {
    /// Everything about events, on two cores.
    ///
    /// # Errors
    /// An event is not taken, or not delivered.
    pub fn events(&self) -> anyhow::Result<Events> {
        let server = Server::start(&self.setup, Cores::Two, &[])?;
        let start = |peer| Broker::start(peer, &self.setup.data);
        let brokers = self.brokers.iter().map(start).collect::<Result<Vec<_>, _>>()?;
        let mut events = Events { emits: self.emits(&server, &brokers)?, ..Events::default() };
        let count = self.effort.queued / 20;
        for broker in &brokers {
            say(&format!("events on their way, {}", broker.name));
            events.arrivals.push(broker.arrivals(count)?);
            say(&format!("many events, {}", broker.name));
            events.delivered.push(broker.delivered(self.effort.queued)?);
        }
        if self.languages.contains(&"python3") {
            server.image("python3")?;
            server.deploy(STAMPED, "python3", "stamp.py")?;
            server.deploy("python3", "python3", source("python3"))?;
            events.arrivals.push(arrivals(&server, count)?);
            events.delivered.push(delivered(&server, "python3", self.effort.queued)?);
        }
        server.image(toys::LANGUAGE)?;
        server.deploy(toys::LANGUAGE, toys::LANGUAGE, source(toys::LANGUAGE))?;
        events.delivered.push(delivered(&server, toys::LANGUAGE, self.effort.queued)?);
        Ok(events)
    }

    /// Acceptance of events that nobody subscribed to, in turns.
    fn emits(&self, server: &Server, brokers: &[Broker]) -> anyhow::Result<Vec<Emit>> {
        let names: Vec<&str> =
            [DISPATCH].into_iter().chain(brokers.iter().map(|it| &*it.name)).collect();
        let mut rows = Vec::new();
        for (clients, batch) in EMITS {
            let row = |name: &&str| {
                let server = (*name).to_owned();
                Emit { server, clients, batch, rounds: Vec::new() }
            };
            rows.extend(names.iter().map(row));
        }
        let time = self.effort.warm;
        let bound = Bound { time, warm: time / 8, requests: usize::MAX };
        for round in 1..=self.effort.rounds {
            say(&format!("events that are accepted, round {round} of {}", self.effort.rounds));
            let mut turns: Vec<_> = rows.iter_mut().enumerate().collect();
            if round % 2 == 1 {
                turns.reverse();
            }
            for (index, row) in turns {
                let Emit { clients, batch, .. } = *row;
                let rate = match (index % names.len()).checked_sub(1) {
                    None => {
                        let target = server.emit(ALONE, batch, PAYLOAD);
                        load::run(&target, clients, bound, Cores::Two, server.process.id())?
                    }
                    Some(broker) => brokers[broker].emit(clients, batch, bound)?,
                };
                row.rounds.push(rate);
            }
        }
        Ok(rows)
    }
}

/// Emits one after the other to a function that says when it saw them.
fn arrivals(server: &Server, count: usize) -> anyhow::Result<Arrival> {
    say("events on their way, dispatch");
    server.subscribe(STAMPED, STAMPED)?;
    let emit = |count: usize| {
        let mut connection: Option<Connection> = None;
        for _ in 0..count {
            let mut target = server.emit(STAMPED, 1, &stamp(now()));
            renumber(&mut target.request, &target.numbers);
            let connection = match &mut connection {
                Some(connection) => connection,
                none => none.insert(Connection::open(target.port)?),
            };
            let (status, _) = connection.exchange(&target.request)?;
            ensure!(status == target.status, "an event was answered with {status}");
            sleep(PAUSE);
        }
        anyhow::Ok(())
    };
    // The first starts the worker.
    emit(1)?;
    until_delivered(server, STAMPED, 1)?;
    let watch = Watch::start(server.process.id());
    cores::on(Cores::Two.clients(), || emit(count))??;
    until_delivered(server, STAMPED, count as u64 + 1)?;
    let seen = watch.stop();
    let outputs = server.outputs(STAMPED)?;
    ensure!(outputs.len() == count + 1, "{} runs of {count} events and one", outputs.len());
    let time = |output: &Value| {
        let seen = output["seen"].as_u64().context("a run without its time")?;
        since(&output["emitted"], Duration::from_nanos(seen))
    };
    // The newest first, so the last is the one that started the worker.
    let times = outputs[..count].iter().map(time).collect::<Result<_, _>>()?;
    Ok(Arrival { seen_by: format!("{DISPATCH}, python3"), times: Times::new(times, seen) })
}

/// Emits in batches to a function.
fn delivered(server: &Server, function: &str, events: usize) -> anyhow::Result<Delivered> {
    say(&format!("many events, dispatch, {function}"));
    server.subscribe(function, function)?;
    let target = server.emit(function, BATCH, PAYLOAD);
    let (watch, start) = (Watch::start(server.process.id()), Instant::now());
    cores::on(Cores::Two.clients(), || {
        let mut publisher = Caller::open(&target)?;
        for _ in 0..events / BATCH {
            publisher.send()?;
            while !publisher.receive()? {}
        }
        anyhow::Ok(())
    })??;
    until_delivered(server, function, events as u64)?;
    let per_second = events as f64 / start.elapsed().as_secs_f64();
    let taken_by = format!("{DISPATCH}, {function}");
    let foreign_percent = watch.stop().foreign_percent;
    Ok(Delivered { taken_by, events, per_second, foreign_percent })
}

fn until_delivered(server: &Server, function: &str, wanted: u64) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let delivered = server.delivered(function)?;
        if delivered >= wanted {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{delivered} of {wanted} events were delivered");
        sleep(Duration::from_millis(20));
    }
}

/// The time of the clock: what sees the event is another process.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Data that says when its event was emitted; of the same length each time.
fn stamp(now: Duration) -> String {
    format!("{{\"emitted\":{:019}}}", now.as_nanos())
}

fn since(emitted: &Value, seen: Duration) -> anyhow::Result<Duration> {
    let emitted = emitted.as_u64().context("an event without its time")?;
    Ok(seen.saturating_sub(Duration::from_nanos(emitted)))
}
