//! Processes that wait, sandbox and interpreter ready, for a function: what makes a start from
//! nothing quick. Each takes one function for life; none is ever given back.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dispatch_sandbox::Child;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::demand::Demand;
use super::shared::Supply;
use super::uid::Uid;
use super::{Shared, spec};
use crate::pool::lock;
use crate::worker::{failure, load};

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
    kinds: Mutex<HashMap<String, Kind>>,
    changed: Notify,
}

/// Those of one language that has functions.
#[derive(Default)]
struct Kind {
    ready: VecDeque<Stem>,
    demand: Demand,
}

impl Stems {
    /// Takes one that waits for a function of `language`.
    pub fn take(&self, language: &str) -> Option<Stem> {
        let mut kinds = lock(&self.kinds);
        let kind = kinds.entry(language.to_owned()).or_default();
        kind.demand.count(Instant::now());
        self.changed.notify_one();
        std::iter::from_fn(|| kind.ready.pop_front()).find(|stem| !stem.child.has_ended())
    }

    /// Says that there are functions of `language`.
    pub fn expect(&self, language: &str) {
        lock(&self.kinds).entry(language.to_owned()).or_insert_with(|| {
            self.changed.notify_one();
            Kind::default()
        });
    }

    /// The languages that have functions.
    fn expected(&self) -> Vec<String> {
        lock(&self.kinds).keys().cloned().collect()
    }

    /// How many wait, by language.
    pub fn waiting(&self, language: &str) -> usize {
        lock(&self.kinds).get(language).map_or(0, |kind| kind.ready.len())
    }

    /// How many were asked for at once a while ago.
    fn demand(&self, language: &str) -> usize {
        lock(&self.kinds).get(language).map_or(0, |kind| kind.demand.most(Instant::now()))
    }

    fn forget_ended(&self) {
        for kind in lock(&self.kinds).values_mut() {
            kind.ready.retain(|stem| !stem.child.has_ended());
        }
    }

    /// Ends those that are more than `wanted`.
    fn shrink(&self, language: &str, wanted: usize) {
        if let Some(kind) = lock(&self.kinds).get_mut(language) {
            kind.ready.truncate(wanted);
        }
    }

    /// Ends all.
    pub fn clear(&self) {
        lock(&self.kinds).values_mut().for_each(|kind| kind.ready.clear());
    }

    fn put(&self, language: &str, stem: Stem) {
        lock(&self.kinds).entry(language.to_owned()).or_default().ready.push_back(stem);
    }
}

/// How many are to wait: the fixed number, and more where more were needed at once and there is
/// memory for them. They take memory so that starts are quick: none while there is too little.
fn wanted(shared: &Shared, language: &str) -> usize {
    let options = &shared.options;
    match shared.supply() {
        Supply::Short => 0,
        Supply::Enough => options.stems,
        Supply::Ample if options.stems == 0 => 0,
        Supply::Ample => shared.stems.demand(language).min(options.most_stems).max(options.stems),
    }
}

/// Keeps as many waiting as the options say, one start at a time.
pub(super) async fn keep(shared: Arc<Shared>) {
    let waits = |name: &String| {
        let pack = shared.languages.pack(name).filter(|pack| pack.worker.waits);
        pack.is_some() && shared.languages.installed(name).is_some()
    };
    // Languages whose last start failed, and until when they are let be.
    let mut failed_until: HashMap<String, Instant> = HashMap::new();
    loop {
        let now = Instant::now();
        failed_until.retain(|_, until| *until > now);
        let expected = shared.stems.expected().into_iter().filter(waits);
        let mut expected = expected.filter(|name| !failed_until.contains_key(name));
        let missing = expected.find(|name| {
            let wanted = wanted(&shared, name);
            shared.stems.shrink(name, wanted);
            shared.stems.waiting(name) < wanted
        });
        let Some(language) = missing else {
            // Those that ended by themselves are missed a while later.
            let _ = timeout(PAUSE, shared.stems.changed.notified()).await;
            sleep(AFTER).await;
            shared.stems.forget_ended();
            continue;
        };
        let uid = shared.uids.take();
        let started = async {
            let prepared = shared.languages.prepare(&shared.launcher, &language).await;
            prepared.map_err(failure::system)?;
            let spec = spec::waiting(&shared, &language, uid.number())?;
            load::wait(&shared.launcher, &spec, shared.options.start_timeout).await
        };
        let started = started.await;
        match started {
            Ok((child, proxy)) => shared.stems.put(&language, Stem { child, proxy, uid }),
            Err(failed) => {
                tracing::warn!(language, "no process can wait for functions: {}", failed.message);
                failed_until.insert(language, Instant::now() + PAUSE);
            }
        }
    }
}
