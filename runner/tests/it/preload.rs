//! Workers that are forked from a process that has loaded the source.

use std::time::Duration;

use dispatch_runner::{Cause, Revision, Runner as _};
use futures_util::future::join_all;
use serde_json::json;

use crate::fixture::{Fixture, Function, call, call_within, fixture};

/// Loading is noted in /tmp, which all workers of a zygote share.
const CODE: &str = "
import os, sys, time, tempfile, random
LOADED = os.getpid()
open('/tmp/loaded', 'a').write('x')
SHARED = bytearray(8 << 20)
calls = 0
def handle(context, payload):
    global calls
    calls += 1
    what = payload.get('do')
    print('out', payload.get('n'))
    if what == 'exit': os._exit(payload['code'])
    if what == 'segv': os.kill(os.getpid(), 11)
    if what == 'hang': time.sleep(100)
    if what == 'eat':
        x = []
        while True: x.append(bytearray(b'x' * (1 << 20)))
    if what == 'child-eats':
        if os.fork() == 0:
            x = []
            while True: x.append(bytearray(b'x' * (1 << 20)))
        os.wait()
    if what == 'daemon':
        if os.fork() == 0:
            os.setsid()
            os.execv('/bin/sleep', ['/bin/sleep', '1000'])
    if what == 'kill-parent': os.kill(os.getppid(), 9); time.sleep(100)
    time.sleep(payload.get('sleep', 0))
    return {
        'pid': os.getpid(), 'parent': os.getppid(), 'loaded_by': LOADED, 'calls': calls,
        'loads': len(open('/tmp/loaded').read()), 'tmp': tempfile.gettempdir(),
        'random': random.random(), 'fds': len(os.listdir('/proc/self/fd')) - 1,
    }
";

fn preloaded(fixture: &Fixture, code: &'static str) -> std::sync::Arc<Revision> {
    fixture.deploy(Function::python(code).set(|settings| {
        settings.preload = true;
        settings.memory_bytes = 96 << 20;
    }))
}

#[tokio::test]
async fn workers_are_forked_from_one_that_loaded_the_source_once() {
    let fixture = fixture().await;
    let revision = preloaded(&fixture, CODE);
    let calls = (0..3).map(|n| {
        let payload = json!({ "n": n, "sleep": 0.3 }).to_string();
        let (fixture, revision) = (&fixture, &revision);
        async move {
            let outcome = fixture.call(revision, &payload).await;
            assert_eq!(outcome.logs.stdout, [format!("out {n}")]);
            serde_json::from_slice::<serde_json::Value>(&outcome.result.unwrap()).unwrap()
        }
    });
    let said = join_all(calls).await;
    for one in &said {
        assert_eq!(one["parent"], one["loaded_by"]);
        assert_eq!(one["loads"], 1);
        assert_eq!(one["calls"], 1);
        assert_eq!(one["tmp"], format!("/tmp/worker-{}", one["pid"]));
        // Standard streams, the channel, and the listing itself closed again.
        assert_eq!(one["fds"], 4);
    }
    let mut randoms: Vec<_> = said.iter().map(|one| one["random"].to_string()).collect();
    randoms.sort();
    randoms.dedup();
    assert_eq!(randoms.len(), 3, "no two draw the same numbers");
    assert_eq!(fixture.pool(&revision).idle, 3);
}

#[tokio::test]
async fn each_end_of_a_forked_worker_is_named_and_its_siblings_go_on() {
    let fixture = fixture().await;
    let revision = preloaded(&fixture, CODE);
    let sibling = fixture.call(&revision, "{\"sleep\": 4}");
    let ends = async {
        // So that the other has its worker.
        fixture.until(&revision, |pool| pool.busy == 1).await;
        for (payload, cause) in [
            (json!({ "do": "exit", "code": 3 }), Cause::Exit(3)),
            (json!({ "do": "exit", "code": 0 }), Cause::Exit(0)),
            (json!({ "do": "segv" }), Cause::Signal(11)),
            (json!({ "do": "eat" }), Cause::OutOfMemory),
            (json!({ "do": "child-eats" }), Cause::OutOfMemory),
        ] {
            let failed = fixture.failure(&revision, &payload.to_string()).await;
            assert_eq!(failed.cause, cause, "{payload}: {}", failed.message);
        }
        let hang = call_within("{\"do\": \"hang\"}", Duration::from_millis(100));
        let failed = fixture.invoke(&revision, hang).await.result.unwrap_err();
        assert_eq!(failed.cause, Cause::Timeout);
    };
    let (sibling, ()) = futures_util::future::join(sibling, ends).await;
    let sibling: serde_json::Value = serde_json::from_slice(&sibling.result.unwrap()).unwrap();
    assert_eq!(sibling["loads"], 1, "the same zygote all the time");
    let after = fixture.value(&revision, "{}").await;
    assert_eq!(after["loads"], 1);
    let calls = if after["pid"] == sibling["pid"] { 2 } else { 1 };
    assert_eq!(after["calls"], calls, "the sibling or a fresh worker");
}

#[tokio::test]
async fn a_zygote_that_was_killed_is_replaced() {
    let fixture = fixture().await;
    let revision = preloaded(&fixture, CODE);
    let first = fixture.value(&revision, "{}").await;
    let failed = fixture.failure(&revision, "{\"do\": \"kill-parent\"}").await;
    assert_eq!(failed.cause, Cause::Lost, "{}", failed.message);
    let second = fixture.value(&revision, "{}").await;
    assert_eq!((&first["loads"], &second["loads"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn a_source_that_cannot_be_shared_gets_ordinary_workers() {
    let fixture = fixture().await;
    for setup in [
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
        "import socket\npair = socket.socketpair()",
        "import asyncio\nloop = asyncio.new_event_loop()",
    ] {
        let code = format!(
            "import os, time\n{setup}\nLOADED = os.getpid()\n\
             def handle(c, p):\n    time.sleep(.2)\n    return os.getpid() == LOADED"
        );
        let revision = preloaded(&fixture, code.leak());
        let calls = join_all((0..2).map(|_| fixture.value(&revision, "0"))).await;
        assert_eq!(calls, [json!(true), json!(true)], "{setup}");
    }
}

#[tokio::test]
async fn a_source_that_cannot_be_loaded_says_so() {
    let fixture = fixture().await;
    let function = Function::python("import missing_module").set(|s| s.preload = true);
    let refused = fixture.refusal(function).await;
    assert!(refused.contains("missing_module"), "{refused}");
}

#[tokio::test]
async fn overlapping_calls_work_in_forked_workers() {
    let fixture = fixture().await;
    let code = "
import asyncio, os
LOADED = os.getpid()
async def handle(context, payload):
    print('n', payload)
    await asyncio.sleep(.2)
    return os.getpid() != LOADED
";
    let function = Function::python(code).set(|settings| {
        (settings.preload, settings.concurrency, settings.max_scale) = (true, 8, 1);
    });
    let revision = fixture.deploy(function);
    let calls = (0..8).map(|n| {
        let (fixture, revision) = (&fixture, &revision);
        async move { (n, fixture.call(revision, &n.to_string()).await) }
    });
    for (n, outcome) in join_all(calls).await {
        assert_eq!(outcome.result.unwrap(), "true");
        assert_eq!(outcome.logs.stdout, [format!("n {n}")]);
    }
    assert_eq!(fixture.pool(&revision).idle, 1);
}

#[tokio::test]
async fn node_functions_take_the_setting_and_have_ordinary_workers() {
    let fixture = fixture().await;
    let function = Function::nodejs("module.exports = () => 1").set(|s| s.preload = true);
    let revision = fixture.deploy(function);
    assert_eq!(fixture.value(&revision, "0").await, 1);
}

#[tokio::test]
async fn retiring_ends_the_zygote_with_its_last_worker_and_the_daemons() {
    let fixture = fixture().await;
    let revision = preloaded(&fixture, CODE);
    fixture.value(&revision, "{\"do\": \"daemon\"}").await;
    let slow = fixture.invoke(&revision, call("{\"sleep\": 0.5}"));
    let retire = async {
        fixture.until(&revision, |pool| pool.busy == 1).await;
        fixture.runner.retire(&revision.faas_id);
    };
    let (slow, ()) = futures_util::future::join(slow, retire).await;
    assert!(slow.result.is_ok(), "a call that runs still finishes");
    fixture.until(&revision, |pool| *pool == dispatch_runner::PoolState::default()).await;
    fixture.runner.drain(Duration::from_secs(5)).await;
}
