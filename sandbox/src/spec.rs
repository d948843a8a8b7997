//! What the owner asks for.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::rootfs;

/// One confined process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The command; the first word is an absolute path inside the sandbox.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: Vec<(String, String)>,
    /// The working directory, inside.
    pub cwd: PathBuf,
    /// The root of a container image in the place of the machine's directories. Only for sandboxes
    /// with a view of their own.
    pub root: Option<PathBuf>,
    /// Directories of it that may be written to: empty at first, in memory, as far as they are there.
    /// The first sixteen count.
    pub scratch: Vec<PathBuf>,
    /// Whether it changes `root`, which is then a copy of its own: it may be written to, and the process
    /// is user 0 inside, without any right of root's. Calls that give files to others, or make it one
    /// of them, do nothing and say that they did. Takes user namespaces.
    pub installs: bool,
    /// What is visible beyond the base view.
    pub binds: Vec<Bind>,
    /// Empty directories, absolute paths inside, where more can be attached later: see
    /// [`Child::attach`](crate::Child::attach).
    pub mount_points: Vec<PathBuf>,
    /// What the process may reach.
    pub network: Network,
    /// Bytes of the private `/tmp`.
    pub tmp_bytes: u64,
    /// Files of the private `/tmp`.
    pub tmp_inodes: u64,
    /// Bytes of memory all processes of the sandbox may use together; 0 means no limit.
    pub memory_bytes: u64,
    /// Thousandths of a core that all processes of the sandbox may use together; 0 means no limit.
    /// Kept only where there are control groups.
    pub cpu_millis: u64,
    /// Processes and threads at a time; 0 means no limit.
    pub processes: u64,
    /// File descriptors of each process; 0 means the machine's limit.
    pub open_files: u64,
    /// Bytes of each file written; 0 means no limit.
    pub file_bytes: u64,
    /// Names of system calls allowed besides the base list; see [`crate::check_call`].
    pub syscalls: Vec<String>,
    /// The user and group id outside, where the owner is root; otherwise ignored.
    pub host_uid: u32,
}

/// What turns a waiting sandbox into that of one function.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Attachment {
    /// What becomes visible, at mount points the sandbox was made with.
    pub binds: Vec<Bind>,
    /// What it may use from now on.
    pub limits: Limits,
    /// As in [`Spec`], from now on.
    pub tmp_bytes: u64,
}

/// What all processes of a sandbox may use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// As in [`Spec`].
    pub memory_bytes: u64,
    /// As in [`Spec`].
    pub cpu_millis: u64,
    /// As in [`Spec`].
    pub processes: u64,
}

impl Spec {
    /// Directories of an image that may be written to.
    pub(crate) fn scratch(&self) -> impl Iterator<Item = &Path> {
        let all = self.scratch.iter().map(PathBuf::as_path).filter(|path| path.is_dir());
        all.filter(|_| self.root.is_some()).take(rootfs::MAX_SCRATCH)
    }

    /// What all its processes may use together.
    pub fn limits(&self) -> Limits {
        let Spec { memory_bytes, cpu_millis, processes, .. } = *self;
        Limits { memory_bytes, cpu_millis, processes }
    }
}

/// A part of the host's file tree made visible inside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bind {
    /// The path on the host.
    pub source: PathBuf,
    /// The absolute path inside.
    pub target: PathBuf,
    /// Whether the sandbox may write there.
    pub writable: bool,
}

/// What a sandbox reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// A network of its own with nothing but loopback.
    None,
    /// The same, prepared for [`Child::uplink`](crate::Child::uplink) to lead out of it.
    Full,
    /// The host's network.
    Host,
}

/// What becomes of packets to some ranges of IPv4 addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Whether they may leave.
    pub accept: bool,
    /// Addresses, and how many bits of each count.
    pub nets: Vec<(std::net::Ipv4Addr, u8)>,
}
