use dispatch_api::{Problem, Status};
use serde_json::{Value, json};

use super::super::{Entity, Error, Store};
use super::{Kind, entity, function, job, revision, run, store};

async fn update(store: &Store, name: &str, number: i64) -> i64 {
    let faas_id = format!("{name}-{number}");
    let change = move |entity: &mut Entity| {
        entity.status = Status::Updating;
        Ok((json!({ "handler": "" }), faas_id))
    };
    let jobs = |row: &super::RevisionRow| vec![job("function", &row.faas_id)];
    let (_, row) = store.update_function("o", name, None, change, jobs).await.unwrap();
    row.number
}

async fn finish(store: &Store, faas_id: &str, ok: bool) -> Option<Entity> {
    let result = if ok { Ok(json!({ "handler": "h" })) } else { Err("broken".to_owned()) };
    store.finish_revision("o", "f", faas_id, result).await.unwrap()
}

fn serving(entity: &Entity) -> (Option<&str>, Option<i64>) {
    (entity.body["servingFaasId"].as_str(), entity.body["servingRevision"].as_i64())
}

#[tokio::test]
async fn a_function_serves_its_newest_good_revision() {
    let (_dir, store) = store().await;
    let created = function(&store, "f").await;
    assert_eq!(store.all_serving().await.unwrap(), []);
    let first = finish(&store, "f-1", true).await.unwrap();
    assert_eq!((first.status, serving(&first)), (Status::Ready, (Some("f-1"), Some(1))));
    assert_eq!(update(&store, "f", 2).await, 2);
    assert_eq!(store.queue_depths().await.unwrap(), [("function".to_owned(), 1, 0, 0)]);
    // While it is built, and when that fails, the first goes on.
    let failed = finish(&store, "f-2", false).await.unwrap();
    assert_eq!((failed.status, serving(&failed)), (Status::Error, (Some("f-1"), Some(1))));
    assert_eq!(failed.reason, ["broken"]);
    assert_eq!(update(&store, "f", 3).await, 3);
    let third = finish(&store, "f-3", true).await.unwrap();
    assert_eq!((third.status, serving(&third)), (Status::Ready, (Some("f-3"), Some(3))));
    assert_eq!(third.reason, Vec::<String>::new());
    let rows = store.revisions(&created.id).await.unwrap();
    let rows: Vec<_> = rows.iter().map(|r| (r.number, r.faas_id.as_str(), r.status)).collect();
    let expected =
        [(3, "f-3", Status::Ready), (2, "f-2", Status::Error), (1, "f-1", Status::Ready)];
    assert_eq!(rows, expected);
    let row = store.revision("f-3").await.unwrap().unwrap();
    assert_eq!((&row.function_id, &row.body), (&created.id, &json!({ "handler": "h" })));
    assert_eq!(store.all_serving().await.unwrap(), [(third, row)]);
}

#[tokio::test]
async fn a_revision_that_was_overtaken_does_not_take_traffic() {
    let (_dir, store) = store().await;
    let created = function(&store, "f").await;
    update(&store, "f", 2).await;
    assert_eq!(finish(&store, "f-1", true).await, None);
    let entity = store.get(Kind::Function, "o", "f").await.unwrap().unwrap();
    assert_eq!((entity.status, serving(&entity)), (Status::Updating, (None, None)));
    // It can still be chosen: it is good.
    let rows = store.revisions(&created.id).await.unwrap();
    assert_eq!(rows[1].status, Status::Ready);
    assert_eq!(finish(&store, "gone", true).await, None);
    store.remove(Kind::Function, "o", "f").await.unwrap();
    assert_eq!(finish(&store, "f-2", true).await, None);
}

#[tokio::test]
async fn a_rollback_moves_traffic_at_once_and_a_repeated_build_does_not_undo_it() {
    let (_dir, store) = store().await;
    let created = function(&store, "f").await;
    finish(&store, "f-1", true).await;
    update(&store, "f", 2).await;
    finish(&store, "f-2", true).await;
    let back = store.serve_revision("o", "f", 1).await.unwrap();
    assert_eq!(serving(&back), (Some("f-1"), Some(1)));
    for ok in [true, false] {
        let repeated = finish(&store, "f-2", ok).await.unwrap();
        assert_eq!(repeated, back);
    }
    assert_eq!(store.all_serving().await.unwrap()[0].1.number, 1);
    update(&store, "f", 3).await;
    finish(&store, "f-3", false).await;
    let refused = store.serve_revision("o", "f", 3).await;
    assert!(
        matches!(&refused, Err(Error::Refused(Problem { code: 400, message, .. }))
            if message.contains("revision 3") && message.contains("ERROR")),
        "{refused:?}"
    );
    let refused = store.serve_revision("o", "f", 9).await;
    assert!(matches!(&refused, Err(Error::Refused(Problem { code: 404, .. }))), "{refused:?}");
    let refused = store.serve_revision("p", "f", 1).await;
    assert!(matches!(refused, Err(Error::Missing)), "{refused:?}");
    let forward = store.serve_revision("o", "f", 2).await.unwrap();
    assert_eq!((forward.status, serving(&forward)), (Status::Ready, (Some("f-2"), Some(2))));
    assert_eq!(store.revisions(&created.id).await.unwrap().len(), 3);
}

#[tokio::test]
async fn an_update_that_is_refused_or_too_late_leaves_no_revision() {
    let (_dir, store) = store().await;
    let created = function(&store, "f").await;
    let none = |_: &super::RevisionRow| Vec::new();
    let refuse = |_: &mut Entity| Err::<(Value, String), _>(Problem::new(400, "no"));
    let refused = store.update_function("o", "f", None, refuse, none).await;
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    let accept = |_: &mut Entity| Ok((json!({}), "f-2".to_owned()));
    let late = store.update_function("o", "f", Some(7), accept, none).await;
    assert!(matches!(late, Err(Error::Conflict { current: 1 })), "{late:?}");
    let missing = store.update_function("p", "f", None, accept, none).await;
    assert!(matches!(missing, Err(Error::Missing)), "{missing:?}");
    let twice =
        store.create_function(entity(Kind::Function, "o", "f"), revision("x"), vec![]).await;
    assert!(matches!(twice, Err(Error::Exists)), "{twice:?}");
    assert_eq!(store.revisions(&created.id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn pruning_keeps_what_serves_what_is_new_and_what_runs_wait_for() {
    let (_dir, store) = store().await;
    let created = function(&store, "f").await;
    function(&store, "g").await;
    finish(&store, "f-1", true).await;
    for number in 2..=6 {
        update(&store, "f", number).await;
    }
    let waiting = super::RunRow { faas_id: "f-3".to_owned(), ..run(&created, "r", 1) };
    store.accept_run(waiting, job("run", "r"), 10).await.unwrap();
    let mut gone = store.prune_revisions(2).await.unwrap();
    gone.sort();
    assert_eq!(gone, ["f-2", "f-4"]);
    let left = store.revisions(&created.id).await.unwrap();
    assert_eq!(left.iter().map(|row| row.number).collect::<Vec<_>>(), [6, 5, 3, 1]);
    // Numbers are never used twice.
    assert_eq!(update(&store, "f", 7).await, 7);
    assert_eq!(store.prune_revisions(0).await.unwrap().len(), 2);
    let gone = store.revision("f-5").await.unwrap();
    assert_eq!(gone, None);
    assert!(store.revision("g-1").await.unwrap().is_some());
}
