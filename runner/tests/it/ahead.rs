//! Calls that are sent to a worker while it runs another one.

use std::collections::HashMap;
use std::sync::Arc;

use dispatch_runner::home::Homes;
use dispatch_runner::{Cause, Outcome, Revision};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Function, call, fixture_with};
use crate::homes::two_homes;

/// Says which worker it is, and what was done there.
const NOTED: &str = r#"
import os, time, uuid
me, done = str(uuid.uuid4()), []
def handle(context, payload):
    done.append(payload)
    if payload == 'die': os._exit(3)
    if payload == 'slow': time.sleep(0.5)
    if payload == 'hang': time.sleep(3600)
    if payload == 'all': time.sleep(0.2)
    if isinstance(payload, int) and payload % 3 == 0:
        print('out', payload)
        os.write(2, b'raw %d\n' % payload)
    return {'me': me, 'done': done if payload == 'all' else None}
"#;

/// Makes all of these calls at the same time in the first home.
async fn at_once(
    homes: &Homes,
    fixture: &Arc<Fixture>,
    revision: &Arc<Revision>,
    payloads: Vec<Value>,
) -> Vec<Outcome> {
    let (fixture, revision) = (Arc::clone(fixture), Arc::clone(revision));
    let all = async move {
        let one = |payload: Value| {
            let (fixture, revision) = (&fixture, &revision);
            async move { fixture.invoke(revision, call(&payload.to_string())).await }
        };
        join_all(payloads.into_iter().map(one)).await
    };
    homes.all()[0].runtime.spawn(all).await.unwrap()
}

/// A function one of whose workers is known to be quick: calls wait for it.
async fn quick(homes: &Homes) -> (Arc<Fixture>, Arc<Revision>) {
    let options = homes.clone();
    let fixture = Arc::new(fixture_with(|set| set.homes = options).await);
    let revision = fixture.deploy(Function::python(NOTED).set(|set| set.queue = 64));
    for _ in 0..400 {
        at_once(homes, &fixture, &revision, vec![json!(-1)]).await;
    }
    (fixture, revision)
}

fn value(outcome: &Outcome) -> Value {
    serde_json::from_slice(outcome.result.as_ref().unwrap()).unwrap()
}

#[tokio::test]
async fn calls_that_wait_in_a_worker_have_exactly_their_own_lines() {
    let Some(homes) = two_homes() else { return };
    let (fixture, revision) = quick(&homes).await;
    for round in 0..40 {
        let numbers: Vec<i64> = (0..12).map(|number| 100 * round + number).collect();
        let payloads = numbers.iter().map(|number| json!(number)).collect();
        for (number, outcome) in
            numbers.iter().zip(at_once(&homes, &fixture, &revision, payloads).await)
        {
            let own = |text: String| if number % 3 == 0 { vec![text] } else { Vec::new() };
            assert_eq!(outcome.logs.stdout, own(format!("out {number}")));
            assert_eq!(outcome.logs.stderr, own(format!("raw {number}")));
        }
    }
}

#[tokio::test]
async fn calls_behind_a_long_one_are_made_once() {
    let Some(homes) = two_homes() else { return };
    let (fixture, revision) = quick(&homes).await;
    let mut payloads = vec![json!("slow")];
    payloads.extend((0..9).map(|number| json!(3 * number + 1)));
    let outcomes = at_once(&homes, &fixture, &revision, payloads).await;
    let slow = value(&outcomes[0])["me"].clone();
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()));
    let mut done: HashMap<String, Value> = HashMap::new();
    while done.len() < 2 {
        for outcome in at_once(&homes, &fixture, &revision, vec![json!("all"); 2]).await {
            let said = value(&outcome);
            done.insert(said["me"].as_str().unwrap().to_owned(), said["done"].clone());
        }
    }
    assert!(done.contains_key(slow.as_str().unwrap()));
    for number in 0..9 {
        let times = done.values().flat_map(|list| list.as_array().unwrap());
        assert!(times.filter(|other| **other == json!(3 * number + 1)).count() <= 1);
    }
}

#[tokio::test]
async fn calls_behind_one_that_does_not_end_go_to_other_workers() {
    let Some(homes) = two_homes() else { return };
    let (fixture, revision) = quick(&homes).await;
    let hanging = {
        let (homes, fixture, revision) =
            (homes.clone(), Arc::clone(&fixture), Arc::clone(&revision));
        tokio::spawn(async move {
            at_once(&homes, &fixture, &revision, vec![json!("hang")]).await;
        })
    };
    fixture.until(&revision, |pool| pool.busy == 1).await;
    let payloads = (0..9).map(|number| json!(number)).collect();
    let outcomes = at_once(&homes, &fixture, &revision, payloads).await;
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()));
    assert!(!hanging.is_finished());
    hanging.abort();
}

#[tokio::test]
async fn calls_behind_one_that_ends_the_worker_are_made_by_another() {
    let Some(homes) = two_homes() else { return };
    let (fixture, revision) = quick(&homes).await;
    let mut payloads = vec![json!("die")];
    payloads.extend((0..6).map(|number| json!(number)));
    let outcomes = at_once(&homes, &fixture, &revision, payloads).await;
    assert_eq!(outcomes[0].result.as_ref().unwrap_err().cause, Cause::Exit(3));
    for outcome in &outcomes[1..] {
        assert!(outcome.result.is_ok(), "{:?}", outcome.result);
    }
}
