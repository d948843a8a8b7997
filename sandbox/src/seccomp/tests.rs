#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;

const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO;

const PLAIN: Purpose = Purpose { sockets: true, installs: false };
const CLOSED: Purpose = Purpose { sockets: false, installs: false };

/// What the kernel would do, by the same rules.
fn judge(program: &[sock_filter], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [number.to_le_bytes(), audit.to_le_bytes()].concat();
    data.extend([0; 8]);
    data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
    let (mut at, mut value) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |holds| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => value = u32::from_le_bytes(data[k as usize..][..4].try_into().unwrap()),
            0x05 => at += k as usize,
            0x15 => branch(value == k),
            0x35 => branch(value >= k),
            0x45 => branch(value & k != 0),
            0x06 => return k,
            other => panic!("an instruction of code {other:#x}"),
        }
    }
}

fn ask(machine: &Machine, name: &str, arguments: &[u64]) -> u32 {
    let program = List::read().unwrap().program(machine, &[], PLAIN);
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    judge(&program, machine.audit, (machine.number)(name).unwrap(), all)
}

#[test]
fn every_entry_is_a_call_listed_once_with_a_reason() {
    let list = List::read().unwrap();
    let mut seen = BTreeSet::new();
    let groups = list.allow.iter().chain(&list.kill).map(|group| (&group.reason, &group.calls));
    let groups = groups.chain(list.refuse.iter().map(|group| (&group.reason, &group.calls)));
    for (reason, calls) in groups {
        assert!(reason.split_whitespace().count() > 0, "{calls:?} have no reason");
        for call in calls {
            let known = [X86_64, AARCH64].iter().any(|machine| (machine.number)(call).is_some());
            assert!(known, "{call} is no call");
            assert!(seen.insert(call.clone()), "{call} is there twice");
        }
    }
    for condition in &list.condition {
        assert!(!condition.reason.is_empty() && condition.argument < 6, "{condition:?}");
        assert!(seen.insert(condition.call.clone()), "{} is there twice", condition.call);
        let kinds = [&condition.one_of, &condition.none_of, &condition.without];
        assert_eq!(kinds.iter().filter(|kind| !kind.is_empty()).count(), 1, "{condition:?}");
    }
}

#[test]
fn the_program_says_what_the_list_says_for_every_number() {
    for machine in [X86_64, AARCH64] {
        let list = List::read().unwrap();
        let program = list.program(&machine, &[], PLAIN);
        let verdicts = list.verdicts(&machine, &[], PLAIN);
        for number in 0..600 {
            let said = judge(&program, machine.audit, number, [u64::MAX; 6]);
            match verdicts.get(&number) {
                Some(Verdict::Allow) => assert_eq!(said, ALLOW, "{number}"),
                Some(Verdict::Answer(Answer::Kill)) => assert_eq!(said, KILL, "{number}"),
                Some(Verdict::Answer(_)) => assert_eq!(said & !0xffff, REFUSE, "{number}"),
                Some(Verdict::Ask(_)) => {}
                None if number < 424 => assert_eq!(said, REFUSE | 1, "{number}"),
                None => assert_eq!(said, REFUSE | 38, "{number}"),
            }
        }
        let reads = judge(&program, machine.audit, (machine.number)("read").unwrap(), [0; 6]);
        assert_eq!(reads, ALLOW);
    }
}

#[test]
fn what_other_machines_and_abis_call_is_killed() {
    let program = List::read().unwrap().program(&X86_64, &[], PLAIN);
    // Those of the 32-bit machine, x32, and a number that is none.
    assert_eq!(judge(&program, 0x4000_0003, 3, [0; 6]), KILL);
    assert_eq!(judge(&program, AARCH64.audit, 63, [0; 6]), KILL);
    assert_eq!(judge(&program, X86_64.audit, 0x4000_0000, [0; 6]), KILL);
    assert_eq!(judge(&program, X86_64.audit, u32::MAX, [0; 6]), KILL);
}

#[test]
fn no_socket_is_made_where_no_namespace_keeps_it_inside() {
    for machine in [X86_64, AARCH64] {
        let program = List::read().unwrap().program(&machine, &[], CLOSED);
        let ask = |name| judge(&program, machine.audit, (machine.number)(name).unwrap(), [1; 6]);
        assert_eq!(ask("socket"), REFUSE | libc::EAFNOSUPPORT as u32);
        // Pairs reach nobody else.
        assert_eq!(ask("socketpair"), ALLOW);
    }
}

#[test]
fn arguments_decide_and_only_their_lower_half() {
    let refused = |errno: i32| REFUSE | errno as u32;
    for machine in [X86_64, AARCH64] {
        for (call, arguments, wanted) in [
            ("socket", &[1][..], ALLOW),
            ("socket", &[2], ALLOW),
            ("socket", &[0xffff_ffff_0000_0002], ALLOW),
            ("socket", &[16], ALLOW),
            ("socket", &[17], refused(libc::EAFNOSUPPORT)),
            ("socket", &[38], refused(libc::EAFNOSUPPORT)),
            ("socket", &[40], refused(libc::EAFNOSUPPORT)),
            ("socketpair", &[1], ALLOW),
            ("socketpair", &[2], refused(libc::EAFNOSUPPORT)),
            ("clone", &[0x0100_0011], ALLOW),
            ("clone", &[0x1000_0011], KILL),
            ("clone", &[0x0002_0011], KILL),
            ("unshare", &[0x200], ALLOW),
            ("unshare", &[0x80], KILL),
            ("unshare", &[0x1000_0000], KILL),
            ("ioctl", &[1, 0x5413], ALLOW),
            ("ioctl", &[1, 0x5412], refused(libc::EPERM)),
            ("ioctl", &[1, 0x1_0000_5412], refused(libc::EPERM)),
            ("prctl", &[15], ALLOW),
            ("prctl", &[22], refused(libc::EINVAL)),
            ("prctl", &[24], refused(libc::EINVAL)),
            ("prlimit64", &[0], ALLOW),
            ("prlimit64", &[1], refused(libc::EPERM)),
            ("personality", &[0xffff_ffff], ALLOW),
            ("personality", &[0x0004_0000], refused(libc::EPERM)),
            ("mknodat", &[0, 0, 0o010_644], ALLOW),
            ("mknodat", &[0, 0, 0o020_644], refused(libc::EPERM)),
            ("mknodat", &[0, 0, 0o060_644], refused(libc::EPERM)),
        ] {
            assert_eq!(ask(&machine, call, arguments), wanted, "{call} {arguments:x?}");
        }
    }
}

/// Calls that let a process out, or into the parts of the kernel where others have got out.
#[test]
fn nothing_dangerous_is_allowed() {
    for call in [
        "acct",
        "add_key",
        "adjtimex",
        "bpf",
        "chroot",
        "clock_adjtime",
        "clock_settime",
        "clone3",
        "delete_module",
        "fanotify_init",
        "finit_module",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "init_module",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "kcmp",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "lookup_dcookie",
        "mbind",
        "memfd_secret",
        "migrate_pages",
        "mount",
        "mount_setattr",
        "move_mount",
        "move_pages",
        "msgget",
        "name_to_handle_at",
        "nfsservctl",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pidfd_getfd",
        "pivot_root",
        "process_madvise",
        "process_vm_readv",
        "process_vm_writev",
        "ptrace",
        "quotactl",
        "reboot",
        "request_key",
        "sched_setattr",
        "sched_setscheduler",
        "seccomp",
        "semget",
        "set_mempolicy",
        "setdomainname",
        "sethostname",
        "setns",
        "settimeofday",
        "shmget",
        "swapoff",
        "swapon",
        "syslog",
        "umount2",
        "userfaultfd",
        "vhangup",
        "vmsplice",
    ] {
        for machine in [X86_64, AARCH64] {
            assert_ne!(ask(&machine, call, &[]), ALLOW, "{call}");
        }
    }
    for call in ["ioperm", "iopl", "modify_ldt", "create_module", "uselib"] {
        assert_ne!(ask(&X86_64, call, &[]), ALLOW, "{call}");
    }
}

#[test]
fn a_language_adds_calls_but_none_that_kills_or_depends() {
    let list = List::read().unwrap();
    let number = (X86_64.number)("mbind").unwrap();
    for (additions, wanted) in [(&[][..], REFUSE | 1), (&["mbind".to_owned()][..], ALLOW)] {
        let program = list.program(&X86_64, additions, PLAIN);
        assert_eq!(judge(&program, X86_64.audit, number, [0; 6]), wanted);
    }
    assert_eq!(check_call("mbind"), Ok(()));
    for (name, why) in [
        ("mount", "never allowed"),
        ("clone", "no namespaces"),
        ("does_not_exist", "not a system call"),
    ] {
        assert!(check_call(name).unwrap_err().contains(why), "{name}");
    }
    // Past the check, too.
    let program = list.program(&X86_64, &["mount".to_owned(), "clone".to_owned()], PLAIN);
    let ask = |name, argument| {
        let number = (X86_64.number)(name).unwrap();
        judge(&program, X86_64.audit, number, [argument, 0, 0, 0, 0, 0])
    };
    assert_eq!((ask("mount", 0), ask("clone", 0x1000_0000)), (KILL, KILL));
}

#[test]
fn what_installs_packages_is_told_that_root_s_calls_are_done_and_may_do_no_more() {
    let list = List::read().unwrap();
    for machine in [X86_64, AARCH64] {
        let kind = Purpose { sockets: true, installs: true };
        let of = |kind, name: &str| {
            let number = (machine.number)(name)?;
            Some(judge(&list.program(&machine, &[], kind), machine.audit, number, [0; 6]))
        };
        let pretended: BTreeSet<&str> =
            list.pretend.iter().flat_map(|of| &of.calls).map(String::as_str).collect();
        for name in &pretended {
            // Nothing but zero: the call is not made, and its answer is that it was.
            assert!(of(kind, name).is_none_or(|verdict| verdict == REFUSE), "{name}");
        }
        for name in syscalls_of(&list).filter(|name| !pretended.contains(name)) {
            assert_eq!(of(kind, name), of(PLAIN, name), "{name}");
        }
    }
}

fn syscalls_of(list: &List) -> impl Iterator<Item = &str> {
    let groups = list.allow.iter().chain(&list.kill).flat_map(|group| &group.calls);
    groups.chain(list.refuse.iter().flat_map(|of| &of.calls)).map(String::as_str)
}
