"""Writing to the channel behind the worker's back."""

import array
import os
import socket
import stat
import struct
import time

from tools import ATTACKS, attack, succeeded

# The id of the call that runs: the supervisor counts from 0.
current = 0


def channel():
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            if int(name) > 2 and stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                return int(name)
        except OSError:
            pass
    raise OSError("no channel")


def frame(header, body=b""):
    return struct.pack(">II", len(header), len(body)) + header + body


def send(data):
    fd, view = channel(), memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def wait():
    """Until the supervisor ends it."""
    time.sleep(600)


FORGED = {
    "frame-of-another-protocol": lambda: b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "frame-with-huge-header": lambda: struct.pack(">II", 1 << 20, 0),
    "frame-with-huge-body": lambda: struct.pack(">II", 10, 1 << 30),
    "frame-with-longest-lengths": lambda: struct.pack(">II", 0xFFFFFFFF, 0xFFFFFFFF),
    "frame-that-is-no-json": lambda: frame(b"\xff\xfe\x00"),
    "frame-that-is-deep": lambda: frame(b'{"type":"pong","x":' + b"[" * 30000 + b"]" * 30000 + b"}"),
    "frame-of-unknown-type": lambda: frame(b'{"type":"sudo"}'),
    "frame-twice-a-type": lambda: frame(b'{"type":"end","type":"pong","id":0}'),
    "second-hello": lambda: frame(b'{"type":"hello","protocol":1}'),
    "second-ready": lambda: frame(b'{"type":"ready","handler":"x"}'),
    "unasked-pong": lambda: frame(b'{"type":"pong"}'),
    "answer-to-another-call": lambda: frame(b'{"type":"end","id":%d}' % (current + 1), b"1"),
    "answer-to-past-call": lambda: frame(b'{"type":"end","id":%d}' % (current - 1), b"1"),
    "answer-to-largest-call": lambda: frame(b'{"type":"end","id":18446744073709551615}', b"1"),
    "answer-with-negative-call": lambda: frame(b'{"type":"end","id":-1}', b"1"),
    "chunk-without-head": lambda: frame(b'{"type":"chunk","id":%d}' % current, b"1"),
    "two-heads": lambda: frame(b'{"type":"head","id":%d}' % current, b"[") * 2,
    "answer-that-is-no-json": lambda: frame(b'{"type":"end","id":%d}' % current, b'{"a":'),
    "answer-that-is-two": lambda: frame(b'{"type":"end","id":%d}' % current, b"1 2"),
    "answer-with-bad-text": lambda: frame(b'{"type":"end","id":%d}' % current, b'"\xff"'),
    "fault-of-unknown-type": lambda: frame(
        b'{"type":"error","id":%d}' % current, b'{"type":"RootError"}'
    ),
}


def forge(name, data):
    def make(facts):
        send(data())
        wait()

    ATTACKS[name] = make


for name, data in FORGED.items():
    forge(name, data)


@attack
def answer_twice(facts):
    """The second one would be taken for that of the next call."""
    first = frame(b'{"type":"error","id":%d}' % current, b'{"message":"first"}')
    send(first + frame(b'{"type":"end","id":%d}' % current, b'"second"'))
    wait()


@attack
def endless_answer(facts):
    send(frame(b'{"type":"head","id":%d}' % current, b"["))
    while True:
        send(frame(b'{"type":"chunk","id":%d}' % current, b"1," * 500000))


@attack
def flood_of_frames(facts):
    flood = frame(b'{"type":"log","id":%d,"stream":"stdout"}' % current, b"x") * 1000
    while True:
        send(flood)


@attack
def half_a_frame(facts):
    send(struct.pack(">II", 100, 100) + b"{")
    wait()


@attack
def huge_answer(facts):
    return "x" * (65 << 20)


@attack
def deep_answer(facts):
    send(frame(b'{"type":"end","id":%d}' % current, b"[" * 400000 + b"]" * 400000))
    os._exit(0)


@attack
def huge_fault(facts):
    raise ValueError("x" * (8 << 20))


@attack
def descriptors_over_channel(facts):
    """Open files for the supervisor, which never asked for them."""
    held = os.open("/dev/null", os.O_RDONLY)
    with socket.socket(fileno=os.dup(channel())) as s:
        passed = array.array("i", [held] * 100).tobytes()
        # With the first bytes of a frame that is never finished.
        s.sendmsg([struct.pack(">II", 100, 100)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
    wait()


@attack
def close_channel(facts):
    os.close(channel())
    wait()


@attack
def shut_channel_down(facts):
    with socket.socket(fileno=os.dup(channel())) as s:
        s.shutdown(socket.SHUT_RDWR)
    wait()


@attack
def another_reader(facts):
    """A child that would read the next call in its parent's place."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(channel())
        except OSError:
            os._exit(0)
    found = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return succeeded(found) if found else "no channel in the child"


@attack
def close_outputs(facts):
    for fd in (0, 1, 2):
        os.close(fd)
    return "closed its own"
