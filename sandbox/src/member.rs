//! The owner's handle of a process that was forked inside a sandbox.

use std::os::fd::AsRawFd as _;

use nix::sys::signal::Signal;
use tokio::sync::{oneshot, watch};

use crate::error::Exit;
use crate::owner::{Launcher, lock};
use crate::wire::{self, Request};
use crate::{affinity, inside};

/// A process of a sandbox that one of its processes has forked. Dropping it does nothing.
#[derive(Clone)]
pub struct Member {
    pub(crate) launcher: Launcher,
    /// The sandbox, its first process seen from outside, and how it ended.
    pub(crate) id: u64,
    pub(crate) init: u32,
    pub(crate) exit: watch::Receiver<Option<Exit>>,
    /// Its number inside.
    pub(crate) pid: i32,
}

impl Member {
    /// Its number inside the sandbox.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Kills this process alone.
    pub fn kill(&self) {
        let signal = Signal::SIGKILL as i32;
        self.ask(&Request::SignalInside { id: self.id, pid: self.pid, signal });
    }

    /// Watches the memory of this process and its children, which are killed above the limit.
    pub fn limit_memory(&self, bytes: u64) {
        self.ask(&Request::WatchInside { id: self.id, pid: self.pid, memory_bytes: bytes });
    }

    /// Whether it was killed for its memory.
    pub async fn was_out_of_memory(&self) -> bool {
        let (asked, answer) = oneshot::channel();
        lock(&self.launcher.0.waiting).asking.insert((self.id, self.pid), asked);
        self.ask(&Request::WasOutOfMemory { id: self.id, pid: self.pid });
        // Nothing more is heard of a sandbox that has ended.
        let mut exit = self.exit.clone();
        tokio::select! {
            answer = answer => answer.unwrap_or(false),
            ended = exit.wait_for(Option::is_some) => {
                matches!(ended.as_deref(), Ok(Some(Exit::OutOfMemory { .. })))
            }
        }
    }

    /// Keeps it on one core, or lets it run on all again.
    pub fn keep_on(&self, core: Option<usize>) {
        if let Some(outside) = inside::find(self.init.cast_signed(), self.pid) {
            affinity::keep_on(outside, core);
            affinity::keep_process_on(outside, core);
        }
    }

    /// Waits until the whole sandbox has ended.
    pub async fn sandbox_end(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::LauncherLost),
            Err(_) => Exit::LauncherLost,
        }
    }

    fn ask(&self, request: &Request) {
        // Without a launcher the process is gone too.
        let _ = wire::send(self.launcher.0.socket.as_raw_fd(), request, &[]);
    }
}
