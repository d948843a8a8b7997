//! The watchdog over a sandbox's memory: what all its processes hold together.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How often a sandbox whose memory grows is looked at, and how seldom one that stays as it is.
const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(320);
/// Processes that are looked at; a sandbox has a limit on them anyway.
const MAX_PROCESSES: usize = 4096;

static PAGE: LazyLock<u64> = LazyLock::new(|| {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
});

/// Looks after one sandbox.
pub(crate) struct Watchdog {
    first: i32,
    /// Whether the first process counts too.
    with_first: bool,
    limit: u64,
    last: u64,
    interval: Duration,
    due: Instant,
    /// Whether the limit was passed.
    pub has_bitten: bool,
}

impl Watchdog {
    pub(crate) fn new(init: i32, limit: u64) -> Watchdog {
        let due = Instant::now() + SOON;
        Watchdog {
            first: init,
            with_first: false,
            limit,
            last: 0,
            interval: SOON,
            due,
            has_bitten: false,
        }
    }

    /// Over the process `first` and its children.
    pub(crate) fn with_first(first: i32, limit: u64) -> Watchdog {
        Watchdog { with_first: true, ..Watchdog::new(first, limit) }
    }

    /// Until the next look.
    pub(crate) fn pause(&self) -> Option<Duration> {
        (!self.has_bitten).then(|| self.due.saturating_duration_since(Instant::now()))
    }

    /// Looks, if it is time to; true when the sandbox is to be killed.
    pub(crate) fn look(&mut self) -> bool {
        if self.has_bitten || Instant::now() < self.due {
            return false;
        }
        let mut processes = processes(self.first);
        processes.extend(self.with_first.then_some(self.first));
        // What is shared is counted for each who shares it: quick, and never too little.
        let mut held = processes.iter().map(|pid| resident(*pid)).sum::<u64>();
        if held > self.limit {
            held = processes.iter().map(|pid| share(*pid).unwrap_or_else(|| resident(*pid))).sum();
        }
        let steady = held <= self.last + (1 << 20);
        // Above half of the limit it is always looked at soon.
        self.interval =
            if steady && held < self.limit / 2 { (self.interval * 2).min(LATE) } else { SOON };
        self.last = held;
        self.due = Instant::now() + self.interval;
        self.has_bitten = held > self.limit;
        self.has_bitten
    }
}

/// Whether the kernel tells the children of a process, which the watchdog goes by.
pub(crate) fn can_be_watched() -> bool {
    fs::exists("/proc/thread-self/children").unwrap_or(false)
}

/// All processes of a sandbox but its first, which is ours.
pub(crate) fn processes(init: i32) -> Vec<i32> {
    let mut all = vec![init];
    let mut next = 0;
    while next < all.len() && all.len() < MAX_PROCESSES {
        // Children belong to the thread that made them.
        let tasks = fs::read_dir(proc(all[next], "task")).into_iter().flatten().flatten();
        for children in tasks.flat_map(|task| fs::read_to_string(task.path().join("children"))) {
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        next += 1;
    }
    all.split_off(1)
}

/// Bytes of memory that all processes of a sandbox hold together.
pub(crate) fn held(init: i32) -> u64 {
    processes(init).iter().map(|pid| share(*pid).unwrap_or_else(|| resident(*pid))).sum()
}

/// Bytes of memory one process sees, those of programs and libraries too.
fn resident(pid: i32) -> u64 {
    let Ok(text) = fs::read_to_string(proc(pid, "statm")) else { return 0 };
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * *PAGE
}

/// A process's share, in bytes, of the memory that is not just a copy of a file on disk.
fn share(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(proc(pid, "smaps_rollup")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let swapped = field("SwapPss:").unwrap_or(0);
    Some((field("Pss_Anon:")? + field("Pss_Shmem:")? + swapped) * 1024)
}

fn proc(pid: i32, file: &str) -> PathBuf {
    format!("/proc/{pid}/{file}").into()
}
