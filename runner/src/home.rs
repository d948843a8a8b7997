//! Where workers are at home: threads that each have one core, a runtime, and a share of the
//! gateway's connections. A call that comes in at a worker's home is made without waking another
//! core, which would cost more than the rest of a short call (docs/decisions/0006-one-runtime-per-core.md).

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub use dispatch_sandbox::{cores, keep_this_thread_on};
use tokio::runtime::Handle;

thread_local! {
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The home this thread is, if it is one.
pub fn here() -> Option<usize> {
    HERE.get()
}

/// Makes this thread the home with this number. To be called once, before its runtime runs.
pub fn settle(number: usize) {
    HERE.set(Some(number));
}

/// One home.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its runtime, which has one thread.
    pub runtime: Handle,
    /// The core that its thread is kept on, if it is kept on one.
    pub core: Option<usize>,
}

/// All homes of a program. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Homes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    homes: Vec<Home>,
    /// Whether a home has more to do than its core can, while others have less.
    behind: Vec<AtomicBool>,
    next: AtomicUsize,
    /// Whether the program has one core only.
    alone: bool,
}

impl Homes {
    /// Homes numbered in this order.
    pub fn new(homes: Vec<Home>) -> Homes {
        let behind = homes.iter().map(|_| AtomicBool::new(false)).collect();
        let alone = cores().len() == 1;
        Homes(Arc::new(Inner { homes, behind, next: AtomicUsize::new(0), alone }))
    }

    /// The home with this number.
    pub fn get(&self, number: usize) -> Option<&Home> {
        self.0.homes.get(number)
    }

    /// All homes, by number.
    pub fn all(&self) -> &[Home] {
        &self.0.homes
    }

    /// A home for a worker that is started from elsewhere: each in turn.
    pub fn next(&self) -> Option<&Home> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.homes.get(number % self.0.homes.len().max(1))
    }

    /// Says whether the home's core is overloaded while others are not.
    pub fn set_behind(&self, number: usize, behind: bool) {
        if let Some(flag) = self.0.behind.get(number) {
            flag.store(behind, Ordering::Relaxed);
        }
    }

    /// Whether workers with short calls run where this home does.
    pub fn shares_core(&self, number: usize) -> bool {
        self.0.alone || self.core(number).is_some()
    }

    /// The core that a worker with short calls should share with this home.
    pub fn core(&self, number: usize) -> Option<usize> {
        let behind = self.0.behind.get(number)?.load(Ordering::Relaxed);
        self.get(number)?.core.filter(|_| !behind)
    }
}
