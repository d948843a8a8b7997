//! Sandboxes without namespaces, as where a machine allows none.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use dispatch_sandbox::{Error, Exit, Launcher, Network, Tier, Wish};

use crate::support::{alive, bind, finish, python, run, shell, until};

/// Nothing, where this machine cannot do without namespaces.
async fn launcher() -> Option<Launcher> {
    let launcher =
        Launcher::start_with(Wish { at_most: Tier::C, without_isolation: false }).unwrap();
    if launcher.tier() != Tier::C {
        println!("skipped: {}", launcher.probe().await);
        return None;
    }
    Some(launcher)
}

/// A directory that others may look into.
fn open_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

#[tokio::test]
async fn what_would_be_bound_is_found_where_the_words_say() {
    let Some(launcher) = launcher().await else { return };
    let dir = open_dir();
    std::fs::write(dir.path().join("file"), "text").unwrap();
    // It waits until its place was looked at, which goes with it.
    let mut spec = shell(
        "read go <&3; cat file $PLACE/file \"$0\"; echo new > $HOME/x && cat $TMPDIR/x; pwd -P",
    );
    spec.argv.push("/function/file".to_owned());
    spec.cwd = "/function".into();
    spec.binds = vec![bind(dir.path(), "/function", false)];
    spec.env.push(("PLACE".to_owned(), "/function".to_owned()));
    spec.env.push(("HOME".to_owned(), "/tmp".to_owned()));
    let child = launcher.spawn(&spec).await.unwrap();
    let place = child.inside(Path::new("/function"));
    assert_eq!(std::fs::read_link(&place).unwrap(), dir.path());
    nix::unistd::write(&child.channel, b"go\n").unwrap();
    let said = finish(child).await;
    let real = dir.path().canonicalize().unwrap();
    assert_eq!(said.out, format!("texttexttextnew\n{}\n", real.display()), "{}", said.err);
    // Nothing is left of its own directory.
    assert!(!place.parent().unwrap().exists());
}

#[tokio::test]
async fn a_writable_bind_is_written_and_another_is_not() {
    let Some(launcher) = launcher().await else { return };
    let (build, source) = (open_dir(), open_dir());
    let root = nix::unistd::geteuid().is_root();
    let owner = if root { 200_017 } else { nix::unistd::geteuid().as_raw() };
    for dir in [&build, &source] {
        std::os::unix::fs::chown(dir.path(), Some(owner), Some(owner)).unwrap();
    }
    let mut spec = shell("cd $BUILD; echo made > file; mv file moved; cd $SOURCE; echo x > file");
    spec.env
        .extend([("BUILD", "/build"), ("SOURCE", "/source")].map(|(n, v)| (n.into(), v.into())));
    spec.binds = vec![bind(build.path(), "/build", true), bind(source.path(), "/source", false)];
    run(&launcher, &spec).await;
    assert_eq!(std::fs::read_to_string(build.path().join("moved")).unwrap(), "made\n");
    assert!(!source.path().join("file").exists());
    // A place below another would be made in somebody's directory.
    spec.binds = vec![bind(build.path(), "/build", true), bind(source.path(), "/build/x", false)];
    assert!(launcher.spawn(&spec).await.is_err());
    assert!(!build.path().join("x").exists());
}

#[tokio::test]
async fn the_machine_is_out_of_reach() {
    let Some(launcher) = launcher().await else { return };
    let outside = open_dir();
    let file = outside.path().join("file");
    std::fs::write(&file, "text").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
    let script = format!(
        "import os, signal\n\
         def denied(what, *arguments):\n\
         \x20   try: what(*arguments); print('allowed', what, arguments)\n\
         \x20   except OSError as error: assert error.errno in (1, 2, 13, 18), error\n\
         for path in '{file}', '/etc/fstab', '/etc/shadow', '/proc/{pid}/environ', '/proc/1/status', '/proc/version':\n\
         \x20   denied(open, path)\n\
         for path in '/', '/tmp', '/home', '/etc', '/proc', '/sys', '/dev/shm', '/var':\n\
         \x20   denied(os.listdir, path)\n\
         \x20   if path not in ('/proc', '/sys'): denied(open, path + '/dispatch-test', 'w')\n\
         denied(open, '{file}', 'a')\n\
         denied(os.remove, '{file}')\n\
         denied(os.link, '{file}', os.environ['TMPDIR'] + '/link')\n\
         print(open('/proc/self/status').read().count('Seccomp:\\t2'), os.getpid() != 1)\n",
        file = file.display(),
        pid = std::process::id(),
    );
    let said = run(&launcher, &python(&script)).await;
    assert_eq!(said.out, "1 True\n", "{}", said.err);
}

#[tokio::test]
async fn nobody_else_is_signalled() {
    let Some(launcher) = launcher().await else { return };
    let child = launcher.spawn(&shell("sleep 60")).await.unwrap();
    let script = format!(
        "import os\n\
         for pid in {}, {}, {}, os.getppid(), 1:\n\
         \x20   try: os.kill(pid, 9); print('killed', pid)\n\
         \x20   except PermissionError: pass\n\
         print(os.kill(os.getpid(), 0))\n",
        std::process::id(),
        child.pid(),
        crate::support::parent(child.pid()).unwrap(),
    );
    // Another function of the same user where the owner is not root.
    let said = run(&launcher, &python(&script)).await;
    if launcher.probe().await.layers.iter().any(|layer| layer.detail.contains("signals")) {
        assert_eq!(said.out, "None\n", "{}", said.err);
        assert!(alive(child.pid()));
    } else {
        println!("skipped: this kernel's Landlock knows no scopes");
    }
}

#[tokio::test]
async fn there_is_no_network_unless_it_is_the_machines() {
    let Some(launcher) = launcher().await else { return };
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let name = format!("dispatch-plain-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let script = format!(
        "import socket\n\
         def ask(family, kind, address):\n\
         \x20   try: socket.socket(family, kind).connect(address); return 'yes'\n\
         \x20   except OSError as error: return error.errno\n\
         print(ask(2, 1, ('127.0.0.1', {port})), ask(2, 2, ('127.0.0.1', {port})), ask(1, 1, '/none'),\n\
         \x20   ask(1, 1, '\\0{name}'), socket.socketpair() is not None)\n"
    );
    let mut spec = python(&script);
    let refused = libc::EAFNOSUPPORT;
    let said = run(&launcher, &spec).await;
    let none = format!("{refused} {refused} {refused} {refused} True\n");
    assert_eq!(said.out, none, "{}", said.err);
    spec.network = Network::Host;
    let said = run(&launcher, &spec).await;
    assert!(said.out.starts_with("yes yes 2 "), "{} {}", said.out, said.err);
    assert!(said.out.ends_with(" True\n") && !said.out.contains("2 yes"), "{}", said.out);
}

#[tokio::test]
async fn daemons_end_with_the_sandbox_they_came_from() {
    let Some(launcher) = launcher().await else { return };
    let daemon = "(setsid sh -c 'echo $$ > $TMPDIR/pid; trap \"\" TERM; sleep 1000; sleep 1000' &)";
    let wait = "while ! test -s $TMPDIR/pid; do sleep 0.01; done; cat $TMPDIR/pid";
    let said = run(&launcher, &shell(&format!("{daemon}; {wait}"))).await;
    assert_eq!(said.exit, Exit::Code(0), "{}", said.err);
    let pid = said.out.trim().parse().unwrap();
    assert!(!alive(pid), "told of the end only when all are gone");
    // Other sandboxes keep theirs, and one that is killed does not.
    let child = launcher.spawn(&shell(&format!("{daemon}; {wait}; sleep 1000"))).await.unwrap();
    let file = child.inside(Path::new("/tmp/pid"));
    until("it has a daemon", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    assert_eq!(run(&launcher, &shell("exit 3")).await.exit, Exit::Code(3));
    assert!(alive(pid));
    child.kill();
    assert_eq!(finish(child).await.exit, Exit::Signal(9));
    assert!(!alive(pid));
}

#[tokio::test]
async fn when_the_launcher_ends_nothing_is_left() {
    let Some(launcher) = launcher().await else { return };
    let mut child = launcher.spawn(&shell("setsid sleep 1000 & sleep 1000")).await.unwrap();
    let base = child.inside(Path::new("/"));
    let base = base.parent().unwrap().to_owned();
    assert!(base.is_dir());
    let pid = crate::support::parent(child.pid()).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.pid().cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert_eq!(child.wait().await, Exit::Signal(9));
    drop((child, launcher));
    until("the launcher has ended", || !alive(pid)).await;
    assert!(!base.exists());
}

#[tokio::test]
async fn limits_hold_and_ends_are_named() {
    let Some(launcher) = launcher().await else { return };
    let mut bomb = python(
        "import os, time\n\
         made = 0\n\
         try:\n\
         \x20   while made < 1000:\n\
         \x20       if os.fork() == 0: time.sleep(60); os._exit(0)\n\
         \x20       made += 1\n\
         except BlockingIOError: pass\n\
         print(made)\n",
    );
    bomb.processes = 20;
    let said = run(&launcher, &bomb).await;
    // Other processes of this user come and go meanwhile.
    assert!(said.out.trim().parse::<u32>().unwrap() < 200, "{} {}", said.out, said.err);
    let mut hog = python("x = bytearray(300 << 20); import time; time.sleep(60)");
    hog.memory_bytes = 64 << 20;
    let said = run(&launcher, &hog).await;
    assert_eq!(said.exit, Exit::OutOfMemory { limit_bytes: 64 << 20 }, "{}", said.err);
    let said = run(&launcher, &python("import ctypes; ctypes.CDLL(None).chroot(b'/')")).await;
    assert_eq!(said.exit, Exit::ForbiddenCall);
    let script =
        "import os; print([fd for fd in range(200) if os.path.exists(f'/proc/self/fd/{fd}')])";
    assert_eq!(run(&launcher, &python(script)).await.out, "[0, 1, 2, 3]\n");
}

#[tokio::test]
async fn without_any_isolation_nothing_runs_unless_that_is_wanted() {
    let wish = Wish { at_most: Tier::D, without_isolation: false };
    let launcher = Launcher::start_with(wish).unwrap();
    assert_eq!(launcher.tier(), Tier::D);
    let Err(Error::NoIsolation(why)) = launcher.spawn(&shell("true")).await else {
        panic!("it was started")
    };
    assert!(why.contains("nothing better"), "{why}");
    let report = launcher.probe().await;
    assert!(!report.tier.separates_tenants() && report.advice[0].contains("tier C"), "{report}");
    let launcher = Launcher::start_with(Wish { without_isolation: true, ..wish }).unwrap();
    let said = run(&launcher, &shell("echo runs; echo $HOME$TMPDIR | grep -c dispatch")).await;
    assert_eq!(said.out, "runs\n1\n", "{}", said.err);
}
