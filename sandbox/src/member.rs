//! The owner's handle of a process that was forked inside a sandbox.

use std::sync::Arc;

use nix::sys::signal::Signal;
use tokio::sync::oneshot;

use crate::connection::{Connection, Ended, lock};
use crate::error::Exit;
use crate::wire::Request;
use crate::{affinity, inside};

/// A process of a sandbox that one of its processes has forked. Dropping it does nothing.
#[derive(Clone)]
pub struct Member {
    pub(crate) connection: Arc<Connection>,
    /// The sandbox, its first process seen from outside, and how it ended.
    pub(crate) id: u64,
    pub(crate) init: u32,
    pub(crate) ended: Ended,
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
        lock(&self.connection.waiting).asking.insert((self.id, self.pid), asked);
        self.ask(&Request::WasOutOfMemory { id: self.id, pid: self.pid });
        // Nothing more is heard of a sandbox that has ended.
        let mut ended = self.ended.clone();
        tokio::select! {
            answer = answer => answer.unwrap_or(false),
            exit = ended.wait() => matches!(exit, Exit::OutOfMemory { .. }),
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
        self.ended.wait().await
    }

    /// As for [`Child`](crate::Child): of the whole sandbox.
    pub fn refused_processes(&self) -> u64 {
        self.ended.refused(&self.connection, self.id)
    }

    fn ask(&self, request: &Request) {
        self.connection.tell(request);
    }
}
