//! What is in an image, and what may be.

use std::fs;

use serde_json::{Value, json};

use crate::image_files::{Files, Layers};
use crate::support::Server;

const STATUS: &str = "Package: libssl3\nStatus: install ok installed\nVersion: 3.0.15-1\n\n\
                      Package: tool\nStatus: install ok installed\nVersion: 1.2\n";

#[test]
fn an_images_packages_are_listed_and_held_against_the_rules() {
    let rules = tempfile::NamedTempFile::new().unwrap();
    let s = Server::with(&["--package-rules", rules.path().to_str().unwrap()]);
    let metadata = "Name: tiny\nVersion: 1.0\nLicense: MIT\n";
    let files = Files::new()
        .copy(std::path::Path::new("/bin/busybox"), "bin/busybox")
        .text("var/lib/dpkg/status", STATUS)
        .text("usr/lib/python3/dist-packages/tiny-1.0.dist-info/METADATA", metadata);
    Layers::of(vec![files]).layout(&s.home().join("base"), &json!({}));
    let place = format!("oci:{}", s.home().join("base").display());
    let create = ["create", "base-image", "base", &place, "--language", "exec", "--wait"];
    s.dispatch(&create).ok();
    s.dispatch(&["create", "image", "good", "base", "--wait"]).ok();
    let bill = s.dispatch(&["get", "image", "good", "--sbom"]).json();
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&json!("CycloneDX"), &json!("1.6")));
    let urls: Vec<&Value> =
        bill["components"].as_array().unwrap().iter().map(|it| &it["purl"]).collect();
    let program = format!("pkg:generic/exec@{}", env!("CARGO_PKG_VERSION"));
    let wanted = ["pkg:deb/libssl3@3.0.15-1", "pkg:deb/tool@1.2", &program, "pkg:pypi/tiny@1.0"];
    assert_eq!(urls, wanted, "{bill}");
    assert_eq!(bill["components"][3]["licenses"][0]["license"]["name"], "MIT");
    let again = s.dispatch(&["get", "image", "good", "--sbom"]).json();
    assert_eq!(bill, again, "two bills of one image can be compared");
    let spdx = s.dispatch(&["get", "image", "good", "--sbom", "--sbom-format", "spdx"]).json();
    assert_eq!(spdx["spdxVersion"], "SPDX-2.3");
    let package = &spdx["packages"][0];
    assert_eq!(
        (&package["name"], &package["versionInfo"]),
        (&json!("libssl3"), &json!("3.0.15-1"))
    );
    assert_eq!(spdx["relationships"].as_array().unwrap().len(), 4);

    fs::write(rules.path(), "[default]\ndeny = ['deb/*ssl*@3.0.*']\n").unwrap();
    s.dispatch(&["create", "image", "bad", "base"]).ok();
    let image = s.settled("image", "bad");
    let reason = image["reason"][0].as_str().unwrap();
    assert!(reason.contains("deb/libssl3@3.0.15-1 is denied by \"deb/*ssl*@3.0.*\""), "{reason}");
    let error = s.dispatch(&["get", "image", "bad", "--sbom"]).fails();
    assert!(error.contains("once it is READY"), "{error}");
    // Rules that cannot be read let nothing through.
    fs::write(rules.path(), "[default]\nallow = ['nothing']\n").unwrap();
    s.dispatch(&["update", "image", "bad"]).ok();
    fs::write(rules.path(), "[default]\nallow = ['deb/*', 'pypi/tiny', 'generic/*']\n").unwrap();
    assert_eq!(s.ready("image", "bad")["reason"], Value::Null);
    s.dispatch(&["--organization", "other", "get", "image", "good", "--sbom"]).fails();
}
