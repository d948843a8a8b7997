"""Signals, identities, limits, and what is inherited."""

import os
import resource
import signal
import subprocess

import kernel
from tools import TMP, attack, create, reads, succeeded


@attack
def signal_server(facts):
    os.kill(facts["server"], signal.SIGKILL)
    return succeeded()


@attack
def signal_server_group(facts):
    os.killpg(facts["server"], signal.SIGKILL)
    return succeeded()


@attack
def signal_everybody(facts):
    os.kill(-1, signal.SIGKILL)
    # The kernel says nothing where there are others, and each of them is out of reach.
    return "nobody heard"


@attack
def kill_init(facts):
    os.kill(1, signal.SIGKILL)
    return succeeded()


@attack
def stop_init(facts):
    os.kill(1, signal.SIGSTOP)
    return succeeded()


@attack
def terminate_init(facts):
    """Process 1 passes it on, to the worker's own end."""
    os.kill(1, signal.SIGTERM)
    return succeeded()


@attack
def become_root(facts):
    os.setuid(0)
    return succeeded()


@attack
def other_groups(facts):
    os.setgroups([0])
    return succeeded()


@attack
def capabilities(facts):
    with open("/proc/self/status") as file:
        sets = [line.split()[1] for line in file if line.startswith("Cap")]
    return "none" if {int(text, 16) for text in sets} == {0} else succeeded(sets)


@attack
def set_user_id_program(facts):
    """Starts a program with the set-user-id bit and looks who it is."""
    programs = [entry.path for entry in os.scandir("/usr/bin") if entry.stat().st_mode & 0o4000]
    for path in programs:
        child = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=-3, stderr=-3)
        try:
            os.kill(child.pid, signal.SIGSTOP)
            with open("/proc/%d/status" % child.pid) as file:
                users = next(line for line in file if line.startswith("Uid")).split()[1:]
        except (OSError, StopIteration):
            continue  # It ended before it could be looked at.
        finally:
            child.kill()
            child.wait()
        if set(users) != {str(os.getuid())}:
            return succeeded(path, users)
    return "same user"


@attack
def own_set_user_id_file(facts):
    create(TMP + "/mine")
    os.chmod(TMP + "/mine", 0o6755)
    flags = os.statvfs(TMP).f_flag
    os.unlink(TMP + "/mine")
    return "nosuid" if flags & os.ST_NOSUID else succeeded()


@attack
def nicer_than_others(facts):
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return succeeded()


@attack
def real_time(facts):
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return succeeded()


@attack
def survive_out_of_memory(facts):
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    return succeeded()


@attack
def core_dumps(facts):
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        return succeeded()
    return kernel.raise_limit(resource.RLIMIT_CORE)


@attack
def more_processes(facts):
    return kernel.raise_limit(resource.RLIMIT_NPROC)


@attack
def more_files(facts):
    return kernel.raise_limit(resource.RLIMIT_NOFILE)


@attack
def inherited_descriptors(facts):
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink("/proc/self/fd/" + name).split(":")[0]
        except OSError:
            pass  # The one that listed them.
    expected = {0: "/dev/null", 1: "pipe", 2: "pipe", 200: "socket"}
    return "exactly its own" if found == expected else succeeded(found)


@attack
def inherited_environment(facts):
    names = sorted(os.environ)
    expected = ["HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE"]
    if TMP == "/tmp":
        proxies = ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"]
        expected += proxies + [name.lower() for name in proxies]
    else:
        expected.append("TMPDIR")
    return "exactly its own" if names == sorted(expected) else succeeded(names)


@attack
def command_line_of_init(facts):
    return reads("/proc/1/cmdline")


@attack
def run_from_memory(facts):
    """Allowed: what runs is in the same sandbox."""
    fd = os.memfd_create("program")
    with open("/usr/bin/cat", "rb") as file:
        os.write(fd, file.read())
    child = os.fork()
    if child == 0:
        try:
            null = os.open("/dev/null", os.O_WRONLY)
            os.dup2(null, 2)
            os.execve("/proc/self/fd/%d" % fd, ["cat", "/etc/shadow"], {})
        finally:
            os._exit(99)
    os.close(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "runs inside" if code == 1 else succeeded(code)


@attack
def preload_into_siblings(facts):
    """Another program of this sandbox is this function's; nothing else starts with its variables."""
    with open("/etc/ld.so.preload", "w") as file:
        file.write("/tmp/evil.so")
    return succeeded()
