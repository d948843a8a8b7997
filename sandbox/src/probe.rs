//! What this machine allows, found out by trying.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Exit;
use crate::launcher::Ground;
use crate::owner::Launcher;
use crate::spec::{Network, Spec};
use crate::{landlock, memory, seccomp};

/// How well sandboxes are separated; `docs/reference/isolation.md` says what each promises. The best
/// is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tier {
    /// All namespaces, and a user of its own for every function.
    A,
    /// All namespaces, one user.
    B,
    /// No namespaces: access rules and a filter of system calls.
    C,
    /// Nothing to rely on.
    D,
}

impl Tier {
    /// Whether functions of different organizations are kept from each other.
    pub fn separates_tenants(self) -> bool {
        self <= Tier::B
    }

    /// What it means, in a line.
    pub fn meaning(self) -> &'static str {
        match self {
            Tier::A => "namespaces, and a user of its own for every function",
            Tier::B => "namespaces, and one user for all functions",
            Tier::C => {
                "no namespaces: access rules and a filter of system calls, for functions of one \
                 organization only"
            }
            Tier::D => "nothing that keeps functions from the machine",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl FromStr for Tier {
    type Err = String;

    fn from_str(text: &str) -> Result<Tier, String> {
        match text {
            "A" => Ok(Tier::A),
            "B" => Ok(Tier::B),
            "C" => Ok(Tier::C),
            "D" => Ok(Tier::D),
            other => Err(format!("{other:?} is not a tier: A, B, C or D")),
        }
    }
}

/// What separates sandboxes here.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The sum of it.
    pub tier: Tier,
    /// One part each.
    pub layers: Vec<Layer>,
    /// What would make it better.
    pub advice: Vec<String>,
    /// Whether processes run although nothing keeps them in.
    pub insecure: bool,
}

impl Report {
    /// What whoever runs this machine must know.
    pub fn warning(&self) -> Option<&'static str> {
        match self.tier {
            Tier::A | Tier::B => None,
            Tier::C => Some(
                "tier C: functions are kept from the machine by rules only, and not from each \
                 other; they are of one organization, and only code you trust belongs here",
            ),
            Tier::D if self.insecure => Some(
                "tier D, and --insecure-no-isolation: functions may do all that the server's user \
                 may do, such as reading the server's keys; only for trying out",
            ),
            Tier::D => Some("tier D: functions cannot run here"),
        }
    }
}

/// One part of the isolation.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Its name.
    pub name: &'static str,
    /// Whether it works here.
    pub active: bool,
    /// What it does, or why it does not work.
    pub detail: String,
}

impl Layer {
    fn of(name: &'static str, active: bool, yes: &str, no: &str) -> Layer {
        Layer { name, active, detail: if active { yes } else { no }.to_owned() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tier {:?}: {}", self.tier, self.tier.meaning())?;
        for layer in &self.layers {
            let mark = if layer.active { "yes" } else { "no" };
            writeln!(f, "{:<18} {mark:<4} {}", layer.name, layer.detail)?;
        }
        for advice in &self.advice {
            writeln!(f, "advice: {advice}")?;
        }
        Ok(())
    }
}

pub(crate) async fn probe(launcher: &Launcher, ground: &Ground, insecure: bool) -> Report {
    let root = nix::unistd::geteuid().is_root();
    let named = ground.base.is_none();
    let refused = ground.refused.join("; ");
    let mut layers = Vec::new();
    if named {
        let proc = match launcher.spawn(&trial()).await {
            Ok(mut child) => child.wait().await == Exit::Code(0),
            Err(_) => false,
        };
        layers.extend(namespaces(ground.user_namespaces, proc));
    } else {
        let why = if refused.is_empty() { "not tried" } else { &refused };
        layers.push(Layer::of("namespaces", false, "", why));
        let closed = seccomp::available();
        layers.push(Layer::of(
            "network",
            closed,
            "no sockets at all, unless egress is full",
            "that of the machine: there is no filter to close it",
        ));
    }
    layers.extend(always(root, named, ground.groups));
    Report { tier: ground.tier, layers, advice: advice(ground, root), insecure }
}

fn namespaces(userns: bool, proc: bool) -> [Layer; 5] {
    [
        Layer::of(
            "user namespace",
            userns,
            "even root inside would be nobody outside",
            "refused by this machine; sandboxes are made by root without one",
        ),
        Layer::of("mount namespace", true, "a root of its own, read-only but for /tmp", ""),
        Layer::of("process namespace", true, "sees and signals its own processes only", ""),
        Layer::of(
            "private /proc",
            proc,
            "processes see only each other there",
            "none: this machine allows no new /proc; some programs miss it",
        ),
        Layer::of("network namespace", true, "loopback only, unless egress is full", ""),
    ]
}

/// What does not depend on namespaces.
fn always(root: bool, named: bool, groups: [bool; 3]) -> [Layer; 8] {
    let [counted, shared, numbered] = groups;
    let access = landlock::version();
    let rules = match access {
        Some(version) if landlock::has_scopes(version) => {
            "Landlock: files by place; signals and abstract sockets stay inside"
        }
        _ => "Landlock: files by place",
    };
    [
        Layer::of(
            "own users",
            root,
            "every function runs as a user of its own that owns nothing outside",
            "functions run as this user",
        ),
        Layer::of(
            "access rules",
            access.is_some(),
            rules,
            "this kernel has no Landlock, or one before Linux 5.19",
        ),
        Layer::of(
            "system calls",
            seccomp::available(),
            "only those on a list; hostile ones kill",
            "not filtered: this kernel has no seccomp filters",
        ),
        Layer::of("capabilities", true, "all dropped, and no new privileges by exec", ""),
        Layer::of(
            "memory limit",
            counted || memory::can_be_watched(),
            if counted {
                "a control group counts the memory of all processes of a sandbox, with its files"
            } else {
                "a watchdog over the memory of all processes of a sandbox"
            },
            "for each process only: this kernel does not list the children of a process",
        ),
        Layer::of(
            "cpu",
            shared,
            "a control group can limit processor time",
            "not divided: no control group for it could be made here",
        ),
        Layer::of(
            "processes",
            true,
            if numbered {
                "a control group for each sandbox, and a limit for its user"
            } else {
                "a limit for the user of each sandbox"
            },
            "",
        ),
        Layer::of(
            "limits",
            true,
            if named {
                "processes, open files, file sizes, size of /tmp"
            } else {
                "processes, open files, file sizes; /tmp is on the disk and has no limit"
            },
            "",
        ),
    ]
}

/// How to get to the next tier, and what else would help.
fn advice(ground: &Ground, root: bool) -> Vec<String> {
    let userns = "allow user namespaces: sysctl kernel.unprivileged_userns_clone=1, \
                  user.max_user_namespaces above 0; on Ubuntu an AppArmor profile with `userns,` or \
                  kernel.apparmor_restrict_unprivileged_userns=0; in a container, one that may make \
                  namespaces and mounts";
    let to_better = match ground.tier {
        Tier::A => (!ground.user_namespaces)
            .then(|| "user namespaces as well: sysctl user.max_user_namespaces".to_owned()),
        Tier::B => Some(
            "for tier A run the server as root: it gives every function a user of its own"
                .to_owned(),
        ),
        Tier::C => Some(format!("for tier {} {userns}", if root { "A" } else { "B" })),
        Tier::D => Some(format!(
            "for tier C use Linux 6.12 or later (as root 5.19), with Landlock and seccomp; for \
             tier {} {userns}",
            if root { "A" } else { "B" }
        )),
    };
    let filters = (!seccomp::available())
        .then(|| "use a kernel with CONFIG_SECCOMP_FILTER to limit system calls".to_owned());
    let memory = (!memory::can_be_watched())
        .then(|| "use a kernel with CONFIG_PROC_CHILDREN to limit memory as a whole".to_owned());
    let groups = (ground.groups == [false; 3]).then(|| {
        if root {
            "mount the control groups (/sys/fs/cgroup) so that they can be written to: without them \
             processor time has no limit, and memory is only looked at"
        } else {
            "for limits on processor time and exact ones on memory start the server in a control \
             group of its own: systemd-run --user --scope -p Delegate=yes dispatch server"
        }
        .to_owned()
    });
    to_better.into_iter().chain(filters).chain(memory).chain(groups).collect()
}

/// A sandbox made to see whether it can be; says by its end whether there is a `/proc` in it.
pub(crate) fn trial() -> Spec {
    Spec {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), "test -d /proc/self".to_owned()],
        env: Vec::new(),
        cwd: PathBuf::from("/"),
        root: None,
        scratch: Vec::new(),
        installs: false,
        binds: Vec::new(),
        mount_points: Vec::new(),
        network: Network::None,
        tmp_bytes: 1 << 20,
        tmp_inodes: 16,
        memory_bytes: 0,
        cpu_millis: 0,
        processes: 0,
        open_files: 0,
        file_bytes: 0,
        syscalls: Vec::new(),
        host_uid: 200_000,
    }
}
