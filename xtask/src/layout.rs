//! `cargo xtask check-layout`: rules about where code may live.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

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
    "examples",
    "fuzz",
    "images.yaml",
    "languages",
    "runner",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "sandbox",
    "scripts",
    "server",
    "tests",
    "xtask",
];
/// Rooms and the rooms they may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("sandbox", &[]),
    ("runner", &["dispatch-api", "dispatch-sandbox"]),
    ("server", &["dispatch-api", "dispatch-runner"]),
    ("cli", &["dispatch-api", "dispatch-sandbox", "dispatch-server"]),
    ("tests", &[]),
    ("bench", &[]),
    ("xtask", &[]),
];
/// Rooms whose code may start processes: tools and tests besides the sandbox itself.
const STARTERS: &[&str] = &["sandbox/", "xtask/", "bench/", "tests/", "cli/src/commands/edit.rs"];
/// Lines of a file.
const MOST_LINES: usize = 600;
const MANY_LINES: usize = 400;
/// Packages of the whole build; a dependency is cheap to add and dear to keep.
const MOST_PACKAGES: usize = 430;

/// Checks the tree at `root`.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let mut wrong = top(root)?;
    wrong.extend(rooms(root)?);
    wrong.extend(packages(root)?);
    for (room, _) in ROOMS {
        for path in sources(&root.join(room))? {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            let lines = text.lines().count();
            if lines > MANY_LINES && lines <= MOST_LINES {
                println!("note: {name} has {lines} lines: is it about one thing?");
            }
            wrong.extend(file(&name, &text));
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

fn rooms(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (room, may) in ROOMS {
        let text = std::fs::read_to_string(root.join(room).join("Cargo.toml"))
            .with_context(|| format!("the room {room} has no Cargo.toml"))?;
        let uses = text.split("[dev-dependencies]").next().unwrap_or_default();
        for line in uses.lines().filter(|line| line.starts_with("dispatch-")) {
            let used = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if !may.contains(&used) {
                wrong.push(format!("{room} uses {used}, which it may not"));
            }
        }
    }
    Ok(wrong)
}

fn packages(root: &Path) -> anyhow::Result<Vec<String>> {
    let lock = std::fs::read_to_string(root.join("Cargo.lock"))?;
    let count = lock.matches("[[package]]").count();
    if count <= MOST_PACKAGES {
        return Ok(Vec::new());
    }
    Ok(vec![format!(
        "Cargo.lock has {count} packages, more than {MOST_PACKAGES}: leave one out, or raise the \
         bound and say why"
    )])
}

fn sources(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut queue = vec![directory.to_owned()];
    while let Some(directory) = queue.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What is wrong with one file.
fn file(name: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > MOST_LINES {
        wrong.push(format!("{name}: {lines} lines, more than {MOST_LINES}: split it"));
    }
    // This file names what it forbids.
    if name.starts_with("xtask/") {
        return wrong;
    }
    for (number, line) in text.lines().enumerate() {
        let mut complain = |what: &str| wrong.push(format!("{name}:{}: {what}", number + 1));
        let code = line.split("//").next().unwrap_or_default();
        let has =
            |word: &str| code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == word);
        if has("unsafe") && !name.starts_with("sandbox/") {
            complain("unsafe code lives in sandbox/ only");
        }
        let quoted = code.contains('"');
        let sql = ["SELECT ", "INSERT INTO", "UPDATE ", "DELETE FROM", "CREATE TABLE"];
        if quoted
            && sql.iter().any(|word| code.contains(word))
            && !name.starts_with("server/src/store/")
        {
            complain("SQL lives in server/src/store/ only");
        }
        let test = name.contains("/tests/") || name.ends_with("tests.rs");
        if code.contains("Command::new(")
            && code.contains("process::Command")
            && !test
            && !STARTERS.iter().any(|starter| name.starts_with(starter))
        {
            complain("only sandbox/ starts processes");
        }
        if line.contains("TODO") || line.contains("FIXME") {
            complain("finish it, or write it down where it is found again");
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_breach() {
        for (name, text, count) in [
            ("server/src/a.rs", "fn f() { unsafe { g() } }", 1),
            ("sandbox/src/a.rs", "fn f() { unsafe { g() } }", 0),
            ("server/src/a.rs", "// unsafe in words is fine", 0),
            ("server/src/a.rs", "#![forbid(unsafe_code)]", 0),
            ("server/src/a.rs", "let q = \"SELECT 1\";", 1),
            ("server/src/store/a.rs", "let q = \"SELECT 1\";", 0),
            ("runner/src/a.rs", "std::process::Command::new(\"ls\")", 1),
            ("tests/it/a.rs", "std::process::Command::new(\"ls\")", 0),
            ("api/src/a.rs", "// TODO later", 1),
        ] {
            assert_eq!(file(name, text).len(), count, "{name}: {text}");
        }
        assert_eq!(file("api/src/a.rs", &"\n".repeat(MOST_LINES + 1)).len(), 1);
    }

    #[test]
    fn the_project_keeps_its_own_rules() {
        run(&crate::root()).expect("the layout is in order");
    }
}
