//! Version 2 on trees of plain files: the controllers of this project's machines are all in
//! version 1, which is tried for real in `tests/it/groups.rs`.

use std::fs;
use std::path::Path;

use super::{Cgroups, Kind};
use crate::spec::Limits;

const V2: &str = "30 1 0:20 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

/// A group that was given to an ordinary user, with these processes.
fn tree(root: &Path, group: &str, procs: &str) {
    let directory = root.join("sys/fs/cgroup").join(group);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("cgroup.controllers"), "cpuset cpu memory pids\n").unwrap();
    fs::write(directory.join("cgroup.procs"), procs).unwrap();
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn on_a_fake_tree_v2_limits_are_written_below_our_own_group() {
    let root = tempfile::tempdir().unwrap();
    tree(root.path(), "user.slice/dispatch.scope", "");
    let own = "0::/user.slice/dispatch.scope\n";
    let groups = Cgroups::at(root.path(), V2, own, 7);
    assert!([Kind::Memory, Kind::Cpu, Kind::Processes].iter().all(|kind| groups.has(*kind)));
    let base = root.path().join("sys/fs/cgroup/user.slice/dispatch.scope");
    for directory in [base.clone(), base.join("dispatch-7")] {
        assert_eq!(read(directory.join("cgroup.subtree_control")), "+memory +cpu +pids");
    }
    let mut group = groups.make(3).unwrap();
    let limits = Limits { memory_bytes: 64 << 20, cpu_millis: 250, processes: 20 };
    let at = base.join("dispatch-7/3");
    fs::write(at.join("memory.swap.max"), "max").unwrap();
    group.limit(limits).unwrap();
    group.enter(false).unwrap();
    for (file, text) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("cpu.max", "25000 100000"),
        ("pids.max", "21"),
        ("cgroup.procs", "0"),
    ] {
        assert_eq!(read(at.join(file)), text, "{file}");
    }
    group.limit(Limits::default()).unwrap();
    assert_eq!(read(at.join("memory.max")), "max");
    assert_eq!(read(at.join("cpu.max")), "max 100000");
    assert_eq!(read(at.join("pids.max")), "max");
}

#[test]
fn on_a_fake_tree_v2_tells_its_own_limit_from_one_above() {
    let root = tempfile::tempdir().unwrap();
    tree(root.path(), "us", "");
    let groups = Cgroups::at(root.path(), V2, "0::/us\n", 7);
    let group = groups.make(1).unwrap();
    let events = root.path().join("sys/fs/cgroup/us/dispatch-7/1/memory.events");
    for (text, expected) in [
        ("low 0\nmax 3\noom 0\noom_kill 0\n", false),
        ("low 0\nmax 0\noom 0\noom_kill 1\n", false),
        ("low 0\nmax 9\noom 1\noom_kill 1\n", true),
    ] {
        fs::write(&events, text).unwrap();
        assert_eq!(group.was_out_of_memory(), expected, "{text}");
    }
}

#[test]
fn on_a_fake_tree_v2_moves_only_ourselves_to_a_leaf() {
    let me = std::process::id();
    for (procs, moved) in [(format!("{me}\n"), true), (format!("{me}\n1\n"), false)] {
        let root = tempfile::tempdir().unwrap();
        tree(root.path(), "us", &procs);
        let base = root.path().join("sys/fs/cgroup/us");
        // As the kernel does while there are processes in it, this refuses.
        fs::create_dir(base.join("cgroup.subtree_control")).unwrap();
        let groups = Cgroups::at(root.path(), V2, "0::/us\n", 7);
        assert!(!groups.has(Kind::Memory));
        assert!(groups.has(Kind::Freezer), "which needs no controller");
        assert_eq!(base.join("supervisor/cgroup.procs").exists(), moved);
    }
}

#[test]
fn on_a_fake_tree_v2_a_launcher_in_the_leaf_uses_the_group_around_it() {
    let root = tempfile::tempdir().unwrap();
    tree(root.path(), "us", "");
    fs::create_dir(root.path().join("sys/fs/cgroup/us/supervisor")).unwrap();
    let groups = Cgroups::at(root.path(), V2, "0::/us/supervisor\n", 7);
    groups.make(1).unwrap();
    assert!(root.path().join("sys/fs/cgroup/us/dispatch-7/1").is_dir());
}

#[test]
fn odd_words_about_our_own_group_lead_nowhere() {
    let root = tempfile::tempdir().unwrap();
    tree(root.path(), "", "");
    let part = "30 1 0:20 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    for (mounts, own) in [
        ("", ""),
        (V2, ""),
        (V2, "0:\n:::\nx"),
        (V2, "0::/not/there\n"),
        (V2, "0::/../../etc\n"),
        (part, "0::/docker/other\n"),
        (V2, "4:memory:/\n"),
        ("30 1 0:20 /", "0::/\n"),
        ("30 1 0:20 / /sys/fs/cgroup rw - cgroup2", "0::/\n"),
    ] {
        let groups = Cgroups::at(root.path(), mounts, own, 7);
        assert!(groups.places.is_empty(), "{mounts:?} {own:?}");
    }
    let groups = Cgroups::at(root.path(), part, "0::/docker/abc\n", 7);
    assert!(groups.has(Kind::Memory));
}

#[test]
fn on_a_fake_tree_both_versions_share_the_work() {
    let root = tempfile::tempdir().unwrap();
    for group in ["memory/us", "pids", "freezer", "unified"] {
        fs::create_dir_all(root.path().join("sys/fs/cgroup").join(group)).unwrap();
    }
    fs::write(root.path().join("sys/fs/cgroup/unified/cgroup.controllers"), "\n").unwrap();
    let mount = |name: &str| {
        format!("3 1 0:2 / /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}\n")
    };
    let mounts = mount("memory")
        + &mount("pids")
        + &mount("freezer")
        + "4 1 0:3 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    let own = "4:memory:/us\n3:pids:/\n2:freezer:/\n1:name=systemd:/\n0::/\n";
    let groups = Cgroups::at(root.path(), &mounts, own, 7);
    assert!(groups.has(Kind::Memory) && groups.has(Kind::Processes) && !groups.has(Kind::Cpu));
    groups.make(1).unwrap().freeze(true).unwrap();
    let at = |path: &str| root.path().join("sys/fs/cgroup").join(path);
    assert_eq!(read(at("unified/dispatch-7/1/cgroup.freeze")), "1");
    assert!(at("memory/us/dispatch-7/1").is_dir());
    assert!(!at("freezer/dispatch-7").exists(), "version 2 does it");
}
