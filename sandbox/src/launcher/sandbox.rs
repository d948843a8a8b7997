//! What the launcher knows of one sandbox.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::Group;
use crate::init::FAILED;
use crate::inside::Watched;
use crate::memory::Watchdog;
use crate::spec::Limits;

/// Looks taken after an alarm until it is clear who was killed; they are [`super::SOON`] apart.
const ALARMED: u32 = 25;

pub(super) struct Sandbox {
    pub id: u64,
    /// None once its end has been read.
    pub status: Option<OwnedFd>,
    pub said: Vec<u8>,
    pub started: bool,
    pub ended: Option<i32>,
    /// Over the memory of all, where no group limits it.
    watchdog: Option<Watchdog>,
    pub group: Group,
    pub limits: Limits,
    /// Looks that are still to be taken since the alarm of its memory went off.
    alarmed: u32,
    /// Whether it was killed for its memory.
    out_of_memory: bool,
    /// Processes that are watched by themselves.
    pub watched: Vec<Watched>,
    /// Where more can be attached, if that was asked for.
    pub mounts: Option<File>,
    /// The network of its own, if it has one.
    pub network: Option<File>,
    /// Its directory, where it has no view of its own.
    pub root: Option<PathBuf>,
    /// What leads out of it goes when this does.
    pub uplink: Option<OwnedFd>,
}

impl Sandbox {
    /// One that is being made. What its first process says comes through `status`.
    pub fn new(id: u64, status: OwnedFd, root: Option<PathBuf>) -> Sandbox {
        Sandbox {
            id,
            status: Some(status),
            said: Vec::new(),
            started: false,
            ended: None,
            watchdog: None,
            group: Group::default(),
            limits: Limits::default(),
            alarmed: 0,
            out_of_memory: false,
            watched: Vec::new(),
            mounts: None,
            network: None,
            root,
            uplink: None,
        }
    }

    /// Sets what it may use: by its groups, and by the watchdog where those cannot limit memory.
    pub fn limit(&mut self, pid: i32, limits: Limits) {
        self.limits = limits;
        let counted = match self.group.limit(limits) {
            Ok(counted) => counted,
            // It holds more already.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                self.out_of_memory = true;
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                true
            }
            Err(_) => false,
        };
        let watched = limits.memory_bytes > 0 && !counted;
        self.watchdog = watched.then(|| Watchdog::new(pid, limits.memory_bytes));
    }

    /// Sends a signal to its first process, which has not been reaped: the number is still its own.
    pub fn signal(&mut self, pid: i32, signal: Signal) {
        // What is frozen does not hear. Where that is not possible it was not frozen either.
        let _ = self.group.freeze(false);
        if signal == Signal::SIGKILL {
            self.group.kill();
        }
        let _ = kill(Pid::from_raw(pid), signal);
    }

    /// A process in it may have been killed for its memory.
    pub fn alarm(&mut self) {
        self.group.heard();
        self.alarmed = ALARMED;
    }

    /// Whether it is to be looked at soon.
    pub fn is_alarmed(&self) -> bool {
        self.alarmed > 0
    }

    /// Kills it, or those of its processes that are watched by themselves, if they hold too much.
    pub fn look(&mut self, pid: i32) {
        if self.alarmed > 0 {
            self.alarmed -= 1;
            if self.group.was_out_of_memory() {
                self.alarmed = 0;
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if let Some(watchdog) = &mut self.watchdog
            && watchdog.look()
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for watched in &mut self.watched {
            if watched.watchdog.look() {
                watched.kill(pid);
            }
        }
    }

    /// Whether it, or a process in it, was killed because all of them held too much.
    pub fn was_out_of_memory(&self) -> bool {
        let bitten = self.watchdog.as_ref().is_some_and(|dog| dog.has_bitten);
        self.out_of_memory || bitten || self.group.was_out_of_memory()
    }

    pub fn watchdogs(&self) -> impl Iterator<Item = &Watchdog> {
        self.watchdog.iter().chain(self.watched.iter().map(|watched| &watched.watchdog))
    }

    /// What an init that never started its worker said about it.
    pub fn failure(&self) -> (String, i32) {
        let text = match self.said.split_first() {
            Some((&FAILED, text)) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        };
        match text.split_once(' ') {
            Some((errno, step)) => (step.to_owned(), errno.parse().unwrap_or(libc::EIO)),
            None => ("start".to_owned(), libc::ECHILD),
        }
    }
}
