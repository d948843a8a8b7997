//! System calls without a safe wrapper of their own.
#![expect(unsafe_code, reason = "the kernel's interface")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(crate) fn c_string(path: &Path) -> io::Result<CString> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Forks into new namespaces. Returns 0 in the child.
///
/// The caller must be single-threaded: the child goes on with a copy of everything.
pub(crate) fn fork_into(namespaces: libc::c_int) -> io::Result<libc::pid_t> {
    let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and a stack of its own, clone is fork; this process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) };
    check(pid).map(|pid| pid as libc::pid_t)
}

/// Of linux/sched.h.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The same, where the child starts in the control group of version 2 whose directory this is.
pub(crate) fn fork_into_group(
    namespaces: libc::c_int,
    group: BorrowedFd<'_>,
) -> io::Result<libc::pid_t> {
    // SAFETY: all zero means nothing but what is set below.
    let mut wanted: libc::clone_args = unsafe { std::mem::zeroed() };
    wanted.flags = u64::from(namespaces.cast_unsigned()) | CLONE_INTO_CGROUP;
    wanted.exit_signal = libc::SIGCHLD as u64;
    wanted.cgroup = group.as_raw_fd() as u64;
    let size = size_of::<libc::clone_args>();
    // SAFETY: as above; the arguments outlive the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut wanted, size) };
    check(pid).map(|pid| pid as libc::pid_t)
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

pub(crate) const RDONLY: u64 = 1;
pub(crate) const NOSUID: u64 = 2;
pub(crate) const NODEV: u64 = 4;

const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

/// A detached copy of a tree, with these attributes on every mount of it.
pub(crate) fn open_tree(source: &Path, attributes: u64) -> io::Result<OwnedFd> {
    let path = c_string(source)?;
    let flags =
        OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the path outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    // SAFETY: the call returned a new descriptor.
    let tree = unsafe { OwnedFd::from_raw_fd(check(fd)? as RawFd) };
    set_attributes(tree.as_raw_fd(), c"", libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, attributes)?;
    Ok(tree)
}

fn set_attributes(
    fd: RawFd,
    path: &std::ffi::CStr,
    flags: libc::c_int,
    attributes: u64,
) -> io::Result<()> {
    let attr = MountAttr { set: attributes, clear: 0, propagation: 0, userns: 0 };
    // SAFETY: path and structure outlive the call; the size is the structure's.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    check(done).map(|_| ())
}

/// Attaches a detached tree.
pub(crate) fn move_mount(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let path = c_string(target)?;
    // SAFETY: both strings outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check(done).map(|_| ())
}

/// Makes the working directory, a mount, the root. The old root stays attached, out of reach of
/// ordinary paths, until [`leave_old_root`].
pub(crate) fn pivot_here() -> io::Result<()> {
    // SAFETY: constant strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(|_| ())
}

/// Detaches the root that [`pivot_here`] left, with everything mounted in it.
pub(crate) fn leave_old_root() -> io::Result<()> {
    // SAFETY: constant string.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into())?;
    std::env::set_current_dir("/")
}

/// A counter to wait for.
#[expect(unsafe_code, reason = "no safe wrapper among the features we build")]
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }.into())?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just made it for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor that stands for the process.
pub(crate) fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: plain call.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the call returned a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to the process that the descriptor stands for.
pub(crate) fn pidfd_send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without further information, as kill(2) does it.
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, info, 0) };
    check(sent).map(|_| ())
}

/// Brings the loopback interface up.
pub(crate) fn loopback_up() -> io::Result<()> {
    // SAFETY: plain call.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(fd.into())?;
    // SAFETY: a new descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request outlives the call.
    let done =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check(done.into()).map(|_| ())
}

/// Empties the bounding set, so that nothing gains a capability any more. Needs a capability itself:
/// before [`become_user`].
pub(crate) fn drop_bounding_set() {
    for capability in 0..64 {
        // SAFETY: plain call; unknown capabilities answer EINVAL.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if done < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
            break;
        }
    }
}

/// Gives up every capability of this process.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    // SAFETY: plain call.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let header: [u32; 2] = [0x2008_0522, 0];
    let nothing = [0u32; 6];
    // SAFETY: version 3 of the structures: a header of two words and two sets of three words.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), nothing.as_ptr()) };
    check(done).map(|_| ())
}

/// Lets the programs this process executes administer networks, as it may itself. Where it may do
/// less than that, as an ordinary user that owns no namespace, that is an error.
pub(crate) fn keep_network_rights() -> io::Result<()> {
    const RIGHTS: [u32; 2] = [12, 21]; // CAP_NET_ADMIN, CAP_SYS_ADMIN
    let header: [u32; 2] = [0x2008_0522, 0];
    // Effective, permitted, inheritable; each for the first 32 rights and then the rest.
    let mut sets = [0u32; 6];
    // SAFETY: version 3 of the structures: a header of two words and two sets of three words.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) })?;
    for right in RIGHTS {
        sets[2] |= 1 << right;
    }
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) })?;
    for right in RIGHTS {
        // SAFETY: plain call.
        let raised =
            unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, right, 0, 0) };
        check(raised.into())?;
    }
    Ok(())
}

/// Never gains rights by executing a file; nor does any child.
pub(crate) fn no_new_privileges() -> io::Result<()> {
    // SAFETY: plain call.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(|_| ())
}

/// Dies when the parent does. A change of user undoes it.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: plain call.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }.into()).map(|_| ())
}

/// What the process is called in `ps` and `top`.
pub(crate) fn name(name: &std::ffi::CStr) {
    // SAFETY: the string outlives the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Leaves the keys of whoever started us behind. Without the kernel's keys there are none to leave.
pub(crate) fn new_session_keyring() {
    let join_session_keyring: libc::c_long = 1;
    // SAFETY: plain call; the null asks for a keyring without a name.
    unsafe { libc::syscall(libc::SYS_keyctl, join_session_keyring, 0usize) };
}

/// Becomes a user and a group, without further groups.
pub(crate) fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: an empty list.
    check(unsafe { libc::setgroups(0, std::ptr::null()) }.into())?;
    // SAFETY: plain call.
    check(unsafe { libc::setresgid(id, id, id) }.into())?;
    // SAFETY: plain call.
    check(unsafe { libc::setresuid(id, id, id) }.into()).map(|_| ())
}

/// Lowers a limit. One that cannot be raised that far stays where it is.
pub(crate) fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the structure outlives the call.
    unsafe { libc::setrlimit(resource, &raw const limit) };
}

/// Duplicates `from` to `to`, open across exec.
pub(crate) fn place(from: RawFd, to: RawFd) -> io::Result<()> {
    // SAFETY: plain call.
    check(unsafe { libc::dup2(from, to) }.into()).map(|_| ())
}

/// Moves a descriptor to 10 or above, close-on-exec, out of the way of 0 to 3.
pub(crate) fn out_of_the_way(fd: RawFd) -> io::Result<RawFd> {
    // SAFETY: plain call.
    check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10) }.into()).map(|fd| fd as RawFd)
}

/// Closes, or marks to be closed by exec, all descriptors from `first` on.
pub(crate) fn close_from(first: u32, on_exec: bool) {
    close_range(first, u32::MAX, on_exec);
}

/// Closes everything from 3 on but these.
pub(crate) fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().filter(|fd| *fd >= 3) {
        if fd > first {
            close_range(first, fd - 1, false);
        }
        first = fd + 1;
    }
    close_from(first, false);
}

fn close_range(first: u32, last: u32, on_exec: bool) {
    let flags = if on_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: plain call; descriptors that are closed are not used afterwards.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } < 0 {
        close_each(first, last, on_exec);
    }
}

/// The same for kernels before 5.11.
fn close_each(first: u32, last: u32, on_exec: bool) {
    // SAFETY: plain call.
    let most = u32::try_from(unsafe { libc::sysconf(libc::_SC_OPEN_MAX) }).unwrap_or(1 << 16);
    for fd in first..=last.min(most) {
        let fd = fd as RawFd;
        // SAFETY: plain calls; one that is not open is no harm, one that is closed is not used again.
        unsafe {
            if on_exec {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            } else {
                libc::close(fd);
            }
        }
    }
}

/// Whether a descriptor is a socket of the kind the launcher is spoken to with.
pub(crate) fn is_seqpacket(fd: RawFd) -> bool {
    let mut kind: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: value and length outlive the call and belong together.
    let asked = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast(),
            &raw mut length,
        )
    };
    asked == 0 && kind == libc::SOCK_SEQPACKET
}

/// Keeps other processes of the same user from tracing this one or reading its memory.
pub(crate) fn undumpable() -> io::Result<()> {
    // SAFETY: plain call.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.into()).map(|_| ())
}

/// Default actions for all signals and an empty mask, as a fresh program expects.
pub(crate) fn reset_signals() {
    // The kernel's structure, in which zero means the default; glibc would leave out two signals.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: the structure is large enough on every machine, its set has 8 bytes.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0usize, 8usize);
        }
    }
    // SAFETY: all-zero is a valid, empty set; sigemptyset makes sure of it.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Becomes the parent of descendants whose own parent has ended.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    // SAFETY: plain call.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(|_| ())
}

/// Whether this kernel takes filters that kill a process.
pub(crate) fn can_filter_calls() -> bool {
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the value outlives the call.
    let known = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    };
    known == 0
}

/// Lets a program judge every further system call of this process and its children.
pub(crate) fn filter_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let length =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which outlives the call, and does not write to it.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    check(done).map(|_| ())
}

/// Replaces this process. Returns only when that failed.
pub(crate) fn exec(argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with null and their strings outlive the call.
    unsafe { libc::execve(arguments[0], arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once, without running what was left to run.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}

/// Forks. Returns 0 in the child. The caller must be single-threaded.
pub(crate) fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: this process has one thread.
    check(unsafe { libc::fork() }.into()).map(|pid| pid as libc::pid_t)
}

/// The status of any child that has ended, if there is one. `wait` blocks until there is.
pub(crate) fn reap(wait: bool) -> io::Result<Option<(libc::pid_t, i32)>> {
    let mut status = 0;
    let flags = if wait { 0 } else { libc::WNOHANG };
    // SAFETY: the status outlives the call.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, flags) }.into())?;
    Ok((pid > 0).then_some((pid as libc::pid_t, status)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn older_kernels_close_descriptors_too() {
        let file = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: plain calls; the numbers are nobody else's.
        let (fd, flags) = unsafe {
            let fd = libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, 700);
            close_each(fd as u32, fd as u32, true);
            (fd, libc::fcntl(fd, libc::F_GETFD))
        };
        assert_eq!(flags, libc::FD_CLOEXEC);
        close_each(fd as u32, fd as u32, false);
        // SAFETY: plain call.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, -1);
    }
}
