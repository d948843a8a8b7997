//! Single processes of a sandbox beside its first one, named by the number they have inside.

use std::fs;
use std::os::fd::AsFd as _;

use crate::memory::{self, Watchdog};
use crate::sys;

/// A process whose memory is watched by itself, with its children.
pub(crate) struct Watched {
    pub pid: i32,
    outside: i32,
    pub watchdog: Watchdog,
}

impl Watched {
    /// Watches the process `pid` of the sandbox whose first process is `init`.
    pub(crate) fn new(init: i32, pid: i32, limit: u64) -> Option<Watched> {
        let outside = find(init, pid)?;
        Some(Watched { pid, outside, watchdog: Watchdog::with_first(outside, limit) })
    }

    /// Whether it is still there.
    pub(crate) fn lives(&self, init: i32) -> bool {
        memory::processes(init).contains(&self.outside)
    }

    /// Kills it and its children.
    pub(crate) fn kill(&self, init: i32) {
        for pid in memory::processes(self.outside).into_iter().chain([self.outside]) {
            send(init, pid, libc::SIGKILL);
        }
    }
}

/// Sends a signal to the process `pid`; to none that is not of this sandbox.
pub(crate) fn signal(init: i32, pid: i32, signal: i32) {
    if let Some(outside) = find(init, pid) {
        send(init, outside, signal);
    }
}

fn send(init: i32, outside: i32, signal: i32) {
    // The descriptor stands for one process; only afterwards is it certain that it is the right one.
    if let Ok(process) = sys::pidfd_open(outside)
        && memory::processes(init).contains(&outside)
    {
        let _ = sys::pidfd_send_signal(process.as_fd(), signal);
    }
}

/// The number, outside, of what is `pid` inside.
pub(crate) fn find(init: i32, pid: i32) -> Option<i32> {
    memory::processes(init).into_iter().find(|outside| number_inside(*outside) == Some(pid))
}

fn number_inside(outside: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{outside}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().next_back()?.parse().ok()
}
