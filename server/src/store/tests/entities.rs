use dispatch_api::{Kind, Problem};
use futures_util::future::join_all;
use serde_json::json;

use super::super::{Error, FIRST_REVISION, Page};
use super::{entity, job, revision, store};

#[tokio::test]
async fn what_is_created_is_read_back_and_a_second_one_is_refused() {
    let (_dir, store) = store().await;
    let mut sent = entity(Kind::Image, "o", "a");
    sent.reason = vec!["a \"quoted\" reason".to_owned()];
    let created = store.create(sent.clone(), vec![job("image", "k")]).await.unwrap();
    assert_eq!(created.revision, FIRST_REVISION);
    assert!(created.modified > 1);
    sent.revision = created.revision;
    sent.modified = created.modified;
    assert_eq!(created, sent);
    assert_eq!(store.get(Kind::Image, "o", "a").await.unwrap(), Some(sent));
    let again = store.create(entity(Kind::Image, "o", "a"), vec![job("image", "other")]).await;
    assert!(matches!(again, Err(Error::Exists)), "{again:?}");
    assert_eq!(store.queue_depths().await.unwrap(), [("image".to_owned(), 1, 0, 0)]);
}

#[tokio::test]
async fn organizations_and_kinds_do_not_see_each_other() {
    let (_dir, store) = store().await;
    for (kind, org) in [(Kind::Image, "o"), (Kind::Image, "p"), (Kind::Secret, "o")] {
        store.create(entity(kind, org, "same"), Vec::new()).await.unwrap();
    }
    let changed = store.remove(Kind::Image, "p", "same").await.unwrap();
    assert_eq!(changed.org, "p");
    assert_eq!(store.get(Kind::Image, "p", "same").await.unwrap(), None);
    assert!(store.get(Kind::Image, "o", "same").await.unwrap().is_some());
    assert!(store.get(Kind::Image, "", "same").await.unwrap().is_none());
    let nothing = |_: &mut super::Entity| Ok(Vec::new());
    let foreign = store.mutate(Kind::Secret, "p", "same", None, nothing).await;
    assert!(matches!(foreign, Err(Error::Missing)), "{foreign:?}");
    let foreign = store.remove(Kind::Secret, "p", "same").await;
    assert!(matches!(foreign, Err(Error::Missing)), "{foreign:?}");
    assert_eq!(store.list(Kind::Image, "o", Page::default()).await.unwrap().len(), 1);
    assert_eq!(store.all(Kind::Image).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_are_never_lost() {
    let (_dir, store) = store().await;
    store.create(entity(Kind::Image, "o", "a"), Vec::new()).await.unwrap();
    let count = |entity: &mut super::Entity| {
        let next = entity.body["count"].as_i64().unwrap() + 1;
        entity.body = json!({ "count": next, "revision": entity.revision });
        Ok(Vec::new())
    };
    let changes = (0..32).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.mutate(Kind::Image, "o", "a", None, count).await })
    });
    for change in join_all(changes).await {
        change.unwrap().unwrap();
    }
    let entity = store.get(Kind::Image, "o", "a").await.unwrap().unwrap();
    assert_eq!((entity.revision, &entity.body), (33, &json!({ "count": 32, "revision": 33 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_changes_to_one_revision_one_wins() {
    let (_dir, store) = store().await;
    store.create(entity(Kind::Image, "o", "a"), Vec::new()).await.unwrap();
    let changes = (0..32).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            store.mutate(Kind::Image, "o", "a", Some(1), |_| Ok(Vec::new())).await
        })
    });
    let results: Vec<_> = join_all(changes).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let lost = |result: &&Result<_, Error>| matches!(result, Err(Error::Conflict { current: 2 }));
    assert_eq!(results.iter().filter(lost).count(), 31);
}

#[tokio::test]
async fn a_change_cannot_rename_or_move_an_entity() {
    let (_dir, store) = store().await;
    let created = store.create(entity(Kind::Image, "o", "a"), Vec::new()).await.unwrap();
    let change = |entity: &mut super::Entity| {
        entity.kind = Kind::Secret;
        entity.org = "p".to_owned();
        entity.name = "b".to_owned();
        entity.id = "x".to_owned();
        entity.revision = 99;
        entity.created = 99;
        entity.body = json!("new");
        Ok(Vec::new())
    };
    let changed = store.mutate(Kind::Image, "o", "a", None, change).await.unwrap();
    let expected =
        super::Entity { revision: 2, modified: changed.modified, body: json!("new"), ..created };
    assert_eq!(changed, expected);
    assert_eq!(store.get(Kind::Image, "o", "a").await.unwrap(), Some(expected));
    assert_eq!(store.all(Kind::Secret).await.unwrap(), []);
}

#[tokio::test]
async fn a_failed_operation_leaves_its_neighbours_alone() {
    let (_dir, store) = store().await;
    store.create(entity(Kind::Image, "o", "old"), Vec::new()).await.unwrap();
    let refuse = |entity: &mut super::Entity| {
        entity.body = json!("refused");
        Err(Problem::new(400, "not wanted"))
    };
    let panic = |_: &mut super::Entity| panic!("the panic of this test");
    let mut half = entity(Kind::Function, "o", "half");
    half.id = "half".to_owned();
    let taken = || revision("taken");
    store.create_function(entity(Kind::Function, "o", "first"), taken(), vec![]).await.unwrap();
    // All of them wait before the writer takes the first: they are one transaction.
    let (first, refused, panicked, half, second, last) = tokio::join!(
        store.create(entity(Kind::Image, "o", "a"), vec![job("image", "a")]),
        store.mutate(Kind::Image, "o", "old", None, refuse),
        store.mutate(Kind::Image, "o", "old", None, panic),
        // Its second row cannot be written, so its first must not stay.
        store.create_function(half, taken(), vec![job("function", "half")]),
        store.create(entity(Kind::Image, "o", "a"), vec![job("image", "twice")]),
        store.create(entity(Kind::Image, "o", "b"), vec![job("image", "b")]),
    );
    first.unwrap();
    assert!(matches!(&refused, Err(Error::Refused(problem)) if problem.message == "not wanted"));
    assert!(matches!(panicked, Err(Error::Unavailable(_))), "{panicked:?}");
    assert!(half.is_err());
    assert!(matches!(second, Err(Error::Exists)), "{second:?}");
    last.unwrap();
    let names: Vec<_> = store.all(Kind::Image).await.unwrap();
    let names: Vec<_> = names.iter().map(|e| (e.name.as_str(), e.revision)).collect();
    assert_eq!(names, [("a", 1), ("b", 1), ("old", 1)]);
    assert_eq!(store.get(Kind::Function, "o", "half").await.unwrap(), None);
    assert_eq!(store.queue_depths().await.unwrap(), [("image".to_owned(), 2, 0, 0)]);
    let changes = store.changes(0, 100).await.unwrap();
    let changes: Vec<_> = changes.iter().map(|c| (c.seq, c.name.as_str())).collect();
    assert_eq!(changes, [(1, "old"), (2, "first"), (3, "a"), (4, "b")]);
}
