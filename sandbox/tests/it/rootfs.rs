//! Sandboxes whose root is that of an image.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use dispatch_sandbox::{Exit, Launcher, Network, Tier, Wish};

use crate::support::{bind, refused, run, shell};

/// An image with a shell, `cat`, `ls` and what they need.
fn image() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for program in ["/bin/sh", "/bin/cat", "/bin/ls"] {
        copy(Path::new(program), dir.path());
        let libraries = std::process::Command::new("ldd").arg(program).output().unwrap();
        let libraries = String::from_utf8(libraries.stdout).unwrap();
        for path in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            copy(Path::new(path), dir.path());
        }
    }
    for place in ["etc", "var/log/deep", "opt/tool", "function", "tmp/of-image", "dev"] {
        fs::create_dir_all(dir.path().join(place)).unwrap();
    }
    fs::write(dir.path().join("etc/os-release"), "ID=image\n").unwrap();
    fs::write(dir.path().join("function/of-image"), "").unwrap();
    symlink("/opt/tool", dir.path().join("tool")).unwrap();
    symlink("../../../../../../etc", dir.path().join("up")).unwrap();
    dir
}

fn copy(from: &Path, root: &Path) {
    let to = root.join(from.strip_prefix("/").unwrap());
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    if !to.exists() {
        fs::copy(from, to).unwrap();
    }
}

#[tokio::test]
async fn a_sandbox_shows_the_image_and_nothing_of_the_machine() {
    let (launcher, image, source) =
        (Launcher::start().unwrap(), image(), tempfile::tempdir().unwrap());
    fs::set_permissions(source.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    fs::write(source.path().join("handler"), "").unwrap();
    let script = "cat /etc/os-release /up/os-release; ls /tool /function /tmp; \
                  ls -d /usr/share /root /home 2>/dev/null; cat /proc/self/stat >/dev/null && echo proc; \
                  for i in /etc/x /x /opt/tool/x /function/x; do (echo no > $i) 2>/dev/null || echo refused; done; \
                  for i in /var/log/x /run/x /tmp/x; do echo yes > $i && cat $i; done; ls /var/log";
    let mut spec = shell(script);
    spec.root = Some(image.path().to_owned());
    spec.scratch = ["/var/log", "/run", "/not/there"].map(Into::into).to_vec();
    spec.binds = vec![bind(source.path(), "/function", false)];
    let said = run(&launcher, &spec).await;
    let wanted = "ID=image\nID=image\n/function:\nhandler\n\n/tmp:\n\n/tool:\nproc\n\
                  refused\nrefused\nrefused\nrefused\nyes\nyes\nyes\nx\n";
    assert_eq!(said.out, wanted, "{}", said.err);
    assert_eq!(said.exit, Exit::Code(0));
    assert!(image.path().join("var/log/deep").is_dir() && !image.path().join("run").exists());
}

#[tokio::test]
async fn with_the_hosts_network_it_asks_the_hosts_name_server() {
    let (launcher, image) = (Launcher::start().unwrap(), image());
    for name in ["hosts", "resolv.conf"] {
        fs::write(image.path().join("etc").join(name), "of the image\n").unwrap();
    }
    let mut spec = shell("cat /etc/hosts");
    spec.root = Some(image.path().to_owned());
    assert_eq!(run(&launcher, &spec).await.out, "of the image\n");
    spec.network = Network::Host;
    assert_eq!(run(&launcher, &spec).await.out, fs::read_to_string("/etc/hosts").unwrap());
}

#[tokio::test]
async fn without_a_view_of_its_own_no_sandbox_has_another_root() {
    let wish = Wish { at_most: Tier::C, without_isolation: false };
    let launcher = Launcher::start_with(wish).unwrap();
    if launcher.has_views() {
        println!("skipped: tier C is not to be had here");
        return;
    }
    let image = image();
    let mut spec = shell("true");
    spec.root = Some(image.path().to_owned());
    let error = refused(&launcher, &spec).await;
    assert!(error.contains("image"), "{error}");
}

#[tokio::test]
async fn what_changes_an_image_is_root_by_name_only() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let (launcher, image) = (Launcher::start().unwrap(), image());
    if !launcher.can_install() {
        println!("skipped: there are no user namespaces");
        return;
    }
    copy(Path::new("/usr/bin/busybox"), image.path());
    let host_uid = 200_017;
    let ours = nix::unistd::geteuid().is_root();
    for name in [".", "etc", "opt", "opt/tool", "etc/os-release"] {
        if ours {
            chown(image.path().join(name), Some(host_uid), Some(host_uid)).unwrap();
        }
    }
    let script = "bb() { /usr/bin/busybox \"$@\"; }; bb id -u; echo changed > /etc/os-release; \
        echo new > /opt/tool/new; bb chown 33:33 /opt/tool/new && echo owned; \
        bb chmod 4755 /opt/tool/new; bb chroot / /bin/sh -c 'echo in the root'; \
        bb setuidgid 1000 /usr/bin/busybox id -u 2>&1; \
        echo no > /x 2>/dev/null || echo refused; \
        bb cat /proc/self/status | bb grep -E '^Cap(Eff|Bnd)|NoNewPrivs'";
    let mut spec = shell(script);
    spec.root = Some(image.path().to_owned());
    spec.installs = true;
    let said = run(&launcher, &spec).await;
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines[..3], ["0", "owned", "in the root"], "{} {}", said.out, said.err);
    assert!(lines.contains(&"refused") && lines.contains(&"NoNewPrivs:\t1"), "{lines:?}");
    assert!(!lines.contains(&"1000"), "nobody becomes the other user of its namespace");
    for set in ["CapEff", "CapBnd"] {
        assert!(lines.contains(&&*format!("{set}:\t0000000000000000")), "{lines:?}");
    }
    let made = fs::metadata(image.path().join("opt/tool/new")).unwrap();
    assert_eq!(made.uid(), if ours { host_uid } else { nix::unistd::geteuid().as_raw() });
    assert_eq!(fs::read_to_string(image.path().join("etc/os-release")).unwrap(), "changed\n");
    // A call that would do something elsewhere still ends it.
    spec.argv =
        ["/usr/bin/busybox", "mount", "-t", "tmpfs", "x", "/opt"].map(str::to_owned).to_vec();
    assert_eq!(run(&launcher, &spec).await.exit, Exit::ForbiddenCall);
}
