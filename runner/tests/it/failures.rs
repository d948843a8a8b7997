use std::time::Duration;

use dispatch_api::ErrorType;
use dispatch_runner::process::Launcher;
use dispatch_runner::{Cause, Runner};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fixture::{Function, call_within, fixture, fixture_on, fixture_with};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_timeout_kills_and_the_worker_is_not_used_again() {
    let fixture = fixture().await;
    let python = "
import os, time
calls = 0
def handle(context, payload):
    global calls
    calls += 1
    while payload: time.sleep(1)
    return calls
";
    let coroutine = "
import asyncio
calls = 0
async def handle(context, payload):
    global calls
    calls += 1
    try:
        while payload: await asyncio.sleep(1)
    finally:
        print('cleaned up')
    return calls
";
    let node = "
let calls = 0
module.exports = (context, payload) => { calls++; while (payload) {} return calls }
";
    for (function, wrote) in [
        (Function::python(python), vec![]),
        (Function::python(coroutine), vec!["cleaned up"]),
        (Function::nodejs(node), vec![]),
    ] {
        let revision = fixture.deploy(function);
        assert_eq!(fixture.value(&revision, "false").await, 1);
        let outcome = fixture.invoke(&revision, call_within("true", SHORT)).await;
        let failure = outcome.result.unwrap_err();
        assert_eq!((failure.kind, failure.cause), (ErrorType::FunctionError, Cause::Timeout));
        assert_eq!(
            failure.message,
            "Function execution exceeded the timeout of 300 ms; raise --timeout or let it do less"
        );
        assert_eq!(outcome.logs.stdout, wrote);
        assert!(outcome.timings.function >= SHORT);
        // A new process counts from the start.
        assert_eq!(fixture.value(&revision, "false").await, 1);
    }
}

#[tokio::test]
async fn each_way_to_die_has_its_own_words() {
    let fixture = fixture().await;
    let python = "
import os, signal
def handle(context, payload):
    if payload == 'segv': os.kill(os.getpid(), signal.SIGSEGV)
    if payload == 'abort': os.abort()
    if payload == 'mount': import ctypes; ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None)
    if payload == 'exit': os._exit(3)
    if payload == 'zero': os._exit(0)
    if payload == 'close': os.closerange(3, 1000); import time; time.sleep(60)
    return 'alive'
";
    let node = "
module.exports = (context, payload) => { if (payload === 'exit') process.exit(4); return 'alive' }
";
    let python = fixture.deploy(Function::python(python));
    let node = fixture.deploy(Function::nodejs(node));
    for (revision, payload, cause, words) in [
        (&python, "segv", Cause::Signal(11), "killed by signal 11 (SIGSEGV"),
        (&python, "abort", Cause::Signal(6), "killed by signal 6 (SIGABRT"),
        (&python, "mount", Cause::ForbiddenCall, "a system call that functions may not make"),
        (&python, "exit", Cause::Exit(3), "ended with exit code 3; a handler must return"),
        (&python, "zero", Cause::Exit(0), "ended with exit code 0"),
        (&python, "close", Cause::Protocol, "it closed its channel and went on"),
        (&node, "exit", Cause::Exit(4), "ended with exit code 4"),
    ] {
        let failure = fixture.failure(revision, &format!("\"{payload}\"")).await;
        assert_eq!((failure.kind, &failure.cause), (ErrorType::FunctionError, &cause), "{payload}");
        assert!(failure.message.contains(words), "{}", failure.message);
        assert_eq!(fixture.value(revision, "0").await, "alive");
    }
}

#[tokio::test]
async fn a_memory_hog_is_named_also_when_it_is_a_child() {
    let fixture = fixture().await;
    let code = "
import os, time
def handle(context, payload):
    if payload < 0:
        if os.fork() == 0:
            handle(context, -payload)
            os._exit(0)
        os.wait()
        time.sleep(100)
    hog = [bytearray(b'x' * (1 << 20)) for _ in range(payload)]
    return len(hog)
";
    for preload in [false, true] {
        let function = Function::python(code);
        let function = function.set(|s| (s.memory_bytes, s.preload) = (64 << 20, preload));
        let revision = fixture.deploy(function);
        assert_eq!(fixture.value(&revision, "1").await, 1);
        for payload in ["512", "-512"] {
            let failure = fixture.failure(&revision, payload).await;
            assert_eq!(failure.cause, Cause::OutOfMemory, "{}", failure.message);
            assert_eq!(
                failure.message,
                "The function used more than its 64 MiB of memory and was killed; raise --memory or \
                 let it use less"
            );
            assert_eq!(fixture.value(&revision, "1").await, 1);
        }
    }
}

#[tokio::test]
async fn who_has_too_many_processes_is_told_so() {
    let fixture = fixture().await;
    let layers = &fixture.runner.isolation().layers;
    let counted = |detail: &str| detail.contains("control group");
    if !layers.iter().any(|layer| layer.name == "processes" && counted(&layer.detail)) {
        eprintln!("skipped: no control group for processes can be made here");
        return;
    }
    let python = "
import os, subprocess, threading
def handle(context, payload):
    if payload == 'fine': return 'alive'
    if payload == 'own': raise KeyError('of its own')
    started, stop = [], threading.Event()
    try:
        while True:
            if payload == 'threads': threading.Thread(target=stop.wait).start()
            else: started.append(subprocess.Popen(['/bin/sleep', '100']))
    except Exception:
        stop.set()
        for process in started: process.kill(); process.wait()
        if payload == 'swallow': return len(started)
        if payload == 'exit': os._exit(7)
        raise
";
    let node = "
const { spawn } = require('child_process')
module.exports = async () => {
  const all = []
  const one = () => new Promise((resolve, reject) => {
    const child = spawn('/bin/sleep', ['100'])
    all.push(child)
    child.on('error', reject)
    child.on('spawn', resolve)
  })
  try { for (;;) await one() } finally { all.forEach((child) => child.kill('SIGKILL')) }
}
";
    for preload in [false, true] {
        // What is forked shares the limit with up to 16 others.
        let revision = fixture.deploy(Function::python(python).set(|s| {
            // Threads reserve much more than they use.
            (s.preload, s.max_scale, s.memory_bytes) = (preload, 1, 2 << 30);
        }));
        for (payload, words) in [
            ("processes", "BlockingIOError"),
            ("exit", "ended with exit code 7"),
            ("threads", "can't start new thread"),
        ] {
            let failure = fixture.failure(&revision, &format!("\"{payload}\"")).await;
            assert_eq!(failure.cause, Cause::ProcessLimit, "{payload} {}", failure.message);
            assert_eq!(failure.kind, ErrorType::FunctionError);
            let limit = "The function reached its limit of 128 processes and threads at a time; ";
            assert!(failure.message.starts_with(limit), "{}", failure.message);
            let trace = failure.stacktrace.join("\n");
            assert!(failure.message.contains(words) || trace.contains(words), "{failure:?}");
            let failure = fixture.failure(&revision, "\"own\"").await;
            assert_eq!(failure.cause, Cause::Handler, "the limit was not reached by this one");
        }
        assert!(fixture.value(&revision, "\"swallow\"").await.as_u64() > Some(64));
        let failure = fixture.failure(&revision, "\"own\"").await;
        assert_eq!(failure.cause, Cause::Handler, "the one before could do without");
        assert_eq!(fixture.value(&revision, "\"fine\"").await, "alive");
    }
    let node = fixture.deploy(Function::nodejs(node));
    let failure = fixture.failure(&node, "0").await;
    assert_eq!(failure.cause, Cause::ProcessLimit, "{}", failure.message);
    assert!(failure.message.contains("EAGAIN"), "{}", failure.message);
}

#[tokio::test]
async fn when_the_launcher_is_killed_calls_are_lost_and_the_next_ones_get_new_workers() {
    let launcher = Launcher::start().unwrap();
    // It is a child of this very thread.
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    let pid = Pid::from_raw(children.trim().parse().unwrap());
    let fixture = fixture_on(launcher, |_| ()).await;
    let python = "
import subprocess
def handle(context, payload):
    subprocess.run(['sleep', str(payload)])
    return 'alive'
";
    let node = "module.exports = () => 'alive'";
    let forked = Function::python(python).set(|settings| settings.preload = true);
    let all = [Function::python(python), forked, Function::nodejs(node)];
    let [python, forked, node] = all.map(|function| fixture.deploy(function));
    for revision in [&python, &forked, &node] {
        assert_eq!(fixture.value(revision, "0").await, "alive");
    }
    // What has not begun is given to another worker, and not lost.
    // A one at the end, since a number loses its last zeros on the way.
    let long = format!("60.{}1", std::process::id());
    let begun = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let words = processes.filter_map(|it| std::fs::read(it.path().join("cmdline")).ok());
        words.filter(|words| *words == format!("sleep\0{long}\0").as_bytes()).count()
    };
    let killed = async {
        while begun() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        kill(pid, Signal::SIGKILL).unwrap();
    };
    let (one, other, ()) =
        tokio::join!(fixture.failure(&python, &long), fixture.failure(&forked, &long), killed);
    for failure in [one, other] {
        assert_eq!((failure.kind, &failure.cause), (ErrorType::SystemError, &Cause::Lost));
        assert!(failure.message.contains("send the call again"), "{}", failure.message);
    }
    for revision in [&python, &forked, &node] {
        assert_eq!(fixture.value(revision, "0").await, "alive");
    }
    for language in ["python3", "nodejs"] {
        fixture.until_waiting(language, 2).await;
    }
}

#[tokio::test]
async fn a_source_that_crashes_or_hangs_while_it_loads_is_refused() {
    let fixture = fixture_with(|options| options.start_timeout = Duration::from_secs(3)).await;
    for (code, words) in [
        ("import os\nprint('so far')\nos._exit(7)", "ended with exit code 7"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "killed by signal 11"),
        ("import time\ntime.sleep(60)", "The handler was not loaded within 3 s"),
    ] {
        let refusal = fixture.refusal(Function::python(code)).await;
        assert!(refusal.contains(words), "{refusal}");
        assert_eq!(refusal.contains("it wrote: so far"), code.contains("so far"), "{refusal}");
    }
    // A call says the same.
    let revision = fixture.deploy(Function::python("1 / 0"));
    let failure = fixture.failure(&revision, "0").await;
    assert_eq!((failure.kind, failure.cause), (ErrorType::FunctionError, Cause::Load));
    assert_eq!(failure.message, "ZeroDivisionError: division by zero (hello.py, line 1)");
}

#[tokio::test]
async fn a_language_that_is_not_there_is_the_machines_trouble() {
    let fixture = fixture().await;
    let revision = fixture.deploy(Function::new("cobol", &[("hello.cob", "")], ""));
    let error = fixture.runner.prepare(&revision).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "The language cobol is not installed on this machine; install its interpreter and restart \
         the server"
    );
}

#[tokio::test]
async fn input_beyond_the_limit_is_refused_before_it_is_sent() {
    let fixture = fixture_with(|options| options.payload_limit = 100).await;
    let revision = fixture.deploy(Function::python("def handle(c, p): return 1"));
    let failure = fixture.failure(&revision, &format!("\"{}\"", "x".repeat(100))).await;
    assert_eq!(failure.kind, ErrorType::InputError);
    assert!(failure.message.contains("has 104 bytes"), "{}", failure.message);
    assert_eq!(fixture.runner.pools(), []);
}
