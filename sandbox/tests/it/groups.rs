//! Control groups, as they are on this machine.

use std::fs;
use std::path::PathBuf;

use dispatch_sandbox::{Child, Exit, Launcher, Limits};

use crate::support::{PATIENCE, finish, parent, python, run, sh, shell, until};

/// The groups of a sandbox or its launcher whose hierarchies have this controller; none where they
/// cannot be made.
async fn groups(launcher: &Launcher, name: &str) -> bool {
    let report = launcher.probe().await;
    let layer = report.layers.iter().find(|layer| layer.name == name).unwrap();
    if !layer.detail.contains("control group ") || layer.detail.starts_with("not") {
        println!("skipped: no control group for {name} can be made here");
        return false;
    }
    true
}

/// Where a process is in the hierarchies of version 1 and 2 that are mounted as usual.
fn places(pid: u32) -> Vec<(String, PathBuf)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let place = |line: &str| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        let name = if names.is_empty() { "unified" } else { names };
        let place = PathBuf::from("/sys/fs/cgroup").join(name).join(path.trim_start_matches('/'));
        place.is_dir().then(|| (name.to_owned(), place))
    };
    text.lines()
        .filter_map(place)
        .filter(|(_, path)| path.to_string_lossy().contains("/dispatch-"))
        .collect()
}

fn read(child: &Child, controller: &str, file: &str) -> String {
    let places = places(child.pid());
    let place = &places.iter().find(|(name, _)| name == controller).unwrap().1;
    fs::read_to_string(place.join(file)).unwrap()
}

#[tokio::test]
async fn memory_in_files_counts_and_a_killed_child_ends_the_sandbox() {
    let launcher = Launcher::start().unwrap();
    if !groups(&launcher, "memory limit").await {
        return;
    }
    let eat = "x = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))";
    let scripts = [
        "f = open('/tmp/big', 'wb')\nwhile True: f.write(b'x' * (1 << 20))".to_owned(),
        "import os\nfd = os.memfd_create('big')\nwhile True: os.write(fd, b'x' * (1 << 20))"
            .to_owned(),
        // The main process goes on, or ends as if nothing had been.
        format!("import os\nif os.fork() == 0:\n exec({eat:?})\nos.wait()"),
        format!("import os, time\nif os.fork() == 0:\n exec({eat:?})\nos.wait(); time.sleep(100)"),
    ];
    for script in scripts {
        let mut spec = python(&script);
        (spec.memory_bytes, spec.tmp_bytes) = (48 << 20, 1 << 30);
        let said = run(&launcher, &spec).await;
        assert_eq!(said.exit, Exit::OutOfMemory { limit_bytes: 48 << 20 }, "{script} {}", said.err);
    }
}

#[tokio::test]
async fn limits_of_a_sandbox_that_runs_can_be_changed() {
    let launcher = Launcher::start().unwrap();
    if !groups(&launcher, "memory limit").await || !groups(&launcher, "cpu").await {
        return;
    }
    let eat =
        "import sys, os\nos.read(3, 1)\nx = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))";
    let child = launcher.spawn(&python(eat)).await.unwrap();
    child.limit(Limits { memory_bytes: 40 << 20, cpu_millis: 100, processes: 5 });
    until("the limit is there", || read(&child, "cpu", "cpu.cfs_quota_us").trim() == "10000").await;
    assert_eq!(read(&child, "memory", "memory.limit_in_bytes").trim(), (40 << 20).to_string());
    assert_eq!(read(&child, "pids", "pids.max").trim(), "6");
    until("the interpreter is there", || child.memory_bytes() > 1 << 20).await;
    nix::unistd::write(&child.channel, b".").unwrap();
    assert_eq!(finish(child).await.exit, Exit::OutOfMemory { limit_bytes: 40 << 20 });
}

#[tokio::test]
async fn who_uses_more_processor_time_than_it_may_is_throttled() {
    let launcher = Launcher::start().unwrap();
    if !groups(&launcher, "cpu").await {
        return;
    }
    let child = launcher.spawn(&shell("while :; do :; done")).await.unwrap();
    child.limit(Limits { cpu_millis: 50, processes: 64, ..Limits::default() });
    let throttled = || {
        let text = read(&child, "cpu", "cpu.stat");
        let count = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        count.is_some_and(|count| count.parse::<u64>().unwrap() > 2)
    };
    until("it is throttled", throttled).await;
}

#[tokio::test]
async fn what_is_frozen_stands_still_and_can_be_ended() {
    let launcher = Launcher::start().unwrap();
    if !groups(&launcher, "processes").await {
        return;
    }
    let mut child = launcher.spawn(&shell("while :; do :; done")).await.unwrap();
    child.freeze();
    until("it is frozen", || read(&child, "unified", "cgroup.events").contains("frozen 1")).await;
    child.thaw();
    until("it goes on", || read(&child, "unified", "cgroup.events").contains("frozen 0")).await;
    child.freeze();
    child.kill();
    let exit = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap();
    assert_eq!(exit, Exit::Signal(9));
}

#[tokio::test]
async fn a_fork_bomb_is_counted_by_its_group() {
    let launcher = Launcher::start().unwrap();
    if !groups(&launcher, "processes").await {
        return;
    }
    let script = "import os, time\ntry:\n while True:\n  if os.fork() == 0: time.sleep(100)\nexcept OSError: time.sleep(100)";
    let mut spec = python(script);
    spec.processes = 12;
    let child = launcher.spawn(&spec).await.unwrap();
    until("it is refused", || !read(&child, "pids", "pids.events").contains("max 0\n")).await;
}

#[tokio::test]
async fn nothing_is_left_also_of_a_launcher_that_was_killed() {
    let launcher = Launcher::start().unwrap();
    if !groups(&launcher, "processes").await {
        return;
    }
    let mut child = launcher.spawn(&shell("sleep 1000")).await.unwrap();
    let of_child = places(child.pid());
    assert!(!of_child.is_empty());
    child.kill();
    child.wait().await;
    until("its groups are gone", || of_child.iter().all(|(_, path)| !path.exists())).await;
    let other = launcher.spawn(&shell("sleep 1000")).await.unwrap();
    other.freeze();
    let left = places(other.pid());
    let pid = i32::try_from(parent(other.pid()).unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    until("it has ended", || other.has_ended()).await;
    // Its own launcher cannot have; another test's may.
    let next = Launcher::start().unwrap();
    until("they are swept", || left.iter().all(|(_, path)| !path.parent().unwrap().exists())).await;
    let last = next.spawn(&shell("sleep 1000")).await.unwrap();
    let ours: Vec<_> =
        places(last.pid()).into_iter().map(|(_, path)| path.parent().unwrap().to_owned()).collect();
    drop((last, next));
    until("the launcher's own are gone", || ours.iter().all(|path| !path.exists())).await;
}

#[tokio::test]
async fn a_sandbox_sees_nothing_of_where_its_groups_are() {
    let said = sh("if [ -e /proc/self/cgroup ]; then cat /proc/self/cgroup; fi").await;
    assert!(said.lines().all(|line| line.ends_with(":/")), "{said}");
}
