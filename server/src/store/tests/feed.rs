use dispatch_api::Kind;
use futures_util::future::join_all;

use super::super::{Change, Error, Op};
use super::{entity, store};

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_sees_every_change_once_and_in_order() {
    const WRITERS: usize = 4;
    const WRITES: usize = 30;
    let (_dir, store) = store().await;
    let follower = {
        let store = store.clone();
        tokio::spawn(async move {
            let (mut feed, mut seen) = (store.subscribe(), Vec::<Change>::new());
            while seen.len() < WRITERS * (WRITES + 2) {
                feed.changed().await.unwrap();
                loop {
                    let after = seen.last().map_or(0, |change| change.seq);
                    let changes = store.changes(after, 7).await.unwrap();
                    if changes.is_empty() {
                        break;
                    }
                    seen.extend(changes);
                }
            }
            seen
        })
    };
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let name = format!("e{writer}");
            store.create(entity(Kind::Image, "o", &name), Vec::new()).await.unwrap();
            for _ in 0..WRITES {
                store.mutate(Kind::Image, "o", &name, None, |_| Ok(Vec::new())).await.unwrap();
                let refused = store.create(entity(Kind::Image, "o", &name), Vec::new()).await;
                assert!(matches!(refused, Err(Error::Exists)));
            }
            store.remove(Kind::Image, "o", &name).await.unwrap();
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    let seen = follower.await.unwrap();
    assert!(seen.iter().zip(1..).all(|(change, seq)| change.seq == seq), "{seen:?}");
    for writer in 0..WRITERS {
        let name = format!("e{writer}");
        let own: Vec<_> = seen.iter().filter(|change| change.name == name).collect();
        assert!(own.iter().zip(1..).all(|(change, revision)| change.revision == revision));
        let deletes: Vec<_> = own.iter().map(|change| change.op == Op::Delete).collect();
        assert_eq!(deletes.iter().position(|delete| *delete), Some(WRITES + 1));
    }
    assert_eq!(store.last_change().await.unwrap(), seen.last().unwrap().seq);
}

#[tokio::test]
async fn a_reader_that_fell_behind_is_told() {
    let (_dir, store) = store().await;
    assert_eq!(store.changes(0, 10).await.unwrap(), []);
    for name in ["a", "b", "c", "d"] {
        store.create(entity(Kind::Image, "o", name), Vec::new()).await.unwrap();
    }
    store.prune_changes(2).await.unwrap();
    for after in [0, 1, 5, -1] {
        let changes = store.changes(after, 10).await;
        assert!(matches!(changes, Err(Error::Gap)), "{after}: {changes:?}");
    }
    let names = |changes: Vec<Change>| changes.into_iter().map(|c| c.name).collect::<Vec<_>>();
    assert_eq!(names(store.changes(2, 10).await.unwrap()), ["c", "d"]);
    assert_eq!(names(store.changes(4, 10).await.unwrap()), Vec::<String>::new());
    // Numbers go on where they were, also when everything is pruned.
    store.prune_changes(0).await.unwrap();
    store.create(entity(Kind::Image, "o", "e"), Vec::new()).await.unwrap();
    assert_eq!(names(store.changes(4, 10).await.unwrap()), ["e"]);
    assert_eq!(store.last_change().await.unwrap(), 5);
}

#[tokio::test]
async fn the_feed_starts_with_what_is_there() {
    let (dir, store) = store().await;
    store.create(entity(Kind::Image, "o", "a"), Vec::new()).await.unwrap();
    store.close().await;
    let store = super::Store::open(&dir.path().join("dispatch.db")).await.unwrap();
    let mut feed = store.subscribe();
    feed.changed().await.unwrap();
    assert_eq!(*feed.borrow_and_update(), 1);
    store.create(entity(Kind::Image, "o", "b"), Vec::new()).await.unwrap();
    feed.changed().await.unwrap();
    assert_eq!(*feed.borrow_and_update(), 2);
}
