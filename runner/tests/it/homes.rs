//! Workers that live in threads with a core of their own.

use std::sync::Arc;
use std::time::Duration;

use dispatch_runner::home::{self, Home, Homes};
use dispatch_runner::{Revision, Runner as _};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Function, call, call_within, fixture_with};

/// Two threads with runtimes, kept on the first two cores; `None` where there is only one core.
pub fn two_homes() -> Option<Homes> {
    let cores = home::cores();
    if cores.len() < 2 {
        eprintln!("SKIPPED: needs two cores");
        return None;
    }
    let home = |number: usize| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let home = Home { runtime: runtime.handle().clone(), core: Some(cores[number]) };
        std::thread::spawn(move || {
            home::settle(number);
            runtime.block_on(std::future::pending::<()>());
        });
        home
    };
    Some(Homes::new(vec![home(0), home(1)]))
}

/// What the last of several calls, made in that home, said.
async fn calls_from(
    homes: &Homes,
    number: usize,
    fixture: &Arc<Fixture>,
    revision: &Arc<Revision>,
    payload: &'static str,
) -> Value {
    let (fixture, revision) = (Arc::clone(fixture), Arc::clone(revision));
    let calls = async move {
        let mut said = Value::Null;
        for _ in 0..64 {
            said = fixture.value(&revision, payload).await;
        }
        said
    };
    homes.all()[number].runtime.spawn(calls).await.unwrap()
}

const WHERE: &str = "
import os, time
def handle(context, payload):
    time.sleep(payload)
    return sorted(os.sched_getaffinity(0))
";

#[tokio::test]
async fn a_worker_with_short_calls_follows_them_and_one_with_long_calls_roams() {
    let Some(homes) = two_homes() else { return };
    let fixture = Arc::new(fixture_with(|options| options.homes = homes.clone()).await);
    let revision = fixture.deploy(Function::python(WHERE).set(|settings| settings.max_scale = 1));
    let cores = home::cores();
    for number in [0, 1, 0] {
        let said = calls_from(&homes, number, &fixture, &revision, "0").await;
        assert_eq!(said, json!([cores[number]]));
    }
    let said = calls_from(&homes, 0, &fixture, &revision, "0.005").await;
    assert_eq!(said, json!(cores), "long calls may go where a core is free");
    homes.set_behind(0, true);
    let said = calls_from(&homes, 0, &fixture, &revision, "0").await;
    assert_eq!(said, json!(cores), "its core has too much to do");
    homes.set_behind(0, false);
    let said = calls_from(&homes, 0, &fixture, &revision, "0").await;
    assert_eq!(said, json!([cores[0]]));
    assert_eq!(fixture.pool(&revision).idle, 1, "it was the same worker all the time");
}

#[tokio::test]
async fn a_worker_that_moved_still_logs_ends_and_is_replaced() {
    let Some(homes) = two_homes() else { return };
    let fixture = Arc::new(fixture_with(|options| options.homes = homes.clone()).await);
    let code = "
import os, time
def handle(context, payload):
    print('line', payload)
    if payload == 'exit': os._exit(3)
    if payload == 'hang': time.sleep(100)
    return payload
";
    let revision = fixture.deploy(Function::python(code).set(|settings| settings.max_scale = 1));
    for number in [0, 1, 0, 1] {
        calls_from(&homes, number, &fixture, &revision, "\"moves\"").await;
        let outcome = fixture.call(&revision, "\"here\"").await;
        assert_eq!(outcome.logs.stdout, ["line here"]);
    }
    let outcome = fixture.call(&revision, "\"exit\"").await;
    assert_eq!(outcome.logs.stdout, ["line exit"]);
    assert_eq!(outcome.result.unwrap_err().cause, dispatch_runner::Cause::Exit(3));
    calls_from(&homes, 1, &fixture, &revision, "\"again\"").await;
    let late = call_within("\"hang\"", Duration::from_millis(50));
    let late = fixture.invoke(&revision, late).await.result.unwrap_err();
    assert_eq!(late.cause, dispatch_runner::Cause::Timeout);
    calls_from(&homes, 0, &fixture, &revision, "\"again\"").await;
    fixture.runner.drain(Duration::from_secs(5)).await;
    assert!(fixture.call(&revision, "0").await.result.is_err());
}

#[tokio::test]
async fn calls_from_both_homes_at_once_are_all_answered() {
    let Some(homes) = two_homes() else { return };
    let fixture = Arc::new(fixture_with(|options| options.homes = homes.clone()).await);
    let code = "def handle(context, payload): return payload";
    for scale in [1, 3] {
        let function = Function::python(code).set(|settings| settings.max_scale = scale);
        let revision = fixture.deploy(function);
        let tasks = (0..300).map(|number: usize| {
            let (fixture, revision) = (Arc::clone(&fixture), Arc::clone(&revision));
            let calls = async move {
                for _ in 0..8 {
                    let outcome = fixture.invoke(&revision, call(&number.to_string())).await;
                    match outcome.result {
                        Ok(result) => assert_eq!(result, number.to_string()),
                        // The queue is short.
                        Err(failed) => assert_eq!(
                            failed.cause,
                            dispatch_runner::Cause::Overload {
                                retry_after: Duration::from_secs(1)
                            }
                        ),
                    }
                }
            };
            homes.all()[number % 2].runtime.spawn(calls)
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
}
