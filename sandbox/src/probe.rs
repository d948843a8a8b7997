//! What this machine allows, found out by trying.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::{Error, Exit};
use crate::owner::Launcher;
use crate::spec::{Network, Spec};
use crate::{landlock, memory, seccomp};

/// How well sandboxes are separated; `docs/reference/isolation.md` says what each promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Tier {
    /// All namespaces, and a user of its own for every function.
    A,
    /// All namespaces, one user.
    B,
    /// No sandbox can be made.
    D,
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tier {:?}", self.tier)?;
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

pub(crate) async fn probe(launcher: &Launcher, userns: bool) -> Report {
    let proc = match try_one(launcher).await {
        Ok(proc) => proc,
        Err(error) => return nothing(&error),
    };
    let root = nix::unistd::geteuid().is_root();
    let access = landlock::version();
    let filtered = seccomp::available();
    let watched = memory::can_be_watched();
    let layer = |name, active, yes: &str, no: &str| {
        let detail = if active { yes } else { no }.to_owned();
        Layer { name, active, detail }
    };
    let layers = vec![
        layer(
            "user namespace",
            userns,
            "even root inside would be nobody outside",
            "refused by this machine; sandboxes are made by root without one",
        ),
        layer(
            "own users",
            root,
            "every function runs as a user of its own that owns nothing outside",
            "functions run as this user; namespaces keep them apart",
        ),
        layer("mount namespace", true, "a root of its own, read-only but for /tmp", ""),
        layer("process namespace", true, "sees and signals its own processes only", ""),
        layer(
            "private /proc",
            proc,
            "processes see only each other there",
            "none: this machine allows no new /proc; some programs miss it",
        ),
        layer("network namespace", true, "loopback only, unless egress is full", ""),
        layer("capabilities", true, "all dropped, and no new privileges by exec", ""),
        layer(
            "memory limit",
            watched,
            "a watchdog over the memory of all processes of a sandbox",
            "for each process only: this kernel does not list the children of a process",
        ),
        layer("limits", true, "processes, open files, file sizes, size of /tmp", ""),
        Layer {
            name: "access rules",
            active: access.is_some(),
            detail: match access {
                Some(version) if landlock::has_scopes(version) => {
                    "Landlock: files by place; signals and abstract sockets stay inside".to_owned()
                }
                Some(_) => "Landlock: files by place".to_owned(),
                None => "this kernel has no Landlock, or one before Linux 5.19".to_owned(),
            },
        },
        layer(
            "system calls",
            filtered,
            "only those on a list; hostile ones kill",
            "not filtered: this kernel has no seccomp filters",
        ),
    ];
    let advice = [
        (!root).then_some("run the server as root to give every function a user of its own"),
        (root && !userns).then_some("allow user namespaces: see sysctl user.max_user_namespaces"),
        (!filtered).then_some("use a kernel with CONFIG_SECCOMP_FILTER to limit system calls"),
        (!watched).then_some("use a kernel with CONFIG_PROC_CHILDREN to limit memory as a whole"),
    ];
    let advice = advice.into_iter().flatten().map(str::to_owned).collect();
    Report { tier: if root { Tier::A } else { Tier::B }, layers, advice }
}

/// Makes one sandbox; says whether there is a `/proc` in it.
async fn try_one(launcher: &Launcher) -> Result<bool, Error> {
    let spec = Spec {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), "test -d /proc/self".to_owned()],
        env: Vec::new(),
        cwd: PathBuf::from("/"),
        binds: Vec::new(),
        mount_points: Vec::new(),
        network: Network::None,
        tmp_bytes: 1 << 20,
        tmp_inodes: 16,
        memory_bytes: 0,
        processes: 0,
        open_files: 0,
        file_bytes: 0,
        syscalls: Vec::new(),
        host_uid: 200_000,
    };
    match launcher.spawn(&spec).await {
        Ok(mut child) => Ok(child.wait().await == Exit::Code(0)),
        // The sandbox was there; only the shell was not.
        Err(Error::Setup { step, .. }) if step == "exec" => Ok(false),
        Err(error) => Err(error),
    }
}

fn nothing(error: &Error) -> Report {
    let detail = error.to_string();
    Report {
        tier: Tier::D,
        layers: vec![Layer { name: "sandbox", active: false, detail: detail.clone() }],
        advice: vec![format!("functions cannot run here: {detail}")],
    }
}
