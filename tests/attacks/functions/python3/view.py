"""What a function tries to see and to change: files, /proc, devices."""

import os
import sys

from tools import TMP, attack, create, reads, succeeded

HERE = os.path.dirname(os.path.abspath(__file__))


@attack
def read_shadow(facts):
    return reads("/etc/shadow")


@attack
def read_home_of_server(facts):
    return reads(facts["home"] + "/secret")


@attack
def list_homes(facts):
    return succeeded(os.listdir("/home"))


@attack
def list_data_directory(facts):
    return succeeded(os.listdir(facts["data"]))


@attack
def list_project(facts):
    return succeeded(os.listdir(facts["root"]))


@attack
def climb_out_of_root(facts):
    return reads("/function/../../../../../../etc/shadow")


@attack
def climb_out_by_proc_root(facts):
    return reads("/proc/self/root/../../etc/shadow")


@attack
def climb_out_by_parent_of_cwd(facts):
    return succeeded(os.listdir("/proc/self/cwd/../data"))


@attack
def link_to_shadow(facts):
    os.symlink("/etc/shadow", TMP + "/link")
    try:
        return reads(TMP + "/link")
    finally:
        os.unlink(TMP + "/link")


@attack
def hard_link_to_program(facts):
    os.link("/usr/bin/env", TMP + "/env")
    return succeeded()


@attack
def users_of_machine(facts):
    with open("/etc/passwd") as file:
        names = [line.split(":")[0] for line in file]
    return "only function" if names == ["function"] else succeeded(names)


@attack
def read_environment_of_init(facts):
    return reads("/proc/1/environ")


@attack
def root_of_init(facts):
    return succeeded(os.listdir("/proc/1/root/"))


@attack
def descriptors_of_init(facts):
    return succeeded(os.listdir("/proc/1/fd"))


@attack
def memory_of_init(facts):
    return succeeded(os.open("/proc/1/mem", os.O_RDWR))


@attack
def program_of_init(facts):
    return succeeded(os.open("/proc/1/exe", os.O_WRONLY))


@attack
def environment_of_server(facts):
    return reads("/proc/%d/environ" % facts["server"])


@attack
def other_processes(facts):
    seen = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    return "only own" if seen <= {1, os.getpid()} else succeeded(sorted(seen))


@attack
def read_kcore(facts):
    return reads("/proc/kcore")


@attack
def read_kallsyms(facts):
    return reads("/proc/kallsyms")


@attack
def press_sysrq(facts):
    return succeeded(os.open("/proc/sysrq-trigger", os.O_WRONLY))


@attack
def write_core_pattern(facts):
    return succeeded(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))


@attack
def list_sys(facts):
    return succeeded(os.listdir("/sys"))


@attack
def list_cgroups(facts):
    return succeeded(os.listdir("/sys/fs/cgroup"))


@attack
def read_memory_device(facts):
    return reads("/dev/mem")


@attack
def open_disk(facts):
    return succeeded(os.open("/dev/vda", os.O_RDONLY))


@attack
def open_terminal(facts):
    return succeeded(os.open("/dev/tty", os.O_RDWR))


@attack
def open_kvm_and_tun(facts):
    return succeeded(os.open("/dev/kvm", os.O_RDWR), os.open("/dev/net/tun", os.O_RDWR))


@attack
def write_code(facts):
    return create(HERE + "/more.py")


@attack
def change_code(facts):
    os.truncate(__file__, 0)
    return succeeded()


@attack
def remove_code(facts):
    os.unlink(__file__)
    return succeeded()


@attack
def replace_worker_script(facts):
    os.rename(sys.argv[0], sys.argv[0] + ".old")
    return succeeded()


@attack
def write_usr(facts):
    return create("/usr/lib/more")


@attack
def write_etc(facts):
    return create("/etc/more")


@attack
def write_root(facts):
    return create("/more")


@attack
def write_dev(facts):
    return create("/dev/more")


@attack
def own_program(facts):
    return succeeded(os.open("/proc/self/exe", os.O_WRONLY))


@attack
def permissions_of_code(facts):
    os.chmod(HERE, 0o777)
    return succeeded()
