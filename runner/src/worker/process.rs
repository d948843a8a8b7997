//! The process of a worker: one with a sandbox of its own, or one that was forked inside of one.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use dispatch_sandbox::{Child, Exit, Member};
use tokio::sync::watch;

/// A worker's process. Dropping it kills it.
pub enum Process {
    /// The sandbox is this worker's alone.
    Own(Child),
    /// Others of the same revision are in the sandbox too.
    Forked(Forked),
}

/// A process that a zygote has forked.
pub struct Forked {
    member: Member,
    /// What the zygote says of its end.
    exit: watch::Receiver<Option<Exit>>,
    /// What it may use, in bytes.
    memory_bytes: u64,
    /// How often its sandbox had been refused a process before.
    refused: u64,
    /// Kept until the worker is gone.
    _zygote: Arc<dyn Send + Sync>,
}

/// Our ends of a worker's three streams.
pub struct Ends {
    /// The channel.
    pub channel: OwnedFd,
    /// What it writes to its standard output.
    pub stdout: OwnedFd,
    /// What it writes to its standard error.
    pub stderr: OwnedFd,
}

impl Forked {
    /// A process whose end is heard of through `exit`; `zygote` is kept for as long as it lives.
    pub fn new(
        member: Member,
        exit: watch::Receiver<Option<Exit>>,
        memory_bytes: u64,
        zygote: Arc<dyn Send + Sync>,
    ) -> Forked {
        let refused = member.refused_processes();
        Forked { member, exit, memory_bytes, refused, _zygote: zygote }
    }

    async fn wait(&mut self) -> Exit {
        let Forked { member, exit, memory_bytes, .. } = self;
        tokio::select! {
            biased;
            said = exit.wait_for(Option::is_some) => {
                if let Ok(Some(exit)) = said.as_deref() {
                    return *exit;
                }
            }
            _ = member.sandbox_end() => {}
        }
        // The zygote says nothing any more: it ends, and everything with it.
        match member.sandbox_end().await {
            // All of them together used what they may.
            Exit::OutOfMemory { .. } => Exit::OutOfMemory { limit_bytes: *memory_bytes },
            _ => Exit::Lost,
        }
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if self.exit.borrow().is_none() {
            self.member.kill();
        }
    }
}

impl Process {
    /// Kills it.
    pub fn kill(&self) {
        match self {
            Process::Own(child) => child.kill(),
            Process::Forked(forked) => forked.member.kill(),
        }
    }

    /// Waits until it has ended. May be called again.
    pub async fn wait(&mut self) -> Exit {
        match self {
            Process::Own(child) => child.wait().await,
            Process::Forked(forked) => forked.wait().await,
        }
    }

    /// How often its sandbox was refused a process or thread since it came to be; see
    /// [`Child::refused_processes`](dispatch_sandbox::Child::refused_processes).
    pub fn refused_processes(&self) -> u64 {
        match self {
            Process::Own(child) => child.refused_processes(),
            Process::Forked(forked) => {
                forked.member.refused_processes().saturating_sub(forked.refused)
            }
        }
    }

    /// Makes it stand still. What is forked shares a sandbox with others, so it goes on.
    pub fn freeze(&self) {
        if let Process::Own(child) = self {
            child.freeze();
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        if let Process::Own(child) = self {
            child.thaw();
        }
    }

    /// Keeps it on one core, or lets it run on all again.
    pub fn keep_on(&self, core: Option<usize>) {
        match self {
            Process::Own(child) => child.keep_on(core),
            Process::Forked(forked) => forked.member.keep_on(core),
        }
    }
}
