//! The rules, on small trees that break them.
#![allow(clippy::unwrap_used)]

use super::*;

const LINTS: &str = "[lints]\nworkspace = true\n";

/// A tree that keeps every rule.
fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "Cargo.lock", "[[package]]\n");
    for (room, _) in ROOMS {
        write(root.path(), &format!("{room}/Cargo.toml"), LINTS);
    }
    root
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_tree_in_order_passes_and_each_breach_is_found() {
    run(tree().path()).unwrap();
    let many = "[[package]]\n".repeat(MOST_PACKAGES + 1);
    for (name, text) in [
        ("notes/a.txt", ""),
        ("Cargo.lock", many.as_str()),
        ("api/Cargo.toml", "[lints]\nworkspace = true\n[dependencies]\ndispatch-runner = \"*\"\n"),
        ("api/Cargo.toml", "[dependencies]\n"),
        ("api/Cargo.toml", "[lints]\nworkspace = true\n[target.x.dependencies]\na = \"*\"\n"),
        ("server/src/a.rs", "fn f() { unsafe { g() } }"),
        ("server/src/deep/in/a.rs", "const Q: &str = \"DELETE FROM runs\";"),
        ("server/src/a.rs", "error.page(\"nowhere\")"),
        ("docs/a.md", "[b](b.md)"),
    ] {
        let root = tree();
        write(root.path(), name, text);
        assert!(run(root.path()).is_err(), "{name}: {text}");
    }
}

#[test]
fn what_tools_leave_is_not_looked_at() {
    let root = tree();
    for name in ["target/a.rs", ".git/a.rs", "fuzz/target/a.rs", "examples/node_modules/x/a.rs"] {
        write(root.path(), name, "unsafe");
    }
    run(root.path()).unwrap();
}

#[test]
fn tests_may_use_any_room() {
    let root = tree();
    let manifest = format!("{LINTS}[dev-dependencies]\ndispatch-sandbox = \"*\"\n");
    write(root.path(), "server/Cargo.toml", &manifest);
    run(root.path()).unwrap();
}

#[test]
fn the_project_keeps_its_own_rules() {
    run(&crate::root()).unwrap();
}
