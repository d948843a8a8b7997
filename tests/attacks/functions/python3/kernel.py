"""System calls by number, as no library would make them."""

import ctypes
import fcntl
import mmap
import os
import platform

from tools import ATTACKS, attack, succeeded, try_to

X86 = platform.machine() == "x86_64"
libc = ctypes.CDLL(None, use_errno=True)

# Name: the number on x86_64 and on aarch64.
NUMBERS = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "capset": (126, 91),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "io_uring_setup": (425, 425),
    "inotify_init1": (294, 26),
    "io_setup": (206, 0),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mknodat": (259, 33),
    "mlock": (149, 228),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "msgget": (68, 186),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmget": (29, 194),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "sync": (162, 81),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}

NEWNS, NEWUTS, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x10000000, 0x20000000, 0x40000000
AT_FDCWD = -100
ROOM = ctypes.create_string_buffer(4096)


def argument(value):
    return ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_long(value)


def system_call(name, *arguments):
    number = NUMBERS[name][0 if X86 else 1]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *map(argument, arguments))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def address(buffer):
    return ctypes.addressof(buffer)


# What is one system call: the attack's name, and the call.
SINGLE = {
    "mount-tmpfs": ("mount", b"x", b"/tmp", b"tmpfs", 0, 0),
    "mount-proc": ("mount", b"x", b"/tmp", b"proc", 0, 0),
    "bind-mount": ("mount", b"/usr", b"/tmp", b"", 4096, 0),
    "remount-writable": ("mount", b"", b"/", b"", 32, 0),
    "unmount-code": ("umount2", b"/function", 2),
    "unmount-proc": ("umount2", b"/proc", 2),
    "file-system-by-new-calls": ("fsopen", b"tmpfs", 0),
    "clone-a-tree": ("open_tree", AT_FDCWD, b"/function", 1),
    "move-a-mount": ("move_mount", AT_FDCWD, b"/usr", AT_FDCWD, b"/tmp", 0),
    "writable-by-mount-setattr": ("mount_setattr", AT_FDCWD, b"/", 0, address(ROOM), 32),
    "new-user-namespace": ("unshare", NEWUSER),
    "new-mount-namespace": ("unshare", NEWNS),
    "new-network-namespace": ("unshare", NEWNET),
    "new-process-namespace": ("unshare", NEWPID),
    "change-root": ("chroot", b"/tmp"),
    "pivot-root": ("pivot_root", b"/tmp", b"/tmp"),
    "open-by-handle": ("open_by_handle_at", AT_FDCWD, address(ROOM), 0),
    "device-file": ("mknodat", AT_FDCWD, b"/tmp/disk", 0o60600, 0xFE00),
    "trace-init": ("ptrace", 16, 1, 0, 0),
    "trace-by-seizing-init": ("ptrace", 0x4206, 1, 0, 0),
    "let-be-traced": ("ptrace", 0, 0, 0, 0),
    "compare-with-init": ("kcmp", os.getpid(), 1, 0, 1, 1),
    "load-a-filter-program": ("bpf", 5, address(ROOM), 128),
    "make-a-map": ("bpf", 0, address(ROOM), 128),
    "measure-the-kernel": ("perf_event_open", address(ROOM), 0, -1, -1, 0),
    "rings": ("io_uring_setup", 4, address(ROOM)),
    "page-faults": ("userfaultfd", 0),
    "page-faults-of-user-mode": ("userfaultfd", 1),
    "add-a-key": ("add_key", b"user", b"x", b"x", 1, -5),
    "user-keyring": ("keyctl", 0, -4, 1),
    "request-a-key": ("request_key", b"user", b"x", b"x", -5),
    "replace-the-kernel": ("kexec_load", 0, 0, 0, 0),
    "replace-the-kernel-by-file": ("kexec_file_load", 0, 0, 0, 0, 0),
    "load-a-module": ("init_module", address(ROOM), 4096, b""),
    "load-a-module-by-file": ("finit_module", 0, b"", 0),
    "remove-a-module": ("delete_module", b"tun", 0),
    "reboot": ("reboot", 0, 0, 0, 0),
    "set-the-clock": ("settimeofday", address(ROOM), 0),
    "read-kernel-messages": ("syslog", 3, address(ROOM), 4096),
    "change-personality": ("personality", 0x0400000),
    "swap-on": ("swapon", b"/tmp/x", 0),
    "swap-off": ("swapoff", b"/tmp/x"),
    "accounting": ("acct", b"/tmp/x"),
    "host-name": ("sethostname", b"evil", 4),
    "watch-all-files": ("fanotify_init", 0, 0),
    "hang-up-terminal": ("vhangup",),
    "watch-shared-files": ("inotify_init1", 0),
    "all-asynchronous-reads": ("io_setup", 60000, address(ROOM)),
    "wait-for-all-disks": ("sync",),
    "real-time-disk": ("ioprio_set", 1, 0, 1 << 13),
    "kernel-crypto": ("socket", 38, 5, 0),
    "hypervisor-socket": ("socket", 40, 1, 0),
    "rare-family": ("socket", 4, 2, 0),
    "lock-memory": ("mlock", address(ctypes.create_string_buffer(8)), 1 << 28),
}


def single(name, call):
    def make(facts):
        return succeeded(system_call(*call))

    ATTACKS[name] = make


for name, call in SINGLE.items():
    single(name, call)


@attack
def join_namespace_of_init(facts):
    return succeeded(system_call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), NEWNS))


@attack
def join_namespaces_by_pidfd(facts):
    return succeeded(system_call("setns", system_call("pidfd_open", 1, 0), NEWNS | NEWNET))


@attack
def clone_into_namespaces(facts):
    child = system_call("clone", NEWUSER | NEWNS | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return succeeded()


@attack
def clone3_into_namespaces(facts):
    arguments = (ctypes.c_uint64 * 8)(NEWUSER | NEWNS, 0, 0, 0, 17, 0, 0, 0)
    child = system_call("clone3", address(arguments), 64)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return succeeded()


@attack
def descriptor_of_init(facts):
    return succeeded(system_call("pidfd_getfd", system_call("pidfd_open", 1, 0), 3, 0))


@attack
def read_memory_of_init(facts):
    local = (ctypes.c_uint64 * 2)(address(ROOM), 8)
    remote = (ctypes.c_uint64 * 2)(0x400000, 8)
    return succeeded(
        system_call("process_vm_readv", 1, address(local), 1, address(remote), 1, 0)
    )


@attack
def write_memory_of_init(facts):
    local = (ctypes.c_uint64 * 2)(address(ROOM), 8)
    remote = (ctypes.c_uint64 * 2)(0x400000, 8)
    return succeeded(
        system_call("process_vm_writev", 1, address(local), 1, address(remote), 1, 0)
    )


@attack
def trace_server(facts):
    return succeeded(system_call("ptrace", 16, facts["server"], 0, 0))


@attack
def signal_server_by_pidfd(facts):
    server = system_call("pidfd_open", facts["server"], 0)
    return succeeded(system_call("pidfd_send_signal", server, 9, 0, 0))


@attack
def take_capabilities(facts):
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
    return succeeded(system_call("capset", address(header), address(sets)))


@attack
def ambient_capability(facts):
    return succeeded(system_call("prctl", 47, 2, 21, 0, 0))


@attack
def new_privileges(facts):
    """Takes back the promise that no program gives privileges."""
    return succeeded(system_call("prctl", 38, 0, 0, 0, 0))


def raise_limit(resource, pid=0):
    limit = (ctypes.c_uint64 * 2)(1 << 40, 1 << 40)
    return succeeded(system_call("prlimit64", pid, resource, address(limit), 0))


@attack
def limits_of_init(facts):
    return raise_limit(7, 1)


@attack
def watch_shared_directories(facts):
    """The older way: a signal whenever somebody reads a file there."""
    directory = os.open("/usr/lib", os.O_RDONLY)
    try:
        return succeeded(fcntl.fcntl(directory, fcntl.F_NOTIFY, 1))
    finally:
        os.close(directory)


@attack
def type_into_terminal(facts):
    for fd in (0, 1, 2):
        got = try_to(lambda _, fd=fd: succeeded(fcntl.ioctl(fd, 0x5412, b"x")), facts)
        if got != "ENOTTY":
            return got
    return "ENOTTY"


def machine_code(code):
    """Runs machine code; returns what it leaves in its result register."""
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    return function()


@attack
def calls_of_32_bits(facts):
    """getpid by int 0x80, which filters written for 64 bits do not see."""
    if not X86:
        return "not on this processor"
    # push rbx; mov eax, 20; int 0x80; pop rbx; ret
    return succeeded(machine_code(b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3"))


@attack
def calls_of_x32(facts):
    if not X86:
        return "not on this processor"
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(0x40000000 + 39)) != -1:
        return succeeded()
    raise OSError(ctypes.get_errno(), "x32")
