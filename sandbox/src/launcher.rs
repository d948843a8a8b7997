//! The launcher: a single-threaded process that makes every sandbox and tells how each ended. When
//! its owner goes away it kills all of them and ends.

mod ground;
mod sandbox;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, pipe2};

pub(crate) use self::ground::Ground;
use self::sandbox::Sandbox;
use crate::attach::{self, Home};
use crate::cgroup::{Cgroups, Group, Kind};
use crate::init::{self, ENDED, Ends, FAILED, GROUP, STARTED, Ties, View};
use crate::inside::{self, Watched};
use crate::memory::Watchdog;
use crate::network;
use crate::owner::open_files;
use crate::plain::{self, Place};
use crate::probe::Tier;
use crate::seccomp::{Filters, Purpose};
use crate::setup::{Failure, Step as _};
use crate::spec::{Attachment, Network, Spec};
use crate::wire::{self, Event, Request};
use crate::{sys, uplink};

/// Descriptors kept for the launcher's own use and for the sandbox being made.
const SPARE: u64 = 32;
/// Descriptors each sandbox costs: what its first process says, its mounts, its network, the alarm
/// of its memory.
const EACH: u64 = 4;
/// How often is looked while something is about to happen.
const SOON: Duration = Duration::from_millis(2);
/// How often the removal of a group is tried: its last process may be about to leave it.
const REMOVALS: u32 = 250;

struct Launcher {
    control: OwnedFd,
    ground: Ground,
    /// Where we are at home, for the way back from a sandbox.
    home: Option<Home>,
    /// The same of networks.
    network: Option<network::Home>,
    /// None where the kernel has no filters.
    filters: Option<Filters>,
    /// Out of descriptors we could not even refuse.
    capacity: usize,
    /// A pipe nobody writes to: the first end goes to every sandbox, the second is ours alone.
    life: (OwnedFd, OwnedFd),
    sandboxes: HashMap<i32, Sandbox>,
    cgroups: Cgroups,
    /// Groups of sandboxes that have ended, and how often their removal was tried.
    left: Vec<(Group, u32)>,
}

/// Serves until the owner closes the socket.
pub(crate) fn serve(control: OwnedFd, at_most: Tier) -> io::Result<()> {
    sys::name(c"launcher");
    // The terminal's interrupts are for the owner, who then stops us in good order; so is whatever
    // else is sent to all processes of a service.
    let _ = nix::unistd::setsid();
    sys::reset_signals();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    sys::new_session_keyring();
    let home = if at_most > Tier::B { Err(Errno::EPERM.into()) } else { own_namespace() };
    let home = home.and_then(|()| Home::here());
    let watched = SigSet::from_iter([Signal::SIGCHLD]);
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let files = open_files()?;
    let mut launcher = Launcher {
        control,
        ground: Ground::unknown(),
        home: home.ok(),
        network: network::Home::here(),
        filters: Filters::new()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?,
        capacity: usize::try_from(files.saturating_sub(SPARE) / EACH).unwrap_or(usize::MAX),
        life: pipe2(OFlag::O_CLOEXEC)?,
        sandboxes: HashMap::new(),
        cgroups: Cgroups::here(std::process::id()),
        left: Vec::new(),
    };
    launcher.ground.groups =
        [Kind::Memory, Kind::Cpu, Kind::Processes].map(|kind| launcher.cgroups.has(kind));
    launcher.ground.counters = launcher.cgroups.counters();
    launcher.ground.freezes = launcher.cgroups.has(Kind::Freezer);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    launcher.find_ground(at_most)?;
    launcher.tell(&Event::Ready(launcher.ground.clone()))?;
    let outcome = launcher.work(&signals);
    launcher.kill_all();
    outcome
}

impl Launcher {
    fn work(&mut self, signals: &SignalFd) -> io::Result<()> {
        loop {
            let pause =
                self.sandboxes.values().flat_map(Sandbox::watchdogs).filter_map(Watchdog::pause);
            let waits = !self.left.is_empty() || self.sandboxes.values().any(Sandbox::is_alarmed);
            let pause = pause.chain(waits.then_some(SOON)).min();
            let mut pids = Vec::new();
            let mut fds = vec![
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            for (pid, sandbox) in &self.sandboxes {
                if let Some(status) = &sandbox.status {
                    pids.push(*pid);
                    fds.push(PollFd::new(status.as_fd(), PollFlags::POLLIN));
                }
            }
            let mut alarms = Vec::new();
            for (pid, sandbox) in &self.sandboxes {
                if let Some(alarm) = sandbox.group.alarm() {
                    alarms.push(*pid);
                    fds.push(PollFd::new(alarm, PollFlags::POLLIN));
                }
            }
            let pause = pause.map_or(PollTimeout::NONE, |pause| {
                PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut fds, pause) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let any: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            for (pid, _) in alarms.iter().zip(&any[2 + pids.len()..]).filter(|(_, any)| **any) {
                if let Some(sandbox) = self.sandboxes.get_mut(pid) {
                    sandbox.alarm();
                }
            }
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
                if let (Some((pid, sandbox)), Ok(signal)) =
                    (self.find(id), Signal::try_from(signal))
                {
                    sandbox.signal(pid, signal);
                }
            }
            Request::SignalInside { id, pid, signal } => {
                if let Some((init, sandbox)) = self.find(id) {
                    let _ = sandbox.group.freeze(false);
                    inside::signal(init, pid, signal);
                }
            }
            Request::WatchInside { id, pid, memory_bytes } => {
                if let Some((init, sandbox)) = self.find(id) {
                    // Those that ended without having been asked about, for which nobody waits.
                    sandbox.watched.retain(|other| other.watchdog.has_bitten || other.lives(init));
                    sandbox.watched.extend(Watched::new(init, pid, memory_bytes));
                }
            }
            Request::WasOutOfMemory { id, pid } => {
                let Some((_, sandbox)) = self.find(id) else { return Ok(true) };
                let killed = sandbox.watched.iter().any(|w| w.pid == pid && w.watchdog.has_bitten);
                sandbox.watched.retain(|other| other.pid != pid);
                self.tell(&Event::OutOfMemory { id, pid, killed })?;
            }
            Request::Limit { id, limits } => {
                if let Some((pid, sandbox)) = self.find(id) {
                    sandbox.limit(pid, limits);
                }
            }
            Request::Freeze { id, frozen } => {
                if let Some((_, sandbox)) = self.find(id) {
                    // Where it cannot be done they go on, which costs time but harms nothing.
                    let _ = sandbox.group.freeze(frozen);
                }
            }
            Request::Attach { id, attachment } => {
                let failed = self.attach(id, &attachment)?;
                self.tell(&Event::Attached { id, failed })?;
            }
            Request::Sockets { id, request, sockets } => {
                let (control, home) = (self.control.as_raw_fd(), self.network.take());
                let asked = self.in_network(id, |_, there| {
                    network::make(home.as_ref(), control, request, there, &sockets)
                });
                self.network = home;
                self.refuse(request, asked)?;
            }
            Request::Uplink { id, request, rules } => {
                let control = self.control.as_raw_fd();
                let asked = self.in_network(id, |uplink, there| {
                    let (life, ours) = pipe2(OFlag::O_CLOEXEC)?;
                    *uplink = Some(ours);
                    uplink::open(control, request, there, &rules, &life)
                });
                self.refuse(request, asked)?;
            }
            Request::Spawn { id, spec } => {
                let mut fds = fds.into_iter();
                let ends = match (fds.next(), fds.next(), fds.next()) {
                    (Some(channel), Some(stdout), Some(stderr)) => Ends { channel, stdout, stderr },
                    _ => return Err(io::Error::from_raw_os_error(libc::EPROTO)),
                };
                if let Err(Failure { step, error }) = self.spawn(id, &spec, ends) {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    self.tell(&Event::Failed { id, step, errno })?;
                }
            }
        }
        Ok(true)
    }

    fn spawn(&mut self, id: u64, spec: &Spec, ends: Ends) -> Result<(), Failure> {
        if self.sandboxes.len() >= self.capacity {
            return Err(Errno::EMFILE).step("sandboxes");
        }
        if spec.host_uid == 0 && nix::unistd::geteuid().is_root() {
            return Err(Errno::EINVAL).step("user mapping");
        }
        if spec.installs && (spec.root.is_none() || !self.ground.user_namespaces) {
            return Err(Errno::EOPNOTSUPP).step("user namespace");
        }
        let pipe = || pipe2(OFlag::O_CLOEXEC).step("pipe");
        let (said, status) = pipe()?;
        let (ready, go) = pipe()?;
        let life = self.life.0.try_clone().step("pipe")?;
        let place = match &self.ground.base {
            Some(base) => Some(Place::make(base, id, spec, owner(spec))?),
            None => None,
        };
        let view = match &place {
            Some(place) => View::Hosts(place),
            None => View::Own { userns: self.ground.user_namespaces },
        };
        let sockets = place.is_none() || spec.network != Network::None;
        let kind = Purpose { sockets, installs: spec.installs };
        let filter = self.filters.as_mut().map(|all| all.program(&spec.syscalls, kind));
        let spec = place.as_ref().map_or(spec, |place| &place.spec);
        let namespaces = namespaces(view, spec.network);
        let root = place.as_ref().map(|place| place.root.clone());
        let mut sandbox = Sandbox::new(id, said, root);
        let forked = self.cgroups.make(id).step(GROUP).and_then(|group| {
            sandbox.group = group;
            sandbox.group.fork(namespaces).step("namespaces")
        });
        let (pid, is_in) = match forked {
            Ok(forked) => forked,
            Err(failure) => {
                self.clear_up(&mut sandbox);
                return Err(failure);
            }
        };
        if pid == 0 {
            drop(go);
            let ties = Ties { status, ready, life };
            init::run(spec, ends, ties, view, filter.as_deref(), || sandbox.group.enter(is_in));
        }
        // From here on its end is heard of, and told, whatever happens to it.
        let mut prepare = || -> Result<(), Failure> {
            sandbox.limit(pid, spec.limits());
            if matches!(view, View::Own { userns: true }) {
                map_ids(pid, spec.host_uid, spec.installs).step("user mapping")?;
            }
            if place.is_none() && !spec.mount_points.is_empty() {
                sandbox.mounts = Some(attach::mounts_of(pid).step("mount namespace")?);
            }
            if place.is_none() && spec.network != Network::Host {
                sandbox.network = Some(network::of(pid).step("network namespace")?);
            }
            Ok(())
        };
        if let Err(Failure { step, error }) = prepare() {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            sandbox.said = [&[FAILED], format!("{errno} {step}").as_bytes()].concat();
            sandbox.status = None;
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        self.sandboxes.insert(pid, sandbox);
        // One that is dead already needs no start.
        let _ = nix::unistd::write(&go, b"!");
        Ok(())
    }

    fn find(&mut self, id: u64) -> Option<(i32, &mut Sandbox)> {
        Launcher::found(&mut self.sandboxes, id)
    }

    fn found(all: &mut HashMap<i32, Sandbox>, id: u64) -> Option<(i32, &mut Sandbox)> {
        let found = all.iter_mut().find(|(_, sandbox)| sandbox.id == id);
        found.map(|(pid, sandbox)| (*pid, sandbox))
    }

    /// Says what failed, if something did. An error is our own end: we are not where we belong.
    fn attach(&mut self, id: u64, attachment: &Attachment) -> io::Result<Option<(String, i32)>> {
        let Some((pid, sandbox)) = Launcher::found(&mut self.sandboxes, id) else {
            return Ok(Some(("sandbox".to_owned(), libc::ESRCH)));
        };
        sandbox.limit(pid, attachment.limits);
        let (Some(mounts), Some(home)) = (&sandbox.mounts, &self.home) else {
            return Ok(Some(("mount points".to_owned(), libc::EINVAL)));
        };
        let attached = home.attach(mounts, attachment)?;
        Ok(attached
            .err()
            .map(|Failure { step, error }| (step, error.raw_os_error().unwrap_or(libc::EIO))))
    }

    /// Does something in the network that a sandbox has of its own.
    fn in_network(
        &mut self,
        id: u64,
        work: impl FnOnce(&mut Option<OwnedFd>, &File) -> io::Result<()>,
    ) -> io::Result<()> {
        let found = self.sandboxes.values_mut().find(|sandbox| sandbox.id == id);
        match found {
            Some(Sandbox { network: Some(there), uplink, .. }) => work(uplink, there),
            _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    /// Says that nobody could be asked.
    fn refuse(&self, request: u64, asked: io::Result<()>) -> io::Result<()> {
        let Err(error) = asked else { return Ok(()) };
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let failed = Some(("network namespace".to_owned(), errno));
        self.tell(&Event::Listening { request, failed })
    }

    /// Reads what an init says.
    fn listen(&mut self, pid: i32) -> io::Result<()> {
        let Some(sandbox) = self.sandboxes.get_mut(&pid) else { return Ok(()) };
        let Some(status) = &sandbox.status else { return Ok(()) };
        let mut buffer = [0; 512];
        let length = match nix::unistd::read(status, &mut buffer) {
            Err(Errno::EINTR) => return Ok(()),
            read => read.unwrap_or(0),
        };
        if length == 0 {
            sandbox.status = None;
            return Ok(());
        }
        if sandbox.said.len() < 1024 {
            sandbox.said.extend_from_slice(&buffer[..length]);
        }
        let id = sandbox.id;
        if !sandbox.started && sandbox.said.first() == Some(&STARTED) {
            sandbox.started = true;
            sandbox.said.remove(0);
            wire::send(self.control.as_raw_fd(), &Event::Spawned { id, pid }, &[])?;
        }
        if let [ENDED, a, b, c, d, ..] = sandbox.said[..] {
            sandbox.ended = Some(i32::from_le_bytes([a, b, c, d]));
        }
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some((pid, status))) = sys::reap(false) {
            // What it said last may still be in the pipe, which nobody else can write to.
            while self.sandboxes.get(&pid).is_some_and(|sandbox| sandbox.status.is_some()) {
                self.listen(pid)?;
            }
            let Some(mut sandbox) = self.sandboxes.remove(&pid) else { continue };
            let out_of_memory = sandbox.was_out_of_memory();
            let refused = sandbox.group.refused();
            self.clear_up(&mut sandbox);
            let id = sandbox.id;
            if !sandbox.started {
                let (step, errno) = sandbox.failure();
                self.tell(&Event::Failed { id, step, errno })?;
                continue;
            }
            let status = sandbox.ended.unwrap_or(status);
            self.tell(&Event::Exited { id, status, out_of_memory, refused })?;
        }
        Ok(())
    }

    fn watch(&mut self) {
        self.remove_groups();
        for (pid, sandbox) in &mut self.sandboxes {
            sandbox.look(*pid);
        }
    }

    fn tell(&self, event: &Event) -> io::Result<()> {
        wire::send(self.control.as_raw_fd(), event, &[])
    }

    /// Removes what a sandbox that has ended leaves behind: without namespaces, its processes too.
    fn clear_up(&mut self, sandbox: &mut Sandbox) {
        let mut group = std::mem::take(&mut sandbox.group);
        if let Some(root) = &sandbox.root {
            group.kill();
            while let Some(orphan) = self.kill_orphans() {
                let _ = nix::sys::wait::waitpid(Pid::from_raw(orphan), None);
            }
            plain::remove(root);
        }
        if !group.remove() {
            self.left.push((group, 0));
        }
    }

    /// Kills those children of ours that are no sandbox's first process: only the death of that one
    /// makes them ours. Returns one of them.
    fn kill_orphans(&self) -> Option<i32> {
        self.ground.base.as_ref()?;
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok());
        let mut one = None;
        for orphan in pids.filter(|pid| !self.sandboxes.contains_key(pid)) {
            let _ = kill(Pid::from_raw(orphan), Signal::SIGKILL);
            one = Some(orphan);
        }
        one
    }

    fn kill_all(&mut self) {
        for pid in self.sandboxes.keys() {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        // Each that ends may leave us its children.
        loop {
            self.kill_orphans();
            if !matches!(sys::reap(true), Ok(Some(_))) {
                break;
            }
        }
        if let Some(base) = &self.ground.base {
            plain::remove(base);
        }
        self.left.extend(self.sandboxes.drain().map(|(_, sandbox)| (sandbox.group, 0)));
        while !self.left.is_empty() {
            self.remove_groups();
            std::thread::sleep(SOON);
        }
    }

    /// Removes the groups of sandboxes that have ended.
    fn remove_groups(&mut self) {
        self.left.retain_mut(|(group, tries)| {
            *tries += 1;
            !group.remove() && *tries < REMOVALS
        });
    }
}

/// Who the processes are where no user namespace says so.
fn owner(spec: &Spec) -> u32 {
    let us = nix::unistd::geteuid();
    if us.is_root() { spec.host_uid } else { us.as_raw() }
}

fn namespaces(view: View<'_>, network: Network) -> libc::c_int {
    let View::Own { userns } = view else { return 0 };
    let mut namespaces =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    if network != Network::Host {
        namespaces |= libc::CLONE_NEWNET;
    }
    if userns {
        namespaces |= libc::CLONE_NEWUSER;
    }
    namespaces
}

/// Moves us into a mount namespace that is ours: only its owner can copy mounts, to attach them to
/// sandboxes that run. An ordinary user owns one by way of a user namespace.
fn own_namespace() -> io::Result<()> {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    if nix::unistd::geteuid().is_root() {
        unshare(CloneFlags::CLONE_NEWNS)?;
        // What the machine mounts later is to be seen here too.
        let none = None::<&str>;
        return Ok(mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?);
    }
    // Tried before: whoever fails half-way in this process could make no sandbox at all.
    match sys::fork_into(0)? {
        0 => sys::exit(i32::from(own_user_namespace().is_err())),
        _ if matches!(sys::reap(true)?, Some((_, 0))) => own_user_namespace(),
        _ => Err(Errno::EPERM.into()),
    }
}

fn own_user_namespace() -> io::Result<()> {
    use nix::sched::{CloneFlags, unshare};
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n"))
}

/// Who is who in a sandbox. As root the setup runs as the real root, so that it may read the
/// server's own directories, and the worker becomes a user that owns nothing. What `installs` is to
/// find itself as root, so the two change places; it has no capability to become the other.
fn map_ids(pid: i32, host_uid: u32, installs: bool) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let (ours, inside) =
        if installs { (init::INSIDE, init::ROOT) } else { (init::ROOT, init::INSIDE) };
    let maps = if uid == 0 {
        let map = format!("{ours} 0 1\n{inside} {host_uid} 1\n");
        [map.clone(), map]
    } else {
        std::fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        [format!("{inside} {uid} 1\n"), format!("{inside} {gid} 1\n")]
    };
    std::fs::write(format!("/proc/{pid}/uid_map"), &maps[0])?;
    std::fs::write(format!("/proc/{pid}/gid_map"), &maps[1])
}
