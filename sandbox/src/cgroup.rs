//! Control groups: what a sandbox may use of the machine, counted by the kernel.
//!
//! All groups are made below the one we are in ourselves: `dispatch-<pid>/<sandbox>`, with the
//! process id of the launcher. Each hierarchy that helps is used: those of version 1, that of
//! version 2, or both side by side.

mod find;
mod group;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

pub(crate) use self::group::{Group, refused};

/// What the groups of one launcher are in: this and its process id.
const PREFIX: &str = "dispatch-";
/// How often, and with which pauses, we try to take hold of it.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// What a group can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Cpu,
    Processes,
    Freezer,
}

/// A directory with groups.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// Whether it speaks the language of version 2.
    unified: bool,
    kinds: Vec<Kind>,
    directory: PathBuf,
}

/// Where this launcher makes its groups.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    places: Vec<Place>,
    /// Held for as long as we live: who gets one of them knows that the groups are nobody's.
    _held: Vec<Flock<File>>,
}

impl Cgroups {
    /// Finds what can be used here, as the process `pid`, and removes what earlier launchers left.
    pub(crate) fn here(pid: u32) -> Cgroups {
        let read = |name: &str| fs::read_to_string(name).unwrap_or_default();
        let (mounts, own) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
        Cgroups::at(Path::new("/"), &mounts, &own, pid)
    }

    /// As [`Cgroups::here`], with all mount points below `root`.
    fn at(root: &Path, mounts: &str, own: &str, pid: u32) -> Cgroups {
        let mut places = find::places(root, mounts, own);
        for place in &places {
            sweep(place);
        }
        let mut held = Vec::new();
        places.retain_mut(|place| {
            place.directory.push(format!("{PREFIX}{pid}"));
            let ours = make(place);
            let usable = ours.is_ok();
            held.extend(ours);
            usable
        });
        // Version 2 kills what is frozen; version 1 first has to thaw it.
        if places.iter().any(|place| place.unified) {
            for place in places.iter_mut().filter(|place| !place.unified) {
                place.kinds.retain(|kind| *kind != Kind::Freezer);
            }
        }
        let (used, unused) = places.into_iter().partition(|place| !place.kinds.is_empty());
        for place in unused as Vec<Place> {
            let _ = fs::remove_dir(place.directory);
        }
        Cgroups { places: used, _held: held }
    }

    /// Whether groups can do this here.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.places.iter().any(|place| place.kinds.contains(&kind))
    }

    /// Where the groups are that count processes.
    pub(crate) fn counters(&self) -> Option<PathBuf> {
        let counts = |place: &&Place| place.kinds.contains(&Kind::Processes);
        self.places.iter().find(counts).map(|place| place.directory.clone())
    }

    /// Makes the group of one sandbox, without limits.
    pub(crate) fn make(&self, id: u64) -> io::Result<Group> {
        Group::make(&self.places, &id.to_string())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for place in &self.places {
            let _ = fs::remove_dir(&place.directory);
        }
    }
}

/// Makes the directory for our groups, and tries it out.
fn make(place: &Place) -> io::Result<Flock<File>> {
    let ours = hold(&place.directory).and_then(|held| {
        if place.unified {
            find::enable(&place.directory, &place.kinds)?;
        }
        Ok(held)
    });
    ours.inspect_err(|_| {
        let _ = fs::remove_dir(&place.directory);
    })
}

/// Makes a directory and takes hold of it. Until we have, another launcher may take it for one that
/// was left behind.
fn hold(directory: &Path) -> io::Result<Flock<File>> {
    let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
    for _ in 0..TRIES {
        fs::create_dir_all(directory)?;
        let held = File::open(directory).and_then(|file| {
            let same = file.metadata()?.ino();
            let held = Flock::lock(file, FlockArg::LockExclusiveNonblock)
                .map_err(|(_, error)| io::Error::from(error))?;
            Ok((held, fs::metadata(directory)?.ino() == same))
        });
        match held {
            Ok((held, true)) => return Ok(held),
            Ok((_, false)) => {}
            Err(error) => last = error,
        }
        std::thread::sleep(PAUSE);
    }
    Err(last)
}

/// Removes the groups of launchers that are gone, and ends what is still in them.
fn sweep(place: &Place) {
    for entry in fs::read_dir(&place.directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_none() {
            continue;
        }
        // The number says little: it may be in use again, or be one of another process namespace.
        let Ok(file) = File::open(entry.path()) else { continue };
        let Ok(_held) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
        for group in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
            if group.file_type().is_ok_and(|kind| kind.is_dir()) {
                group::end(&group.path());
            }
        }
        let _ = fs::remove_dir(entry.path());
    }
}
