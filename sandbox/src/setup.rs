//! The view of the machine that a sandbox has: one ordered list of steps, done by its first process
//! before anything of a tenant runs.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::mounts::Tree;
use crate::rootfs::{self, Top};
use crate::spec::{Bind, Network, Spec};
use crate::{sys, uplink};

/// Where the new root is mounted before it becomes the root. It exists everywhere, and may hide what
/// is below it: all sources are opened before.
const STAGE: &str = "/tmp";

/// Directories of the base view. On most machines all but the first are links into it.
const SYSTEM: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64"];

/// Files and directories of `/etc` that programs need and that say nothing about the host's users.
const ETC: &[&str] = &[
    "alternatives",
    "ca-certificates",
    "crypto-policies",
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

pub(crate) trait Step<T> {
    /// Names what was tried.
    fn step(self, name: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, name: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure { step: name.into(), error: error.into() })
    }
}

/// Builds the view of the machine that the sandbox has, and enters it. `id` is who the function is,
/// inside.
pub(crate) fn enter(spec: &Spec, id: u32) -> Result<(), Failure> {
    // From here on it is its own control group that it sees as the topmost one.
    unshare(CloneFlags::CLONE_NEWCGROUP).step("namespaces")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).step("private mounts")?;
    if spec.network != Network::Host {
        // Its network is its own, and so are all ports of it. Where this is refused they stay as usual.
        let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    }
    let (trees, links) = open(spec)?;
    tmpfs(STAGE, "size=1m,nr_inodes=4k,mode=755").step("root")?;
    std::env::set_current_dir(STAGE).step("root")?;
    // From here on every path, and every link a bind brings along, stays inside the new root. The old
    // one is still attached: without a whole /proc in sight the kernel allows no new one.
    sys::pivot_here().step("root")?;
    skeleton(spec.network, id, &links).step("root")?;
    for place in &spec.mount_points {
        let named = || format!("mount point {}", place.display());
        inside(place).and_then(|()| fs::create_dir_all(place)).step(named())?;
    }
    tmpfs("/dev/shm", "size=16m,nr_inodes=256,mode=1777").step("shared memory")?;
    // Zero would mean no limit.
    let (bytes, files) = (spec.tmp_bytes.max(4096), spec.tmp_inodes.max(2));
    tmpfs("/tmp", &format!("size={bytes},nr_inodes={files},mode=1777")).step("tmp")?;
    proc();
    for (target, tree) in trees {
        tree.attach(&target).step(format!("bind at {}", target.display()))?;
    }
    sys::leave_old_root().step("root")?;
    // Only now: no link of an image leads to the host's files any more.
    for place in spec.scratch.iter().filter(|_| spec.root.is_some()).take(rootfs::MAX_SCRATCH) {
        let named = || format!("directory {}", place.display());
        inside(place).step(named())?;
        if rootfs::make_scratch(place).step(named())? {
            tmpfs(place, rootfs::SCRATCH).step(named())?;
        }
    }
    let sealed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
    mount(none, "/", none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | sealed, none).step("root")?;
    nix::unistd::sethostname("function").step("host name")?;
    if spec.network != Network::Host {
        sys::loopback_up().step("loopback")?;
    }
    Ok(())
}

/// Opens everything that will be visible, while the host's tree is still there. In the order in which
/// it is attached.
fn open(spec: &Spec) -> Result<(Vec<(PathBuf, Tree)>, Links), Failure> {
    let mut trees = Vec::new();
    let read_only = sys::RDONLY | sys::NOSUID | sys::NODEV;
    let mut add = |source: &Path, target: &Path, attributes| -> Result<(), Failure> {
        let tree = Tree::open(source, attributes).step(format!("bind {}", source.display()))?;
        trees.push((target.to_owned(), tree));
        Ok(())
    };
    let (base, links) = match &spec.root {
        None => (system().into_iter().chain(etc(spec.network)).collect(), links()),
        Some(root) => {
            let Top { mut trees, links } = rootfs::top(root)?;
            trees.extend(etc_network(spec.network));
            (trees, links)
        }
    };
    let of_base = if spec.installs { sys::NOSUID | sys::NODEV } else { read_only };
    for (path, source) in base {
        add(&source, &path, of_base)?;
    }
    for path in devices() {
        add(&path, &path, sys::NOSUID)?;
    }
    for Bind { source, target, writable } in &spec.binds {
        inside(target).step(format!("bind at {}", target.display()))?;
        let attributes = if *writable { sys::NOSUID | sys::NODEV } else { read_only };
        add(source, target, attributes)?;
    }
    Ok((trees, links))
}

/// The directories of the base view, with what is to be seen there.
pub(crate) fn system() -> Vec<(PathBuf, PathBuf)> {
    let paths = SYSTEM.iter().map(|name| Path::new("/").join(name));
    let whole = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
    paths.filter(whole).map(|path| (path.clone(), path)).collect()
}

/// The files of `/etc`, with what is to be seen there.
pub(crate) fn etc(network: Network) -> Vec<(PathBuf, PathBuf)> {
    let etc = Path::new("/etc");
    let paths = ETC.iter().map(|name| etc.join(name)).chain(java(etc));
    there(paths).chain(etc_network(network)).collect()
}

/// Those of them that say where the host's network leads.
fn etc_network(network: Network) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let names = if network == Network::Host { ETC_NETWORK } else { &[] };
    there(names.iter().map(|name| Path::new("/etc").join(name)))
}

/// What is not there, or is a link to nowhere, is not needed.
fn there(paths: impl Iterator<Item = PathBuf>) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    paths.filter_map(|path| fs::canonicalize(&path).ok().map(|source| (path, source)))
}

/// The devices.
pub(crate) fn devices() -> impl Iterator<Item = PathBuf> {
    DEVICES.iter().map(|name| Path::new("/dev").join(name))
}

/// Whether `target` names a place below the root without detours.
pub(crate) fn inside(target: &Path) -> io::Result<()> {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if target.is_absolute() && target != Path::new("/") && target.components().all(plain) {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

/// The configuration of every Java there is, such as `/etc/java-17-openjdk`.
fn java(etc: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(etc).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let java = names.filter(|name| {
        name.to_str().is_some_and(|name| name.starts_with("java-") && name.ends_with("-openjdk"))
    });
    java.map(|name| etc.join(name)).collect()
}

fn tmpfs(target: impl AsRef<Path>, options: &str) -> nix::Result<()> {
    let target = target.as_ref();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(options))
}

/// Links, and where they lead.
type Links = Vec<(PathBuf, PathBuf)>;

/// Which of the base view are links.
fn links() -> Links {
    let paths = SYSTEM.iter().map(|name| Path::new("/").join(name));
    paths.filter_map(|path| fs::read_link(&path).ok().map(|target| (path, target))).collect()
}

/// Directories, links and files that are there in every sandbox.
fn skeleton(network: Network, id: u32, links: &[(PathBuf, PathBuf)]) -> io::Result<()> {
    for (path, target) in links {
        symlink(target, path)?;
    }
    for dir in ["/dev/shm", "/etc", "/proc", "/tmp"] {
        fs::create_dir_all(dir)?;
    }
    for (link, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(target, Path::new("/dev").join(link))?;
    }
    fs::write("/etc/passwd", format!("function:x:{id}:{id}::/tmp:/bin/false\n"))?;
    fs::write("/etc/group", format!("function:x:{id}:\n"))?;
    if network == Network::Full {
        fs::write("/etc/resolv.conf", format!("nameserver {}\n", uplink::NAMESERVER))?;
    }
    if network != Network::Host {
        fs::write("/etc/hosts", "127.0.0.1 localhost function\n::1 localhost\n")?;
    }
    Ok(())
}

/// Processes see themselves and each other, and nothing else. Where even that is refused (masked
/// `/proc` in containers) there is no `/proc`.
fn proc() {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for options in [Some("hidepid=invisible,subset=pid"), None] {
        if mount(Some("proc"), "/proc", Some("proc"), flags, options).is_ok() {
            return;
        }
    }
}
