//! The launcher: a single-threaded process that makes every sandbox and tells how each ended. When
//! its owner goes away it kills all of them and ends.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::init::{self, ENDED, Ends, FAILED, STARTED};
use crate::memory::Watchdog;
use crate::spec::{Network, Spec};
use crate::sys;
use crate::wire::{self, Event, Request};

/// Whether to make user namespaces; `never` is what a probe asks for to see if root can do without.
pub(crate) const NO_USER_NAMESPACE: &str = "never";

struct Sandbox {
    id: u64,
    status: OwnedFd,
    said: Vec<u8>,
    started: bool,
    ended: Option<i32>,
    watchdog: Option<Watchdog>,
}

struct Launcher {
    control: OwnedFd,
    userns: bool,
    sandboxes: HashMap<i32, Sandbox>,
}

/// Serves until the owner closes the socket.
pub(crate) fn serve(control: OwnedFd, userns: bool) -> io::Result<()> {
    // The terminal's interrupts are for the owner, who then stops us in good order.
    let _ = nix::unistd::setsid();
    sys::reset_signals();
    let watched = SigSet::from_iter([Signal::SIGCHLD]);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&watched), None)?;
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut launcher = Launcher { control, userns, sandboxes: HashMap::new() };
    let outcome = launcher.work(&signals);
    launcher.kill_all();
    outcome
}

impl Launcher {
    fn work(&mut self, signals: &SignalFd) -> io::Result<()> {
        loop {
            let pause = self.sandboxes.values().filter_map(|s| s.watchdog.as_ref()?.pause()).min();
            let pids: Vec<i32> = self.sandboxes.keys().copied().collect();
            let mut fds = vec![
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            for pid in &pids {
                fds.push(PollFd::new(self.sandboxes[pid].status.as_fd(), PollFlags::POLLIN));
            }
            let pause = pause.map_or(PollTimeout::NONE, |pause| {
                PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut fds, pause) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let any: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            for (pid, _) in pids.iter().zip(&any[2..]).filter(|(_, any)| **any) {
                self.listen(*pid)?;
            }
            if any[1] {
                while let Ok(Some(_)) = signals.read_signal() {}
                self.reap()?;
            }
            self.watch();
            if any[0] && !self.answer()? {
                return Ok(());
            }
        }
    }

    /// Takes one request; false when the owner is gone.
    fn answer(&mut self) -> io::Result<bool> {
        let Some((request, fds)) = wire::receive::<Request>(&self.control)? else {
            return Ok(false);
        };
        match request {
            Request::Signal { id, signal } => {
                let found = self.sandboxes.iter().find(|(_, sandbox)| sandbox.id == id);
                if let (Some((pid, _)), Ok(signal)) = (found, Signal::try_from(signal)) {
                    // Not reaped yet, so the number is still theirs.
                    let _ = kill(Pid::from_raw(*pid), signal);
                }
            }
            Request::Spawn { id, spec } => {
                let mut fds = fds.into_iter();
                let ends = match (fds.next(), fds.next(), fds.next()) {
                    (Some(channel), Some(stdout), Some(stderr)) => Ends { channel, stdout, stderr },
                    _ => return Err(io::Error::from_raw_os_error(libc::EPROTO)),
                };
                if let Err((step, error)) = self.spawn(id, &spec, ends) {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    self.tell(&Event::Failed { id, step: step.to_owned(), errno })?;
                }
            }
        }
        Ok(true)
    }

    fn spawn(&mut self, id: u64, spec: &Spec, ends: Ends) -> Result<(), (&'static str, io::Error)> {
        let pipe = || {
            let made = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC);
            made.map_err(|error| ("pipe", io::Error::from(error)))
        };
        let (status, said) = pipe()?;
        let (ready, go) = pipe()?;
        let mut namespaces = libc::CLONE_NEWNS
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        if spec.network == Network::None {
            namespaces |= libc::CLONE_NEWNET;
        }
        if self.userns {
            namespaces |= libc::CLONE_NEWUSER;
        }
        let pid = sys::fork_into(namespaces).map_err(|error| ("namespaces", error))?;
        if pid == 0 {
            drop((go, status));
            let said = std::os::fd::IntoRawFd::into_raw_fd(said);
            init::run(spec, ends, said, ready, self.userns);
        }
        if self.userns
            && let Err(error) = map_ids(pid, spec.host_uid)
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            // Its end is nobody's business: it is reaped like any process we do not know.
            return Err(("user mapping", error));
        }
        if let Err(error) = nix::unistd::write(&go, b"!") {
            return Err(("start", error.into()));
        }
        let watchdog = (spec.memory_bytes > 0).then(|| Watchdog::new(pid, spec.memory_bytes));
        let sandbox =
            Sandbox { id, status, said: Vec::new(), started: false, ended: None, watchdog };
        self.sandboxes.insert(pid, sandbox);
        Ok(())
    }

    /// Reads what an init says.
    fn listen(&mut self, pid: i32) -> io::Result<()> {
        let Some(sandbox) = self.sandboxes.get_mut(&pid) else { return Ok(()) };
        let mut buffer = [0; 512];
        let mut status = std::fs::File::from(sandbox.status.try_clone()?);
        let length = status.read(&mut buffer)?;
        if length == 0 {
            // All writers are gone: the process is about to be reaped. Looked at no more.
            sandbox.status = std::fs::File::open("/dev/null")?.into();
            sandbox.said.push(0);
            return Ok(());
        }
        if sandbox.said.len() < 1024 {
            sandbox.said.extend_from_slice(&buffer[..length]);
        }
        let id = sandbox.id;
        while let Some(kind) = sandbox.said.first().copied() {
            match kind {
                STARTED if !sandbox.started => {
                    sandbox.started = true;
                    sandbox.said.remove(0);
                    wire::send(self.control.as_raw_fd(), &Event::Spawned { id, pid }, &[])?;
                }
                ENDED if sandbox.said.len() >= 5 => {
                    let mut bytes = [0; 4];
                    bytes.copy_from_slice(&sandbox.said[1..5]);
                    sandbox.ended = Some(i32::from_le_bytes(bytes));
                    sandbox.said.clear();
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some((pid, status))) = sys::reap(false) {
            // What it said last may still be in the pipe.
            while self.sandboxes.get(&pid).is_some_and(Sandbox::may_say_more) {
                self.listen(pid)?;
            }
            let Some(sandbox) = self.sandboxes.remove(&pid) else { continue };
            let id = sandbox.id;
            if !sandbox.started {
                let (step, errno) = sandbox.failure();
                self.tell(&Event::Failed { id, step, errno })?;
                continue;
            }
            let out_of_memory = sandbox.watchdog.as_ref().is_some_and(|dog| dog.has_bitten);
            let status = sandbox.ended.unwrap_or(status);
            self.tell(&Event::Exited { id, status, out_of_memory })?;
        }
        Ok(())
    }

    fn watch(&mut self) {
        for (pid, sandbox) in &mut self.sandboxes {
            if let Some(watchdog) = &mut sandbox.watchdog
                && watchdog.look()
            {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
        }
    }

    fn tell(&self, event: &Event) -> io::Result<()> {
        wire::send(self.control.as_raw_fd(), event, &[])
    }

    fn kill_all(&mut self) {
        for pid in self.sandboxes.keys() {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        while let Ok(Some(_)) = sys::reap(true) {}
    }
}

impl Sandbox {
    fn may_say_more(&self) -> bool {
        self.said.last() != Some(&0) && self.ended.is_none() && {
            let mut fds = [PollFd::new(self.status.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        }
    }

    /// What an init that never started its worker said about it.
    fn failure(&self) -> (String, i32) {
        let said = self.said.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = match said.split_first() {
            Some((&FAILED, text)) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        };
        match text.split_once(' ') {
            Some((errno, step)) => (step.to_owned(), errno.parse().unwrap_or(libc::EIO)),
            None => ("start".to_owned(), libc::ECHILD),
        }
    }
}

/// Who is who in a sandbox. As root the setup runs as the real root, so that it may read the
/// server's own directories, and the worker becomes a user that owns nothing.
fn map_ids(pid: i32, host_uid: u32) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let inside = init::INSIDE;
    let maps = if uid == 0 {
        [format!("0 0 1\n{inside} {host_uid} 1\n"), format!("0 0 1\n{inside} {host_uid} 1\n")]
    } else {
        std::fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        [format!("{inside} {uid} 1\n"), format!("{inside} {gid} 1\n")]
    };
    std::fs::write(format!("/proc/{pid}/uid_map"), &maps[0])?;
    std::fs::write(format!("/proc/{pid}/gid_map"), &maps[1])
}
