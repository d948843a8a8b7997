//! Every language of this machine, a WebAssembly module and a container image: the first answer from
//! zero workers, and warm calls by one client.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::{Bench, missing, say};
use crate::container;
use crate::cores::{self, Cores};
use crate::load::{self, Bound};
use crate::machine::Watch;
use crate::peers::{self, Missing};
use crate::server::Server;
use crate::stats::{Rate, Times};

/// Languages and the file with their function; whether a process waits for functions.
const LANGUAGES: [(&str, &str, bool); 8] = [
    ("python3", "hello.py", true),
    ("nodejs", "hello.js", true),
    ("ruby", "hello.rb", true),
    ("java", "Hello.java", true),
    ("clojure", "hello.clj", true),
    ("powershell", "hello.ps1", true),
    ("go", "hello.go", false),
    ("bash", "hello.sh", true),
];
/// What the container image is called.
const CONTAINER: &str = "container";

/// Figures of one language.
#[derive(Clone, Debug, Serialize)]
pub struct Language {
    /// Its name, and what runs where that is not plain.
    pub what: String,
    /// From a call to the answer, without a worker.
    pub first: Times,
    /// Warm calls of one client.
    pub warm: Vec<Rate>,
}

/// A function that is ready.
struct Subject {
    what: String,
    /// The language whose processes wait for it.
    waits: Option<&'static str>,
    function: &'static str,
    /// What its answers hold, if not the greeting.
    contains: Option<&'static str>,
}

impl Bench {
    /// All of them; what is not installed is noted.
    ///
    /// # Errors
    /// A function that is ready answers something wrong.
    pub fn languages(&self, lacking: &mut Vec<Missing>) -> anyhow::Result<Vec<Language>> {
        let server = Server::start(&self.setup, Cores::Two, &["--idle-seconds", "1"])?;
        let mut subjects = Vec::new();
        let mut add = |name: &str, subject: anyhow::Result<Subject>| match subject {
            Ok(subject) => subjects.push(subject),
            Err(error) => missing(lacking, name, &error),
        };
        for (language, source, waits) in LANGUAGES {
            let waits = waits.then_some(language);
            let what = language.to_owned();
            let subject = Subject { what, waits, function: language, contains: None };
            add(language, deploy(&server, language, source).map(|()| subject));
        }
        add("exec", compiled(&server));
        add("wasm", wasm(&server));
        add(CONTAINER, self.container(&server));
        subjects.iter().map(|subject| self.language(&server, subject)).collect()
    }

    fn language(&self, server: &Server, subject: &Subject) -> anyhow::Result<Language> {
        say(&format!("{}, from zero and warm", subject.what));
        let mut target = server.endpoint(subject.function);
        target.contains = subject.contains.unwrap_or(target.contains);
        let (watch, mut times) = (Watch::start(server.process.id()), Vec::new());
        target.call()?;
        for _ in 0..self.effort.starts.min(20) {
            server.until("dispatch_workers", "", |sum| sum == 0.0)?;
            if let Some(language) = subject.waits {
                let label = format!("language=\"{language}\"");
                server.until("dispatch_stem_cells", &label, |sum| sum >= 1.0)?;
            }
            let call = || {
                let start = Instant::now();
                target.call().map(|()| start.elapsed())
            };
            times.push(cores::on(Cores::Two.clients(), call)??);
        }
        let first = Times::new(times, watch.stop());
        let time = self.effort.warm;
        // Virtual machines compile what they run often.
        let bound = Bound { time, warm: time, requests: usize::MAX };
        let round = |_| load::run(&target, 1, bound, Cores::Two, server.process.id());
        let warm = (0..self.effort.rounds).map(round).collect::<Result<_, _>>()?;
        Ok(Language { what: subject.what.clone(), first, warm })
    }

    fn container(&self, server: &Server) -> anyhow::Result<Subject> {
        let directory = tempfile::tempdir()?;
        container::layout(directory.path())?;
        let place = format!("oci:{}", directory.path().display());
        for words in [
            ["create", "base-image", CONTAINER, &place, "--wait"],
            ["create", "image", CONTAINER, CONTAINER, "--wait"],
        ] {
            let mut command = Command::new(&self.setup.program);
            let done = command.args(words).envs(server.environment()).output()?;
            ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr).trim());
        }
        server.api.without_source(CONTAINER, CONTAINER)?;
        server.expose(CONTAINER)?;
        let what = "a container image that serves HTTP, with hyper".to_owned();
        Ok(Subject { what, waits: None, function: CONTAINER, contains: None })
    }
}

fn deploy(server: &Server, language: &str, source: &str) -> anyhow::Result<()> {
    server.image(language)?;
    server.deploy(language, language, source)
}

/// A program in C, one line for each call.
fn compiled(server: &Server) -> anyhow::Result<Subject> {
    let directory = tempfile::tempdir()?;
    let program = directory.path().join("hello");
    let source = peers::directory().join("hello.c");
    let mut command = Command::new("cc");
    let done = command.args(["-O2", "-static", "-o"]).arg(&program).arg(source).output();
    let done = done.context("cannot run cc")?;
    ensure!(done.status.success(), "cc failed: {}", String::from_utf8_lossy(&done.stderr));
    deploy(server, "exec", &program.to_string_lossy())?;
    let what = "exec, a static program in C".to_owned();
    Ok(Subject { what, waits: Some("exec"), function: "exec", contains: None })
}

/// A module that answers with what it was called with.
fn wasm(server: &Server) -> anyhow::Result<Subject> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/wasm/echo.wat");
    deploy(server, "wasm", &source.to_string_lossy())?;
    let what = "wasm, a core module that echoes".to_owned();
    Ok(Subject { what, waits: Some("wasm"), function: "wasm", contains: Some("Jon") })
}
