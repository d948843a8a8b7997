//! Process 1 of a sandbox: it builds the sandbox, starts the worker, reaps, passes signals on, and
//! reports exactly how the worker ended. When it exits everything else in the sandbox dies.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use libc::sock_filter;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::{Gid, Pid, Uid};

use crate::landlock::{self, Access};
use crate::plain::{self, Place};
use crate::setup::{self, Failure, Step as _};
use crate::spec::{Network, Spec};
use crate::sys;

/// The user a function is, inside its user namespace.
pub const INSIDE: u32 = 1000;
/// The user that installs packages.
pub(crate) const ROOT: u32 = 0;

/// The step that fails where control groups cannot be used after all.
pub(crate) const GROUP: &str = "control group";

/// What init says on its status pipe, one byte each: then text or a number.
pub(crate) const FAILED: u8 = b'F';
pub(crate) const STARTED: u8 = b'S';
pub(crate) const ENDED: u8 = b'X';

/// Descriptors that come with a request.
pub(crate) struct Ends {
    pub channel: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Our ends of the pipes to and from the launcher.
pub(crate) struct Ties {
    /// Where we report.
    pub status: OwnedFd,
    /// Says when our user namespace has its users.
    pub ready: OwnedFd,
    /// Hangs up when the launcher is gone.
    pub life: OwnedFd,
}

/// What of the file tree a sandbox has.
#[derive(Clone, Copy)]
pub(crate) enum View<'a> {
    /// A root of its own, in namespaces, of users too or not.
    Own { userns: bool },
    /// The host's, behind rules.
    Hosts(&'a Place),
}

/// The whole life of process 1. What it may use is limited once it has done `enter`.
pub(crate) fn run(
    spec: &Spec,
    ends: Ends,
    ties: Ties,
    view: View<'_>,
    filter: Option<&[sock_filter]>,
    enter: impl FnOnce() -> io::Result<()>,
) -> ! {
    let Ties { status, ready, life } = ties;
    // Above all not the launcher's own socket: who holds it may start anything anywhere.
    let keep = [&ends.channel, &ends.stdout, &ends.stderr, &status, &ready, &life];
    sys::close_all_but(&keep.map(|fd| fd.as_raw_fd()));
    let entered = enter().step(GROUP);
    let mut byte = [0];
    if File::from(ready).read_exact(&mut byte).is_err() {
        sys::exit(1);
    }
    // Blocked signals wait for us even though we are process 1 and have no handlers.
    let watched = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM]);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&watched), None);
    let mut status = File::from(status);
    let worker = entered
        .and_then(|()| confine(spec, &ends, &life, view))
        .and_then(|()| start(spec, &ends, view, filter));
    let worker = match worker {
        Ok(worker) => worker,
        Err(Failure { step, error }) => {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            report(&mut status, FAILED, format!("{errno} {step}").as_bytes());
            sys::exit(1)
        }
    };
    // Who reads what the worker writes is to see the end of it when the worker ends.
    drop(ends);
    report(&mut status, STARTED, &[]);
    let end = tend(worker, &watched);
    report(&mut status, ENDED, &end.to_le_bytes());
    sys::exit(0)
}

/// Everything that is done with privileges, in order. At its end there are none left.
fn confine(spec: &Spec, ends: &Ends, life: &OwnedFd, view: View<'_>) -> Result<(), Failure> {
    sys::die_with_parent().step("parent")?;
    sys::name(c"sandbox-init");
    sys::new_session_keyring();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // Where the machine runs out of memory, functions go before the server does.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    let id = match view {
        View::Own { userns: true } if spec.installs => ROOT,
        View::Own { userns: true } => INSIDE,
        View::Own { userns: false } => spec.host_uid,
        View::Hosts(place) => place.owner,
    };
    match view {
        View::Own { .. } => setup::enter(spec, id)?,
        // What its processes leave behind, they leave to us, as to a process 1.
        View::Hosts(_) => sys::adopt_orphans().step("orphans")?,
    }
    // An ordinary user is that user already, and groups are not its own.
    let other = nix::unistd::getuid().as_raw() != id;
    if other {
        // Some programs write to /dev/stderr, which opens the pipe anew.
        for end in [&ends.stdout, &ends.stderr] {
            let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
            nix::unistd::fchown(end, Some(user), Some(group)).step("output")?;
        }
    }
    become_nobody(other.then_some(id)).step("privileges")?;
    // The change of user undid it, and the launcher may have ended just then.
    sys::die_with_parent().step("parent")?;
    let mut hung_up = [PollFd::new(life.as_fd(), PollFlags::empty())];
    if poll(&mut hung_up, PollTimeout::ZERO) != Ok(0) {
        sys::exit(1);
    }
    Ok(())
}

fn become_nobody(other: Option<u32>) -> io::Result<()> {
    // The worker will be the same user: it must not be able to look into us at any time.
    sys::undumpable()?;
    sys::drop_bounding_set();
    if let Some(id) = other {
        sys::become_user(id)?;
    }
    sys::drop_capabilities()?;
    sys::no_new_privileges()?;
    // The change of user may have undone it.
    sys::undumpable()
}

/// Starts the worker; returns once its program runs.
fn start(
    spec: &Spec,
    ends: &Ends,
    view: View<'_>,
    filter: Option<&[sock_filter]>,
) -> Result<Pid, Failure> {
    let strings = |all: &mut dyn Iterator<Item = String>| -> io::Result<Vec<CString>> {
        all.map(|s| CString::new(s).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL)))
            .collect()
    };
    let argv = strings(&mut spec.argv.iter().cloned()).step("arguments")?;
    let env = strings(&mut spec.env.iter().map(|(k, v)| format!("{k}={v}"))).step("environment")?;
    if argv.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL)).step("arguments");
    }
    let (said, status) = nix::unistd::pipe2(OFlag::O_CLOEXEC).step("pipe")?;
    let pid = sys::fork().step("processes")?;
    if pid == 0 {
        drop(said);
        become_worker(spec, ends, &status, view, filter, &argv, &env);
    }
    drop(status);
    let mut text = String::new();
    let _ = File::from(said).take(256).read_to_string(&mut text);
    match text.split_once(' ') {
        None => Ok(Pid::from_raw(pid)),
        Some((errno, step)) => {
            let errno = errno.parse().unwrap_or(libc::EIO);
            Err(io::Error::from_raw_os_error(errno)).step(step)
        }
    }
}

/// Becomes what runs the tenant's code, in this order, and says on `status` what failed. The filter
/// would stand in the way of earlier steps.
fn become_worker(
    spec: &Spec,
    ends: &Ends,
    status: &OwnedFd,
    view: View<'_>,
    filter: Option<&[sock_filter]>,
    argv: &[CString],
    env: &[CString],
) -> ! {
    let mut status = status.as_raw_fd();
    let mut prepare = || -> Result<(), Failure> {
        sys::die_with_parent().step("parent")?;
        status = sys::out_of_the_way(status).step("descriptors")?;
        descriptors(ends).step("descriptors")?;
        nix::unistd::setsid().step("session")?;
        std::env::set_current_dir(&spec.cwd).step("working directory")?;
        limits(spec, view);
        access(spec, view).step("access rules")?;
        sys::reset_signals();
        sys::close_from(4, true);
        // What comes after it must be on its list.
        filter.map_or(Ok(()), sys::filter_calls).step("system calls")?;
        Err(sys::exec(argv, env)).step("exec")
    };
    if let Err(Failure { step, error }) = prepare() {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        #[expect(unsafe_code, reason = "a descriptor that went by its number")]
        // SAFETY: it is open, and nothing else in this process will use it any more.
        let mut status = unsafe { <File as std::os::fd::FromRawFd>::from_raw_fd(status) };
        let _ = status.write_all(format!("{errno} {step}").as_bytes());
    }
    sys::exit(127)
}

/// 0 to 3: nothing to read, output, errors, and the channel.
fn descriptors(ends: &Ends) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    let mut sources = vec![sys::out_of_the_way(null.as_raw_fd())?];
    for end in [&ends.stdout, &ends.stderr, &ends.channel] {
        sources.push(sys::out_of_the_way(end.as_raw_fd())?);
    }
    // The original would be closed by its number, which may have been given away below.
    std::mem::forget(null);
    (0..).zip(sources).try_for_each(|(to, from)| sys::place(from, to))
}

/// The rules behind the view. They are on places, so they hold for what is attached there later, too.
fn access(spec: &Spec, view: View<'_>) -> io::Result<()> {
    let Some(version) = landlock::version() else { return Ok(()) };
    if let View::Hosts(place) = view {
        let rules = place.rules.iter().map(|(path, access)| (path.as_path(), *access));
        let no_tcp = spec.network == Network::None;
        return landlock::confine(version, &rules.collect::<Vec<_>>(), no_tcp);
    }
    let base = [
        ("/", if spec.installs { Access::Write } else { Access::Read }),
        ("/dev", Access::Use),
        ("/dev/shm", Access::Write),
        ("/proc", Access::Use),
        ("/tmp", Access::Write),
    ];
    let base = base.map(|(path, access)| (Path::new(path), access));
    let writable = spec.binds.iter().filter(|bind| bind.writable);
    let writable = writable.map(|bind| bind.target.as_path()).chain(spec.scratch());
    let writable = writable.map(|path| (path, Access::Write));
    landlock::confine(version, &base.into_iter().chain(writable).collect::<Vec<_>>(), false)
}

fn limits(spec: &Spec, view: View<'_>) {
    let given = |value: u64| (value > 0).then_some(value);
    // The watchdog ends who uses too much; this one ends who is faster than it looks.
    let data =
        given(spec.memory_bytes).map(|limit| limit.saturating_mul(2).saturating_add(512 << 20));
    // Our own process counts as well, and whatever else this user has.
    let others = match view {
        // One more than a control group allows: then it is the group that refuses, and counts it.
        View::Own { .. } => 2,
        View::Hosts(place) => plain::tasks_of(place.owner),
    };
    let processes = given(spec.processes).map(|limit| limit.saturating_add(others));
    for (resource, value) in [
        (libc::RLIMIT_CORE, Some(0)),
        (libc::RLIMIT_MEMLOCK, Some(64 << 10)),
        (libc::RLIMIT_MSGQUEUE, Some(0)),
        (libc::RLIMIT_DATA, data),
        (libc::RLIMIT_NPROC, processes),
        (libc::RLIMIT_NOFILE, given(spec.open_files)),
        (libc::RLIMIT_FSIZE, given(spec.file_bytes)),
    ] {
        if let Some(value) = value {
            sys::limit(resource, value);
        }
    }
}

/// Reaps until the worker has ended; returns its wait status.
fn tend(worker: Pid, watched: &SigSet) -> i32 {
    loop {
        match watched.wait() {
            Ok(Signal::SIGTERM) => {
                let _ = kill(worker, Signal::SIGTERM);
            }
            _ => {
                while let Ok(Some((pid, status))) = sys::reap(false) {
                    if pid == worker.as_raw() {
                        return status;
                    }
                }
            }
        }
    }
}

fn report(status: &mut File, kind: u8, rest: &[u8]) {
    // Who should read it may be gone; then so are we.
    let _ = status.write_all(&[&[kind], rest].concat());
}
