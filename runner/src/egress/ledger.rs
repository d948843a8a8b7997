//! What functions reached and were refused, until somebody asks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::SystemTime;

use dispatch_api::egress::Target;

use super::policy::Refusal;
use crate::pool::lock;

/// Destinations of one function that are noted, reached and refused ones together.
const MAX_NOTES: usize = 256;
/// Refusals of one function that are logged before somebody asks.
const MAX_LINES: usize = 16;

/// What was noted of one function since the last time somebody asked.
#[derive(Clone, Debug, Default)]
pub struct News {
    /// Connections made.
    pub connected: u64,
    /// Connections refused by policy, by [`Refusal::word`].
    pub refused: BTreeMap<&'static str, u64>,
    /// Bytes that went out.
    pub sent: u64,
    /// Bytes that came in.
    pub received: u64,
    /// Where to: refusals always, connections where the function learns.
    pub notes: BTreeMap<Note, Noted>,
    /// What there was no room for in `notes`.
    pub unlisted: u64,
}

/// A destination, and why it was refused if it was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The destination as the function named it.
    pub target: Target,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
}

/// How often, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// How often.
    pub count: u64,
    /// The first time.
    pub first: SystemTime,
    /// The last time.
    pub last: SystemTime,
}

/// Organization and function.
type Who = (String, String);

/// What was noted of all functions.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<HashMap<Who, News>>);

impl Ledger {
    /// What there is since the last time.
    pub fn take(&self) -> HashMap<Who, News> {
        std::mem::take(&mut *lock(&self.0))
    }

    pub(super) fn connected(&self, who: &Who, target: &Target, learn: bool) {
        self.change(who, |news| {
            news.connected += 1;
            if learn {
                news.note(target, None);
            }
        });
    }

    pub(super) fn refused(&self, who: &Who, target: &Target, refusal: Refusal) {
        let told = self.change(who, |news| {
            *news.refused.entry(refusal.word()).or_default() += 1;
            let known = news.notes.len();
            news.note(target, Some(refusal));
            news.notes.len() > known && news.notes.len() <= MAX_LINES
        });
        if told {
            let (organization, function) = who;
            let reason = refusal.word();
            tracing::warn!(organization, function, %target, reason, "egress refused");
        }
    }

    pub(super) fn moved(&self, who: &Who, sent: u64, received: u64) {
        self.change(who, |news| {
            news.sent += sent;
            news.received += received;
        });
    }

    fn change<T>(&self, who: &Who, change: impl FnOnce(&mut News) -> T) -> T {
        let mut all = lock(&self.0);
        match all.get_mut(who) {
            Some(news) => change(news),
            None => change(all.entry(who.clone()).or_default()),
        }
    }
}

impl News {
    fn note(&mut self, target: &Target, refusal: Option<Refusal>) {
        let now = SystemTime::now();
        let note = Note { target: target.clone(), refusal };
        if let Some(noted) = self.notes.get_mut(&note) {
            (noted.count, noted.last) = (noted.count + 1, now);
        } else if self.notes.len() < MAX_NOTES {
            self.notes.insert(note, Noted { count: 1, first: now, last: now });
        } else {
            self.unlisted += 1;
        }
    }
}
