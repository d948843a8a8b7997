//! Commands in sandboxes and what they said.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use dispatch_sandbox::{Bind, Child, Error, Exit, Launcher, Network, Spec};
use tokio::io::AsyncReadExt as _;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn spec(argv: &[&str]) -> Spec {
    Spec {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        cwd: PathBuf::from("/tmp"),
        root: None,
        scratch: Vec::new(),
        installs: false,
        binds: Vec::new(),
        mount_points: Vec::new(),
        network: Network::None,
        tmp_bytes: 8 << 20,
        tmp_inodes: 64,
        memory_bytes: 0,
        cpu_millis: 0,
        processes: 64,
        open_files: 256,
        file_bytes: 0,
        syscalls: Vec::new(),
        host_uid: 200_017,
    }
}

pub fn shell(script: &str) -> Spec {
    spec(&["/bin/sh", "-c", script])
}

pub fn python(script: &str) -> Spec {
    spec(&["/usr/bin/python3", "-I", "-S", "-c", script])
}

pub fn bind(source: &std::path::Path, target: &str, writable: bool) -> Bind {
    Bind { source: source.to_owned(), target: target.into(), writable }
}

/// What a command wrote, and how it ended.
pub struct Said {
    pub out: String,
    pub err: String,
    pub exit: Exit,
}

pub async fn run(launcher: &Launcher, spec: &Spec) -> Said {
    finish(launcher.spawn(spec).await.unwrap()).await
}

/// Waits for the end of a command and reads what it wrote. Little enough must be written to fit into
/// the pipes.
pub async fn finish(mut child: Child) -> Said {
    let exit = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends");
    let out = read(child.stdout.try_clone().unwrap()).await;
    let err = read(child.stderr.try_clone().unwrap()).await;
    Said { out, err, exit }
}

async fn read(fd: OwnedFd) -> String {
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(fd).unwrap();
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, pipe.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

/// What a script of the shell prints.
pub async fn sh(script: &str) -> String {
    let launcher = Launcher::start().unwrap();
    let said = run(&launcher, &shell(script)).await;
    assert_eq!(said.exit, Exit::Code(0), "{} {}", said.out, said.err);
    said.out
}

pub async fn refused(launcher: &Launcher, spec: &Spec) -> String {
    match launcher.spawn(spec).await {
        Err(error @ Error::Setup { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was started"),
    }
}

/// Whether a process runs. One that is dead but not yet reaped does not.
pub fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| !fields.starts_with(['Z', 'X']))
}

pub fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.split(' ').nth(1)?.parse().ok()
}

/// What the kernel says of a process, from its state on.
fn stat(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ").map(|(_, fields)| fields.to_owned())
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
