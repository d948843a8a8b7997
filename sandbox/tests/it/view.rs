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
    let said = sh("grep -E '^(Cap|NoNewPrivs|Uid)' /proc/self/status; id -un").await;
    for line in said.lines() {
        if let Some(set) = line.strip_prefix("Cap") {
            assert!(set.ends_with("0000000000000000"), "{line}");
        }
        if line.starts_with("NoNewPrivs") {
            assert!(line.ends_with('1'), "{line}");
        }
    }
    assert!(said.ends_with("\nfunction\n"), "{said}");
    let said = sh("mknod /tmp/n c 1 3 2>&1; kill -9 1 2>&1; echo alive").await;
    assert!(said.ends_with("alive\n"), "{said}");
    assert!(said.contains("mknod: "), "it was refused: {said}");
}

#[tokio::test]
async fn signals_and_abstract_sockets_stay_inside() {
    use std::os::linux::net::SocketAddrExt as _;
    let launcher = Launcher::start().unwrap();
    let scopes = "signals and abstract sockets stay inside";
    if !launcher.probe().await.layers.iter().any(|layer| layer.detail.contains(scopes)) {
        println!("skipped: this kernel's Landlock knows no scopes");
        return;
    }
    let name = format!("dispatch-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _server = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let script = format!(
        "import os, socket\n\
         own = socket.socket(socket.AF_UNIX); own.bind('\\0own'); own.listen()\n\
         socket.socket(socket.AF_UNIX).connect('\\0own'); print('own')\n\
         try: socket.socket(socket.AF_UNIX).connect('\\0{name}'); print('host')\n\
         except OSError as error: print(error.strerror)\n\
         try: os.kill(1, 0); print('init')\n\
         except OSError as error: print(error.strerror)\n\
         child = os.fork() or os.execv('/bin/sleep', ['sleep', '100'])\n\
         os.kill(child, 9); print(os.waitpid(child, 0)[1])\n"
    );
    // With the machine's network, where no namespace keeps them apart.
    let mut spec = python(&script);
    spec.network = Network::Host;
    let said = run(&launcher, &spec).await;
    let refused = "Operation not permitted";
    assert_eq!(said.out, format!("own\n{refused}\n{refused}\n9\n"), "{}", said.err);
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
    let mut inside = shell("true");
    inside.binds = vec![bind(std::path::Path::new("/usr"), "/usr/no/such/place", false)];
    let text = refused(&launcher, &inside).await;
    assert!(text.contains("/usr/no/such/place") && text.contains("must exist already"), "{text}");
    let mut escaping = shell("true");
    escaping.binds = vec![bind(std::path::Path::new("/usr"), "/../x", false)];
    refused(&launcher, &escaping).await;
    let mut nowhere = shell("true");
    nowhere.cwd = "/nowhere".into();
    assert!(refused(&launcher, &nowhere).await.contains("working directory"));
    assert_eq!(run(&launcher, &shell("true")).await.exit, Exit::Code(0), "it still works");
}

#[tokio::test]
async fn what_is_bound_may_be_below_a_directory_that_only_the_owner_enters() {
    let dir = tempfile::tempdir().unwrap();
    let closed = dir.path().join("closed");
    std::fs::create_dir_all(closed.join("open")).unwrap();
    std::fs::write(closed.join("open/file"), "text").unwrap();
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let launcher = Launcher::start().unwrap();
    let mut spec = shell("cat file; ls -d /function/../closed");
    spec.cwd = "/function".into();
    spec.binds = vec![bind(&closed.join("open"), "/function", false)];
    let said = run(&launcher, &spec).await;
    assert_eq!(said.out, "text", "{}", said.err);
}

#[tokio::test]
async fn links_inside_a_bind_do_not_lead_the_setup_out_of_the_sandbox() {
    let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
    std::fs::write(dir.path().join("file"), "text").unwrap();
    let launcher = Launcher::start().unwrap();
    for (target, file) in [("/build/link/made", false), ("/build/link/made", true)] {
        let source = if file { dir.path().join("file") } else { dir.path().to_owned() };
        let mut spec = shell("true");
        spec.binds = vec![bind(dir.path(), "/build", true), bind(&source, target, false)];
        let _ = launcher.spawn(&spec).await.map(drop);
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn signals_and_groups_are_as_a_fresh_program_expects() {
    let said = sh("grep -E '^(Sig(Blk|Ign)|Groups)' /proc/self/status").await;
    for line in said.lines() {
        let (name, value) = line.split_once(':').unwrap();
        match name {
            // An ordinary user cannot leave its groups.
            "Groups" => assert!(!nix::unistd::geteuid().is_root() || value.trim().is_empty()),
            _ => assert_eq!(value.trim(), "0000000000000000", "{name}"),
        }
    }
}

#[tokio::test]
async fn the_base_view_is_that_of_a_small_machine() {
    assert_eq!(sh("id -un; hostname").await, "function\nfunction\n");
    assert_eq!(
        sh("cat /etc/hosts | head -1; ls /etc/resolv.conf 2>/dev/null; true").await.lines().count(),
        1
    );
    let devices = "head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; echo x > /dev/null; \
                   echo fd | cat /dev/fd/0; echo err > /dev/stderr";
    assert_eq!(sh(devices).await, "3\n3\nfd\n");
    let script = "import ssl; print(len(ssl.create_default_context().get_ca_certs()) >= 0)";
    let launcher = Launcher::start().unwrap();
    let said = run(&launcher, &spec(&["/usr/bin/python3", "-c", script])).await;
    assert_eq!(said.out, "True\n", "{}", said.err);
}

#[tokio::test]
async fn keys_are_not_shared() {
    let launcher = Launcher::start().unwrap();
    let script = "import ctypes, platform\n\
                  number = {'x86_64': 250, 'aarch64': 219}[platform.machine()]\n\
                  print(ctypes.CDLL(None).syscall(number, 0, -3, 0))";
    let (first, second) =
        (run(&launcher, &python(script)).await, run(&launcher, &python(script)).await);
    if first.out == "-1\n" {
        println!("skipped: this kernel keeps no keys");
        return;
    }
    assert_ne!(first.out, second.out);
}

#[tokio::test]
async fn no_function_is_root() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can make somebody else root");
        return;
    }
    let mut spec = shell("true");
    spec.host_uid = 0;
    let text = refused(&Launcher::start().unwrap(), &spec).await;
    assert!(text.contains("user mapping") && text.contains("not root's"), "{text}");
}
