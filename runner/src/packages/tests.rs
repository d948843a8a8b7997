#![allow(clippy::unwrap_used)]
use std::io::Write as _;

use super::*;

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn packages_of_every_kind_are_found() {
    let (root, layer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (root, layer) = (root.path(), layer.path());
    let status = "Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\nDescription: x\n \
                  .\n more\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n";
    write(root, "var/lib/dpkg/status", status);
    write(root, "usr/share/doc/libc6/copyright", "License: LGPL-2.1\n text\n\nLicense: GPL-2\n");
    write(root, "var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2026a\n");
    write(root, "lib/apk/db/installed", "P:musl\nV:1.2.5-r0\nL:MIT\n\nP:zlib\nV:1.3\n");
    let metadata = "Metadata-Version: 2.1\nName: requests\nVersion: 2.32.3\nLicense: UNKNOWN\n\
                    Classifier: License :: OSI Approved :: Apache Software License\n\nName: other\n";
    write(root, "usr/lib/python3/dist-packages/requests-2.32.3.dist-info/METADATA", metadata);
    write(
        layer,
        "tiny-1.0.dist-info/METADATA",
        "Name: tiny\nVersion: 1.0\nLicense-Expression: MIT\n",
    );
    write(
        layer,
        "node_modules/@a/b/package.json",
        r#"{"name":"@a/b","version":"3.0.0","license":{"type":"ISC"}}"#,
    );
    write(layer, "node_modules/c/node_modules/d/package.json", r#"{"name":"d","version":"1"}"#);
    write(layer, "app/package.json", r#"{"name":"app","version":"1"}"#);
    write(layer, "gems/specifications/rack-3.1.0.gemspec", "  s.licenses = [\"MIT\".freeze]\n");
    write(layer, "jars/gson-2.10.1.jar", "no archive");
    let mut jar = zip::ZipWriter::new(fs::File::create(layer.join("renamed.jar")).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    jar.start_file("META-INF/maven/org.slf4j/slf4j-api/pom.properties", options).unwrap();
    jar.write_all(b"version=2.0.9\ngroupId=org.slf4j\nartifactId=slf4j-api\n").unwrap();
    jar.finish().unwrap();
    let found: Vec<String> = find(&[root, layer])
        .into_iter()
        .map(|package| {
            let Package { kind, name, version, licence } = package;
            format!("{kind} {name} {version} {licence}").trim_end().to_owned()
        })
        .collect();
    let wanted = [
        "apk musl 1.2.5-r0 MIT",
        "apk zlib 1.3",
        "deb libc6 2.36-9 GPL-2 AND LGPL-2.1",
        "deb tzdata 2026a",
        "gem rack 3.1.0 MIT",
        "maven gson 2.10.1",
        "maven org.slf4j/slf4j-api 2.0.9",
        "npm @a/b 3.0.0 ISC",
        "npm d 1",
        "pypi requests 2.32.3 Apache Software License",
        "pypi tiny 1.0 MIT",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn links_of_strangers_lead_nowhere() {
    let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(other.path(), "x-1.dist-info/METADATA", "Name: x\nVersion: 1\n");
    write(other.path(), "status", "Package: y\nVersion: 1\n");
    let link = |to: &Path, path: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, path).unwrap();
    };
    link(other.path(), "site-packages");
    link(&other.path().join("status"), "var/lib/dpkg/status");
    link(other.path(), "usr/share/doc/y");
    link(Path::new("/dev/zero"), "lib/apk/db/installed");
    link(root.path(), "loop");
    assert!(find(&[root.path()]).is_empty());
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(other.path().join("dpkg")).unwrap();
    fs::rename(other.path().join("status"), other.path().join("dpkg/status")).unwrap();
    fs::create_dir(root.path().join("var")).unwrap();
    std::os::unix::fs::symlink(other.path(), root.path().join("var/lib")).unwrap();
    assert!(find(&[root.path()]).is_empty(), "nor by a directory on the way");
}
