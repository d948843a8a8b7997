use std::time::Duration;

use dispatch_api::ErrorType;
use dispatch_runner::{Cause, Runner};

use crate::fixture::{Function, call_within, fixture, fixture_with, is_signal};

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
async fn a_memory_hog_is_named() {
    let fixture = fixture().await;
    let code = "
def handle(context, payload):
    hog = [bytearray(1 << 20) for _ in range(payload)]
    return len(hog)
";
    let revision = fixture.deploy(Function::python(code).set(|s| s.memory_bytes = 64 << 20));
    assert_eq!(fixture.value(&revision, "1").await, 1);
    let failure = fixture.failure(&revision, "512").await;
    if is_signal(&failure.cause, 9) || failure.message.contains("MemoryError") {
        eprintln!("SKIPPED a_memory_hog_is_named: no memory limits by group on this machine");
        return;
    }
    assert_eq!(failure.cause, Cause::OutOfMemory);
    assert_eq!(
        failure.message,
        "The function used more than its 64 MiB of memory and was killed; raise --memory or let it \
         use less"
    );
    assert_eq!(fixture.value(&revision, "1").await, 1);
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
