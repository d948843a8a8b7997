//! A runner on a directory of its own, and functions written on the spot.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dispatch_runner::process::{Launcher, Options, ProcessRunner};
use dispatch_runner::{
    BuildError, Call, Egress, Failure, Outcome, PoolState, Revision, Runner, Settings,
};
use serde_json::Value;

/// No test waits longer for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Fixture {
    pub runner: ProcessRunner,
    directory: tempfile::TempDir,
    next: AtomicU32,
}

pub async fn fixture() -> Fixture {
    fixture_with(|_| ()).await
}

pub async fn fixture_with(change: impl FnOnce(&mut Options)) -> Fixture {
    fixture_on(Launcher::start().unwrap(), change).await
}

pub async fn fixture_on(launcher: Launcher, change: impl FnOnce(&mut Options)) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let mut options = Options::new(directory.path());
    change(&mut options);
    let stems = if launcher.has_views() { options.stems } else { 0 };
    let runner = ProcessRunner::start(launcher, options).await.unwrap();
    let fixture = Fixture { runner, directory, next: AtomicU32::new(0) };
    // So that it is certain which workers come from a process that waited: the first ones.
    for language in ["python3", "nodejs"] {
        fixture.runner.expect(language);
        fixture.until_waiting(language, stems).await;
    }
    fixture
}

/// What a test says of a function.
pub struct Function<'a> {
    pub language: &'a str,
    pub files: &'a [(&'a str, &'a str)],
    pub handler: &'a str,
    pub settings: Settings,
    pub layer: Option<&'a Path>,
}

impl<'a> Function<'a> {
    pub fn python(code: &'a str) -> Function<'a> {
        // Static promotion does not reach a reference to an argument, so the pair is leaked.
        Function::new("python3", Box::leak(Box::new([("hello.py", code)])), "hello.handle")
    }

    pub fn nodejs(code: &'a str) -> Function<'a> {
        Function::new("nodejs", Box::leak(Box::new([("hello.js", code)])), "./hello.js")
    }

    pub fn new(language: &'a str, files: &'a [(&'a str, &'a str)], handler: &'a str) -> Self {
        let settings = Settings {
            memory_bytes: 256 << 20,
            cpu_millis: 0,
            concurrency: 1,
            min_scale: 0,
            schedules: Vec::new(),
            max_scale: 4,
            queue: 16,
            idle: PATIENCE,
            environment: Vec::new(),
            preload: false,
            egress: Egress::None,
        };
        Function { language, files, handler, settings, layer: None }
    }

    pub fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }
}

impl Fixture {
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn deploy(&self, function: Function<'_>) -> Arc<Revision> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let source = self.path().join(format!("source-{number}"));
        std::fs::create_dir(&source).unwrap();
        for (name, text) in function.files {
            let path = source.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Arc::new(Revision {
            organization: "default".to_owned(),
            function: format!("function-{number}"),
            faas_id: format!("revision-{number}"),
            language: function.language.to_owned(),
            layer: function.layer.map(Path::to_owned),
            source,
            handler: function.handler.to_owned(),
            settings: function.settings,
        })
    }

    pub async fn invoke(&self, revision: &Arc<Revision>, call: Call) -> Outcome {
        tokio::time::timeout(PATIENCE, self.runner.invoke(revision, call)).await.unwrap()
    }

    /// Calls with this payload, an empty context, and no deadline.
    pub async fn call(&self, revision: &Arc<Revision>, payload: &str) -> Outcome {
        self.invoke(revision, call(payload)).await
    }

    pub async fn value(&self, revision: &Arc<Revision>, payload: &str) -> Value {
        serde_json::from_slice(&self.call(revision, payload).await.result.unwrap()).unwrap()
    }

    pub async fn failure(&self, revision: &Arc<Revision>, payload: &str) -> Failure {
        self.call(revision, payload).await.result.unwrap_err()
    }

    pub async fn prepare(&self, function: Function<'_>) -> Result<String, BuildError> {
        let revision = self.deploy(function);
        tokio::time::timeout(PATIENCE, self.runner.prepare(&revision)).await.unwrap()
    }

    pub async fn refusal(&self, function: Function<'_>) -> String {
        match self.prepare(function).await.unwrap_err() {
            BuildError::Rejected(message) => message,
            failed @ BuildError::Failed(_) => panic!("{failed:?}"),
        }
    }

    pub fn pool(&self, revision: &Revision) -> PoolState {
        let mut pools = self.runner.pools().into_iter();
        pools.find(|pool| pool.faas_id == revision.faas_id).unwrap_or_default()
    }

    /// Waits until so many processes wait for a function of `language`.
    pub async fn until_waiting(&self, language: &str, count: usize) {
        let begun = Instant::now();
        while self.runner.waiting(language) != count {
            assert!(begun.elapsed() < PATIENCE, "{}", self.runner.waiting(language));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the pool of `revision` is as `wanted`.
    pub async fn until(&self, revision: &Revision, wanted: impl Fn(&PoolState) -> bool) {
        let begun = Instant::now();
        while !wanted(&self.pool(revision)) {
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.pool(revision));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub fn call(payload: &str) -> Call {
    Call {
        id: "a-run".to_owned(),
        context: Bytes::from_static(b"{}"),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        deadline: None,
        timeout: None,
    }
}

pub fn call_within(payload: &str, timeout: Duration) -> Call {
    let deadline = Some(Instant::now() + timeout);
    Call { deadline, timeout: Some(timeout), ..call(payload) }
}
