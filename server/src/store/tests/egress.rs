use dispatch_api::Kind;

use super::super::{Seen, Store};
use super::{function, store};

fn seen(host: &str, reason: &str, count: i64, at: i64) -> Seen {
    let (host, reason) = (host.to_owned(), reason.to_owned());
    Seen { host, port: 443, reason, count, first: at, last: at }
}

#[tokio::test]
async fn destinations_add_up_and_survive_a_restart() {
    let (dir, store) = store().await;
    let id = function(&store, "f").await.id;
    let first = vec![seen("a.example", "", 2, 10), seen("a.example", "private", 1, 11)];
    store.note_egress("o", "f", first, 0).await.unwrap();
    store.note_egress("o", "f", vec![seen("a.example", "", 3, 20)], 4).await.unwrap();
    // Functions that are gone, and those of others.
    store.note_egress("o", "gone", vec![seen("b.example", "", 1, 1)], 0).await.unwrap();
    store.note_egress("p", "f", vec![seen("b.example", "", 1, 1)], 0).await.unwrap();
    store.close().await;
    let store = Store::open(&dir.path().join("dispatch.db")).await.unwrap();
    let whole = Seen { first: 10, ..seen("a.example", "", 5, 20) };
    let expected = vec![whole, seen("a.example", "private", 1, 11)];
    assert_eq!(store.egress(&id).await.unwrap(), (expected, 4));
    store.remove(Kind::Function, "o", "f").await.unwrap();
    assert_eq!(store.egress(&id).await.unwrap(), (Vec::new(), 0));
}

#[tokio::test]
async fn a_function_has_a_bounded_number_of_destinations() {
    let (_dir, store) = store().await;
    let id = function(&store, "f").await.id;
    for batch in 0..3 {
        let many = (0..250).map(|n| seen(&format!("{batch}-{n}.example"), "", 1, 1)).collect();
        store.note_egress("o", "f", many, 0).await.unwrap();
    }
    let (seen, unlisted) = store.egress(&id).await.unwrap();
    assert_eq!((seen.len(), unlisted), (512, 238));
}
