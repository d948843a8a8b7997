//! The group of one sandbox.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Kind, Place};
use crate::spec::Limits;
use crate::sys;

/// The time in which a group may use its share of processor time, in microseconds.
const PERIOD: u64 = 100_000;
/// The least processor time in a period that the kernel accepts, in microseconds.
const LEAST: u64 = 1_000;

/// A sandbox's groups, one in each hierarchy. They stay until [`Group::remove`].
#[derive(Debug, Default)]
pub(crate) struct Group {
    places: Vec<Place>,
    /// As they were written last.
    limits: Limits,
    frozen: bool,
    /// Becomes readable when version 1 has run out of memory; version 2 kills all by itself.
    alarm: Option<OwnedFd>,
}

impl Group {
    pub(super) fn make(places: &[Place], name: &str) -> io::Result<Group> {
        let mut group = Group::default();
        for place in places {
            let place = Place { directory: place.directory.join(name), ..place.clone() };
            let made = fs::create_dir(&place.directory);
            group.places.push(place);
            // The sandboxes that we make to see whether we can all have the same number.
            if let Err(error) = made
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                group.remove();
                return Err(error);
            }
        }
        // Without one it is only later that we hear of a killed process: when the sandbox ends.
        if let Some((directory, false)) = group.of(Kind::Memory) {
            // A limit on memory and swap together could say this as well, but then the kernel does not
            // count how often it was reached.
            let _ = if_there(directory, "memory.swappiness", "0");
            group.alarm = alarm(directory).ok();
        }
        Ok(group)
    }

    /// Where it can do this, and whether it speaks the language of version 2.
    fn of(&self, kind: Kind) -> Option<(&Path, bool)> {
        let place = self.places.iter().find(|place| place.kinds.contains(&kind))?;
        Some((&place.directory, place.unified))
    }

    /// Forks into new namespaces, and into the group of version 2 if it can. Returns 0 in the child,
    /// and whether it could.
    pub(crate) fn fork(&self, namespaces: libc::c_int) -> io::Result<(i32, bool)> {
        let place = self.places.iter().find(|place| place.unified);
        let directory = place.and_then(|place| File::open(&place.directory).ok());
        let forked = directory.map(|directory| sys::fork_into_group(namespaces, directory.as_fd()));
        match forked {
            Some(Ok(pid)) => Ok((pid, true)),
            // It may be refused where the older way is not, as in many containers.
            _ => sys::fork_into(namespaces).map(|pid| (pid, false)),
        }
    }

    /// Moves us in. Only a thread that moves itself, and that in version 1, does it at once; all else
    /// has to wait until no thread of the whole machine is about to be forked, some milliseconds.
    pub(crate) fn enter(&self, is_in_unified: bool) -> io::Result<()> {
        self.places.iter().try_for_each(|place| match place.unified {
            true if is_in_unified => Ok(()),
            true => write(&place.directory, "cgroup.procs", "0"),
            false => write(&place.directory, "tasks", "0"),
        })
    }

    /// Sets what all its processes may use together. Returns whether the memory is limited by that;
    /// fails with `EBUSY` when they hold more of it already.
    pub(crate) fn limit(&mut self, limits: Limits) -> io::Result<bool> {
        let old = std::mem::replace(&mut self.limits, limits);
        if let Some((directory, _)) = self.of(Kind::Processes)
            && limits.processes != old.processes
        {
            // The sandbox's first process counts as well.
            let limit = match limits.processes {
                0 => "max".to_owned(),
                most => most.saturating_add(1).min(1 << 22).to_string(),
            };
            // A limit on its user holds besides.
            let _ = write(directory, "pids.max", &limit);
        }
        if let Some((directory, unified)) = self.of(Kind::Cpu)
            && limits.cpu_millis != old.cpu_millis
        {
            // A group above that allows less counts anyhow.
            let _ = limit_cpu(directory, unified, limits.cpu_millis);
        }
        let Some((directory, unified)) = self.of(Kind::Memory) else { return Ok(false) };
        if limits.memory_bytes != old.memory_bytes {
            limit_memory(directory, unified, limits.memory_bytes)?;
        }
        Ok(true)
    }

    /// Becomes readable when one of its processes may have been killed for want of memory.
    pub(crate) fn alarm(&self) -> Option<BorrowedFd<'_>> {
        self.alarm.as_ref().map(AsFd::as_fd)
    }

    /// Takes note of the alarm.
    pub(crate) fn heard(&self) {
        if let Some(alarm) = &self.alarm {
            let _ = nix::unistd::read(alarm, &mut [0; 8]);
        }
    }

    /// Whether a process of it was killed because its own limit, and not that of the machine or of a
    /// group above, was reached.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        let Some((directory, unified)) = self.of(Kind::Memory) else { return false };
        let events = read(directory, if unified { "memory.events" } else { "memory.oom_control" });
        let reached: u64 = match unified {
            true => count(&events, "oom"),
            false => read(directory, "memory.failcnt").trim().parse().unwrap_or(0),
        };
        reached > 0 && count(&events, "oom_kill") > 0
    }

    /// How often it was refused a process.
    pub(crate) fn refused(&self) -> u64 {
        self.of(Kind::Processes).map_or(0, |(directory, _)| refusals(directory))
    }

    /// Stops or continues all its processes, where that is possible.
    pub(crate) fn freeze(&mut self, frozen: bool) -> io::Result<()> {
        if self.frozen == frozen {
            return Ok(());
        }
        let Some((directory, unified)) = self.of(Kind::Freezer) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        match (unified, frozen) {
            (true, true) => write(directory, "cgroup.freeze", "1"),
            (true, false) => write(directory, "cgroup.freeze", "0"),
            (false, true) => write(directory, "freezer.state", "FROZEN"),
            (false, false) => write(directory, "freezer.state", "THAWED"),
        }?;
        self.frozen = frozen;
        Ok(())
    }

    /// Kills whatever is in it, where the kernel can do that in one step.
    pub(crate) fn kill(&self) {
        if let Some((directory, true)) = self.of(Kind::Freezer) {
            let _ = if_there(directory, "cgroup.kill", "1");
        }
    }

    /// Removes it; false when something is in it still.
    pub(crate) fn remove(&mut self) -> bool {
        self.alarm = None;
        self.places.retain(|place| {
            let gone = fs::remove_dir(&place.directory);
            gone.is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
        self.places.is_empty()
    }
}

/// How often the sandbox `id`, whose group is in this directory, was refused a process.
pub(crate) fn refused(all: &Path, id: u64) -> u64 {
    refusals(&all.join(id.to_string()))
}

fn refusals(directory: &Path) -> u64 {
    count(&read(directory, "pids.events"), "max")
}

/// Ends and removes a group that nobody looks after any more.
pub(super) fn end(directory: &Path) {
    let _ = if_there(directory, "freezer.state", "THAWED");
    let _ = if_there(directory, "cgroup.kill", "1");
    for pid in read(directory, "cgroup.procs").lines().filter_map(|pid| pid.parse::<i32>().ok()) {
        // 0 stands for one of another process namespace.
        if pid > 0 {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    for _ in 0..50 {
        if fs::remove_dir(directory).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn limit_memory(directory: &Path, unified: bool, bytes: u64) -> io::Result<()> {
    let limit = match bytes {
        0 => if unified { "max" } else { "-1" }.to_owned(),
        bytes => bytes.min(i64::MAX as u64).to_string(),
    };
    if unified {
        if_there(directory, "memory.swap.max", "0")?;
        if_there(directory, "memory.oom.group", "1")?;
        return write(directory, "memory.max", &limit);
    }
    write(directory, "memory.limit_in_bytes", &limit)
}

fn limit_cpu(directory: &Path, unified: bool, millis: u64) -> io::Result<()> {
    let quota = millis.saturating_mul(PERIOD / 1000).clamp(LEAST, 1 << 32);
    match (unified, millis) {
        (true, 0) => write(directory, "cpu.max", &format!("max {PERIOD}")),
        (true, _) => write(directory, "cpu.max", &format!("{quota} {PERIOD}")),
        (false, 0) => write(directory, "cpu.cfs_quota_us", "-1"),
        (false, _) => {
            write(directory, "cpu.cfs_period_us", &PERIOD.to_string())?;
            write(directory, "cpu.cfs_quota_us", &quota.to_string())
        }
    }
}

/// Asks version 1 to tell when the memory is used up.
fn alarm(directory: &Path) -> io::Result<OwnedFd> {
    let alarm = sys::eventfd()?;
    let control = File::open(directory.join("memory.oom_control"))?;
    let text = format!("{} {}", alarm.as_raw_fd(), control.as_raw_fd());
    write(directory, "cgroup.event_control", &text)?;
    Ok(alarm)
}

fn count(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name).and_then(|(_, n)| n.trim().parse().ok()).unwrap_or(0)
}

fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap_or_default()
}

fn write(directory: &Path, file: &str, text: &str) -> io::Result<()> {
    fs::write(directory.join(file), text)
}

fn if_there(directory: &Path, file: &str, text: &str) -> io::Result<()> {
    let path: PathBuf = directory.join(file);
    if path.exists() { fs::write(path, text) } else { Ok(()) }
}
