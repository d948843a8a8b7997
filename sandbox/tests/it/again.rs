//! The same tests once more, as other users and on other machines.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Leaves what a user namespace may have: inside there can be no further ones, as on machines that
/// forbid them. The program runs as root there, of a million users.
const FORBID_USER_NAMESPACES: &str = "
import ctypes, os, sys
(mapped, map), (begun, begin) = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    os.write(begin, b'.')
    os.read(mapped, 1)
    with open('/proc/sys/user/max_user_namespaces', 'w') as file: file.write('0')
    if os.environ.get('TEST_USER'): os.setgroups([]); os.setgid(1500); os.setuid(1500)
    os.execv(sys.argv[1], sys.argv[1:])
os.read(begun, 1)
for kind in 'uid', 'gid':
    with open(f'/proc/{pid}/{kind}_map', 'w') as file: file.write('0 0 1000000')
os.write(map, b'.')
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

/// This test program, to run one of its tests.
pub fn this_program(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]);
    command
}

/// Runs all other tests through another program, if root does it.
fn all_through(program: &[&str]) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can become others");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = dir.path().join("it");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut command = Command::new(program[0]);
    // One at a time: one of them counts the descriptors of its process.
    command.args(&program[1..]).arg(&copy).arg("--test-threads=1").args([
        "attach::",
        "calls::",
        "ends::",
        "groups::",
        "limits::",
        "network::",
        "owners::",
        "plain::",
        "uplink::",
        "view::",
    ]);
    let done = command.current_dir("/").output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert!(said.contains("test result: ok. ") && !said.contains("ok. 0 passed"), "{said}");
}

/// Not a test of its own: what the next test runs where no namespace can be made.
#[test]
fn the_tier_to_be_found_without_namespaces() {
    if std::env::var_os("TEST_USER").is_some() {
        let launcher = dispatch_sandbox::Launcher::start().unwrap();
        assert_eq!(launcher.tier(), dispatch_sandbox::Tier::C);
    }
}

#[test]
fn as_an_ordinary_user_where_user_namespaces_are_forbidden() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can become others");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = dir.path().join("it");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", FORBID_USER_NAMESPACES]).arg(&copy).arg("--test-threads=1");
    command.args(["plain::", "again::the_tier_to_be_found", "calls::calls_", "calls::hostile"]);
    let done = command.env("TEST_USER", "1").current_dir("/").output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    assert!(said.contains("test result: ok. ") && !said.contains("ok. 0 passed"), "{said}");
    assert!(!said.contains("skipped: tier"), "{said}");
}
/// With a tunnel device for all, as most machines have it.
const AS_A_USER: &str = "mount -t tmpfs -o mode=755 none /dev/net && \
                         mknod -m 666 /dev/net/tun c 10 200 && \
                         exec setpriv --reuid 1500 --regid 1500 --clear-groups \"$0\" \"$@\"";

#[test]
fn as_an_ordinary_user() {
    all_through(&["unshare", "--mount", "/bin/sh", "-c", AS_A_USER]);
}

#[test]
fn as_root_where_user_namespaces_are_forbidden() {
    all_through(&["/usr/bin/python3", "-c", FORBID_USER_NAMESPACES]);
}

/// Not a test of its own: what the next test runs with another mask.
#[tokio::test]
async fn a_sandbox_to_be_made_with_another_mask() {
    if std::env::var_os("TEST_WITH_MASK").is_some() {
        let script = "cat /etc/passwd /etc/hosts > /dev/null && ls / /dev /etc > /dev/null";
        crate::support::sh(script).await;
    }
}

#[test]
fn a_server_that_hides_its_files_still_has_sandboxes_that_can_be_read() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "again::a_sandbox_to_be_made_with_another_mask"]);
    let done = command.env("TEST_WITH_MASK", "1").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
