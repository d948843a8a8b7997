//! User ids of the host that functions run under.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::pool::lock;

/// The first id. Ids below belong to people, services, and what builds layers.
const FIRST: u32 = 200_000;

/// Hands out ids so that no two living pools have the same: limits the kernel counts by user, and
/// files, are then never shared between functions.
#[derive(Debug, Default)]
pub struct Uids {
    used: Arc<Mutex<BTreeSet<u32>>>,
}

/// An id that nobody else gets until this is dropped.
#[derive(Debug)]
pub struct Uid {
    number: u32,
    used: Arc<Mutex<BTreeSet<u32>>>,
}

impl Uids {
    /// Takes the lowest free id.
    pub fn take(&self) -> Uid {
        let mut used = lock(&self.used);
        let number = (FIRST..).find(|number| !used.contains(number)).unwrap_or(FIRST);
        used.insert(number);
        Uid { number, used: Arc::clone(&self.used) }
    }
}

impl Uid {
    /// The id.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Uid {
    fn drop(&mut self) {
        lock(&self.used).remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_free_again_only_after_its_last_user() {
        let uids = Uids::default();
        let (first, second) = (uids.take(), uids.take());
        assert_eq!((first.number(), second.number()), (FIRST, FIRST + 1));
        drop(first);
        assert_eq!(uids.take().number(), FIRST);
        let third = uids.take();
        assert_eq!((second.number(), third.number()), (FIRST + 1, FIRST));
    }
}
