//! What the figures were measured on, and who else was using it.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;

/// The machine, as far as it matters.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    file_system: String,
    /// Processes that wanted a core in the minute before: figures of a busy machine say little.
    load: String,
    /// Times a second that 4 KiB can be appended to a file and synced, one after the other.
    pub syncs_per_second: f64,
}

impl Machine {
    /// Looks at this machine, and at the disk under `data`.
    ///
    /// # Errors
    /// Nothing can be written there.
    pub fn look(data: &Path) -> anyhow::Result<Machine> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned());
        Ok(Machine {
            processor,
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&read("/proc/mounts"), &data.canonicalize()?),
            load: read("/proc/loadavg").split(' ').next().unwrap_or("?").to_owned(),
            syncs_per_second: syncs(data)?,
        })
    }

    /// One line.
    pub fn line(&self) -> String {
        format!(
            "{}, {} cores, Linux {}, {} ({:.0} syncs/s), load before {}",
            self.processor,
            self.cores,
            self.kernel,
            self.file_system,
            self.syncs_per_second,
            self.load
        )
    }
}

/// The type of the file system that holds `path`, from the table of mounts.
fn file_system(mounts: &str, path: &Path) -> String {
    let mut best = ("", "?");
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(mount), Some(kind)) = (words.next(), words.next()) else { continue };
        if path.starts_with(mount) && mount.len() >= best.0.len() {
            best = (mount, kind);
        }
    }
    best.1.to_owned()
}

fn syncs(data: &Path) -> anyhow::Result<f64> {
    let mut file = tempfile::tempfile_in(data)?;
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(500) {
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// Ticks of `/proc/stat` in a second, as Linux shows them to every program.
const TICKS: f64 = 100.0;

/// What a measurement cost and what disturbed it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Use {
    /// The part of all cores' time that processes took which this program did not start, in percent.
    pub foreign_percent: f64,
    /// Processor time of the server and of the processes below it, in seconds.
    pub server_seconds: f64,
}

/// Looks at the machine from `start` to `stop`.
pub struct Watch {
    server: u32,
    before: Ticks,
}

/// Ticks since the machine, or the process, was started.
#[derive(Clone, Copy, Default)]
struct Ticks {
    all: u64,
    busy: u64,
    ours: u64,
    server: u64,
}

impl Watch {
    /// Begins. `server` is the process whose time is counted.
    pub fn start(server: u32) -> Watch {
        Watch { server, before: Ticks::now(server) }
    }

    /// What happened since then.
    pub fn stop(&self) -> Use {
        let (now, before) = (Ticks::now(self.server), self.before);
        let (busy, ours) = (now.busy - before.busy, now.ours.saturating_sub(before.ours));
        let all = (now.all - before.all).max(1);
        Use {
            foreign_percent: busy.saturating_sub(ours) as f64 / all as f64 * 100.0,
            server_seconds: now.server.saturating_sub(before.server) as f64 / TICKS,
        }
    }
}

impl Ticks {
    fn now(server: u32) -> Ticks {
        let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let numbers: Vec<u64> = text.lines().next().map_or_else(Vec::new, |line| {
            line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect()
        });
        // The first eight are user, nice, system, idle, iowait, irq, softirq and steal.
        let all: u64 = numbers.iter().take(8).sum();
        let idle: u64 = numbers.iter().skip(3).take(2).sum();
        let processes = processes();
        Ticks {
            all,
            busy: all - idle,
            ours: below(&processes, std::process::id()),
            server: below(&processes, server),
        }
    }
}

/// Every process by its number: its parent, and its ticks with those of the children it has reaped.
fn processes() -> HashMap<u32, (u32, u64)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// Parent and ticks of a process, from `/proc/PID/stat`.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may contain anything.
    let words: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = words.get(11..15)?.iter().filter_map(|word| word.parse::<u64>().ok()).sum();
    Some((words.get(1)?.parse().ok()?, ticks))
}

/// The process that started another, or took it over.
pub fn parent(pid: u32) -> Option<u32> {
    stat(pid).map(|(parent, _)| parent)
}

/// Whether a process is `root` or was started by it, directly or not.
fn is_below(processes: &HashMap<u32, (u32, u64)>, mut pid: u32, root: u32) -> bool {
    // No chain of parents is longer than there are processes.
    for _ in 0..=processes.len() {
        match processes.get(&pid) {
            _ if pid == root => return true,
            Some((parent, _)) => pid = *parent,
            None => return false,
        }
    }
    false
}

fn below(processes: &HashMap<u32, (u32, u64)>, root: u32) -> u64 {
    let found = processes.iter().filter(|(pid, _)| is_below(processes, **pid, root));
    found.map(|(_, (_, ticks))| ticks).sum()
}

/// A process and all below it; it comes first.
pub fn tree(root: u32) -> Vec<u32> {
    let processes = processes();
    let others = processes.keys().copied().filter(|pid| *pid != root);
    let mut found: Vec<u32> = others.filter(|pid| is_below(&processes, *pid, root)).collect();
    found.sort_unstable();
    found.insert(0, root);
    found
}

/// Resident and proportional set of a process, in bytes.
///
/// # Errors
/// It has ended, or belongs to somebody else.
pub fn memory(pid: u32) -> anyhow::Result<(u64, u64)> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let find = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib << 10).with_context(|| format!("{path} has no {name}"))
    };
    Ok((find("Rss")?, find("Pss")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_holds_a_path() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\nx /tmporary xfs rw 0 0\n";
        for (path, kind) in [("/tmp/x", "tmpfs"), ("/var", "ext4"), ("/tmporary", "xfs")] {
            assert_eq!(file_system(mounts, Path::new(path)), kind, "{path}");
        }
        assert_eq!(file_system("", Path::new("/")), "?");
    }

    #[test]
    fn time_of_a_tree_is_that_of_all_below_it() {
        let processes = HashMap::from([(1, (0, 1)), (2, (1, 10)), (3, (2, 100)), (4, (1, 1000))]);
        for (root, ticks) in [(1, 1111), (2, 110), (3, 100), (4, 1000), (5, 0)] {
            assert_eq!(below(&processes, root), ticks, "{root}");
        }
    }

    #[test]
    fn a_watch_tells_our_time_from_that_of_others() {
        let watch = Watch::start(std::process::id());
        // Looking takes time too, all of it ours: this ends with the first tick.
        let seen = loop {
            let seen = watch.stop();
            if seen.server_seconds > 0.0 {
                break seen;
            }
        };
        assert!((0.0..=100.0).contains(&seen.foreign_percent), "{seen:?}");
        assert_eq!(tree(std::process::id()).first(), Some(&std::process::id()));
        let (resident, proportional) = memory(std::process::id()).unwrap();
        assert!(resident >= proportional && proportional > 0, "{resident} {proportional}");
    }
}
