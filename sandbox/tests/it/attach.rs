//! Sandboxes that wait, and get what they are for later.

use std::os::fd::AsFd as _;
use std::path::Path;

use dispatch_sandbox::{Attachment, Child, Error, Exit, Launcher, Limits, Spec};

use crate::support::{bind, finish, python, shell};

/// A spec whose script waits for a byte before it goes on.
fn waiting(script: &str) -> Spec {
    let mut spec = shell(&format!("head -c 1 <&3 >/dev/null; {script}"));
    spec.mount_points = vec!["/code".into(), "/more/deep".into()];
    spec
}

fn attachment(source: &Path, target: &str) -> Attachment {
    let binds = vec![bind(source, target, false)];
    Attachment { binds, limits: Limits::default(), tmp_bytes: 8 << 20 }
}

fn go(child: &Child) {
    nix::unistd::write(child.channel.as_fd(), b"!").unwrap();
}

fn source() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    std::fs::write(dir.path().join("file"), "text\n").unwrap();
    dir
}

#[tokio::test]
async fn what_is_attached_is_seen_at_once_and_cannot_be_changed() {
    let (launcher, dir) = (Launcher::start().unwrap(), source());
    let script = "cat /code/file /more/deep/file; for i in /code/file /code/new /more/new; do \
                  (echo no > $i) 2>/dev/null || echo refused; done; umount /code 2>/dev/null || echo held";
    let child = launcher.spawn(&waiting(script)).await.unwrap();
    let mut both = attachment(dir.path(), "/code");
    both.binds.push(bind(dir.path(), "/more/deep", false));
    child.attach(&both).await.unwrap();
    go(&child);
    let said = finish(child).await;
    assert_eq!(said.out, "text\ntext\nrefused\nrefused\nrefused\nheld\n", "{}", said.err);
    assert_eq!(std::fs::read_to_string(dir.path().join("file")).unwrap(), "text\n");
}

#[tokio::test]
async fn it_is_seen_in_that_sandbox_only_and_nothing_is_left_behind() {
    let (launcher, dir) = (Launcher::start().unwrap(), source());
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let script = "ls /code; ls -d /tmp/* 2>/dev/null; true";
    let one = launcher.spawn(&waiting(script)).await.unwrap();
    let other = launcher.spawn(&waiting(script)).await.unwrap();
    one.attach(&attachment(dir.path(), "/code")).await.unwrap();
    let after = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(before, after, "the machine's own mounts are as they were");
    for (child, seen) in [(one, "file\n"), (other, "")] {
        go(&child);
        assert_eq!(finish(child).await.out, seen);
    }
    // The launcher is back where the host is in sight.
    let mut next = shell("cat /code/file");
    next.binds = attachment(dir.path(), "/code").binds;
    assert_eq!(finish(launcher.spawn(&next).await.unwrap()).await.out, "text\n");
}

#[tokio::test]
async fn limits_come_with_it() {
    let launcher = Launcher::start().unwrap();
    let script = "import os\nos.read(3, 1)\n\
                  try:\n  open('/tmp/big', 'wb', 0).write(b'x' * (4 << 20))\n  print(os.stat('/tmp/big').st_size)\n\
                  except OSError as error: print(error.errno)\n\
                  x = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))";
    let mut spec = python(script);
    spec.mount_points = vec!["/code".into()];
    let child = launcher.spawn(&spec).await.unwrap();
    let limits = Limits { memory_bytes: 48 << 20, ..Limits::default() };
    let attachment = Attachment { binds: Vec::new(), limits, tmp_bytes: 1 << 20 };
    child.attach(&attachment).await.unwrap();
    go(&child);
    let said = finish(child).await;
    assert_eq!(said.exit, Exit::OutOfMemory { limit_bytes: 48 << 20 }, "{}", said.err);
}

#[tokio::test]
async fn a_bad_attachment_is_refused_by_name_and_the_launcher_goes_on() {
    let (launcher, dir) = (Launcher::start().unwrap(), source());
    for (source, target, step) in [
        (dir.path().join("missing"), "/code", "bind /"),
        (dir.path().to_owned(), "/nowhere", "bind at /nowhere"),
        (dir.path().to_owned(), "/code/../..", "bind at /code/../.."),
        (dir.path().to_owned(), "code", "bind at code"),
        (dir.path().to_owned(), "/", "bind at /"),
    ] {
        let child = launcher.spawn(&waiting("true")).await.unwrap();
        let error = child.attach(&attachment(&source, target)).await.unwrap_err().to_string();
        assert!(error.contains(step), "{step}: {error}");
    }
    let child = launcher.spawn(&waiting("cat /code/file")).await.unwrap();
    child.attach(&attachment(dir.path(), "/code")).await.unwrap();
    go(&child);
    assert_eq!(finish(child).await.out, "text\n");
}

#[tokio::test]
async fn a_link_in_the_sandbox_leads_an_attachment_nowhere_else() {
    let (launcher, dir) = (Launcher::start().unwrap(), source());
    let mut spec = waiting("ls /tmp/link");
    spec.argv[2] = "ln -s / /tmp/link; echo made >&3; head -c 1 <&3; ls /tmp/link/usr".to_owned();
    let child = launcher.spawn(&spec).await.unwrap();
    let mut byte = [0; 8];
    crate::support::until("the link", || nix::unistd::read(&child.channel, &mut byte).is_ok())
        .await;
    // Whatever the link's target is, it is resolved inside.
    let _ = child.attach(&attachment(dir.path(), "/tmp/link/usr")).await;
    assert!(!Path::new("/usr/file").exists());
    let fresh = launcher.spawn(&shell("ls /usr/bin/env")).await.unwrap();
    assert_eq!(finish(fresh).await.out, "/usr/bin/env\n");
}

#[tokio::test]
async fn what_has_ended_gets_nothing() {
    let (launcher, dir) = (Launcher::start().unwrap(), source());
    let mut child = launcher.spawn(&shell("true")).await.unwrap();
    child.wait().await;
    assert!(child.has_ended());
    let refused = child.attach(&attachment(dir.path(), "/code")).await;
    assert!(matches!(refused, Err(Error::Ended)), "{refused:?}");
}
