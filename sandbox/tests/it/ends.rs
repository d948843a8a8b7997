//! How processes end, and that nothing is left.

use dispatch_sandbox::{Exit, Launcher, Tier};

use crate::support::{alive, finish, parent, run, shell, until};

/// All processes whose parent chain reaches `pid`.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut queue = vec![pid];
    while let Some(parent) = queue.pop() {
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            if self::parent(child) == Some(parent) {
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
async fn the_probe_says_what_is_there() {
    let report = Launcher::start().unwrap().probe().await;
    let wanted = if nix::unistd::geteuid().is_root() { Tier::A } else { Tier::B };
    assert_eq!(report.tier, wanted, "{report}");
    assert!(report.layers.iter().any(|layer| layer.name == "mount namespace" && layer.active));
}

#[tokio::test]
async fn who_ignores_being_asked_is_killed_with_all_its_children() {
    let launcher = Launcher::start().unwrap();
    let stubborn = "trap '' TERM; (trap '' TERM; sleep 1000; sleep 1000) & sleep 1000; sleep 1000";
    let mut child = launcher.spawn(&shell(stubborn)).await.unwrap();
    let pid = child.pid();
    until("both run", || descendants(pid).len() >= 4).await;
    let all = descendants(pid);
    child.terminate();
    child.kill();
    child.kill();
    assert_eq!(child.wait().await, Exit::Signal(9));
    assert_eq!(child.wait().await, Exit::Signal(9), "it can be asked again");
    child.kill();
    assert!(all.iter().all(|pid| !alive(*pid)));
}
