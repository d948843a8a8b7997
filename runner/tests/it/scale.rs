//! How many workers there are, and what the runner says about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use dispatch_runner::process::Memory;
use dispatch_runner::{Reason, Revision, Runner, Scale};
use futures_util::future::join_all;

use crate::fixture::{Fixture, Function, PATIENCE, fixture, fixture_with};

const SLEEPER: &str = "
import os, time
def handle(context, payload):
    time.sleep(payload)
    return os.getpid()
";

fn reason(scale: &Scale) -> Reason {
    scale.seen.reason((scale.room.waiting > 0).then_some(Reason::Room))
}

fn changes(scale: &Scale) -> Vec<(i64, Reason)> {
    scale.steps.iter().map(|step| (step.change, step.reason)).collect()
}

async fn until(
    fixture: &Fixture,
    revision: &Arc<Revision>,
    wanted: impl Fn(&Scale) -> bool,
) -> Scale {
    let waited = async {
        loop {
            let scale = fixture.runner.scale(revision);
            if wanted(&scale) {
                return scale;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, waited).await;
    ended.unwrap_or_else(|_| panic!("in vain: {:?}", fixture.runner.scale(revision)))
}

#[tokio::test]
async fn each_change_has_its_reason() {
    let fixture = fixture_with(|options| options.max_workers = 2).await;
    let idle = Duration::from_secs(1);
    let revision =
        fixture.deploy(Function::python(SLEEPER).set(|s| (s.idle, s.max_scale) = (idle, 3)));
    let fresh = fixture.runner.scale(&revision);
    assert_eq!((reason(&fresh), fresh.seen.workers(), fresh.steps.len()), (Reason::Zero, 0, 0));
    let calls = join_all((0..3).map(|_| fixture.call(&revision, "1")));
    let looking = async {
        let full = until(&fixture, &revision, |scale| scale.seen.busy == 2).await;
        assert_eq!((reason(&full), full.room.waiting), (Reason::Room, 1), "{full:?}");
        assert_eq!((full.room.taken, full.room.most, full.seen.wanted()), (2, 2, 3));
    };
    let (outcomes, ()) = tokio::join!(calls, looking);
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()));
    let rest =
        until(&fixture, &revision, |scale| scale.seen.idle > 0 && scale.seen.calls == 0).await;
    assert_eq!(reason(&rest), Reason::Idle);
    assert_eq!(changes(&rest)[0], (3, Reason::Demand));
    let ended = until(&fixture, &revision, |scale| scale.seen.workers() == 0).await;
    assert_eq!(reason(&ended), Reason::Zero);
}

#[tokio::test]
async fn a_schedule_keeps_workers_while_it_lasts() {
    let fixture = fixture().await;
    let always = "2 * 00:00-24:00".parse().unwrap();
    // On the day three days from now, and the first day of all was a Thursday.
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let names = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
    let never =
        format!("1 {} 00:00-24:00", names[usize::try_from(seconds / 86_400 + 3).unwrap() % 7]);
    let idle = Duration::from_millis(100);
    let [now, later] = [always, never.parse().unwrap()].map(|schedule| {
        let set = Function::python(SLEEPER).set(|s| (s.idle, s.schedules) = (idle, vec![schedule]));
        fixture.deploy(set)
    });
    for revision in [&now, &later] {
        fixture.runner.prepare(revision).await.unwrap();
    }
    let kept = until(&fixture, &now, |scale| scale.seen.idle == 2).await;
    assert_eq!((reason(&kept), kept.seen.least), (Reason::Schedule, 2));
    until(&fixture, &later, |scale| scale.seen.workers() == 0).await;
    tokio::time::sleep(3 * idle).await;
    let waiting = fixture.runner.scale(&later);
    assert_eq!(
        (reason(&waiting), changes(&waiting).last()),
        (Reason::Zero, Some(&(-1, Reason::Idle)))
    );
    assert_eq!(fixture.runner.scale(&now).seen.idle, 2);
    assert!(fixture.value(&later, "0").await.is_u64());
}

#[tokio::test]
async fn while_memory_is_short_idle_workers_go_and_none_is_kept() {
    let available = Arc::new(AtomicU64::new(u64::MAX));
    let measured = Arc::clone(&available);
    let fixture = fixture_with(move |options| {
        options.memory = Memory::new(move || Some(measured.load(Ordering::Relaxed)));
        options.memory_reserve = 1 << 20;
    })
    .await;
    let kept = fixture.deploy(Function::python(SLEEPER).set(|s| s.min_scale = 1));
    let first = fixture.deploy(Function::python(SLEEPER));
    let busy = fixture.deploy(Function::python(SLEEPER));
    fixture.runner.prepare(&kept).await.unwrap();
    fixture.value(&first, "0").await;
    let call = fixture.call(&busy, "3");
    let pressing = async {
        until(&fixture, &busy, |scale| scale.seen.busy == 1).await;
        available.store(1 << 19, Ordering::Relaxed);
        until(&fixture, &first, |scale| scale.seen.workers() == 0).await;
        let gone = until(&fixture, &kept, |scale| scale.seen.workers() == 0).await;
        assert_eq!(changes(&gone).last(), Some(&(-1, Reason::Pressure)));
        assert_eq!(reason(&gone), Reason::Pressure);
        fixture.until_waiting("python3", 0).await;
        assert_eq!(fixture.runner.scale(&busy).seen.busy, 1, "calls go on");
        assert!(fixture.value(&first, "0").await.is_u64(), "and start what they need");
        // A little more than the reserve is not enough yet.
        available.store((1 << 20) + 1, Ordering::Relaxed);
        until(&fixture, &first, |scale| scale.seen.workers() == 0).await;
        available.store(u64::MAX, Ordering::Relaxed);
        until(&fixture, &kept, |scale| scale.seen.idle == 1).await;
    };
    let (outcome, ()) = tokio::join!(call, pressing);
    assert!(outcome.result.is_ok());
}

#[tokio::test]
async fn an_idle_worker_stands_still_until_the_next_call() {
    let fixture = fixture_with(|options| options.freeze = Some(Duration::from_millis(100))).await;
    let layers = &fixture.runner.isolation().layers;
    let counted = |detail: &str| detail.contains("control group");
    if !layers.iter().any(|layer| layer.name == "processes" && counted(&layer.detail)) {
        eprintln!("skipped: no control group can be made here");
        return;
    }
    let code = "
import threading, time
ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        time.sleep(0.01)
threading.Thread(target=tick, daemon=True).start()
def handle(context, payload):
    return ticks
";
    let idle = Duration::from_secs(2);
    let revision = fixture.deploy(Function::python(code).set(|s| s.idle = idle));
    let before = fixture.value(&revision, "0").await.as_u64().unwrap();
    until(&fixture, &revision, |scale| scale.frozen == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = fixture.value(&revision, "0").await.as_u64().unwrap();
    assert!(after < before + 60, "its thread went on: {before} {after}");
    until(&fixture, &revision, |scale| scale.frozen == 1).await;
    // It ends, as all others do.
    until(&fixture, &revision, |scale| scale.room.taken == 0).await;
}

#[tokio::test]
async fn organizations_share_the_room() {
    let fixture = fixture_with(|options| options.max_workers = 4).await;
    let of = |organization: &str| {
        let mut revision = Revision::clone(&fixture.deploy(Function::python(SLEEPER)));
        revision.organization = organization.to_owned();
        Arc::new(revision)
    };
    let loud = [of("loud"), of("loud"), of("loud")];
    let quiet = of("quiet");
    let many = join_all(
        loud.iter()
            .flat_map(|revision| (0..12).map(move |_| (revision, "0.2")))
            .map(|(revision, payload)| fixture.call(revision, payload)),
    );
    let few = async {
        until(&fixture, &loud[0], |scale| scale.room.taken == 4).await;
        let outcomes = join_all((0..4).map(|_| fixture.call(&quiet, "0.2"))).await;
        let left: usize = loud.iter().map(|it| fixture.runner.scale(it).seen.queued).sum();
        assert!(left > 0, "it waited for all the calls of the other organization");
        outcomes
    };
    let (many, few) = tokio::join!(many, few);
    assert!(many.iter().chain(&few).all(|outcome| outcome.result.is_ok()));
}
