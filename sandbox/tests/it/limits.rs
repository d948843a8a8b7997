//! What a sandbox may use.

use dispatch_sandbox::{Exit, Launcher};

use crate::support::{python, run, sh, shell};

#[tokio::test]
async fn who_eats_too_much_memory_is_killed_also_in_a_child() {
    let launcher = Launcher::start().unwrap();
    let eat = "x = []\nwhile True: x.append(bytearray(b'x' * (1 << 20)))";
    for script in [
        eat.to_owned(),
        format!("import os, time\nif os.fork() == 0:\n exec({eat:?})\ntime.sleep(100)"),
    ] {
        let mut spec = python(&script);
        spec.memory_bytes = 64 << 20;
        let said = run(&launcher, &spec).await;
        assert_eq!(said.exit, Exit::OutOfMemory { limit_bytes: 64 << 20 }, "{}", said.err);
    }
    let mut shared =
        python("import mmap; m = mmap.mmap(-1, 1 << 30)\nwhile True: m.write(b'x' * (1 << 20))");
    shared.memory_bytes = 64 << 20;
    let exit = run(&launcher, &shared).await.exit;
    assert_eq!(exit, Exit::OutOfMemory { limit_bytes: 64 << 20 });
    let mut modest = python("x = bytearray(b'x' * (16 << 20)); print(len(x))");
    modest.memory_bytes = 64 << 20;
    assert_eq!(run(&launcher, &modest).await.exit, Exit::Code(0));
}

#[tokio::test]
async fn a_fork_bomb_meets_its_limit() {
    let launcher = Launcher::start().unwrap();
    let script = "import os, time\nn = 0\ntry:\n while True:\n  if os.fork() == 0: time.sleep(100)\n  n += 1\nexcept OSError as e: print(n, type(e).__name__)";
    let mut spec = python(script);
    spec.processes = 20;
    let said = run(&launcher, &spec).await;
    let (count, error) = said.out.trim().split_once(' ').unwrap();
    assert_eq!(error, "BlockingIOError");
    assert!((10..=20).contains(&count.parse::<i32>().unwrap()), "{count}");
}

#[tokio::test]
async fn tmp_has_an_end_in_bytes_and_in_files() {
    let said = sh("head -c 100000000 /dev/zero > /tmp/big 2>/tmp/err; stat -c %s /tmp/big; rm /tmp/big /tmp/err; \
                   n=0; while touch /tmp/$n 2>/dev/null; do n=$((n+1)); done; echo $n").await;
    let mut lines = said.lines().map(|line| line.parse::<u64>().unwrap());
    let (bytes, files) = (lines.next().unwrap(), lines.next().unwrap());
    assert!(bytes <= 8 << 20, "{bytes}");
    assert!(files < 64, "{files}");
}

#[tokio::test]
async fn memory_that_processes_share_is_counted_once() {
    let launcher = Launcher::start().unwrap();
    let script = "import os, time\n\
                  big = bytearray(b'x' * (32 << 20))\n\
                  children = [os.fork() or (time.sleep(1), os._exit(0)) for _ in range(6)]\n\
                  print(sum(os.waitpid(pid, 0)[1] for pid in children))";
    let mut spec = python(script);
    spec.memory_bytes = 96 << 20;
    let said = run(&launcher, &spec).await;
    assert_eq!((said.exit, said.out.as_str()), (Exit::Code(0), "0\n"), "{}", said.err);
}

#[tokio::test]
async fn limits_are_the_given_ones_and_cannot_be_raised() {
    let launcher = Launcher::start().unwrap();
    let mut spec = shell("cat /proc/self/limits; ulimit -n 100000 2>/dev/null && echo raised");
    (spec.open_files, spec.file_bytes, spec.memory_bytes) = (77, 1 << 20, 64 << 20);
    let said = run(&launcher, &spec).await;
    let limit = |name: &str| {
        let line = said.out.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(limit("Max open files"), "77 77");
    assert_eq!(limit("Max file size"), "1048576 1048576");
    assert_eq!(limit("Max core file size"), "0 0");
    assert_eq!(limit("Max locked memory"), "65536 65536");
    assert_eq!(limit("Max msgqueue size"), "0 0");
    let data = (128 << 20) + (512 << 20);
    assert_eq!(limit("Max data size"), format!("{data} {data}"));
    assert!(!said.out.contains("raised"));
    let mut absurd = shell("true");
    (absurd.open_files, absurd.file_bytes, absurd.processes) = (u64::MAX, u64::MAX, u64::MAX);
    absurd.memory_bytes = u64::MAX;
    assert_eq!(run(&launcher, &absurd).await.exit, Exit::Code(0), "what cannot be had is not");
}

#[tokio::test]
async fn shared_memory_files_have_an_end_too() {
    let script = "head -c 100000000 /dev/zero > /dev/shm/big 2>/dev/null; stat -c %s /dev/shm/big";
    let bytes = sh(script).await.trim().parse::<u64>().unwrap();
    assert!((1..=16 << 20).contains(&bytes), "{bytes}");
}
