//! `cargo xtask ci`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

fn cargo(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root);
    // The tests' own servers must not be told anything by the caller's settings.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DISPATCH_") {
            command.env_remove(name);
        }
    }
    command
}

fn step(root: &Path, what: &str, args: &[&str]) -> anyhow::Result<()> {
    println!("== {what}");
    let status =
        cargo(root, args).status().with_context(|| format!("cannot run cargo {args:?}"))?;
    if !status.success() {
        bail!("{what} failed: cargo {}", args.join(" "));
    }
    Ok(())
}

/// Runs everything; the last line says how many tests passed, failed and were skipped.
pub fn run(root: &Path) -> anyhow::Result<()> {
    step(root, "format", &["fmt", "--all", "--check"])?;
    println!("== layout");
    crate::layout::run(root)?;
    if cargo(root, &["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?
        .success()
    {
        step(root, "dependencies", &["deny", "check", "bans", "licenses", "sources"])?;
    } else {
        println!("== dependencies: skipped, cargo-deny is not installed");
    }
    let lints =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    step(root, "lints", &lints)?;
    let light = ["clippy", "-p", "dispatch", "--no-default-features", "--", "-D", "warnings"];
    step(root, "lints of the client alone", &light)?;
    step(root, "build", &["build", "--workspace", "--all-features"])?;
    let summary = tests(root)?;
    println!("{summary}");
    if summary.failed > 0 {
        bail!("{} tests failed", summary.failed);
    }
    Ok(())
}

/// How a run of the tests ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

fn tests(root: &Path) -> anyhow::Result<Summary> {
    println!("== tests");
    let args = ["nextest", "run", "--workspace", "--all-features", "--color", "never"];
    let mut child = cargo(root, &args)
        .env("INSTA_UPDATE", "no")
        .env("RUST_BACKTRACE", "0")
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo nextest")?;
    let mut summary = None;
    let mut skipped = 0;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            let line = line?;
            eprintln!("{line}");
            summary = parse(&line).or(summary);
            skipped += u64::from(line.trim_start().starts_with("skipped: "));
        }
    }
    let status = child.wait()?;
    let Some(mut summary) = summary else {
        bail!("cargo nextest ended without a summary: the tests were not built or not run");
    };
    summary.skipped += skipped;
    if !status.success() && summary.failed == 0 {
        summary.failed = 1;
    }
    Ok(summary)
}

/// Reads nextest's line: `Summary [ 1.2s] 9 tests run: 8 passed (1 slow), 1 failed, 2 skipped`.
fn parse(line: &str) -> Option<Summary> {
    let counts = line.trim_start().strip_prefix("Summary [")?.split_once("run:")?.1;
    let mut summary = Summary::default();
    for part in counts.split(',') {
        let mut words = part.split_whitespace();
        let (Some(number), Some(word)) = (words.next(), words.next()) else { continue };
        let number = number.parse().ok()?;
        match word {
            "passed" => summary.passed = number,
            "skipped" => summary.skipped = number,
            // Failed, timed out, or ended without being run to the end.
            _ => summary.failed += number,
        }
    }
    Some(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_nextest_is_read() {
        let line = "     Summary [   3.456s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 2 skipped";
        let wanted = Summary { passed: 10, failed: 2, skipped: 2 };
        assert_eq!(parse(line), Some(wanted));
        assert_eq!(parse("        PASS [   0.053s] x"), None);
    }
}
