"""Leaves things behind where another function could find them, and looks for those of others."""

import ctypes
import os
import socket

import kernel
from tools import attack, try_to

KEY, PORT = 0x0D15, 5317
PATHS = ("/tmp/mark", "/dev/shm/mark", "/var/tmp/mark", "/run/mark", "/function/mark")
held = []


def leave(mark):
    """Everything that can be left; returns where it was."""
    left = []

    def hold(name, make):
        got = try_to(lambda _: make(), None)
        if got is None:
            left.append(name)

    for path in PATHS:

        def write(path=path):
            with open(path, "w") as file:
                file.write(mark)

        hold(path, write)

    def listen(family, address):
        s = socket.socket(family, socket.SOCK_STREAM)
        s.bind(address)
        s.listen()
        held.append(s)

    hold("port", lambda: listen(socket.AF_INET, ("127.0.0.1", PORT)))
    hold("abstract socket", lambda: listen(socket.AF_UNIX, "\0mark"))
    hold("socket file", lambda: listen(socket.AF_UNIX, "/tmp/socket"))

    def share_memory():
        kernel.system_call("shmget", KEY, 4096, 0o1666)

    hold("shared memory", share_memory)

    def queue():
        kernel.system_call("msgget", KEY, 0o1666)

    hold("queue", queue)
    name = ctypes.create_string_buffer(mark[:15].encode())
    kernel.libc.prctl(15, name, 0, 0, 0)
    return left


@attack
def leave_marks(facts):
    return " ".join(leave(facts["mark"]))


def find(mark):
    found = []

    def look(name, see):
        try:
            if see():
                found.append(name)
        except OSError:
            pass

    for path in PATHS:
        look(path, lambda path=path: os.path.exists(path))

    def connect(family, address):
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(3)
            s.connect(address)
            return True

    look("port", lambda: connect(socket.AF_INET, ("127.0.0.1", PORT)))
    look("abstract socket", lambda: connect(socket.AF_UNIX, "\0mark"))
    look("socket file", lambda: connect(socket.AF_UNIX, "/tmp/socket"))
    look("shared memory", lambda: kernel.system_call("shmget", KEY, 4096, 0o666) >= 0)
    look("queue", lambda: kernel.system_call("msgget", KEY, 0o666) >= 0)

    for name in os.listdir("/proc"):
        if name.isdigit():
            look("process", lambda: open("/proc/%s/comm" % name).read().strip() == mark[:15])
    return found


@attack
def find_marks(facts):
    return " ".join(find(facts["mark"])) or "nothing"


@attack
def signal_others(facts):
    """Every process id there may be on the machine, besides its own and that of process 1."""
    seen = []
    for pid in facts["pids"]:
        if pid not in (1, os.getpid()):
            got = try_to(lambda _, pid=pid: os.kill(pid, 0), None)
            if got != "ESRCH":
                seen.append(pid)
    return "nobody" if not seen else repr(seen[:10])

