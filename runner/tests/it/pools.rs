use std::time::Duration;

use dispatch_api::ErrorType;
use dispatch_runner::{Cause, Runner};
use futures_util::future::join_all;

use crate::fixture::{Function, PATIENCE, call, call_within, fixture, fixture_with};

/// Sleeps for the payload's seconds and answers how often it was called, or who it is; `die` lets it
/// stop after 0.2 s and die after another 0.8 s.
const SLEEPER: &str = "
import os, signal, time, uuid
me, calls = str(uuid.uuid4()), 0
def handle(context, payload):
    global calls
    calls += 1
    if payload == 'who': return me
    if payload == 'die':
        worker = os.getpid()
        if os.fork() == 0:
            time.sleep(0.2)
            os.kill(worker, signal.SIGSTOP)
            time.sleep(0.8)
            os.kill(worker, signal.SIGKILL)
            os._exit(0)
        return me
    time.sleep(payload)
    return calls
";

#[tokio::test]
async fn a_warm_worker_is_used_again() {
    let fixture = fixture().await;
    let revision = fixture.deploy(Function::python(SLEEPER));
    let handler = fixture.runner.prepare(&revision).await.unwrap();
    assert_eq!(handler, "hello.handle");
    assert_eq!(fixture.pool(&revision).idle, 1);
    for count in 1..20 {
        let outcome = fixture.call(&revision, "0").await;
        assert_eq!(outcome.result.unwrap(), count.to_string());
        assert!(outcome.timings.start.is_zero());
    }
    // Preparing again needs no further worker.
    fixture.runner.prepare(&revision).await.unwrap();
    assert_eq!(fixture.pool(&revision).idle, 1);
}

#[tokio::test]
async fn calls_start_workers_up_to_the_scale_then_wait_then_are_refused() {
    let fixture = fixture().await;
    let function = Function::python(SLEEPER).set(|s| (s.max_scale, s.queue) = (2, 3));
    let revision = fixture.deploy(function);
    let outcomes = join_all((0..7).map(|_| fixture.call(&revision, "0.5"))).await;
    let (served, refused): (Vec<_>, Vec<_>) =
        outcomes.into_iter().partition(|outcome| outcome.result.is_ok());
    assert_eq!((served.len(), refused.len()), (5, 2));
    assert!(served.iter().any(|outcome| !outcome.timings.start.is_zero()));
    assert!(served.iter().any(|outcome| outcome.timings.queue > Duration::from_millis(400)));
    for outcome in refused {
        let failure = outcome.result.unwrap_err();
        let retry_after = Duration::from_secs(1);
        assert_eq!(failure.cause, Cause::Overload { retry_after });
        assert_eq!(failure.kind, ErrorType::SystemError);
        assert_eq!(
            failure.message,
            "The function is overloaded: all 2 workers are busy and 3 calls wait already; raise \
             --max-scale or send less"
        );
    }
    assert_eq!(fixture.pool(&revision).idle, 2);
}

#[tokio::test]
async fn no_queue_means_no_waiting_but_a_first_call_may_start_a_worker() {
    let fixture = fixture().await;
    let function = Function::python(SLEEPER).set(|s| (s.max_scale, s.queue) = (1, 0));
    let revision = fixture.deploy(function);
    let outcomes = join_all((0..3).map(|_| fixture.call(&revision, "0.2"))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.result.is_ok()).count(), 1);
    assert_eq!(fixture.value(&revision, "0").await, 2);
}

#[tokio::test]
async fn calls_wait_in_order() {
    let fixture = fixture().await;
    let code = "
order = []
def handle(context, payload):
    import time
    order.append(payload)
    time.sleep(0.01)
    return order
";
    let revision = fixture.deploy(Function::python(code).set(|s| s.max_scale = 1));
    let calls = ["0", "1", "2", "3", "4", "5"].map(|payload| fixture.call(&revision, payload));
    join_all(calls).await;
    let order = fixture.value(&revision, "6").await;
    assert_eq!(order, serde_json::json!([0, 1, 2, 3, 4, 5, 6]));
}

#[tokio::test]
async fn a_deadline_also_ends_waiting() {
    let fixture = fixture().await;
    let revision = fixture.deploy(Function::python(SLEEPER).set(|s| s.max_scale = 1));
    fixture.value(&revision, "0").await;
    let long = fixture.call(&revision, "1.5");
    let waiting = async {
        fixture.until(&revision, |pool| pool.busy == 1).await;
        fixture.invoke(&revision, call_within("0", Duration::from_millis(200))).await
    };
    let (long, waiting) = tokio::join!(long, waiting);
    assert_eq!(long.result.unwrap(), "2");
    let failure = waiting.result.unwrap_err();
    assert_eq!(failure.cause, Cause::Timeout);
    assert!(failure.message.starts_with("Did not invoke, already exceeded timeout of 200 ms"));
    assert_eq!(fixture.value(&revision, "0").await, 3);
}

#[tokio::test]
async fn a_worker_that_died_while_idle_costs_no_call() {
    let fixture = fixture().await;
    let revision = fixture.deploy(Function::python(SLEEPER).set(|s| s.max_scale = 1));
    let first = fixture.value(&revision, "\"die\"").await;
    // It is stopped now: a call can be sent, but it dies before it reads the call.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = fixture.value(&revision, "\"who\"").await;
    assert_ne!(first, second);
    // One whose death was noticed is replaced, too.
    fixture.value(&revision, "\"die\"").await;
    fixture.until(&revision, |pool| pool.idle == 0).await;
    assert_ne!(fixture.value(&revision, "\"who\"").await, second);
}

#[tokio::test]
async fn idle_workers_are_stopped_but_for_the_least() {
    let fixture = fixture().await;
    let idle = Duration::from_millis(200);
    let function = Function::python(SLEEPER).set(|s| (s.idle, s.max_scale) = (idle, 3));
    let revision = fixture.deploy(function);
    join_all((0..3).map(|_| fixture.call(&revision, "0.3"))).await;
    assert_eq!(fixture.pool(&revision).idle, 3);
    // The pool without workers is forgotten.
    fixture.until(&revision, |pool| pool.faas_id.is_empty()).await;

    let function = Function::python(SLEEPER).set(|s| (s.idle, s.min_scale) = (idle, 2));
    let revision = fixture.deploy(function);
    fixture.runner.prepare(&revision).await.unwrap();
    fixture.until(&revision, |pool| pool.idle == 2).await;
    join_all((0..3).map(|_| fixture.call(&revision, "0.3"))).await;
    fixture.until(&revision, |pool| pool.idle == 2).await;
    tokio::time::sleep(3 * idle).await;
    assert_eq!(fixture.pool(&revision).idle, 2);
    // One that dies is replaced without a call.
    fixture.value(&revision, "\"die\"").await;
    fixture.until(&revision, |pool| pool.idle < 2).await;
    fixture.until(&revision, |pool| pool.idle == 2).await;
}

#[tokio::test]
async fn retiring_lets_calls_finish_and_stops_workers() {
    let fixture = fixture().await;
    let function = Function::python(SLEEPER).set(|s| (s.min_scale, s.max_scale) = (2, 2));
    let revision = fixture.deploy(function);
    fixture.runner.prepare(&revision).await.unwrap();
    fixture.until(&revision, |pool| pool.idle == 2).await;
    let running = fixture.call(&revision, "0.5");
    let retiring = async {
        fixture.until(&revision, |pool| pool.busy == 1).await;
        fixture.runner.retire(&revision.faas_id);
        let state = fixture.pool(&revision);
        assert_eq!((state.busy, state.idle), (1, 0));
    };
    let (outcome, ()) = tokio::join!(running, retiring);
    assert_eq!(outcome.result.unwrap(), "1");
    fixture.until(&revision, |pool| pool.faas_id.is_empty()).await;
    // A call that was on its way to it is still served, and nothing is kept for it.
    assert_eq!(fixture.value(&revision, "0").await, 1);
    fixture.runner.retire("unknown");
}

#[tokio::test]
async fn draining_waits_for_calls_and_refuses_new_ones() {
    let fixture = fixture().await;
    let revision = fixture.deploy(Function::python(SLEEPER).set(|s| s.max_scale = 1));
    fixture.value(&revision, "0").await;
    let short = fixture.call(&revision, "0.5");
    let draining = async {
        fixture.until(&revision, |pool| pool.busy == 1).await;
        let drained = fixture.runner.drain(PATIENCE);
        let late = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            fixture.failure(&revision, "0").await
        };
        tokio::join!(drained, late).1
    };
    let (short, late) = tokio::join!(short, draining);
    assert_eq!(short.result.unwrap(), "2");
    assert_eq!((late.kind, late.cause), (ErrorType::SystemError, Cause::Cancelled));
    assert_eq!(fixture.pool(&revision).idle, 0);
}

#[tokio::test]
async fn draining_kills_what_outlives_the_grace() {
    let fixture = fixture().await;
    let revision = fixture.deploy(Function::python(SLEEPER).set(|s| s.max_scale = 1));
    fixture.value(&revision, "0").await;
    let (long, waiting) = (fixture.call(&revision, "60"), fixture.call(&revision, "0"));
    let draining = async {
        fixture.until(&revision, |pool| pool.busy == 1 && pool.queued == 1).await;
        fixture.runner.drain(Duration::from_millis(100)).await;
    };
    let (long, waiting, ()) = tokio::join!(long, waiting, draining);
    for outcome in [long, waiting] {
        let failure = outcome.result.unwrap_err();
        assert_eq!(failure.cause, Cause::Cancelled);
        assert!(failure.message.starts_with("The server is stopping"), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_caller_that_leaves_never_mixes_up_calls() {
    let fixture = fixture().await;
    let code = "
import time
def handle(context, payload):
    print(payload['print'])
    time.sleep(payload['sleep'])
    return payload['print']
";
    let revision = fixture.deploy(Function::python(code).set(|s| s.max_scale = 1));
    for round in 0..15 {
        let left = call(&format!("{{\"print\": \"left\", \"sleep\": {}}}", round % 5 * 20));
        let after = Duration::from_millis(round * 7 % 40);
        let _ = tokio::time::timeout(after, fixture.runner.invoke(&revision, left)).await;
        let outcome = fixture.call(&revision, "{\"print\": \"mine\", \"sleep\": 0}").await;
        assert_eq!(outcome.result.unwrap(), "\"mine\"");
        assert_eq!(outcome.logs.stdout, ["mine"]);
    }
    // One that waits in the queue leaves no trace.
    let long = fixture.call(&revision, "{\"print\": \"long\", \"sleep\": 0.5}");
    let leaving = async {
        fixture.until(&revision, |pool| pool.busy == 1).await;
        let waiting = fixture.runner.invoke(&revision, call("{\"print\": 1, \"sleep\": 0}"));
        assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
        assert_eq!(fixture.pool(&revision).queued, 0);
    };
    assert_eq!(tokio::join!(long, leaving).0.result.unwrap(), "\"long\"");
}

#[tokio::test]
async fn the_server_wide_limit_makes_the_longest_idle_leave() {
    let fixture = fixture_with(|options| options.max_workers = 2).await;
    let revisions = [0; 4].map(|_| fixture.deploy(Function::python(SLEEPER)));
    let [a, b, c, d] = &revisions;
    for revision in [a, b, c] {
        fixture.value(revision, "0").await;
    }
    fixture.until(a, |pool| pool.idle == 0).await;
    assert_eq!((fixture.pool(b).idle, fixture.pool(c).idle), (1, 1));
    // While all are busy, the first that becomes idle makes room.
    let (b, c, d) = tokio::join!(fixture.call(b, "0.5"), fixture.call(c, "0.8"), async {
        fixture.until(c, |pool| pool.busy == 1).await;
        fixture.call(d, "0").await
    });
    for outcome in [b, c, d] {
        outcome.result.unwrap();
    }
    let workers = fixture.runner.pools().iter().map(|pool| pool.idle + pool.busy).sum::<usize>();
    assert!(workers <= 2);
}

#[tokio::test]
async fn a_busy_function_cannot_keep_all_workers() {
    let fixture = fixture_with(|options| options.max_workers = 1).await;
    let greedy = fixture.deploy(Function::python(SLEEPER).set(|s| s.queue = 100));
    let modest = fixture.deploy(Function::python(SLEEPER));
    let served = join_all((0..50).map(|_| fixture.call(&greedy, "0.1")));
    let other = async {
        fixture.until(&greedy, |pool| pool.busy == 1).await;
        let outcome = fixture.call(&modest, "0").await;
        (outcome, fixture.pool(&greedy).queued)
    };
    let (served, (other, queued)) = tokio::join!(served, other);
    other.result.unwrap();
    assert!(queued > 0, "it had to wait for the whole queue of the other");
    assert!(served.into_iter().all(|outcome| outcome.result.is_ok()));
}

#[tokio::test]
async fn functions_never_share_a_user() {
    let fixture = fixture().await;
    if fixture.runner.isolation().tier != dispatch_runner::Tier::A {
        eprintln!("SKIPPED functions_never_share_a_user: needs root");
        return;
    }
    let code = "
import os
def handle(context, payload):
    open('/tmp/mark', 'w').write('x')
    user = [line.split()[1] for line in open('/proc/self/uid_map') if line.split()[0] == '1000']
    return [os.listdir('/tmp'), int(user[0])]
";
    let mut users = std::collections::BTreeSet::new();
    // Some of the processes have waited, others have not.
    for _ in 0..5 {
        let revision = fixture.deploy(Function::python(code));
        let said = fixture.value(&revision, "0").await;
        assert_eq!(said[0], serde_json::json!(["mark"]));
        users.insert(said[1].as_u64().unwrap());
    }
    assert!(users.len() == 5 && users.iter().all(|uid| *uid >= 200_000), "{users:?}");
}

#[tokio::test]
async fn a_source_is_unpacked_once_and_runs() {
    let fixture = fixture().await;
    let archive = fixture.path().join("hello.tar.gz");
    let gzip = flate2::write::GzEncoder::new(
        std::fs::File::create(&archive).unwrap(),
        flate2::Compression::fast(),
    );
    let mut tar = tar::Builder::new(gzip);
    let code = b"def handle(context, payload): return 'unpacked'";
    let mut header = tar::Header::new_gnu();
    header.set_size(code.len() as u64);
    header.set_mode(0o600);
    tar.append_data(&mut header, "./hello.py", &code[..]).unwrap();
    tar.into_inner().unwrap().finish().unwrap();

    let digest = "ab".repeat(32);
    let unpack = || fixture.runner.unpack_source(&digest, &archive);
    let [one, two, three] = <[_; 3]>::try_from(join_all([unpack(), unpack(), unpack()]).await)
        .unwrap()
        .map(Result::unwrap);
    assert!(one == two && two == three);
    let left = std::fs::read_dir(fixture.path().join("sources")).unwrap().count();
    assert_eq!(left, 1);

    let revision = fixture.deploy(Function::python(""));
    let revision = std::sync::Arc::new(dispatch_runner::Revision {
        source: one,
        ..dispatch_runner::Revision::clone(&revision)
    });
    assert_eq!(fixture.value(&revision, "0").await, "unpacked");

    std::fs::write(&archive, "no archive").unwrap();
    let refused = fixture.runner.unpack_source(&digest.replace('a', "c"), &archive).await;
    assert!(matches!(refused, Err(dispatch_runner::BuildError::Rejected(_))), "{refused:?}");
    let escape = fixture.runner.unpack_source("../../etc", &archive).await;
    assert!(matches!(escape, Err(dispatch_runner::BuildError::Failed(_))), "{escape:?}");
}

#[tokio::test]
async fn a_worker_gets_the_processor_time_it_may_use() {
    let fixture = fixture().await;
    let layers = &fixture.runner.isolation().layers;
    if !layers.iter().any(|layer| layer.name == "cpu" && layer.active) {
        eprintln!("skipped: no control group for processor time can be made here");
        return;
    }
    let code = "
import time
def handle(context, payload):
    begun = time.monotonic()
    until = time.process_time() + 0.2
    while time.process_time() < until: pass
    return time.monotonic() - begun
";
    // The first comes from a process that waited; the second is started; the third is forked.
    for preload in [false, false, true] {
        let function = Function::python(code).set(|settings| {
            (settings.cpu_millis, settings.preload, settings.max_scale) = (100, preload, 1);
        });
        if !preload {
            fixture.until_waiting("python3", 2).await;
        }
        let revision = fixture.deploy(function);
        let took = fixture.value(&revision, "0").await.as_f64().unwrap();
        // A tenth of a core, or two with the process that forks: it cannot have been quicker.
        assert!(took > if preload { 0.6 } else { 1.2 }, "{took}");
    }
}
