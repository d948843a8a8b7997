use serde_json::json;

use super::super::{Job, JobEnd, NewJob, Store};
use super::{Kind, entity, job, store};

const MINUTE: i64 = 60_000_000;

async fn enqueue(store: &Store, job: NewJob) {
    let name = uuid::Uuid::new_v4().to_string();
    store.create(entity(Kind::Image, "o", &name), vec![job]).await.unwrap();
}

async fn claim(store: &Store, lease: i64) -> Vec<Job> {
    store.claim(&["a"], "me", lease, 10).await.unwrap()
}

fn retry(at: i64) -> JobEnd {
    JobEnd::Retry { at, error: "again".to_owned() }
}

async fn depth(store: &Store) -> (i64, i64, i64) {
    let depths = store.queue_depths().await.unwrap();
    depths.first().map_or((0, 0, 0), |(_, waiting, running, dead)| (*waiting, *running, *dead))
}

#[tokio::test]
async fn a_job_is_claimed_once_and_forgotten_when_done() {
    let (_dir, store) = store().await;
    enqueue(&store, job("a", "k")).await;
    enqueue(&store, job("b", "k")).await;
    let jobs = claim(&store, MINUTE).await;
    assert_eq!(jobs.len(), 1);
    let job = &jobs[0];
    assert_eq!((job.kind.as_str(), job.key.as_str(), job.org.as_str()), ("a", "k", "o"));
    assert_eq!((job.attempts, &job.payload), (1, &json!({ "n": 1 })));
    assert_eq!(claim(&store, MINUTE).await, []);
    assert_eq!(depth(&store).await, (0, 1, 0));
    assert!(store.finish_job(job.id, job.generation, JobEnd::Done).await.unwrap());
    assert!(!store.finish_job(job.id, job.generation, JobEnd::Done).await.unwrap());
    let depths = store.queue_depths().await.unwrap();
    assert_eq!(depths, [("b".to_owned(), 1, 0, 0)]);
}

#[tokio::test]
async fn jobs_come_when_they_are_due_and_not_too_many_at_once() {
    let (_dir, store) = store().await;
    let later = super::super::now() + 60 * MINUTE;
    enqueue(&store, NewJob { run_at: later, ..job("a", "later") }).await;
    assert_eq!(claim(&store, MINUTE).await, []);
    assert_eq!(store.next_due(&["a"]).await.unwrap(), Some(later));
    assert_eq!(store.next_due(&["b"]).await.unwrap(), None);
    for (key, run_at) in [("3", 30), ("1", 10), ("2", 20)] {
        enqueue(&store, NewJob { run_at, ..job("a", key) }).await;
    }
    enqueue(&store, NewJob { run_at: 1, ..job("b", "b") }).await;
    assert_eq!(store.next_due(&["a", "b"]).await.unwrap(), Some(1));
    let keys = |jobs: Vec<Job>| jobs.into_iter().map(|job| job.key).collect::<Vec<_>>();
    let two = store.claim(&["a", "b"], "me", MINUTE, 2).await.unwrap();
    let mut two = keys(two);
    two.sort();
    assert_eq!(two, ["1", "2"]);
    let rest = store.claim(&["a", "b"], "me", MINUTE, 10).await.unwrap();
    assert_eq!(keys(rest), ["3", "b"]);
    assert_eq!(store.claim(&["a"], "me", MINUTE, 0).await.unwrap(), []);
}

#[tokio::test]
async fn a_lease_that_ended_lets_somebody_else_in_and_fences_the_first_out() {
    let (_dir, store) = store().await;
    enqueue(&store, job("a", "k")).await;
    let first = claim(&store, 0).await.remove(0);
    let second = claim(&store, MINUTE).await.remove(0);
    assert_eq!((first.id, second.attempts), (second.id, 2));
    assert!(!store.finish_job(first.id, first.generation, retry(0)).await.unwrap());
    assert!(!store.finish_job(first.id, first.generation, JobEnd::Done).await.unwrap());
    assert_eq!(claim(&store, MINUTE).await, [], "the second claim holds");
    assert!(store.finish_job(second.id, second.generation, JobEnd::Done).await.unwrap());
    assert_eq!(depth(&store).await, (0, 0, 0));
}

#[tokio::test]
async fn a_lease_is_renewed_by_its_owner_only_and_released_at_the_start() {
    let (_dir, store) = store().await;
    enqueue(&store, job("a", "k")).await;
    let job = claim(&store, 0).await.remove(0);
    assert_eq!(store.renew(&[job.id], "other", MINUTE).await.unwrap(), 0);
    assert_eq!(store.renew(&[], "me", MINUTE).await.unwrap(), 0);
    assert_eq!(store.renew(&[job.id], "me", MINUTE).await.unwrap(), 1);
    assert_eq!(claim(&store, MINUTE).await, []);
    store.release("other").await.unwrap();
    assert_eq!(claim(&store, MINUTE).await, []);
    store.release("me").await.unwrap();
    let again = claim(&store, MINUTE).await.remove(0);
    assert_eq!((again.id, again.attempts), (job.id, 2));
}

#[tokio::test]
async fn queueing_again_starts_over_whatever_the_job_does() {
    let (_dir, store) = store().await;
    // While it waits.
    enqueue(&store, NewJob { run_at: i64::MAX, ..job("a", "k") }).await;
    enqueue(&store, NewJob { payload: json!("new"), ..job("a", "k") }).await;
    assert_eq!(depth(&store).await, (1, 0, 0));
    let first = claim(&store, MINUTE).await.remove(0);
    assert_eq!(first.payload, json!("new"));
    // While it runs: nobody else gets it before the claim ends, and then it is still there.
    enqueue(&store, NewJob { payload: json!("newer"), ..job("a", "k") }).await;
    assert_eq!(claim(&store, MINUTE).await, []);
    assert!(!store.finish_job(first.id, first.generation, JobEnd::Done).await.unwrap());
    let second = claim(&store, MINUTE).await.remove(0);
    assert_eq!((second.attempts, &second.payload), (1, &json!("newer")));
    // While it is dead.
    let dead = JobEnd::Dead { error: "broken".to_owned() };
    assert!(store.finish_job(second.id, second.generation, dead).await.unwrap());
    assert_eq!(depth(&store).await, (0, 0, 1));
    assert_eq!(claim(&store, MINUTE).await, []);
    assert_eq!(store.next_due(&["a"]).await.unwrap(), None);
    enqueue(&store, job("a", "k")).await;
    assert_eq!(claim(&store, MINUTE).await[0].attempts, 1);
}

#[tokio::test]
async fn a_retry_keeps_counting() {
    let (_dir, store) = store().await;
    enqueue(&store, job("a", "k")).await;
    for attempts in 1..=3 {
        let job = claim(&store, MINUTE).await.remove(0);
        assert_eq!(job.attempts, attempts);
        assert!(store.finish_job(job.id, job.generation, retry(0)).await.unwrap());
    }
    let job = claim(&store, MINUTE).await.remove(0);
    assert!(store.finish_job(job.id, job.generation, retry(i64::MAX)).await.unwrap());
    assert_eq!(claim(&store, MINUTE).await, []);
    assert_eq!(store.next_due(&["a"]).await.unwrap(), Some(i64::MAX));
}

#[tokio::test]
async fn keys_of_organizations_do_not_collide() {
    let (_dir, store) = store().await;
    enqueue(&store, job("a", "k")).await;
    enqueue(&store, NewJob { org: "p".to_owned(), ..job("a", "k") }).await;
    assert_eq!(claim(&store, MINUTE).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_workers_share_the_queue_without_doing_anything_twice() {
    let (_dir, store) = store().await;
    let jobs: Vec<_> = (0..100).map(|n| job("a", &n.to_string())).collect();
    store.create(entity(Kind::Image, "o", "i"), jobs).await.unwrap();
    let workers = (0..8).map(|worker| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut done = Vec::new();
            loop {
                let owner = format!("w{worker}");
                let jobs = store.claim(&["a"], &owner, MINUTE, 3).await.unwrap();
                if jobs.is_empty() {
                    return done;
                }
                for job in jobs {
                    assert!(store.finish_job(job.id, job.generation, JobEnd::Done).await.unwrap());
                    done.push(job.key);
                }
            }
        })
    });
    let mut done = Vec::new();
    for worker in futures_util::future::join_all(workers).await {
        done.extend(worker.unwrap());
    }
    done.sort();
    done.dedup();
    assert_eq!(done.len(), 100);
    assert_eq!(depth(&store).await, (0, 0, 0));
}

#[tokio::test]
async fn a_sleeper_is_woken_by_a_job() {
    let (_dir, store) = store().await;
    let wake = store.wake();
    let mut woken = std::pin::pin!(wake.notified());
    woken.as_mut().enable();
    enqueue(&store, job("a", "k")).await;
    let limit = std::time::Duration::from_secs(30);
    tokio::time::timeout(limit, woken).await.expect("the job wakes the sleeper");
}
