use dispatch_api::{Kind, Status};
use serde_json::json;

use super::super::{Entity, Error, Job, NewJob, RunRow, Store, Tick};
use super::{entity, function, job, run, store};

const MINUTE: i64 = 60_000_000;

/// A schedule whose job is claimed, and its function.
async fn claimed(store: &Store) -> (Entity, Entity, Job) {
    let function = function(store, "f").await;
    let schedule = entity(Kind::Schedule, "o", "s");
    let schedule = store.create(schedule, vec![job("schedule", "s")]).await.unwrap();
    (function, schedule, claim(store).await)
}

async fn claim(store: &Store) -> Job {
    let jobs = store.claim(&["schedule"], "me", MINUTE, 10).await.unwrap();
    <[Job; 1]>::try_from(jobs).unwrap()[0].clone()
}

fn tick(schedule: &Entity, run: RunRow, most: i64) -> Tick {
    let mut schedule = schedule.clone();
    schedule.body = json!({ "ticked": true });
    schedule.status = Status::Ready;
    let next = NewJob { run_at: 7, ..job("schedule", "s") };
    Tick { schedule, run: Some((run, job("run", ""), most)), next: Some(next) }
}

async fn ticked(store: &Store) -> bool {
    let schedule = store.get(Kind::Schedule, "o", "s").await.unwrap().unwrap();
    schedule.body == json!({ "ticked": true })
}

async fn depths(store: &Store) -> Vec<(String, i64, i64, i64)> {
    store.queue_depths().await.unwrap()
}

#[tokio::test]
async fn a_tick_is_one_write_and_leaves_the_revision() {
    let (_dir, store) = store().await;
    let (function, schedule, due) = claimed(&store).await;
    let seq = store.last_change().await.unwrap();
    assert!(store.tick(&due, tick(&schedule, run(&function, "r", 1), 1)).await.unwrap());
    let after = store.get(Kind::Schedule, "o", "s").await.unwrap().unwrap();
    assert_eq!((after.revision, after.status), (schedule.revision, Status::Ready));
    assert!(ticked(&store).await && after.modified > schedule.modified);
    assert_eq!(store.changes(seq, 10).await.unwrap().len(), 1, "it is announced");
    assert_eq!(store.run("o", "r").await.unwrap().unwrap().status, Status::Initialized);
    let waiting = [("run".to_owned(), 1, 0, 0), ("schedule".to_owned(), 1, 0, 0)];
    assert_eq!(depths(&store).await, waiting);
    assert_eq!(store.next_due(&["schedule"]).await.unwrap(), Some(7));
    let again = claim(&store).await;
    assert_eq!(again.attempts, 1, "each tick counts its own tries");
}

#[tokio::test]
async fn the_same_tick_makes_no_second_run() {
    let (_dir, store) = store().await;
    let (function, schedule, due) = claimed(&store).await;
    assert!(store.tick(&due, tick(&schedule, run(&function, "r", 1), 9)).await.unwrap());
    let ended = RunRow { status: Status::Ready, finished: Some(2), ..run(&function, "r", 1) };
    store.record_runs(vec![ended]).await.unwrap();
    let due = claim(&store).await;
    assert!(store.tick(&due, tick(&schedule, run(&function, "r", 1), 9)).await.unwrap());
    assert_eq!(store.run("o", "r").await.unwrap().unwrap().status, Status::Ready);
}

#[tokio::test]
async fn what_changed_meanwhile_is_left_alone() {
    let (_dir, store) = store().await;
    let (function, schedule, due) = claimed(&store).await;
    let nothing = async || {
        assert!(!ticked(&store).await);
        assert_eq!(store.run("o", "r").await.unwrap(), None);
    };
    // The function's queue is full.
    let full = store.tick(&due, tick(&schedule, run(&function, "r", 1), 0)).await;
    assert!(matches!(full, Err(Error::Refused(problem)) if problem.code == 429));
    nothing().await;
    // Somebody paused it, which queues no job.
    let paused = store.mutate(Kind::Schedule, "o", "s", None, |_| Ok(Vec::new())).await.unwrap();
    let stale = store.tick(&due, tick(&schedule, run(&function, "r", 1), 9)).await;
    assert!(matches!(stale, Err(Error::Missing)), "{stale:?}");
    nothing().await;
    // Somebody set another time.
    let change = |_: &mut Entity| Ok(vec![NewJob { run_at: 9, ..job("schedule", "s") }]);
    let moved = store.mutate(Kind::Schedule, "o", "s", None, change).await.unwrap();
    assert!(!store.tick(&due, tick(&moved, run(&function, "r", 1), 9)).await.unwrap());
    nothing().await;
    assert_eq!(store.next_due(&["schedule"]).await.unwrap(), Some(9));
    assert_ne!(paused.revision, moved.revision);
    // It is gone, and its next tick with it.
    let due = claim(&store).await;
    store.remove(Kind::Schedule, "o", "s").await.unwrap();
    assert_eq!(depths(&store).await, []);
    assert!(!store.tick(&due, tick(&moved, run(&function, "r", 1), 9)).await.unwrap());
    assert_eq!(store.run("o", "r").await.unwrap(), None);
}
