//! `cargo xtask check-layout`: rules about where things may stand.

mod docs;
mod source;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Rooms whose lints are their own, since they have unsafe code.
const OWN_LINTS: &[&str] = &["sandbox", "wasm"];
/// What may stand at the top.
const TOP: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "api",
    "bench",
    "cli",
    "clippy.toml",
    "deny.toml",
    "docs",
    "drivers",
    "examples",
    "fuzz",
    "images.yaml",
    "languages",
    "oci",
    "runner",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "sandbox",
    "scripts",
    "server",
    "tests",
    "wasm",
    "xtask",
];
/// Rooms and the rooms they may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("oci", &[]),
    ("sandbox", &[]),
    ("runner", &["dispatch-api", "dispatch-oci", "dispatch-sandbox"]),
    ("wasm", &["dispatch-api", "dispatch-runner"]),
    ("server", &["dispatch-api", "dispatch-drivers", "dispatch-runner"]),
    ("drivers", &["dispatch-api"]),
    (
        "cli",
        &[
            "dispatch-api",
            "dispatch-drivers",
            "dispatch-sandbox",
            "dispatch-server",
            "dispatch-wasm",
        ],
    ),
    ("tests", &[]),
    ("bench", &[]),
    ("xtask", &[]),
];
/// Packages of the whole build; a dependency is cheap to add and dear to keep. About 130 are those of the
/// clients of seven brokers and databases, which event drivers are made of.
const MOST_PACKAGES: usize = 650;

/// Checks the tree at `root`.
///
/// # Errors
/// How many rules are broken; each of them is printed.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let mut wrong = top(root)?;
    wrong.extend(rooms(root)?);
    wrong.extend(packages(root)?);
    for path in files(root)? {
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let Some(kind) = path.extension().and_then(|kind| kind.to_str()) else { continue };
        if source::CODE.contains(&kind) {
            wrong.extend(source::check(&name, &read(&path)?));
        }
        if kind == "rs" {
            let text = read(&path)?;
            wrong.extend(docs::error_pages(root, &name, &text));
            wrong.extend(docs::settings(root, &name, &text));
        }
        if kind == "md" {
            wrong.extend(docs::links(root, &name, &read(&path)?));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    for line in &wrong {
        eprintln!("{line}");
    }
    bail!("{} rules of the layout are broken", wrong.len())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn top(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && name != "target" && !TOP.contains(&name.as_str()) {
            wrong.push(format!("{name}: nothing else stands at the top of the project"));
        }
    }
    Ok(wrong)
}

/// Who uses whom, and that all have the common lints. Tests may use what they want.
fn rooms(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (room, may) in ROOMS {
        let text = read(&root.join(room).join("Cargo.toml"))?;
        let manifest: toml::Table =
            toml::from_str(&text).with_context(|| format!("{room}/Cargo.toml is not valid"))?;
        for table in ["dependencies", "build-dependencies"] {
            let uses = manifest.get(table).and_then(toml::Value::as_table);
            for used in uses.into_iter().flat_map(toml::Table::keys) {
                if used.starts_with("dispatch-") && !may.contains(&used.as_str()) {
                    wrong.push(format!("{room} uses {used}, which it may not"));
                }
            }
        }
        if manifest.contains_key("target") {
            wrong.push(format!("{room}: dependencies of one platform are not looked through here"));
        }
        let common = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        // The sandbox has its own, since it is where unsafe code is allowed.
        if common != Some(&toml::Value::Boolean(true)) && !OWN_LINTS.contains(room) {
            wrong.push(format!("{room}/Cargo.toml: `[lints] workspace = true` is missing"));
        }
    }
    Ok(wrong)
}

fn packages(root: &Path) -> anyhow::Result<Vec<String>> {
    let count = read(&root.join("Cargo.lock"))?.matches("[[package]]").count();
    if count <= MOST_PACKAGES {
        return Ok(Vec::new());
    }
    Ok(vec![format!(
        "Cargo.lock has {count} packages, more than {MOST_PACKAGES}: leave one out, or raise the \
         bound and say why"
    )])
}

/// All files but those of tools: what begins with a dot, and what is built or installed.
fn files(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut queue = vec![root.to_owned()];
    while let Some(directory) = queue.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let built = ["target", "node_modules", "__pycache__", "corpus", "artifacts"];
            if name.starts_with('.') || built.contains(&name.as_str()) {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                queue.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
