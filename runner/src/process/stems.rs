//! Processes that wait, sandbox and interpreter ready, for a function: what makes a start from
//! nothing quick. Each takes one function for life; none is ever given back.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dispatch_sandbox::Child;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::uid::Uid;
use super::{Shared, spec};
use crate::pool::lock;
use crate::worker::load;

/// How long after one was taken the next is started: the call it was taken for goes first.
const AFTER: Duration = Duration::from_millis(20);
/// The pause after a start that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// A process that waits.
pub(crate) struct Stem {
    pub child: Child,
    /// Listens where the function's proxy will be, if it can have one.
    pub proxy: Option<OwnedFd>,
    pub uid: Uid,
}

/// Those that wait, by language.
#[derive(Default)]
pub(crate) struct Stems {
    ready: Mutex<HashMap<String, VecDeque<Stem>>>,
    taken: Notify,
}

impl Stems {
    /// Takes one that waits for a function of `language`.
    pub fn take(&self, language: &str) -> Option<Stem> {
        let mut ready = lock(&self.ready);
        let waiting = ready.get_mut(language)?;
        let stem = std::iter::from_fn(|| waiting.pop_front()).find(|stem| !stem.child.has_ended());
        self.taken.notify_one();
        stem
    }

    /// How many wait, by language.
    pub fn waiting(&self, language: &str) -> usize {
        lock(&self.ready).get(language).map_or(0, VecDeque::len)
    }

    fn forget_ended(&self) {
        for waiting in lock(&self.ready).values_mut() {
            waiting.retain(|stem| !stem.child.has_ended());
        }
    }

    /// Ends all.
    pub fn clear(&self) {
        lock(&self.ready).clear();
    }

    fn put(&self, language: &str, stem: Stem) {
        lock(&self.ready).entry(language.to_owned()).or_default().push_back(stem);
    }
}

/// Keeps as many waiting as the options say, one start at a time.
pub(super) async fn keep(shared: Arc<Shared>) {
    let wanted = shared.options.stems;
    let languages: Vec<String> = shared
        .languages
        .packs()
        .iter()
        .filter(|pack| pack.worker.waits && shared.languages.installed(&pack.name).is_some())
        .map(|pack| pack.name.clone())
        .collect();
    loop {
        // They take memory so that starts are quick: not while there is too little of it.
        let wanted = if shared.is_short() { 0 } else { wanted };
        let missing = languages.iter().find(|name| shared.stems.waiting(name) < wanted);
        let Some(language) = missing else {
            // Those that ended by themselves are missed a while later.
            let _ = timeout(PAUSE, shared.stems.taken.notified()).await;
            sleep(AFTER).await;
            shared.stems.forget_ended();
            continue;
        };
        let uid = shared.uids.take();
        let started = match spec::waiting(&shared, language, uid.number()) {
            Ok(spec) => load::wait(&shared.launcher, &spec, shared.options.start_timeout).await,
            Err(failed) => Err(failed),
        };
        match started {
            Ok((child, proxy)) => shared.stems.put(language, Stem { child, proxy, uid }),
            Err(failed) => {
                tracing::warn!(language, "no process can wait for functions: {}", failed.message);
                sleep(PAUSE).await;
            }
        }
    }
}
