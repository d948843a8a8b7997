"""Attacks by quantity, and ends that leave something behind."""

import ctypes
import mmap
import os
import signal
import sys
import time

from tools import TMP, attack, succeeded


@attack
def fork_bomb(facts):
    children = []
    try:
        while len(children) < 100000:
            child = os.fork()
            if child == 0:
                time.sleep(600)
                os._exit(0)
            children.append(child)
        return succeeded(len(children))
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@attack
def thread_bomb(facts):
    import threading

    done, threads = threading.Event(), []
    try:
        while len(threads) < 100000:
            thread = threading.Thread(target=done.wait)
            thread.start()
            threads.append(thread)
        return succeeded(len(threads))
    except RuntimeError:
        return "EAGAIN" if len(threads) < 200 else succeeded(len(threads))
    finally:
        done.set()
        for thread in threads:
            thread.join()


def eat():
    hoard = []
    while True:
        hoard.append(b"x" * (4 << 20))


@attack
def memory_bomb(facts):
    eat()


@attack
def memory_bomb_of_child(facts):
    child = os.fork()
    if child == 0:
        eat()
    os.waitpid(child, 0)
    return succeeded()


@attack
def memory_bomb_shared(facts):
    memory = mmap.mmap(-1, 4 << 30)
    for at in range(0, len(memory), 4096):
        memory[at] = 1
    return succeeded()


@attack
def memory_bomb_of_file(facts):
    """A file in memory that is mapped."""
    fd = os.memfd_create("x")
    os.ftruncate(fd, 48 << 20)
    maps = []
    for _ in range(64):
        fd = os.memfd_create("x")
        os.ftruncate(fd, 48 << 20)
        maps.append(mmap.mmap(fd, 48 << 20))
        for at in range(0, 48 << 20, 4096):
            maps[-1][at] = 1
    return succeeded()


def fill(directory):
    paths = ["%s/full%d" % (directory, n) for n in range(4)]
    try:
        for path in paths:
            with open(path, "wb", buffering=0) as file:
                for _ in range(32):
                    file.write(bytes(1 << 20))
        return succeeded()
    finally:
        for path in paths:
            if os.path.exists(path):
                os.unlink(path)


@attack
def fill_tmp(facts):
    return fill(TMP)


@attack
def fill_shared_memory(facts):
    return fill("/dev/shm")


@attack
def many_files(facts):
    os.mkdir(TMP + "/many")
    count = 0
    try:
        while count < 200000:
            os.close(os.open(TMP + "/many/%d" % count, os.O_CREAT | os.O_WRONLY))
            count += 1
        return succeeded(count)
    finally:
        for name in range(count):
            os.unlink(TMP + "/many/%d" % name)
        os.rmdir(TMP + "/many")


@attack
def one_large_file(facts):
    path = TMP + "/sparse"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        os.ftruncate(fd, 1 << 40)
        return succeeded()
    finally:
        os.close(fd)
        os.unlink(path)


@attack
def many_descriptors(facts):
    held = []
    try:
        while len(held) < 100000:
            held.append(os.open("/dev/null", os.O_RDONLY))
        return succeeded(len(held))
    finally:
        for fd in held:
            os.close(fd)


@attack
def busy_loop(facts):
    while True:
        pass


@attack
def sleep_for_ever(facts):
    while True:
        time.sleep(600)


@attack
def ignore_termination(facts):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(600)


@attack
def stop_itself(facts):
    os.kill(os.getpid(), signal.SIGSTOP)
    return succeeded()


@attack
def crash(facts):
    ctypes.string_at(0)


@attack
def abort(facts):
    os.abort()


@attack
def leave(facts):
    os._exit(3)


@attack
def daemon(facts):
    """Leaves a process in a session of its own, then ends."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with open("/proc/self/comm", "w") as file:
                file.write(facts["mark"])
            time.sleep(600)
        os._exit(0)
    time.sleep(0.3)
    os._exit(4)


# Output ------------------------------------------------------------------------------------------


@attack
def output_flood(facts):
    line = b"x" * 1023 + b"\n"
    for _ in range(64):
        os.write(1, line * 1024)
    return "written"


@attack
def output_without_newline(facts):
    for _ in range(32):
        os.write(2, b"y" * (1 << 20))
    return "written"


@attack
def binary_output(facts):
    os.write(1, bytes(range(256)) * 16)
    return "written"


@attack
def forged_log_lines(facts):
    sys.stdout.write('{"level":"ERROR","message":"ready","api":"127.0.0.1:1"}\r\n\x1b[2J\x1b]0;x\x07\n')
    return "written"


@attack
def endless_output(facts):
    while True:
        os.write(1, b"z" * 65536)
