//! The threads of the data plane: each has one core, a runtime with its own reactor, a share of the
//! gateway's connections, and the workers that serve them (docs/decisions/0006-one-runtime-per-core.md).

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use dispatch_runner::home::{self, Home, Homes};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often it is seen whether a core has too much to do while others have not.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Busy parts in a thousand above which a core is behind, where another is below the second.
const FULL: u64 = 950;
const FREE: u64 = 600;

/// The threads of the data plane. They end when this is dropped.
pub struct Cores {
    homes: Homes,
    /// Connections of each.
    load: Arc<[AtomicUsize]>,
    _end: DropGuard,
}

/// A connection's place on a core; counted until it is dropped.
pub struct Place {
    load: Arc<[AtomicUsize]>,
    number: usize,
}

impl Cores {
    /// Starts as many threads as `wanted`, or, for 0, as the program has cores. Only where each gets
    /// a core of its own are they kept there.
    ///
    /// # Errors
    /// A thread or its runtime cannot be made.
    pub fn start(wanted: usize) -> anyhow::Result<Cores> {
        let cores = home::cores();
        let count = if wanted == 0 { cores.len().max(1) } else { wanted };
        let apart = count > 1 && count == cores.len();
        let end = CancellationToken::new();
        let mut homes = Vec::new();
        for number in 0..count {
            let core = cores.get(number).copied().filter(|_| apart);
            let runtime = thread(number, core, end.clone())?;
            homes.push(Home { runtime, core });
        }
        let homes = Homes::new(homes);
        if apart {
            tokio::spawn(end.clone().run_until_cancelled_owned(balance(homes.clone())));
        }
        let load = (0..count).map(|_| AtomicUsize::new(0)).collect();
        Ok(Cores { homes, load, _end: end.drop_guard() })
    }

    /// The threads as homes of workers.
    pub fn homes(&self) -> &Homes {
        &self.homes
    }

    /// A place for one more connection: here, unless another core has fewer by more than one.
    pub fn place(&self) -> (Place, Handle) {
        let load = |number: usize| self.load[number].load(Ordering::Relaxed);
        let least = (0..self.load.len()).min_by_key(|number| load(*number)).unwrap_or(0);
        let number = home::here().filter(|here| load(*here) <= load(least) + 1).unwrap_or(least);
        self.load[number].fetch_add(1, Ordering::Relaxed);
        let place = Place { load: Arc::clone(&self.load), number };
        (place, self.homes.all()[number].runtime.clone())
    }
}

impl Place {
    /// Whether it is this thread's.
    pub fn is_here(&self) -> bool {
        home::here() == Some(self.number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load[self.number].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts one thread; returns a handle of its runtime.
fn thread(number: usize, core: Option<usize>, end: CancellationToken) -> anyhow::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name(format!("core-{number}"))
        .spawn(move || {
            home::settle(number);
            if core.is_some() && !home::keep_this_thread_on(core) {
                tracing::debug!(number, "this thread cannot be kept on its core");
            }
            runtime.block_on(end.cancelled());
        })
        .context("cannot start a thread of the gateway")?;
    Ok(handle)
}

/// Finds out again and again which cores are full while others have time. Workers leave such a core
/// at their next look, and come back when it is no longer so.
async fn balance(homes: Homes) {
    let mut before = Vec::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = times(&fs::read_to_string("/proc/stat").unwrap_or_default());
        let shares: Vec<Option<u64>> =
            homes.all().iter().map(|home| busy(home.core?, &before, &now)).collect();
        let least = shares.iter().flatten().min().copied().unwrap_or(0);
        for (number, share) in shares.iter().enumerate() {
            let full = share.is_some_and(|share| share >= FULL);
            homes.set_behind(number, full && least <= FREE);
        }
        before = now;
    }
}

/// Clock ticks that each core was busy, and all of its ticks: `/proc/stat` in proc(5).
fn times(stat: &str) -> Vec<(usize, u64, u64)> {
    let core = |line: &str| {
        let (name, numbers) = line.strip_prefix("cpu")?.split_once(' ')?;
        // User, nice, system, idle, waiting for disks, and so on; guests are in the first already.
        let ticks: Vec<u64> =
            numbers.split_whitespace().take(8).map(|n| n.parse().unwrap_or(0)).collect();
        let all: u64 = ticks.iter().sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        Some((name.parse().ok()?, all - idle, all))
    };
    stat.lines().filter_map(core).collect()
}

/// Parts in a thousand that `core` was busy between two looks.
fn busy(core: usize, before: &[(usize, u64, u64)], now: &[(usize, u64, u64)]) -> Option<u64> {
    let find = |all: &[(usize, u64, u64)]| all.iter().find(|(name, ..)| *name == core).copied();
    let ((_, busy_before, all_before), (_, busy, all)) = (find(before)?, find(now)?);
    let all = all.checked_sub(all_before).filter(|all| *all > 0)?;
    Some(busy.saturating_sub(busy_before) * 1000 / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "cpu  10 0 10 80 0 0 0 0 0 0\ncpu0 5 0 5 40 0 0 0 0 0 0\n\
                          cpu1 5 0 5 40 0 0 0 0 0 0\nintr 1 2 3\n";
    const NOW: &str = "cpu  29 0 11 80 0 0 0 0 0 0\ncpu0 24 0 6 40 0 0 0 0 0 0\n\
                       cpu1 5 1 5 55 4 0 0 0 0 0\nctxt 1\n";

    #[test]
    fn shares_are_those_between_two_looks() {
        let (before, now) = (times(BEFORE), times(NOW));
        assert_eq!(busy(0, &before, &now), Some(1000));
        assert_eq!(busy(1, &before, &now), Some(50));
        assert_eq!(busy(2, &before, &now), None);
        assert_eq!(busy(0, &[], &now), None);
        assert_eq!(busy(0, &now, &now), None, "no time has passed");
    }

    #[tokio::test]
    async fn connections_are_spread_evenly() -> anyhow::Result<()> {
        let cores = Cores::start(3)?;
        let places: Vec<_> = (0..8).map(|_| cores.place().0).collect();
        let load =
            || -> Vec<usize> { cores.load.iter().map(|l| l.load(Ordering::Relaxed)).collect() };
        assert_eq!(load(), [3, 3, 2]);
        drop(places);
        assert_eq!(load(), [0, 0, 0]);
        Ok(())
    }

    #[tokio::test]
    async fn a_connection_stays_where_it_came_in_while_that_is_fair() -> anyhow::Result<()> {
        let cores = Arc::new(Cores::start(2)?);
        let there = Arc::clone(&cores);
        let runtime = cores.homes().all()[1].runtime.clone();
        let taken = runtime.spawn(async move {
            let places: Vec<_> = (0..4).map(|_| there.place().0).collect();
            places.iter().map(|place| place.number).collect::<Vec<_>>()
        });
        assert_eq!(taken.await?, [1, 1, 0, 1]);
        Ok(())
    }
}
