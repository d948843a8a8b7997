//! Which cores a server and its clients may use: the same for everyone that is compared.

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

/// A division of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cores {
    /// The server and all its processes on core 0, the clients on core 1.
    One,
    /// Server and clients share cores 0 and 1.
    Two,
}

impl Cores {
    /// Both.
    pub const ALL: [Cores; 2] = [Cores::One, Cores::Two];

    /// The cores of the server and its processes.
    pub fn server(self) -> &'static [usize] {
        match self {
            Cores::One => &[0],
            Cores::Two => &[0, 1],
        }
    }

    /// The cores of the clients.
    pub fn clients(self) -> &'static [usize] {
        match self {
            Cores::One => &[1],
            Cores::Two => &[0, 1],
        }
    }

    /// For people.
    pub fn label(self) -> &'static str {
        match self {
            Cores::One => "one core",
            Cores::Two => "two cores",
        }
    }

    /// How many the server has.
    pub fn count(self) -> usize {
        self.server().len()
    }
}

/// Does `work` on these cores. What it starts stays on them.
///
/// # Errors
/// This machine, or what we may use of it, lacks one of them.
pub fn on<T>(cores: &[usize], work: impl FnOnce() -> T) -> anyhow::Result<T> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).context("cannot read which cores may be used")?;
    let mut wanted = CpuSet::new();
    for core in cores {
        wanted.set(*core)?;
    }
    let lacking = || format!("cannot run on cores {cores:?}: the measurements need cores 0 and 1");
    sched_setaffinity(this, &wanted).with_context(lacking)?;
    let done = work();
    sched_setaffinity(this, &before).context("cannot use the other cores again")?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_keeps_the_cores_and_we_get_ours_back() {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this).unwrap();
        let text = on(&[0], || {
            let mut command = std::process::Command::new("cat");
            command.arg("/proc/self/status").output().unwrap().stdout
        });
        let text = String::from_utf8(text.unwrap()).unwrap();
        let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        assert_eq!(list.map(str::trim), Some("0"));
        assert_eq!(sched_getaffinity(this).unwrap(), before);
    }
}
