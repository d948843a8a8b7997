//! Packages of an image's own manager: the machine's apt and dpkg, in an image of the machine's files,
//! with packages that are made here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::image_files::{Files, Layers};
use crate::support::Server;

/// What apt and dpkg are, and what dpkg wants to see before it does anything.
const PROGRAMS: [&str; 16] = [
    "/bin/bash",
    "/bin/sh",
    "/usr/bin/apt-get",
    "/usr/bin/diff",
    "/usr/bin/dpkg",
    "/usr/bin/dpkg-deb",
    "/usr/bin/dpkg-query",
    "/usr/bin/dpkg-split",
    "/usr/bin/rm",
    "/usr/bin/tar",
    "/usr/lib/apt/methods/copy",
    "/usr/lib/apt/methods/file",
    "/usr/lib/apt/methods/store",
    "/usr/bin/busybox",
    "/sbin/ldconfig",
    "/sbin/start-stop-daemon",
];

/// What dpkg knows of machines.
const TABLES: [&str; 3] =
    ["/usr/share/dpkg/cputable", "/usr/share/dpkg/ostable", "/usr/share/dpkg/tupletable"];

/// A package in a Debian archive, with the paragraph that an index has of it.
fn package(
    place: &Path,
    name: &str,
    version: &str,
    files: &[(&str, &str)],
    script: &str,
) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let tree = place.join(name);
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n\
         Description: made for a test\n"
    );
    let own = [("DEBIAN/control", control.as_str()), ("DEBIAN/postinst", script)];
    for (path, text) in own.iter().chain(files).filter(|(_, text)| !text.is_empty()) {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let file = place.join(format!("{name}.deb"));
    // Compressing would need a program in the image.
    let built = Command::new("dpkg-deb")
        .args(["-Znone", "--root-owner-group", "--build"])
        .args([&tree, &file])
        .output()
        .unwrap();
    assert!(built.status.success(), "{built:?}");
    let sum = Command::new("sha256sum").arg(&file).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let (sum, size) = (sum.split(' ').next().unwrap(), fs::metadata(&file).unwrap().len());
    format!("{control}Filename: ./{name}.deb\nSize: {size}\nSHA256: {sum}\n\n")
}

/// A package: name, version, files by their paths, and the script that is run once it is there.
type Package<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

/// An image with apt, and with these packages in a directory that it takes them from.
fn image(packages: &[Package<'_>]) -> Layers {
    let place = tempfile::tempdir().unwrap();
    let index: String = packages
        .iter()
        .map(|(name, version, files, script)| package(place.path(), name, version, files, script))
        .collect();
    let mut files = Files::new()
        .programs(&PROGRAMS.map(PathBuf::from))
        .text("etc/apt/sources.list", "deb [trusted=yes] file:/repository ./\n")
        .text("etc/apt/apt.conf.d/.keep", "")
        .text("etc/apt/preferences.d/.keep", "")
        .text("etc/old", "to be removed\n")
        .text("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
        .text("repository/Packages", &index)
        .text("var/lib/dpkg/status", "")
        .text("var/lib/dpkg/info/format", "1\n")
        .text("var/lib/dpkg/updates/.keep", "")
        .text("var/cache/apt/.keep", "")
        .text("var/lib/apt/.keep", "")
        .text("var/log/.keep", "");
    for table in TABLES {
        files = files.copy(Path::new(table), table.trim_start_matches('/'));
    }
    for (name, ..) in packages {
        let file = format!("{name}.deb");
        files = files.copy(&place.path().join(&file), &format!("repository/{file}"));
    }
    Layers::of(vec![files])
}

fn missing() -> bool {
    let missing = PROGRAMS.iter().chain(&TABLES).find(|path| !Path::new(path).exists());
    if let Some(path) = missing {
        println!("skipped: {path} is not on this machine");
    }
    missing.is_some()
}

fn base(s: &Server, layers: &Layers) {
    layers.layout(&s.home().join("base"), &json!({}));
    let place = format!("oci:{}", s.home().join("base").display());
    s.dispatch(&["create", "base-image", "base", &place, "--language", "bash", "--wait"]).ok();
    s.ready("base-image", "base");
}

fn create(s: &Server, name: &str, packages: &serde_json::Value) -> serde_json::Value {
    let list = s.file(&format!("{name}.json"), &json!({ "packages": packages }).to_string());
    s.dispatch(&["create", "image", name, "base", "--system-deps", &list]).ok();
    s.settled("image", name)
}

/// Tries what no script of a package may do, and what root does.
const SCRIPT: &str = "#!/bin/sh
set -e
bb() { /usr/bin/busybox \"$@\"; }
mine=/usr/share/greeter
bb id -u > $mine/user
bb chown 33:33 /usr/bin/greet
bb chmod 4755 /usr/bin/greet
bb rm /etc/old
bb mkfifo $mine/pipe
bb ln -s /etc/passwd $mine/link
bb mknod $mine/device c 1 3 2>/dev/null && echo made > $mine/node || echo refused > $mine/node
bb wget -q -O- http://127.0.0.1:PORT/healthz > $mine/network 2>/dev/null || echo refused > $mine/network
http_proxy= bb wget -q -O- http://127.0.0.1:PORT/healthz >> $mine/network 2>/dev/null || echo refused >> $mine/network
";

#[test]
fn an_images_own_manager_adds_packages_as_a_layer_that_is_made_once() {
    if missing() {
        return;
    }
    let rules = tempfile::NamedTempFile::new().unwrap();
    let s = Server::with(&["--package-rules", rules.path().to_str().unwrap()]);
    let script = SCRIPT.replace("PORT", &s.port.to_string());
    let greeter: &[(&str, &str)] =
        &[("usr/bin/greet", "#!/bin/sh\necho hello\n"), ("usr/share/greeter/empty", "\n")];
    base(
        &s,
        &image(&[
            ("greeter", "1.2-1", greeter, &script),
            ("broken", "1.0", &[], "#!/bin/sh\necho it does not work >&2\nexit 3\n"),
        ]),
    );
    let first = create(&s, "one", &json!([{"name": "greeter", "version": "1.2-1"}]));
    let log = s.dispatch(&["get", "image", "one", "--logs"]).ok();
    assert_eq!(first["status"], "READY", "{first} {log}");
    assert!(log.contains("apt installs greeter=1.2-1"), "{log}");

    let source = "cd /usr/share/greeter\nset +e\n\
        printf '[\"%s\",\"%s\",\"%s\",\"%s\",\"%s\",\"%s\"]' \"$(greet)\" \"$(busybox cat user)\" \
        \"$(busybox cat node)\" \"$(busybox tr '\\n' ' ' < network)\" \
        \"$(busybox ls | busybox tr '\\n' ' ')\" \"$([ -e /etc/old ] && echo there)\"\n";
    let path = s.file("look.sh", source);
    s.dispatch(&["create", "function", "--image", "one", "look", &path, "--wait"]).ok();
    let wanted =
        json!(["hello", "0", "refused", "refused refused ", "empty link network node user ", ""]);
    assert_eq!(s.run("look", "{}")["output"], wanted);

    // Nothing of the build is left, nor is a file somebody else's or with rights of its own.
    let trees = s.data.join("images/trees");
    let names: Vec<PathBuf> =
        fs::read_dir(&trees).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(names.len(), 2, "the base and the image with the package: {names:?}");
    let made = names.iter().map(|tree| tree.join("usr/bin/greet")).find(|path| path.exists());
    let data = fs::metadata(made.unwrap()).unwrap();
    let (mode, owner) =
        (std::os::unix::fs::MetadataExt::mode(&data), std::os::unix::fs::MetadataExt::uid(&data));
    assert_eq!((mode & 0o7022, owner), (0, nix::unistd::geteuid().as_raw()));

    // The same again is there; the order and doubles do not matter.
    let twice =
        json!([{"name": "greeter", "version": "1.2-1"}, {"name": "greeter", "version": "1.2-1"}]);
    assert_eq!(create(&s, "two", &twice)["status"], "READY");
    let log = s.dispatch(&["get", "image", "two", "--logs"]).ok();
    assert!(log.contains("is here already") && !log.contains("apt installs"), "{log}");

    let bill = s.dispatch(&["get", "image", "one", "--sbom"]).json();
    let component = &bill["components"][0];
    assert_eq!(component["purl"], "pkg:deb/greeter@1.2-1", "{bill}");
    fs::write(rules.path(), "[default]\ndeny = ['deb/greeter']\n").unwrap();
    let denied = create(&s, "denied", &json!([{"name": "greeter"}]));
    let reason = denied["reason"][0].as_str().unwrap();
    assert!(reason.contains("deb/greeter@1.2-1 is denied"), "{reason}");
    fs::write(rules.path(), "").unwrap();

    for (name, package, why) in [
        ("absent", json!({"name": "absent"}), "Unable to locate package absent"),
        ("other", json!({"name": "greeter", "version": "9"}), "greeter"),
        ("broken", json!({"name": "broken"}), "it does not work"),
        ("option", json!({"name": "--download-only"}), "cannot be the name"),
    ] {
        let image = create(&s, name, &json!([package]));
        assert_eq!(image["status"], "ERROR", "{image}");
        let reason = image["reason"][0].as_str().unwrap();
        assert!(reason.contains(why), "{reason}");
    }

    // It is found again after a crash, and goes when nobody uses it.
    let s = s.crash_and_restart(&[]);
    assert_eq!(s.run("look", "{}")["output"], wanted);
    s.dispatch(&["delete", "function", "look"]).ok();
    for name in ["one", "two", "denied"] {
        s.dispatch(&["delete", "image", name]).ok();
    }
    for entry in fs::read_dir(s.data.join("images/records")).unwrap().flatten() {
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
        fs::File::open(entry.path()).unwrap().set_modified(then).unwrap();
    }
    let told = s.dispatch(&["manage", "gc", "--older-than", "1", "--dry-run"]).ok();
    assert!(told.contains("image"), "{told}");
    let count = || fs::read_dir(s.data.join("images/trees")).unwrap().count();
    assert!(count() > 1, "nothing is removed yet");
    s.dispatch(&["manage", "gc", "--older-than", "1"]).ok();
    assert_eq!(count(), 1, "the base image is still used");
}

#[test]
fn what_fills_the_disk_or_never_ends_is_stopped() {
    if missing() {
        return;
    }
    let s = Server::with(&["--max-layer", "8", "--build-timeout", "20"]);
    let bomb = "#!/bin/sh\nn=0\nwhile :; do n=$((n+1)); \
        /usr/bin/busybox dd if=/dev/zero of=/var/bomb$n bs=1M count=4 2>/dev/null; done\n";
    base(&s, &image(&[("bomb", "1.0", &[], bomb)]));
    let image = create(&s, "bomb", &json!([{"name": "bomb"}]));
    assert_eq!(image["status"], "ERROR", "{image}");
    let reason = image["reason"][0].as_str().unwrap();
    assert!(reason.contains("the image and its packages take more than"), "{reason}");
    let trees = fs::read_dir(s.data.join("images/trees")).unwrap().flatten();
    let left: Vec<_> = trees.map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 1, "the copy is gone: {left:?}");
}
