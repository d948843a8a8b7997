//! What this machine allows, found out by trying.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::error::Error;
use crate::owner::Launcher;
use crate::spec::{Network, Spec};

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

/// Whether sandboxes get user namespaces: always, unless they are switched off and we are root and
/// can do without.
pub(crate) fn user_namespaces() -> bool {
    let allowed =
        |path: &str| std::fs::read_to_string(path).map_or(true, |text| text.trim() != "0");
    let on = allowed("/proc/sys/user/max_user_namespaces");
    on || !nix::unistd::geteuid().is_root()
}

pub(crate) async fn probe(launcher: &Launcher, userns: bool) -> Report {
    let root = nix::unistd::geteuid().is_root();
    let spec = |network| Spec {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), "test -d /proc/self".to_owned()],
        env: Vec::new(),
        cwd: PathBuf::from("/"),
        binds: Vec::new(),
        network,
        tmp_bytes: 1 << 20,
        tmp_inodes: 16,
        memory_bytes: 0,
        processes: 0,
        open_files: 0,
        file_bytes: 0,
        host_uid: 200_000,
    };
    let layer = |name, active, detail: &str| Layer { name, active, detail: detail.to_owned() };
    let mut child = match launcher.spawn(&spec(Network::None)).await {
        Ok(child) => child,
        Err(error) => return nothing(&error),
    };
    let proc = child.wait().await == crate::Exit::Code(0);
    let tier = if root { Tier::A } else { Tier::B };
    let users = if root {
        "every function runs as a user of its own that owns nothing outside"
    } else {
        "functions run as this user; namespaces keep them apart"
    };
    let layers = vec![
        layer("user namespace", userns, "root inside is nobody outside"),
        layer("own users", root, users),
        layer("mount namespace", true, "a root of its own, read-only but for /tmp"),
        layer("process namespace", true, "sees and signals its own processes only"),
        layer("private /proc", proc, "processes see only each other there"),
        layer("network namespace", true, "loopback only, unless egress is full"),
        layer("capabilities", true, "all dropped, and no new privileges by exec"),
        layer("memory limit", true, "a watchdog over the memory of all processes of a sandbox"),
        layer("limits", true, "processes, open files, file sizes, size of /tmp"),
        layer("system calls", false, "not filtered"),
    ];
    let advice = if root {
        Vec::new()
    } else {
        vec!["run the server as root to give every function a user of its own".to_owned()]
    };
    Report { tier, layers, advice }
}

fn nothing(error: &Error) -> Report {
    let detail = error.to_string();
    Report {
        tier: Tier::D,
        layers: vec![Layer { name: "sandbox", active: false, detail: detail.clone() }],
        advice: vec![format!("functions cannot run here: {detail}")],
    }
}
