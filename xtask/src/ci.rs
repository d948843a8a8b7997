//! `cargo xtask ci`.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

mod summary;

use summary::Summary;

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
///
/// # Errors
/// The first step that failed, or the number of tests that did.
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
    let most = ["--workspace", "--exclude", "dispatch-tests", "--all-features"];
    let mut summary = tests(root, "tests", &most)?;
    // The tests above turn on what only tests need. The stories are told on the program as it is.
    step(root, "build", &["build", "-p", "dispatch"])?;
    summary += tests(root, "stories", &["-p", "dispatch-tests"])?;
    println!("{summary}");
    if summary.failed > 0 {
        bail!("{} tests failed", summary.failed);
    }
    Ok(())
}

fn tests(root: &Path, what: &str, packages: &[&str]) -> anyhow::Result<Summary> {
    println!("== {what}");
    let mut args = vec!["nextest", "run", "--color", "never", "--no-fail-fast"];
    args.extend(packages);
    let mut child = cargo(root, &args)
        .env("INSTA_UPDATE", "no")
        .env("RUST_BACKTRACE", "0")
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo nextest")?;
    let mut counted = None;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            eprintln!("{line}");
            counted = Summary::of_nextest(&line).or(counted);
        }
    }
    let status = child.wait()?;
    let Some(mut summary) = counted else {
        bail!("cargo nextest ended without a summary: the tests were not built or not run");
    };
    if !status.success() && summary.failed == 0 {
        summary.failed = 1;
    }
    let report = root.join("target/nextest/default/junit.xml");
    let report = std::fs::read_to_string(&report)
        .with_context(|| format!("cannot read {}", report.display()))?;
    for reason in summary.skip(&report) {
        println!("skipped: {reason}");
    }
    Ok(summary)
}
