//! Process 1 of a sandbox: it builds the sandbox, starts the worker, reaps, passes signals on, and
//! reports exactly how the worker ended. When it exits everything else in the sandbox dies.

use std::ffi::CString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::Pid;

use crate::setup::{self, Failure};
use crate::spec::Spec;
use crate::sys;

/// The user a function is, inside.
pub(crate) const INSIDE: u32 = 1000;

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

/// The whole life of process 1.
pub(crate) fn run(spec: &Spec, ends: Ends, status: RawFd, ready: OwnedFd, userns: bool) -> ! {
    let failed = |failure: &Failure| -> ! {
        let errno = failure.error.raw_os_error().unwrap_or(libc::EIO);
        report(status, FAILED, format!("{errno} {}", failure.step).as_bytes());
        sys::exit(1)
    };
    sys::die_with_parent();
    // Above all not the launcher's own socket: who holds it may start anything anywhere.
    let keep = [&ends.channel, &ends.stdout, &ends.stderr, &ready].map(|fd| fd.as_raw_fd());
    sys::close_all_but(&[&keep[..], &[status]].concat());
    // The owner of our user namespace writes its maps first.
    let mut byte = [0];
    if std::fs::File::from(ready).read_exact(&mut byte).is_err() {
        sys::exit(1);
    }
    if let Err(failure) = setup::enter(spec) {
        failed(&failure);
    }
    // Blocked signals wait for us even though we are process 1 and have no handlers.
    let watched = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM]);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&watched), None);
    let id = if userns { INSIDE } else { spec.host_uid };
    let worker = match start(spec, &ends, id, userns) {
        Ok(worker) => worker,
        Err(failure) => failed(&failure),
    };
    drop(ends);
    // The worker is the same user: it must not be able to look into us.
    let privileges = become_nobody(id, userns).and_then(|()| sys::undumpable());
    if let Err(error) = privileges {
        failed(&Failure { step: "privileges".to_owned(), error });
    }
    report(status, STARTED, &[]);
    let end = tend(worker, &watched);
    report(status, ENDED, &end.to_le_bytes());
    sys::exit(0)
}

fn become_nobody(id: u32, userns: bool) -> io::Result<()> {
    sys::drop_bounding_set();
    // In a user namespace of an ordinary user we are that user already, and groups are not ours.
    if !userns || nix::unistd::getuid().as_raw() != id {
        sys::become_user(id, true)?;
    }
    sys::drop_capabilities()?;
    sys::die_with_parent_without_new_privileges()
}

/// Starts the worker; returns once its program runs.
fn start(spec: &Spec, ends: &Ends, id: u32, userns: bool) -> Result<Pid, Failure> {
    let failure = |step: &str| {
        let step = step.to_owned();
        move |error: io::Error| Failure { step, error }
    };
    let strings = |all: &mut dyn Iterator<Item = String>| -> io::Result<Vec<CString>> {
        all.map(|s| CString::new(s).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL)))
            .collect()
    };
    let argv = strings(&mut spec.argv.iter().cloned()).map_err(failure("arguments"))?;
    let env = strings(&mut spec.env.iter().map(|(k, v)| format!("{k}={v}")))
        .map_err(failure("environment"))?;
    if argv.is_empty() {
        return Err(failure("arguments")(io::Error::from_raw_os_error(libc::EINVAL)));
    }
    let (read, write) =
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| failure("pipe")(e.into()))?;
    let pid = sys::fork().map_err(failure("processes"))?;
    if pid == 0 {
        let (step, error) = become_worker(spec, ends, id, userns, write, &argv, &env);
        // Only reached when something failed; the descriptor in use was handed over by number.
        let _ = (step, error);
        sys::exit(127);
    }
    drop(write);
    let mut text = String::new();
    let _ = std::fs::File::from(read).take(256).read_to_string(&mut text);
    match text.split_once(' ') {
        None => Ok(Pid::from_raw(pid)),
        Some((errno, step)) => {
            let errno = errno.parse().unwrap_or(libc::EIO);
            Err(failure(step)(io::Error::from_raw_os_error(errno)))
        }
    }
}

/// In the worker's process: becomes what runs the tenant's code. Reports on `status` what failed.
fn become_worker(
    spec: &Spec,
    ends: &Ends,
    id: u32,
    userns: bool,
    status: OwnedFd,
    argv: &[CString],
    env: &[CString],
) -> (&'static str, io::Error) {
    let mut status_file = status.as_raw_fd();
    let mut prepare = || -> Result<io::Error, (&'static str, io::Error)> {
        status_file = sys::out_of_the_way(status_file).map_err(|e| ("descriptors", e))?;
        descriptors(ends).map_err(|e| ("descriptors", e))?;
        nix::unistd::setsid().map_err(|e| ("session", e.into()))?;
        std::env::set_current_dir(&spec.cwd).map_err(|e| ("working directory", e))?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        limits(spec);
        become_nobody(id, userns).map_err(|e| ("privileges", e))?;
        sys::reset_signals();
        sys::close_from(4, true);
        Ok(sys::exec(argv, env))
    };
    let (step, error) = match prepare() {
        Ok(error) => ("exec", error),
        Err(failed) => failed,
    };
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    write_all(status_file, format!("{errno} {step}").as_bytes());
    (step, error)
}

/// 0 to 3: nothing to read, output, errors, and the channel.
fn descriptors(ends: &Ends) -> io::Result<()> {
    let mut sources = Vec::new();
    for end in [&ends.stdout, &ends.stderr, &ends.channel] {
        sources.push(sys::out_of_the_way(end.as_raw_fd())?);
    }
    let null = std::fs::File::open("/dev/null")?;
    let null = sys::out_of_the_way(null.as_raw_fd())?;
    sys::place(null, 0)?;
    for (to, from) in (1..).zip(sources) {
        sys::place(from, to)?;
    }
    Ok(())
}

fn limits(spec: &Spec) {
    let given = |value: u64| (value > 0).then_some(value);
    // The watchdog ends who uses too much; this one ends who is faster than it looks.
    let data = given(spec.memory_bytes).map(|limit| limit.saturating_mul(2) + (512 << 20));
    // Our own process counts as well.
    let processes = given(spec.processes).map(|limit| limit + 1);
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

fn report(status: RawFd, kind: u8, rest: &[u8]) {
    let mut message = vec![kind];
    message.extend_from_slice(rest);
    write_all(status, &message);
}

fn write_all(fd: RawFd, message: &[u8]) {
    #[expect(unsafe_code, reason = "a descriptor that was handed down by number")]
    // SAFETY: the descriptor is open in this process and stays so; it is not closed here.
    let mut file = std::mem::ManuallyDrop::new(unsafe {
        <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(fd)
    });
    // Who should read it may be gone; then so are we.
    let _ = file.write_all(message);
}
