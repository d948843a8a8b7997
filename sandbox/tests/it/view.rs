//! What a confined process sees and may do.

use dispatch_sandbox::{Exit, Launcher, Network};
use std::io::{Read as _, Write as _};

use crate::support::{bind, finish, python, refused, run, sh, shell, spec};

#[tokio::test]
async fn the_environment_and_the_descriptors_are_exactly_what_was_given() {
    let launcher = Launcher::start().unwrap();
    let mut spec = spec(&["/usr/bin/env"]);
    spec.env = vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "two words".to_owned())];
    assert_eq!(run(&launcher, &spec).await.out, "A=1\nB=two words\n");
    let script = "import os; print([fd for fd in range(200) if os.path.exists(f'/proc/self/fd/{fd}') \
                  and os.readlink(f'/proc/self/fd/{fd}')])";
    assert_eq!(run(&launcher, &python(script)).await.out, "[0, 1, 2, 3]\n");
    let script = "import os; print(os.getcwd(), os.umask(0), os.getsid(0) == os.getpid())";
    assert_eq!(run(&launcher, &python(script)).await.out, "/tmp 18 True\n");
}

#[tokio::test]
async fn the_channel_goes_both_ways() {
    let launcher = Launcher::start().unwrap();
    let script = "import socket; s = socket.socket(fileno=3); s.sendall(s.recv(9).upper())";
    let child = launcher.spawn(&python(script)).await.unwrap();
    let mut channel = std::os::unix::net::UnixStream::from(child.channel.try_clone().unwrap());
    channel.set_nonblocking(false).unwrap();
    channel.write_all(b"hello").unwrap();
    let mut answer = String::new();
    channel.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "HELLO");
    assert_eq!(finish(child).await.exit, Exit::Code(0));
}

#[tokio::test]
async fn the_host_is_out_of_sight() {
    for path in [
        "/root",
        "/home",
        "/etc/shadow",
        "/sys",
        "/proc/sys",
        "/proc/kcore",
        "/var",
        "/dev/vda",
        "/dev/mem",
    ] {
        let said = sh(&format!("test -e {path} && echo there; true")).await;
        assert_eq!(said, "", "{path}");
    }
    let processes = sh("ls /proc | grep -c '^[0-9]'").await.trim().parse::<u32>().unwrap();
    assert!(processes < 6, "{processes} processes are seen");
}

#[tokio::test]
async fn everything_but_tmp_is_read_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "text").unwrap();
    let launcher = Launcher::start().unwrap();
    let mut spec = shell(
        "cat /function/file; for d in / /usr /etc /function /dev /proc; do touch $d/x 2>/dev/null && echo $d; done; \
         touch /tmp/ok && echo; ls /tmp",
    );
    spec.binds = vec![bind(dir.path(), "/function", false)];
    let said = run(&launcher, &spec).await;
    assert_eq!(said.out, "text\nok\n", "{}", said.err);
    assert!(!dir.path().join("x").exists());
}

#[tokio::test]
async fn a_writable_bind_is_written_through_to_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let owner =
        if nix::unistd::geteuid().is_root() { 200_017 } else { nix::unistd::geteuid().as_raw() };
    std::os::unix::fs::chown(dir.path(), Some(owner), Some(owner)).unwrap();
    let launcher = Launcher::start().unwrap();
    let mut spec = shell("echo made > /build/file");
    spec.binds = vec![bind(dir.path(), "/build", true)];
    assert_eq!(run(&launcher, &spec).await.exit, Exit::Code(0));
    assert_eq!(std::fs::read_to_string(dir.path().join("file")).unwrap(), "made\n");
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
async fn only_its_own_loopback_is_reached() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "import socket\n\
         own = socket.create_server(('127.0.0.1', 0)); socket.create_connection(own.getsockname()); print('own')\n\
         try: socket.create_connection(('127.0.0.1', {port}), 5); print('host')\n\
         except OSError as error: print(type(error).__name__)\n"
    );
    let launcher = Launcher::start().unwrap();
    assert_eq!(run(&launcher, &python(&script)).await.out, "own\nConnectionRefusedError\n");
    let mut open = python(&script);
    open.network = Network::Host;
    assert_eq!(run(&launcher, &open).await.out, "own\nhost\n");
}

#[tokio::test]
async fn no_privilege_is_left() {
    let said = sh("grep -E '^(Cap|NoNewPrivs|Uid)' /proc/self/status; id -u").await;
    for line in said.lines() {
        if let Some(set) = line.strip_prefix("Cap") {
            assert!(set.ends_with("0000000000000000"), "{line}");
        }
        if line.starts_with("NoNewPrivs") {
            assert!(line.ends_with('1'), "{line}");
        }
    }
    assert!(said.ends_with("\n1000\n"), "{said}");
    let said = sh("mount -t tmpfs x /tmp 2>&1; chroot / true 2>&1; mknod /tmp/n c 1 3 2>&1; kill -9 1 2>&1; echo alive").await;
    assert!(said.ends_with("alive\n"), "{said}");
    for word in ["mount", "chroot", "mknod"] {
        assert!(said.contains(word), "each was refused: {said}");
    }
}

#[tokio::test]
async fn init_cannot_be_looked_into_by_the_worker() {
    let launcher = Launcher::start().unwrap();
    let script = "import ctypes, os\n\
                  libc = ctypes.CDLL(None, use_errno=True)\n\
                  print(libc.ptrace(16, 1, 0, 0), os.strerror(ctypes.get_errno()))\n\
                  try: print(os.listdir('/proc/1/fd'))\n\
                  except OSError as error: print(type(error).__name__)\n";
    let said = run(&launcher, &python(script)).await;
    let (ptrace, listed) = said.out.trim_end().split_once('\n').unwrap();
    assert_eq!(ptrace, "-1 Operation not permitted", "{}", said.err);
    assert!(["PermissionError", "FileNotFoundError"].contains(&listed), "{listed}");
}

#[tokio::test]
async fn functions_are_different_users_where_the_owner_is_root() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can give functions users of their own");
        return;
    }
    let launcher = Launcher::start().unwrap();
    for uid in [200_001, 200_002] {
        let mut spec = shell("sleep 30");
        spec.host_uid = uid;
        let child = launcher.spawn(&spec).await.unwrap();
        use std::os::unix::fs::MetadataExt as _;
        let owner = std::fs::metadata(format!("/proc/{}/task", child.pid())).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.pid())).unwrap();
        assert!(
            status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")),
            "{status} {}",
            owner.uid()
        );
    }
}

#[tokio::test]
async fn what_cannot_be_set_up_says_which_step_and_what_to_do() {
    let launcher = Launcher::start().unwrap();
    let text = refused(&launcher, &spec(&["/no/such/program"])).await;
    assert!(text.contains("exec") && text.contains("not visible inside"), "{text}");
    let mut missing = shell("true");
    missing.binds = vec![bind(std::path::Path::new("/no/such/source"), "/x", false)];
    let text = refused(&launcher, &missing).await;
    assert!(text.contains("/no/such/source"), "{text}");
    let mut escaping = shell("true");
    escaping.binds = vec![bind(std::path::Path::new("/usr"), "/../x", false)];
    refused(&launcher, &escaping).await;
    let mut nowhere = shell("true");
    nowhere.cwd = "/nowhere".into();
    assert!(refused(&launcher, &nowhere).await.contains("working directory"));
    assert_eq!(run(&launcher, &shell("true")).await.exit, Exit::Code(0), "it still works");
}
