//! How processes end, and that nothing is left.

use std::path::Path;

use dispatch_sandbox::{Exit, Launcher, Tier};

use crate::support::{PATIENCE, finish, python, run, shell};

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// All processes whose parent chain reaches `pid`.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut queue = vec![pid];
    while let Some(parent) = queue.pop() {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let rest = stat.rsplit(')').next().unwrap().to_owned();
            if rest.split_whitespace().nth(1) == Some(&parent.to_string()) {
                found.push(child);
                queue.push(child);
            }
        }
    }
    found
}

#[tokio::test]
async fn each_end_is_named() {
    let launcher = Launcher::start().unwrap();
    assert_eq!(run(&launcher, &shell("exit 3")).await.exit, Exit::Code(3));
    assert_eq!(run(&launcher, &shell("kill -SEGV $$")).await.exit, Exit::Signal(11));
    let child = launcher.spawn(&shell("sleep 100")).await.unwrap();
    child.terminate();
    assert_eq!(finish(child).await.exit, Exit::Signal(15));
    let child = launcher.spawn(&shell("trap '' TERM; sleep 100 & wait; sleep 100")).await.unwrap();
    child.terminate();
    child.kill();
    assert_eq!(finish(child).await.exit, Exit::Signal(9));
}

#[tokio::test]
async fn who_eats_too_much_memory_is_killed_also_in_a_child() {
    let launcher = Launcher::start().unwrap();
    let eat = "x = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))";
    for script in [
        eat.to_owned(),
        format!("import os, time\nif os.fork() == 0:\n exec({eat:?})\ntime.sleep(100)"),
    ] {
        let mut spec = python(&script);
        spec.memory_bytes = 64 << 20;
        let said = run(&launcher, &spec).await;
        assert_eq!(said.exit, Exit::OutOfMemory { limit_bytes: 64 << 20 }, "{}", said.err);
    }
    let mut modest = python("x = bytearray(b'x' * (16 << 20)); print(len(x))");
    modest.memory_bytes = 64 << 20;
    assert_eq!(run(&launcher, &modest).await.exit, Exit::Code(0));
}

#[tokio::test]
async fn a_fork_bomb_meets_its_limit() {
    let launcher = Launcher::start().unwrap();
    let script = "import os, time\nn = 0\ntry:\n while True:\n  if os.fork() == 0: time.sleep(100)\n  n += 1\nexcept OSError as e: print(n, type(e).__name__)";
    let mut spec = python(script);
    spec.processes = 20;
    let said = run(&launcher, &spec).await;
    let (count, error) = said.out.trim().split_once(' ').unwrap();
    assert_eq!(error, "BlockingIOError");
    assert!((10..=20).contains(&count.parse::<i32>().unwrap()), "{count}");
}

#[tokio::test]
async fn a_daemon_dies_with_its_worker() {
    let launcher = Launcher::start().unwrap();
    let mut child =
        launcher.spawn(&shell("(setsid sleep 1000 &) ; sleep 0.2; exit 0")).await.unwrap();
    let pid = child.pid();
    until("the daemon runs", || descendants(pid).len() >= 2).await;
    let all = descendants(pid);
    assert_eq!(child.wait().await, Exit::Code(0));
    assert!(all.iter().all(|pid| !alive(*pid)), "told of the end only when all are gone");
}

#[tokio::test]
async fn dropping_a_child_or_the_launcher_leaves_nothing() {
    let launcher = Launcher::start().unwrap();
    let child = launcher.spawn(&shell("sleep 1000")).await.unwrap();
    let other = launcher.spawn(&shell("sleep 1000")).await.unwrap();
    let (first, second) = (child.pid(), other.pid());
    drop(child);
    until("the first is gone", || !alive(first)).await;
    assert!(alive(second));
    let mut kept = other;
    drop(launcher);
    kept.kill();
    assert_eq!(kept.wait().await, Exit::Signal(9));
}

#[tokio::test]
async fn when_the_launcher_is_killed_its_sandboxes_die_and_the_owner_is_told() {
    let launcher = Launcher::start().unwrap();
    let mut child = launcher.spawn(&shell("sleep 1000")).await.unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
    let parent =
        stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(parent), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    assert_eq!(child.wait().await, Exit::LauncherLost);
    let pid = child.pid();
    until("the sandbox is gone", || !alive(pid)).await;
    assert!(launcher.spawn(&shell("true")).await.is_err());
}

#[tokio::test]
async fn many_at_once_and_nothing_leaks() {
    let launcher = Launcher::start().unwrap();
    run(&launcher, &shell("true")).await;
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let (before, mounted) = (fds(), mounts());
    for _ in 0..4 {
        let mut all = tokio::task::JoinSet::new();
        for n in 0..50 {
            let launcher = launcher.clone();
            all.spawn(async move {
                (n, run(&launcher, &shell(&format!("echo {n}; exit {}", n % 7))).await)
            });
        }
        while let Some(done) = all.join_next().await {
            let (n, said) = done.unwrap();
            assert_eq!((said.out.trim(), said.exit), (n.to_string().as_str(), Exit::Code(n % 7)));
        }
    }
    assert_eq!(fds(), before);
    assert_eq!(mounts(), mounted, "the host's mounts are as they were");
}

#[tokio::test]
async fn the_probe_says_what_is_there() {
    let report = Launcher::start().unwrap().probe().await;
    let wanted = if nix::unistd::geteuid().is_root() { Tier::A } else { Tier::B };
    assert_eq!(report.tier, wanted, "{report}");
    assert!(report.layers.iter().any(|layer| layer.name == "mount namespace" && layer.active));
}
