//! The owner and its launcher: what is left when one of them goes.

use dispatch_sandbox::{Error, Exit, Launcher};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::again;
use crate::support::{alive, parent, run, shell, until};

/// The launcher's own process.
async fn process(launcher: &Launcher) -> u32 {
    let mut child = launcher.spawn(&shell("sleep 1000")).await.unwrap();
    let pid = parent(child.pid()).unwrap();
    child.kill();
    child.wait().await;
    pid
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
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
async fn when_the_launcher_is_killed_its_sandboxes_die_and_another_one_starts() {
    let launcher = Launcher::start().unwrap();
    let mut child = launcher.spawn(&shell("sleep 1000")).await.unwrap();
    let first = parent(child.pid()).unwrap();
    signal(first, Signal::SIGKILL);
    // Whether it is noticed already or not, one asks for the next and the others use it.
    let next = async || launcher.spawn(&shell("sleep 1000")).await.unwrap();
    let (one, two, three) = tokio::join!(next(), next(), next());
    assert_eq!(child.wait().await, Exit::Lost);
    let pid = child.pid();
    until("the sandbox is gone", || !alive(pid)).await;
    let second = parent(one.pid()).unwrap();
    assert_ne!(first, second);
    assert!([&two, &three].iter().all(|child| parent(child.pid()) == Some(second)));
    drop(child);
    assert!(alive(one.pid()), "numbers of the first one mean nothing to the second");
}

#[tokio::test]
async fn many_at_once_and_nothing_leaks() {
    let launcher = Launcher::start().unwrap();
    let pid = process(&launcher).await;
    let open = |who: &str| std::fs::read_dir(format!("/proc/{who}/fd")).unwrap().count();
    let fds = || (open("self"), open(&pid.to_string()));
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
    // What an earlier test left to be closed may have been counted.
    let no_more = || fds().0 <= before.0 && fds().1 <= before.1;
    until("no descriptor is left", no_more).await;
    assert_eq!(mounts(), mounted, "the host's mounts are as they were");
}

/// Not a test of its own: the owner that the next test kills.
#[tokio::test]
async fn an_owner_to_be_killed() {
    let Ok(file) = std::env::var("TEST_OWNER_WRITES_TO") else { return };
    let launcher = Launcher::start().unwrap();
    let stubborn = shell("trap '' TERM INT HUP; (setsid sleep 1000 &); sleep 1000; sleep 1000");
    let child = launcher.spawn(&stubborn).await.unwrap();
    let pids = format!("{} {}", parent(child.pid()).unwrap(), child.pid());
    std::fs::write(format!("{file}.new"), pids).unwrap();
    std::fs::rename(format!("{file}.new"), file).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn when_the_owner_is_killed_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let mut owner = again::this_program("owners::an_owner_to_be_killed");
    let mut owner = owner.env("TEST_OWNER_WRITES_TO", &file).spawn().unwrap();
    until("its sandbox runs", || file.exists()).await;
    let pids = std::fs::read_to_string(file).unwrap();
    let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| alive(*pid)));
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("launcher and sandbox are gone", || pids.iter().all(|pid| !alive(*pid))).await;
}

#[tokio::test]
async fn signals_to_the_whole_service_do_not_end_the_launcher() {
    let launcher = Launcher::start().unwrap();
    let mut child = launcher.spawn(&shell("sleep 1000")).await.unwrap();
    for one in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGPIPE] {
        signal(parent(child.pid()).unwrap(), one);
    }
    assert_eq!(run(&launcher, &shell("exit 4")).await.exit, Exit::Code(4));
    child.kill();
    assert_eq!(child.wait().await, Exit::Signal(9));
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_leaves_nothing() {
    let launcher = Launcher::start().unwrap();
    let pid = process(&launcher).await;
    for _ in 0..20 {
        let spec = shell("sleep 1000");
        let mut spawning = Box::pin(launcher.spawn(&spec));
        assert!(futures_poll_once(&mut spawning).await.is_none());
    }
    until("all are gone", || {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        children.unwrap().is_empty()
    })
    .await;
}

/// Polls a future once, so that it has begun.
async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        let polled = std::pin::Pin::new(&mut *future).poll(context);
        std::task::Poll::Ready(match polled {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_description_that_is_too_long_is_refused_and_the_launcher_lives() {
    let launcher = Launcher::start().unwrap();
    let mut long = shell("true");
    long.env = vec![("LONG".to_owned(), "x".repeat(2 << 20))];
    assert!(matches!(launcher.spawn(&long).await, Err(Error::TooLarge(bytes)) if bytes > 2 << 20));
    let mut long = shell("echo ${#A} ${#B} ${#C}");
    long.env = ["A", "B", "C"].map(|name| (name.to_owned(), "x".repeat(100_000))).to_vec();
    assert_eq!(run(&launcher, &long).await.out, "100000 100000 100000\n");
}

/// Not a test of its own: a program that does not serve as the launcher though it is told to.
#[tokio::test]
async fn a_launcher_that_does_not_serve() {
    if std::env::var_os("DISPATCH_LAUNCHER").is_some() {
        assert!(matches!(Launcher::start(), Err(Error::NoLauncher(_))));
    }
}

#[test]
fn a_program_that_does_not_serve_does_not_start_itself_without_end() {
    let mut program = again::this_program("owners::a_launcher_that_does_not_serve");
    // Without the launcher's socket it goes on as the program it is.
    let done = program.env("DISPATCH_LAUNCHER", "1").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
