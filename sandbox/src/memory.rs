//! The watchdog over a sandbox's memory: what all its processes hold together.

use std::time::{Duration, Instant};

/// How often a sandbox whose memory grows is looked at, and how seldom one that stays as it is.
const SOON: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(640);
/// Processes that are looked at; a sandbox has a limit on them anyway.
const MAX_PROCESSES: usize = 4096;

/// Looks after one sandbox.
pub(crate) struct Watchdog {
    pid: i32,
    limit: u64,
    last: u64,
    interval: Duration,
    due: Instant,
    /// Whether the limit was passed.
    pub has_bitten: bool,
}

impl Watchdog {
    pub(crate) fn new(pid: i32, limit: u64) -> Watchdog {
        let due = Instant::now() + SOON;
        Watchdog { pid, limit, last: 0, interval: SOON, due, has_bitten: false }
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
        let held = held(self.pid);
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

/// Bytes of memory a process and its descendants hold.
fn held(init: i32) -> u64 {
    let mut total = 0;
    let mut queue = vec![init];
    let mut seen = 0;
    while let Some(pid) = queue.pop() {
        seen += 1;
        if seen > MAX_PROCESSES {
            break;
        }
        if pid != init {
            total += resident(pid);
        }
        // Children belong to the thread that made them.
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            if let Ok(children) = std::fs::read_to_string(task.path().join("children")) {
                queue.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            }
        }
    }
    total
}

/// Private memory of one process. Pages of shared files cost nothing extra.
fn resident(pid: i32) -> u64 {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/statm")) else { return 0 };
    let mut fields = text.split(' ').skip(1).map(|field| field.parse::<u64>().unwrap_or(0));
    let (resident, shared) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
    resident.saturating_sub(shared) * 4096
}
