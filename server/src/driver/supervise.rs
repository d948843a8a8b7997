//! One process for each driver, from its creation to its deletion, whatever becomes of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dispatch_api::{Kind, Problem, Status};
use dispatch_runner::service::{Inside, Watcher};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::log::{self, Log};
use super::prepare::{self, Fault};
use crate::app::App;
use crate::resource::now;
use crate::store::{self, Entity};
use crate::tasks::{RETRY, backoff};

/// How long a process has to live before its driver is `READY`, at first and after it has failed.
const READY_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
/// How long it has to live for its earlier failures to be forgotten.
const STEADY: Duration = Duration::from_secs(60);
/// How long a new driver is `CREATING` at least before it is in `ERROR`: scripts of the old system look
/// for that state every two seconds.
const CREATING: i64 = 3_000_000;
/// The pauses before a restart, at first and at most, in milliseconds.
const PAUSE: (i64, i64) = (1000, 60_000);

/// An organization and the name of a driver in it.
type Who = (String, String);

/// What keeps a driver running.
#[derive(Debug)]
struct Keeper {
    who: Who,
    body: Value,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Keeps all drivers running until the server stops.
pub async fn run(app: Arc<App>) {
    let mut keepers: HashMap<String, Keeper> = HashMap::new();
    // Those that are about to be gone: one that is made anew under the name of one waits for it.
    let mut leaving: HashMap<Who, JoinHandle<()>> = HashMap::new();
    let mut feed = app.store.subscribe();
    let mut seq = 0;
    let mut tidied = false;
    while !app.stopping.is_cancelled() {
        feed.mark_unchanged();
        match reconcile(&app, &mut keepers, &mut leaving, &mut seq).await {
            Ok(()) if !tidied => {
                tidied = true;
                tidy(&app, &keepers);
            }
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, "drivers cannot be read");
                sleep(RETRY).await;
                continue;
            }
        }
        tokio::select! {
            _ = feed.changed() => {}
            () = app.stopping.cancelled() => {}
        }
    }
    for keeper in keepers.values() {
        keeper.stop.cancel();
    }
    for keeper in keepers.into_values() {
        let _ = keeper.task.await;
    }
}

/// Starts what is new, starts what has changed over, and ends what is gone.
async fn reconcile(
    app: &Arc<App>,
    keepers: &mut HashMap<String, Keeper>,
    leaving: &mut HashMap<Who, JoinHandle<()>>,
    seq: &mut i64,
) -> Result<(), store::Error> {
    let reached = app.store.last_change().await?;
    let concerns = match app.store.changes(*seq, 512).await {
        Ok(changes) => {
            let whole = changes.last().is_none_or(|last| last.seq >= reached);
            *seq == 0 || !whole || changes.iter().any(|change| change.kind == Kind::Driver)
        }
        Err(store::Error::Gap) => true,
        Err(error) => return Err(error),
    };
    *seq = reached;
    if !concerns {
        return Ok(());
    }
    // Secrets that are named are there by now.
    app.settle().await;
    let entities = app.store.all(Kind::Driver).await?;
    keepers.retain(|id, keeper| {
        let stays = entities.iter().any(|entity| entity.id == *id);
        if !stays {
            keeper.stop.cancel();
            let task = std::mem::replace(&mut keeper.task, tokio::spawn(async {}));
            let cleared = tokio::spawn(clear(Arc::clone(app), id.clone(), task));
            leaving.insert(keeper.who.clone(), cleared);
        }
        stays
    });
    leaving.retain(|_, cleared| !cleared.is_finished());
    for entity in entities {
        let who = (entity.org.clone(), entity.name.clone());
        let before = match keepers.remove(&entity.id) {
            Some(keeper) if keeper.body == entity.body => {
                keepers.insert(entity.id, keeper);
                continue;
            }
            Some(keeper) => {
                keeper.stop.cancel();
                Some(keeper.task)
            }
            None => leaving.remove(&who),
        };
        let (id, body) = (entity.id.clone(), entity.body.clone());
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(Arc::clone(app), entity, stop.clone(), before));
        keepers.insert(id, Keeper { who, body, stop, task });
    }
    Ok(())
}

/// Removes what a driver that is gone has left.
async fn clear(app: Arc<App>, id: String, task: JoinHandle<()>) {
    let _ = task.await;
    log::remove(&app, &id);
    let files = prepare::files(&app, &id);
    let removed = tokio::fs::remove_dir_all(&files).await;
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, files = %files.display(), "a driver's files are left over");
    }
}

/// Removes what drivers have left that went while no server ran.
fn tidy(app: &Arc<App>, keepers: &HashMap<String, Keeper>) {
    let entries = std::fs::read_dir(app.config.data_dir.join("drivers")).into_iter().flatten();
    for entry in entries.flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if !keepers.contains_key(&id) {
            tokio::spawn(clear(Arc::clone(app), id, tokio::spawn(async {})));
        }
    }
}

/// Runs a driver's process again and again until it is told to stop.
async fn keep(
    app: Arc<App>,
    entity: Entity,
    stop: CancellationToken,
    before: Option<JoinHandle<()>>,
) {
    if let Some(before) = before {
        let _ = before.await;
    }
    let log = Arc::new(Log::new(&app, &entity.id));
    let mut failures = 0;
    while !stop.is_cancelled() {
        let begun = Instant::now();
        let ended = once(&app, &entity, &log, failures > 0, &stop).await;
        if stop.is_cancelled() {
            return;
        }
        let Fault { text, cause } = ended;
        log.line(&format!("{text}: {cause}"));
        tracing::warn!(org = entity.org, driver = entity.name, cause, "{text}");
        app.metrics.driver(&entity.org, &entity.name);
        failures = if begun.elapsed() > STEADY { 1 } else { failures + 1 };
        let early = u64::try_from(entity.created + CREATING - now()).unwrap_or(0);
        let pause = u64::try_from(backoff(failures, PAUSE.0, PAUSE.1)).unwrap_or(0);
        tokio::select! {
            () = async {
                sleep(Duration::from_micros(early)).await;
                report(&app, &entity, Status::Error, vec![text, cause]).await;
                sleep(Duration::from_micros(pause)).await;
            } => {}
            () = stop.cancelled() => return,
        }
    }
}

/// What is heard of a process.
struct Heard {
    app: Arc<App>,
    org: String,
    name: String,
    token: String,
    log: Arc<Log>,
    /// Its last line, which often says why it has ended.
    last: Mutex<String>,
    started: Mutex<Option<oneshot::Sender<()>>>,
}

impl Watcher for Heard {
    fn line(&self, line: &str) {
        self.log.line(line);
        if !line.is_empty() {
            line.clone_into(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn started(&self, inside: Inside) {
        self.app.drivers.started(&self.org, &self.name, &self.token, inside);
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(started) = started.take() {
            let _ = started.send(());
        }
    }
}

/// Runs it once; answers why it does not run any more.
async fn once(
    app: &Arc<App>,
    entity: &Entity,
    log: &Arc<Log>,
    again: bool,
    stop: &CancellationToken,
) -> Fault {
    let prepared = tokio::select! {
        prepared = prepare::service(app, entity, log) => prepared,
        () = stop.cancelled() => return Fault { text: String::new(), cause: String::new() },
    };
    let (service, token) = match prepared {
        Ok(prepared) => prepared,
        Err(fault) => return fault,
    };
    let (tell, started) = oneshot::channel();
    let heard = Heard {
        app: Arc::clone(app),
        org: entity.org.clone(),
        name: entity.name.clone(),
        token: token.clone(),
        log: Arc::clone(log),
        last: Mutex::default(),
        started: Mutex::new(Some(tell)),
    };
    let ready = async {
        if started.await.is_ok() {
            sleep(READY_AFTER[usize::from(again)]).await;
            report(app, entity, Status::Ready, Vec::new()).await;
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = app.runner.run_service(&service, &heard, stop.clone()) => ended,
        () = ready => Ok(String::new()),
    };
    app.drivers.ended(&entity.org, &entity.name, &token);
    let words = ended.unwrap_or_else(|error| error.to_string());
    let last = heard.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let cause = if last.is_empty() { words } else { format!("{words}; its last line: {last}") };
    Fault { text: format!("event driver {} does not keep running", entity.name), cause }
}

/// Writes down how a driver is, if it is still the same.
async fn report(app: &App, seen: &Entity, status: Status, reason: Vec<String>) {
    let (id, body) = (seen.id.clone(), seen.body.clone());
    let change = move |entity: &mut Entity| {
        if entity.id != id
            || entity.body != body
            || (entity.status, &entity.reason) == (status, &reason)
        {
            return Err(Problem::new(409, "it has changed, or has not"));
        }
        entity.status = status;
        entity.reason = reason;
        Ok(Vec::new())
    };
    match app.store.mutate(Kind::Driver, &seen.org, &seen.name, None, change).await {
        Ok(_) | Err(store::Error::Missing | store::Error::Refused(_)) => {}
        Err(error) => tracing::error!(%error, driver = seen.name, "its status is not stored"),
    }
}
