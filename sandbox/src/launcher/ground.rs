//! What sandboxes are made of on this machine: found by making one of each kind, the best first.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};

use super::{Launcher, STARTED};
use crate::cgroup::Cgroups;
use crate::error::Error;
use crate::init::{Ends, GROUP};
use crate::probe::{self, Tier};
use crate::{landlock, memory, plain, sys};

/// The kind of sandbox that works.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ground {
    pub tier: Tier,
    /// Whether sandboxes get user namespaces: root can do without where they are refused.
    pub user_namespaces: bool,
    /// Why it is no better, one sentence for each kind that failed.
    pub refused: Vec<String>,
    /// Where sandboxes without a view of their own have their directories.
    pub base: Option<PathBuf>,
    /// Whether control groups limit memory, processor time and processes.
    pub groups: [bool; 3],
    /// The directory of the groups that count processes.
    pub counters: Option<PathBuf>,
    /// Whether there are groups that can be frozen.
    pub freezes: bool,
}

impl Ground {
    pub(super) fn unknown() -> Ground {
        Ground {
            tier: Tier::D,
            user_namespaces: false,
            refused: Vec::new(),
            base: None,
            groups: [false; 3],
            counters: None,
            freezes: false,
        }
    }
}

impl Launcher {
    /// Tries all kinds, from the best that is wanted.
    pub(super) fn find_ground(&mut self, at_most: Tier) -> io::Result<()> {
        let root = nix::unistd::geteuid().is_root();
        let best = if root { Tier::A } else { Tier::B };
        for user_namespaces in [true, false] {
            if at_most > Tier::B || !(root || user_namespaces) {
                continue;
            }
            self.ground.tier = best;
            self.ground.user_namespaces = user_namespaces;
            match self.attempt() {
                Ok(()) => return Ok(()),
                Err(error) => self.ground.refused.push(error.to_string()),
            }
        }
        if at_most > Tier::B {
            self.ground.refused.push("nothing better than this tier was asked for".to_owned());
        }
        self.ground.user_namespaces = false;
        self.ground.base = Some(plain::base()?);
        sys::adopt_orphans()?;
        self.ground.tier = Tier::C;
        let failed = match self.without_namespaces(root) {
            Some(missing) => Some(missing.to_owned()),
            None if at_most > Tier::C => None,
            None => match self.attempt() {
                Ok(()) => return Ok(()),
                Err(error) => Some(error.to_string()),
            },
        };
        self.ground.refused.extend(failed);
        self.ground.tier = Tier::D;
        Ok(())
    }

    /// What the kernel does not have that tier C rests on.
    fn without_namespaces(&self, root: bool) -> Option<&'static str> {
        match landlock::version() {
            _ if self.filters.is_none() => Some("this kernel has no filters for system calls"),
            None => Some("this kernel has no Landlock, or one before Linux 5.19"),
            // Functions are this very user: nothing else keeps their signals from the server.
            Some(version) if !root && !landlock::has_scopes(version) => {
                Some("before Linux 6.12, only root can keep functions from signalling the server")
            }
            Some(_) if !memory::can_be_watched() => {
                Some("this kernel does not list the children of a process")
            }
            Some(_) => None,
        }
    }

    /// Makes a sandbox, without groups where they turn out to be of no use.
    fn attempt(&mut self) -> Result<(), Error> {
        let outcome = self.trial();
        if !matches!(&outcome, Err(Error::Setup { step, .. }) if step == GROUP) {
            return outcome;
        }
        self.cgroups = Cgroups::default();
        self.ground.groups = [false; 3];
        self.ground.counters = None;
        self.ground.freezes = false;
        self.trial()
    }

    /// Makes a sandbox and waits for its end.
    fn trial(&mut self) -> Result<(), Error> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).map(|(_, end)| end).map_err(io::Error::from);
        let ends = Ends { channel: pipe()?, stdout: pipe()?, stderr: pipe()? };
        self.spawn(0, &probe::trial(), ends)
            .map_err(|failure| Error::Setup { step: failure.step, source: failure.error })?;
        while let Ok(Some((pid, _))) = sys::reap(true) {
            let Some(mut sandbox) = self.sandboxes.remove(&pid) else { continue };
            if let Some(status) = sandbox.status.take() {
                read(&status, &mut sandbox.said);
            }
            self.clear_up(&mut sandbox);
            let (step, errno) = match sandbox.said.first() {
                Some(&STARTED) => return Ok(()),
                _ => sandbox.failure(),
            };
            // The sandbox was there; only the shell was not.
            if step == "exec" {
                return Ok(());
            }
            return Err(Error::Setup { step, source: io::Error::from_raw_os_error(errno) });
        }
        Err(Error::LauncherLost)
    }
}

/// What the first process said, which has ended.
fn read(status: &OwnedFd, said: &mut Vec<u8>) {
    let mut buffer = [0; 512];
    while let Ok(length @ 1..) = nix::unistd::read(status, &mut buffer) {
        said.extend_from_slice(&buffer[..length]);
    }
}
