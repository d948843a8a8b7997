//! Where our groups can be made: below the group we are in, in each hierarchy that helps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Kind, Place};

/// Where we move to in version 2, whose groups have either processes or groups with limits.
const LEAF: &str = "supervisor";

/// What the kernel calls them.
const NAMES: [(&str, Kind); 3] =
    [("memory", Kind::Memory), ("cpu", Kind::Cpu), ("pids", Kind::Processes)];

/// The groups we are in, with what groups below them could do.
pub(super) fn places(root: &Path, mounts: &str, own: &str) -> Vec<Place> {
    let mut places: Vec<Place> = mounts.lines().filter_map(|line| place(root, line, own)).collect();
    places.retain(|place| place.directory.is_dir());
    places.dedup_by(|a, b| a.directory == b.directory);
    places
}

fn place(root: &Path, mount: &str, own: &str) -> Option<Place> {
    let (fields, rest) = mount.split_once(" - ")?;
    let mut rest = rest.split(' ');
    let unified = match rest.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let options: Vec<&str> = rest.nth(1)?.split(',').collect();
    let mut fields = fields.split(' ').skip(3);
    let (shown, point) = (fields.next()?, fields.next()?);
    let path = own.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        let same = match unified {
            true => names.is_empty(),
            false => !names.is_empty() && names.split(',').all(|name| options.contains(&name)),
        };
        same.then_some(path)
    })?;
    // A container may show only a part of the hierarchy.
    let below = Path::new(path).strip_prefix(shown).ok()?;
    if below.components().any(|part| part == std::path::Component::ParentDir) {
        return None;
    }
    let directory = root.join(point.trim_start_matches('/')).join(below);
    let named = |given: &[&str]| -> Vec<Kind> {
        NAMES.iter().filter(|(name, _)| given.contains(name)).map(|(_, kind)| *kind).collect()
    };
    if !unified {
        let mut kinds = named(&options);
        kinds.extend(options.contains(&"freezer").then_some(Kind::Freezer));
        return (!kinds.is_empty()).then_some(Place { unified, kinds, directory });
    }
    let directory = inner(directory);
    let there = fs::read_to_string(directory.join("cgroup.controllers")).ok()?;
    let mut kinds = named(&there.split_whitespace().collect::<Vec<_>>());
    if !kinds.is_empty() && make_room(&directory, &kinds).is_err() {
        kinds.clear();
    }
    kinds.push(Kind::Freezer);
    Some(Place { unified, kinds, directory })
}

/// The group that was given to us, if it is its leaf that we are in.
fn inner(directory: PathBuf) -> PathBuf {
    match directory.parent() {
        Some(parent) if directory.ends_with(LEAF) => parent.to_owned(),
        _ => directory,
    }
}

/// Lets groups below have limits. Processes of ours go to a leaf; where there are others, it is not
/// our group to change.
fn make_room(directory: &Path, kinds: &[Kind]) -> io::Result<()> {
    if enable(directory, kinds).is_ok() {
        return Ok(());
    }
    let here = fs::read_to_string(directory.join("cgroup.procs"))?;
    let ours = [nix::unistd::getpid(), nix::unistd::getppid()].map(|pid| pid.to_string());
    if here.lines().any(|pid| !ours.iter().any(|ours| ours == pid)) {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let leaf = directory.join(LEAF);
    fs::create_dir_all(&leaf)?;
    for pid in here.lines() {
        fs::write(leaf.join("cgroup.procs"), pid)?;
    }
    enable(directory, kinds)
}

/// Lets the groups in a directory have limits.
pub(super) fn enable(directory: &Path, kinds: &[Kind]) -> io::Result<()> {
    let names = NAMES.iter().filter(|(_, kind)| kinds.contains(kind));
    let wanted = names.map(|(name, _)| format!("+{name}")).collect::<Vec<_>>().join(" ");
    match wanted.is_empty() {
        true => Ok(()),
        false => fs::write(directory.join("cgroup.subtree_control"), wanted),
    }
}
