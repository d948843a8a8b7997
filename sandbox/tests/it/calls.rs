//! Which system calls a confined process may make.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use dispatch_sandbox::{Exit, Launcher};

use crate::support::{python, run};

/// Makes calls, each in a process of its own, and prints what became of them.
const TRY: &str = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for word in sys.argv[1:]:
    name, *numbers = word.split(',')
    pid = os.fork()
    if pid == 0:
        done = libc.syscall(*(ctypes.c_long(int(number)) for number in numbers))
        os._exit(0 if done != -1 else ctypes.get_errno())
    end = os.waitpid(pid, 0)[1]
    print(name, 'killed' if os.WIFSIGNALED(end) and os.WTERMSIG(end) == 31 else os.waitstatus_to_exitcode(end))
";

/// What became of calls with these arguments: an error number, 0, or `killed`.
async fn outcomes(calls: &[(&str, &[i64])]) -> BTreeMap<String, String> {
    let mut spec = python(TRY);
    for (name, arguments) in calls {
        // Calls of other machines only are none here.
        let Ok(call) = syscalls::Sysno::from_str(name) else { continue };
        let mut word = format!("{name},{}", call as i32);
        arguments.iter().for_each(|argument| word.push_str(&format!(",{argument}")));
        spec.argv.push(word);
    }
    let said = run(&Launcher::start().unwrap(), &spec).await;
    assert_eq!(said.exit, Exit::Code(0), "{}", said.err);
    let lines = said.out.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())).collect()
}

#[tokio::test]
async fn hostile_calls_kill() {
    const NEW_USER: i64 = 0x1000_0000;
    let calls: &[(&str, &[i64])] = &[
        ("mount", &[]),
        ("umount2", &[]),
        ("pivot_root", &[]),
        ("chroot", &[]),
        ("fsopen", &[]),
        ("open_tree", &[]),
        ("move_mount", &[]),
        ("mount_setattr", &[]),
        ("open_by_handle_at", &[]),
        ("setns", &[]),
        ("unshare", &[NEW_USER]),
        ("clone", &[NEW_USER | 17]),
        ("bpf", &[]),
        ("userfaultfd", &[]),
        ("init_module", &[]),
        ("finit_module", &[]),
        ("delete_module", &[]),
        ("kexec_load", &[]),
        ("reboot", &[]),
        ("swapon", &[]),
        ("iopl", &[3]),
        ("ioperm", &[0, 1, 1]),
    ];
    for (name, outcome) in outcomes(calls).await {
        assert_eq!(outcome, "killed", "{name}");
    }
}

#[tokio::test]
async fn calls_that_programs_try_are_refused() {
    let (eperm, enosys) = (libc::EPERM.to_string(), libc::ENOSYS.to_string());
    let refused: &[(&str, &[i64])] = &[
        ("ptrace", &[0]),
        ("process_vm_readv", &[]),
        ("keyctl", &[]),
        ("add_key", &[]),
        ("perf_event_open", &[]),
        ("personality", &[0x004_0000]),
        ("syslog", &[]),
        ("shmget", &[0, 4096, 0o1600]),
        ("msgget", &[]),
        ("semget", &[]),
        ("sched_setscheduler", &[]),
        ("sethostname", &[]),
        ("settimeofday", &[]),
        ("acct", &[]),
        ("quotactl", &[]),
        ("fanotify_init", &[]),
        ("mbind", &[]),
        ("vmsplice", &[]),
        ("seccomp", &[]),
        ("kcmp", &[]),
        ("pidfd_getfd", &[]),
        // TIOCSTI
        ("ioctl", &[0, 0x5412]),
    ];
    for (name, outcome) in outcomes(refused).await {
        assert_eq!(outcome, eperm, "{name}");
    }
    let unknown: &[(&str, &[i64])] = &[
        ("clone3", &[]),
        ("io_uring_setup", &[]),
        ("memfd_secret", &[]),
        ("inotify_init1", &[0]),
        ("io_setup", &[1, 0]),
        ("lsm_list_modules", &[]),
    ];
    for (name, outcome) in outcomes(unknown).await {
        assert_eq!(outcome, enosys, "{name}");
    }
    // vsock, packets, the kernel's ciphers, Bluetooth
    for family in [40, 17, 38, 31] {
        let outcome = outcomes(&[("socket", &[family, 1, 0])]).await;
        assert_eq!(outcome["socket"], libc::EAFNOSUPPORT.to_string(), "{family}");
    }
    // PR_SET_SECCOMP, PR_SET_SECUREBITS
    for option in [22, 28] {
        let outcome = outcomes(&[("prctl", &[option])]).await;
        assert_eq!(outcome["prctl"], libc::EINVAL.to_string(), "{option}");
    }
}

#[tokio::test]
async fn what_programs_need_is_allowed() {
    let calls: &[(&str, &[i64])] = &[
        ("getpid", &[]),
        ("personality", &[0xffff_ffff]),
        ("socket", &[1, 1, 0]),
        ("socket", &[2, 1, 0]),
        ("unshare", &[0x200]),
        ("memfd_create", &[0, 0]),
        ("eventfd2", &[0, 0]),
        ("membarrier", &[0, 0]),
    ];
    for (name, outcome) in outcomes(calls).await {
        // The empty name of a file in memory is a bad address.
        let wanted = if name == "memfd_create" { libc::EFAULT } else { 0 };
        assert_eq!(outcome, wanted.to_string(), "{name}");
    }
    let script = "import subprocess, threading, multiprocessing, asyncio, os\n\
                  print(subprocess.run(['/bin/echo', 'child'], capture_output=True).stdout)\n\
                  thread = threading.Thread(target=print, args=['thread']); thread.start(); thread.join()\n\
                  with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(abs, [-1, -2]))\n\
                  async def program():\n\
                  \x20   child = await asyncio.create_subprocess_exec('/bin/true')\n\
                  \x20   return await child.wait()\n\
                  print(asyncio.run(program()))\n\
                  os.mkfifo('/tmp/pipe'); print(os.path.exists('/tmp/pipe'))\n";
    let said = run(&Launcher::start().unwrap(), &python(script)).await;
    assert_eq!(said.out, "b'child\\n'\nthread\n[1, 2]\n0\nTrue\n", "{}", said.err);
}

#[tokio::test]
async fn calls_of_other_machines_kill() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: only x86-64 has other ways to call");
        return;
    }
    // getpid by the 32-bit machine's entry: mov eax, 20; int 0x80; ret
    let script = "import ctypes, mmap\n\
                  code = mmap.mmap(-1, 4096, prot=7)\n\
                  code.write(bytes.fromhex('b814000000cd80c3'))\n\
                  ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()\n";
    let launcher = Launcher::start().unwrap();
    assert_eq!(run(&launcher, &python(script)).await.exit, Exit::ForbiddenCall);
    let x32 = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)";
    assert_eq!(run(&launcher, &python(x32)).await.exit, Exit::ForbiddenCall);
}

#[tokio::test]
async fn a_language_may_add_calls() {
    let launcher = Launcher::start().unwrap();
    let script = "import ctypes, sys; libc = ctypes.CDLL(None, use_errno=True)\n\
                  print(libc.syscall(int(sys.argv[1]), 0, 0, 0, 0, 0, 0), ctypes.get_errno())";
    let mut spec = python(script);
    spec.argv.push((syscalls::Sysno::mbind as i32).to_string());
    assert_eq!(run(&launcher, &spec).await.out, "-1 1\n");
    spec.syscalls = vec!["mbind".to_owned()];
    assert_eq!(run(&launcher, &spec).await.out, "0 0\n");
}
