"""Forks workers from a process that has loaded the handler already."""

import gc
import os
import stat
import sys
from _signal import SIG_DFL, SIGCHLD, set_wakeup_fd, signal
from _socket import CMSG_SPACE, SCM_RIGHTS, SOL_SOCKET
from select import POLLIN, poll

from _dispatch_calls import PONG, to_bytes

DESCRIPTORS = 3


def reason_not_to_fork(channel):
    """What a forked copy would share with this process that must not be shared, or None."""
    if len(os.listdir("/proc/self/task")) > 1:
        return "the source starts threads when it is loaded"
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if fd != channel.socket.fileno() and stat.S_ISSOCK(os.fstat(fd).st_mode):
                return "the source opens connections when it is loaded"
            if os.readlink("/proc/self/fd/" + name).startswith("anon_inode:[event"):
                return "the source starts an event loop when it is loaded"
        except OSError:
            continue  # The descriptor of the listing itself.
    return None


def serve(channel):
    """Forks when it is told to. Returns in a forked process, with its channel, or at the end of it
    all, with None."""
    ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal(SIGCHLD, lambda *_: None)
    set_wakeup_fd(wake, warn_on_full_buffer=False)
    # What is there now is shared with all copies as long as nobody writes to it.
    gc.collect()
    gc.freeze()
    waiting = poll()
    waiting.register(channel.socket.fileno(), POLLIN)
    waiting.register(ended, POLLIN)
    while True:
        ready = dict(waiting.poll())
        if ended in ready:
            os.read(ended, 4096)
            reap(channel)
        if channel.socket.fileno() not in ready:
            continue
        frame, descriptors = read(channel)
        if frame is None:
            return None
        if frame[0]["type"] == "ping":
            channel.send(PONG)
        elif frame[0]["type"] == "fork" and len(descriptors) == DESCRIPTORS:
            pid = fork()
            if pid == 0:
                signal(SIGCHLD, SIG_DFL)
                set_wakeup_fd(-1)
                os.close(ended)
                os.close(wake)
                return become_worker(channel, descriptors)
            for fd in descriptors:
                os.close(fd)
            channel.send(to_bytes({"type": "forked", "pid": pid}))
        else:
            for fd in descriptors:
                os.close(fd)


def fork():
    try:
        return os.fork()
    except OSError as error:
        print("a worker cannot be forked:", error, file=sys.stderr, flush=True)
        return -1


def reap(channel):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        channel.send(to_bytes({"type": "exited", "pid": pid, "status": status}))


def read(channel):
    """One frame and the descriptors that came with it."""
    descriptors = []
    while True:
        frame = channel.take()
        if frame is not None:
            return frame, descriptors
        data, control, _, _ = channel.socket.recvmsg(64 * 1024, CMSG_SPACE(4 * DESCRIPTORS))
        if not data:
            return None, descriptors
        for level, kind, numbers in control:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                numbers = memoryview(numbers)[: len(numbers) // 4 * 4]
                descriptors.extend(numbers.cast("i").tolist())
        channel.put(data)


def become_worker(channel, descriptors):
    os.setsid()
    fd, stdout, stderr = descriptors
    for source, target in (stdout, 1), (stderr, 2):
        os.dup2(source, target)
        os.close(source)
    channel.open(fd)
    # Workers of one function share /tmp; what asks for a place of its own there gets one.
    own = "/tmp/worker-%d" % os.getpid()
    os.mkdir(own, 0o700)
    os.environ["TMPDIR"] = own
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None
    if "numpy.random" in sys.modules:
        # It is the one widely used source of randomness that does not do this itself.
        sys.modules["numpy.random"].seed()
    return channel
