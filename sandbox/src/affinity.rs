//! Which cores the processes of a sandbox run on.

use std::fs;
use std::sync::LazyLock;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::memory;

/// The cores of this program's first thread, as it was started.
static ALL: LazyLock<CpuSet> =
    LazyLock::new(|| sched_getaffinity(Pid::this()).unwrap_or_else(|_| CpuSet::new()));

/// The cores that this program was given.
pub fn cores() -> Vec<usize> {
    (0..CpuSet::count()).filter(|core| ALL.is_set(*core).unwrap_or(false)).collect()
}

/// Keeps the calling thread on one core, or lets it use all that the program was given. Returns
/// whether that worked.
pub fn keep_this_thread_on(core: Option<usize>) -> bool {
    set(core).is_some_and(|set| sched_setaffinity(Pid::from_raw(0), &set).is_ok())
}

/// The same for all processes of the sandbox whose first one is `init`. What cannot be moved stays
/// where it is: this is about speed alone.
pub(crate) fn keep_on(init: i32, core: Option<usize>) {
    let Some(set) = set(core) else { return };
    for pid in memory::processes(init) {
        keep_threads_on(pid, &set);
    }
}

/// The same for one process.
pub(crate) fn keep_process_on(pid: i32, core: Option<usize>) {
    if let Some(set) = set(core) {
        keep_threads_on(pid, &set);
    }
}

fn keep_threads_on(pid: i32, set: &CpuSet) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for task in tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()) {
        let _ = sched_setaffinity(Pid::from_raw(task), set);
    }
}

fn set(core: Option<usize>) -> Option<CpuSet> {
    let Some(core) = core else { return Some(*ALL) };
    let mut set = CpuSet::new();
    set.set(core).ok().map(|()| set)
}
