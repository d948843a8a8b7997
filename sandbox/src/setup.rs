//! What the first process of a sandbox does before anything of a tenant runs: one ordered list of
//! steps, each of which must succeed.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use crate::spec::{Bind, Network, Spec};
use crate::sys;

/// Where the new root is put together. It exists everywhere, and nothing below it is needed any
/// more: all sources are opened before.
const STAGE: &str = "/tmp";

/// Files and directories of `/etc` that programs need and that say nothing about the host's users.
const ETC: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "java-11-openjdk",
    "java-17-openjdk",
    "java-21-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "pki",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
];
/// What a sandbox with the host's network sees besides.
const ETC_NETWORK: &[&str] = &["resolv.conf", "hosts"];
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];

/// A step that failed.
pub(crate) struct Failure {
    pub step: String,
    pub error: io::Error,
}

trait Step<T> {
    fn step(self, name: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, name: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure { step: name.into(), error: error.into() })
    }
}

/// Builds the view of the machine that the sandbox has, and enters it.
pub(crate) fn enter(spec: &Spec) -> Result<(), Failure> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).step("private mounts")?;
    let trees = open(spec)?;
    tmpfs(STAGE, "size=1m,nr_inodes=4k,mode=755").step("root")?;
    std::env::set_current_dir(STAGE).step("root")?;
    links().step("root")?;
    etc(spec.network).step("etc")?;
    for dir in ["dev", "dev/shm", "proc", "tmp"] {
        fs::create_dir_all(dir).step("root")?;
    }
    tmpfs("dev/shm", "size=16m,nr_inodes=256,mode=1777").step("shared memory")?;
    let size = format!("size={},nr_inodes={},mode=1777", spec.tmp_bytes, spec.tmp_inodes.max(2));
    tmpfs("tmp", &size).step("tmp")?;
    for (target, tree) in trees {
        let name = format!("bind {}", target.display());
        attach(&target, &tree).step(name)?;
    }
    for (link, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        std::os::unix::fs::symlink(target, format!("dev/{link}")).step("devices")?;
    }
    proc();
    sys::pivot_here().step("root")?;
    sys::seal_root().step("root")?;
    nix::unistd::sethostname("function").step("host name")?;
    if spec.network == Network::None {
        sys::loopback_up().step("loopback")?;
    }
    Ok(())
}

struct Tree {
    fd: OwnedFd,
    directory: bool,
}

/// Opens everything that will be visible, while the host's tree is still there.
fn open(spec: &Spec) -> Result<Vec<(PathBuf, Tree)>, Failure> {
    let mut trees = Vec::new();
    let read_only = sys::RDONLY | sys::NOSUID | sys::NODEV;
    let mut add = |source: &Path, target: &Path, attributes| -> Result<(), Failure> {
        let name = format!("bind {}", source.display());
        let directory = fs::metadata(source).step(&*name)?.is_dir();
        let fd = sys::open_tree(source, attributes).step(name)?;
        trees.push((target.to_owned(), Tree { fd, directory }));
        Ok(())
    };
    for name in ["usr", "bin", "sbin", "lib", "lib32", "lib64"] {
        let path = Path::new("/").join(name);
        if fs::symlink_metadata(&path).is_ok_and(|data| data.is_dir()) {
            add(&path, Path::new(name), read_only)?;
        }
    }
    let network = if spec.network == Network::Host { ETC_NETWORK } else { &[] };
    for name in ETC.iter().chain(network) {
        // What is not there, or is a link to nowhere, is not needed.
        if let Ok(source) = fs::canonicalize(Path::new("/etc").join(name)) {
            add(&source, &Path::new("etc").join(name), read_only)?;
        }
    }
    for name in DEVICES {
        add(&Path::new("/dev").join(name), &Path::new("dev").join(name), sys::NOSUID)?;
    }
    for Bind { source, target, writable } in &spec.binds {
        let relative = target.strip_prefix("/").ok().filter(|target| {
            target.components().all(|part| matches!(part, std::path::Component::Normal(_)))
        });
        let Some(relative) = relative else {
            let error = io::Error::from_raw_os_error(libc::EINVAL);
            return Err(Failure { step: format!("bind at {}", target.display()), error });
        };
        let attributes = if *writable { sys::NOSUID | sys::NODEV } else { read_only };
        add(source, relative, attributes)?;
    }
    Ok(trees)
}

fn attach(target: &Path, tree: &Tree) -> io::Result<()> {
    if tree.directory {
        fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        if !target.exists() {
            fs::write(target, "")?;
        }
    }
    sys::move_mount(&tree.fd, target)
}

fn tmpfs(target: &str, options: &str) -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options))
}

/// `/bin` and its like are links into `/usr` on most machines.
fn links() -> io::Result<()> {
    for name in ["bin", "sbin", "lib", "lib32", "lib64"] {
        let path = Path::new("/").join(name);
        if let Ok(target) = fs::read_link(&path) {
            std::os::unix::fs::symlink(target, name)?;
        }
    }
    Ok(())
}

fn etc(network: Network) -> io::Result<()> {
    fs::create_dir_all("etc")?;
    fs::write("etc/passwd", "function:x:1000:1000::/tmp:/bin/false\n")?;
    fs::write("etc/group", "function:x:1000:\n")?;
    if network == Network::None {
        fs::write("etc/hosts", "127.0.0.1 localhost function\n::1 localhost\n")?;
    }
    Ok(())
}

/// Processes see themselves and each other, and nothing else. Where even that is refused (masked
/// `/proc` in containers) there is no `/proc`.
fn proc() {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for options in [Some("hidepid=invisible,subset=pid"), None] {
        if mount(Some("proc"), "proc", Some("proc"), flags, options).is_ok() {
            return;
        }
    }
}
