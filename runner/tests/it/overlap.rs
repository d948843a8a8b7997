//! Several calls in one worker.

use std::time::Duration;

use dispatch_runner::{Cause, Outcome};
use futures_util::future::join_all;

use crate::fixture::{Function, call_within, fixture};

const SYNC: &str = "
import logging, os, sys, threading
logging.basicConfig(format='%(message)s')
together = threading.Barrier(4)
def handle(context, payload):
    print('first', payload, flush=True)
    together.wait(30)
    print('second', payload)
    logging.warning('err %d', payload)
    together.wait(30)
    return os.getpid()
";
const ASYNC: &str = "
import asyncio, os, sys
waiting = []
async def handle(context, payload):
    print('first', payload)
    me = asyncio.get_running_loop().create_future()
    waiting.append(me)
    if len(waiting) == 4:
        for other in waiting: other.set_result(None)
    await me
    print('second', payload)
    sys.stderr.write('err %d' % payload)
    waiting.clear()
    return os.getpid()
";
const NODE: &str = "
let waiting = []
module.exports = async (context, payload) => {
  console.log('first', payload)
  await new Promise((resolve) => {
    waiting.push(resolve)
    if (waiting.length === 4) { waiting.forEach((go) => setTimeout(go, 1)); waiting = [] }
  })
  console.log('second', payload)
  process.stderr.write('err ' + payload)
  return process.pid
}
";

#[tokio::test]
async fn calls_overlap_and_each_has_its_own_lines() {
    let fixture = fixture().await;
    for function in [Function::python(SYNC), Function::python(ASYNC), Function::nodejs(NODE)] {
        let revision = fixture.deploy(function.set(|s| (s.concurrency, s.max_scale) = (4, 1)));
        for round in 0..2 {
            let payloads = [0, 1, 2, 3].map(|number| (round * 4 + number).to_string());
            let calls = payloads.iter().map(|payload| fixture.call(&revision, payload));
            let outcomes = join_all(calls).await;
            for (payload, Outcome { result, logs, .. }) in payloads.iter().zip(outcomes) {
                result.unwrap();
                assert_eq!(logs.stdout, [format!("first {payload}"), format!("second {payload}")]);
                assert_eq!(logs.stderr, [format!("err {payload}")]);
            }
        }
        assert_eq!(fixture.pool(&revision).idle, 1);
    }
}

#[tokio::test]
async fn what_a_call_leaves_behind_writes_to_no_call() {
    let fixture = fixture().await;
    let code = "
import asyncio
async def later():
    await asyncio.sleep(0.02)
    print('late')
tasks = []
async def handle(context, payload):
    tasks.append(asyncio.create_task(later()))
    await asyncio.sleep(payload)
    print('mine')
";
    let node = "
module.exports = async (context, payload) => {
  setTimeout(() => console.log('late'), 20)
  await new Promise((resolve) => setTimeout(resolve, payload * 1000))
  console.log('mine')
}
";
    for function in [Function::python(code), Function::nodejs(node)] {
        let revision = fixture.deploy(function.set(|s| (s.concurrency, s.max_scale) = (2, 1)));
        let calls = [fixture.call(&revision, "0"), fixture.call(&revision, "0.3")];
        let [short, long] = <[Outcome; 2]>::try_from(join_all(calls).await).unwrap();
        assert_eq!(short.logs.stdout, ["mine"]);
        assert_eq!(long.logs.stdout, ["late", "mine"]);
    }
}

#[tokio::test]
async fn a_late_call_that_can_be_cancelled_leaves_its_neighbours_alone() {
    let fixture = fixture().await;
    let code = "
import asyncio, os
async def handle(context, payload):
    await asyncio.sleep(payload)
    return os.getpid()
";
    let revision =
        fixture.deploy(Function::python(code).set(|s| (s.concurrency, s.max_scale) = (2, 1)));
    fixture.value(&revision, "0").await;
    let late = fixture.invoke(&revision, call_within("60", Duration::from_millis(200)));
    let (late, other) = tokio::join!(late, fixture.call(&revision, "1"));
    assert_eq!(late.result.unwrap_err().cause, Cause::Timeout);
    other.result.unwrap();
}

#[tokio::test]
async fn a_late_call_that_cannot_be_cancelled_takes_its_neighbours_with_it() {
    let fixture = fixture().await;
    let code = "
import time
def handle(context, payload): time.sleep(payload)
";
    let revision =
        fixture.deploy(Function::python(code).set(|s| (s.concurrency, s.max_scale) = (2, 1)));
    fixture.value(&revision, "0").await;
    let late = fixture.invoke(&revision, call_within("60", Duration::from_millis(200)));
    let (late, other) = tokio::join!(late, fixture.call(&revision, "50"));
    assert_eq!(late.result.unwrap_err().cause, Cause::Timeout);
    let other = other.result.unwrap_err();
    assert_eq!(other.cause, Cause::Signal(9));
    assert!(other.message.contains("another call in it exceeded its timeout"), "{}", other.message);
}

#[tokio::test]
async fn odd_exceptions_cross_from_threads() {
    let fixture = fixture().await;
    let code = "
import sys
def handle(context, payload):
    if payload == 'stop': raise StopIteration('over')
    sys.exit(2)
";
    let revision = fixture.deploy(Function::python(code).set(|s| s.concurrency = 2));
    assert_eq!(fixture.failure(&revision, "\"stop\"").await.message, "over");
    let failure = fixture.failure(&revision, "\"exit\"").await;
    assert!(failure.message.contains("called sys.exit(2)"), "{}", failure.message);
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_cost_the_neighbours_their_calls() {
    let fixture = fixture().await;
    let code = "
import time
def handle(context, payload): time.sleep(payload)
";
    let revision =
        fixture.deploy(Function::python(code).set(|s| (s.concurrency, s.max_scale) = (2, 1)));
    fixture.value(&revision, "0").await;
    let leaving = tokio::time::timeout(Duration::from_millis(100), fixture.call(&revision, "30"));
    let (left, stayed) = tokio::join!(leaving, fixture.call(&revision, "0.6"));
    assert!(left.is_err());
    stayed.result.unwrap();
    // Alone with a call that nobody waits for, the worker is replaced.
    fixture.until(&revision, |pool| pool.busy == 0).await;
    fixture.value(&revision, "0").await;
}
