use dispatch_api::{Problem, Status};

use super::super::{Error, JobEnd, RunFilter, RunRow, Store};
use super::{Kind, ended, function, job, run, store};

const MINUTE: i64 = 60_000_000;

async fn all(store: &Store) -> Vec<RunRow> {
    store.runs("o", RunFilter::default()).await.unwrap()
}

fn ids(runs: &[RunRow]) -> Vec<&str> {
    runs.iter().map(|run| run.id.as_str()).collect()
}

async fn bury(store: &Store, run: &RunRow) {
    let job = store.claim(&["run"], "me", MINUTE, 1).await.unwrap().remove(0);
    assert_eq!(job.key, run.id);
    let dead = RunRow { status: Status::Error, finished: Some(9), dead: true, ..run.clone() };
    let end = JobEnd::Dead { error: "broken".to_owned() };
    assert!(store.finish_run(dead, job.id, job.generation, end).await.unwrap());
}

#[tokio::test]
async fn an_accepted_run_is_made_once_and_kept() {
    let (_dir, store) = store().await;
    let f = function(&store, "f").await;
    let mut changed = store.runs_changed();
    changed.mark_unchanged();
    let sent = run(&f, "r", 5);
    // The key is the run's id whatever the caller says.
    store.accept_run(sent.clone(), job("run", "other"), 10).await.unwrap();
    assert!(changed.has_changed().unwrap());
    let stored = store.run("o", "r").await.unwrap().unwrap();
    assert!(stored.modified > 0);
    assert_eq!(stored, RunRow { modified: stored.modified, ..sent.clone() });
    let job = store.claim(&["run"], "me", MINUTE, 9).await.unwrap().remove(0);
    assert_eq!((job.key.as_str(), job.org.as_str()), ("r", "o"));
    // A try that failed.
    let tried = RunRow { attempts: 1, ..sent.clone() };
    let again = JobEnd::Retry { at: 0, error: "e".to_owned() };
    assert!(store.finish_run(tried, job.id, job.generation, again).await.unwrap());
    let second = store.claim(&["run"], "me", MINUTE, 9).await.unwrap().remove(0);
    // Too late: the second claim has it.
    let done = RunRow { attempts: 2, ..ended(&f, "r", 5) };
    let late = store.finish_run(done.clone(), job.id, job.generation, JobEnd::Done).await;
    assert!(!late.unwrap());
    assert_eq!(store.run("o", "r").await.unwrap().unwrap().attempts, 1);
    let end = store.finish_run(done.clone(), second.id, second.generation, JobEnd::Done).await;
    assert!(end.unwrap());
    let stored = store.run("o", "r").await.unwrap().unwrap();
    assert_eq!(stored, RunRow { modified: stored.modified, ..done });
    assert_eq!(store.queue_depths().await.unwrap(), []);
}

#[tokio::test]
async fn the_queue_of_a_function_is_bounded() {
    let (_dir, store) = store().await;
    let (f, g) = (function(&store, "f").await, function(&store, "g").await);
    // What ended does not count.
    store.record_runs(vec![ended(&f, "old", 1)]).await.unwrap();
    for id in ["a", "b"] {
        store.accept_run(run(&f, id, 1), job("run", id), 2).await.unwrap();
    }
    let full = store.accept_run(run(&f, "c", 1), job("run", "c"), 2).await;
    assert!(
        matches!(&full, Err(Error::Refused(Problem { code: 429, message, .. }))
            if message.contains("function f")),
        "{full:?}"
    );
    assert_eq!(store.run("o", "c").await.unwrap(), None);
    store.accept_run(run(&g, "c", 1), job("run", "c"), 2).await.unwrap();
    // In one transaction, too, whatever else it does: a run that ends makes place for another.
    let claimed = store.claim(&["run"], "me", MINUTE, 1).await.unwrap().remove(0);
    let accept = |id: &str| store.accept_run(run(&f, id, 2), job("run", id), 3);
    let (first, second, end, third, fourth) = tokio::join!(
        accept("d"),
        accept("e"),
        store.finish_run(ended(&f, "a", 1), claimed.id, claimed.generation, JobEnd::Done),
        accept("f"),
        accept("g"),
    );
    first.unwrap();
    assert!(matches!(second, Err(Error::Refused(_))), "{second:?}");
    assert!(end.unwrap());
    third.unwrap();
    assert!(matches!(fourth, Err(Error::Refused(_))), "{fourth:?}");
    let mut waiting = all(&store).await;
    waiting.retain(|run| run.function == "f" && run.finished.is_none());
    assert_eq!(ids(&waiting), ["f", "d", "b"]);
}

#[tokio::test]
async fn runs_of_other_organizations_are_out_of_reach() {
    let (_dir, store) = store().await;
    let f = function(&store, "f").await;
    store.record_runs(vec![ended(&f, "r", 1)]).await.unwrap();
    assert_eq!(store.run("p", "r").await.unwrap(), None);
    assert_eq!(store.runs("p", RunFilter::default()).await.unwrap(), []);
    let filter = RunFilter { function: Some("f".to_owned()), ..RunFilter::default() };
    assert_eq!(store.runs("p", filter).await.unwrap(), []);
    // Not even with its id.
    let stolen = RunRow { org: "p".to_owned(), body: "stolen".to_owned(), ..ended(&f, "r", 1) };
    store.record_runs(vec![stolen]).await.unwrap();
    assert_eq!(store.run("o", "r").await.unwrap().unwrap().body, "{}");
    let redrive = store.redrive("p", "r", job("run", "r")).await;
    assert!(matches!(redrive, Err(Error::Missing)), "{redrive:?}");
}

#[tokio::test]
async fn a_function_takes_everything_of_it_along() {
    let (_dir, store) = store().await;
    let (f, g) = (function(&store, "f").await, function(&store, "g").await);
    store.record_runs(vec![ended(&f, "f1", 1), ended(&g, "g1", 1)]).await.unwrap();
    store.accept_run(run(&f, "f2", 2), job("run", "f2"), 9).await.unwrap();
    store.accept_run(run(&g, "g2", 2), job("run", "g2"), 9).await.unwrap();
    store.remove(Kind::Function, "o", "f").await.unwrap();
    assert_eq!(ids(&all(&store).await), ["g2", "g1"]);
    assert_eq!(store.revisions(&f.id).await.unwrap(), []);
    assert_eq!(store.queue_depths().await.unwrap(), [("run".to_owned(), 1, 0, 0)]);
    // What comes too late is not kept, also when there is a new function of the same name.
    function(&store, "h").await;
    store.record_runs(vec![ended(&f, "f3", 3), ended(&g, "g3", 3)]).await.unwrap();
    let accept = store.accept_run(run(&f, "f4", 3), job("run", "f4"), 9).await;
    assert!(matches!(accept, Err(Error::Missing)), "{accept:?}");
    assert_eq!(ids(&all(&store).await), ["g3", "g2", "g1"]);
}

#[tokio::test]
async fn only_dead_runs_are_redriven() {
    let (_dir, store) = store().await;
    let f = function(&store, "f").await;
    let sent = run(&f, "r", 1);
    store.accept_run(sent.clone(), job("run", "r"), 9).await.unwrap();
    let early = store.redrive("o", "r", job("run", "r")).await;
    assert!(matches!(early, Err(Error::Refused(Problem { code: 400, .. }))), "{early:?}");
    bury(&store, &sent).await;
    let dead = RunFilter { dead: Some(true), ..RunFilter::default() };
    assert_eq!(ids(&store.runs("o", dead.clone()).await.unwrap()), ["r"]);
    assert_eq!(store.queue_depths().await.unwrap(), [("run".to_owned(), 0, 0, 1)]);
    let again = store.redrive("o", "r", job("run", "r")).await.unwrap();
    assert_eq!((again.status, again.dead, again.finished), (Status::Initialized, false, None));
    assert_eq!(store.run("o", "r").await.unwrap(), Some(again));
    assert_eq!(store.runs("o", dead).await.unwrap(), []);
    assert_eq!(store.claim(&["run"], "me", MINUTE, 9).await.unwrap()[0].attempts, 1);
}

#[tokio::test]
async fn modified_times_grow_so_that_followers_miss_nothing() {
    let (_dir, store) = store().await;
    let f = function(&store, "f").await;
    let mut last = 0;
    for n in 0..50 {
        store.record_runs(vec![ended(&f, &n.to_string(), 1)]).await.unwrap();
        let since = RunFilter { since: Some(last), ..RunFilter::default() };
        let new = store.runs("o", since).await.unwrap();
        assert_eq!(ids(&new), [n.to_string()]);
        last = new[0].modified;
    }
}

#[tokio::test]
async fn history_is_pruned_by_number_and_by_age() {
    let (_dir, store) = store().await;
    let (f, g) = (function(&store, "f").await, function(&store, "g").await);
    let waiting = run(&f, "waiting", 1);
    store.accept_run(waiting, job("run", "waiting"), 99).await.unwrap();
    let mut runs: Vec<_> = (100..1400).map(|n| ended(&f, &format!("f{n}"), n)).collect();
    runs.push(ended(&g, "g", 500));
    store.record_runs(runs).await.unwrap();
    assert_eq!(store.prune_runs(2000, 0).await.unwrap(), 0);
    assert_eq!(store.prune_runs(3, 0).await.unwrap(), 1297);
    assert_eq!(ids(&all(&store).await), ["f1399", "f1398", "f1397", "g", "waiting"]);
    assert_eq!(store.prune_runs(3, 501).await.unwrap(), 0);
    assert_eq!(store.prune_runs(3, 502).await.unwrap(), 1);
    assert_eq!(store.prune_runs(0, 0).await.unwrap(), 3);
    // Of the same microsecond the number counts, too.
    store.record_runs(["a", "b", "c"].map(|id| ended(&f, id, 7)).to_vec()).await.unwrap();
    assert_eq!(store.prune_runs(2, 0).await.unwrap(), 1);
    assert_eq!(ids(&all(&store).await), ["c", "b", "waiting"]);
    assert_eq!(store.prune_runs(0, 0).await.unwrap(), 2);
    assert_eq!(ids(&all(&store).await), ["waiting"]);
}

#[tokio::test]
async fn dead_runs_are_kept_until_they_are_old() {
    let (_dir, store) = store().await;
    let f = function(&store, "f").await;
    let sent = run(&f, "dead", 1);
    store.accept_run(sent.clone(), job("run", "dead"), 99).await.unwrap();
    bury(&store, &sent).await;
    store.record_runs(vec![ended(&f, "a", 5), ended(&f, "b", 6)]).await.unwrap();
    assert_eq!(store.prune_runs(0, 9).await.unwrap(), 2);
    assert_eq!(ids(&all(&store).await), ["dead"]);
    assert_eq!(store.prune_runs(0, 10).await.unwrap(), 1);
    assert_eq!(store.queue_depths().await.unwrap(), []);
}

#[tokio::test]
async fn a_whole_list_is_bounded_in_bytes() {
    let (_dir, store) = store().await;
    let f = function(&store, "f").await;
    let body = "x".repeat(9 << 20);
    for n in 0..10 {
        let big = RunRow { body: body.clone(), ..ended(&f, &n.to_string(), n) };
        store.record_runs(vec![big]).await.unwrap();
    }
    assert_eq!(ids(&all(&store).await), ["9", "8", "7", "6", "5", "4", "3", "2"]);
    let page = RunFilter { limit: Some(9), ..RunFilter::default() };
    assert_eq!(store.runs("o", page).await.unwrap().len(), 9);
}
