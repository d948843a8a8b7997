use dispatch_api::delivery::DeliveryState;
use dispatch_api::{Kind, Receipt};

use super::{entity, store};
use crate::store::{DeliveryRow, Entity, NewEvent, Share, Store, Stretch, Tried};

const HOUR: i64 = 3_600_000_000;

async fn subscription(store: &Store, name: &str) -> Entity {
    store.create(entity(Kind::Subscription, "o", name), Vec::new()).await.unwrap()
}

fn event(id: &str, to: &[(&Entity, &str)]) -> NewEvent {
    NewEvent {
        org: "o".to_owned(),
        id: id.to_owned(),
        source: "/s".to_owned(),
        event_type: "t".to_owned(),
        hops: 0,
        body: format!("{{\"id\":\"{id}\"}}"),
        deliveries: to.iter().map(|(it, key)| (it.id.clone(), (*key).to_owned())).collect(),
    }
}

async fn claim(store: &Store, of: &Entity, limit: usize) -> Vec<DeliveryRow> {
    let share = Share { subscription: of.id.clone(), limit };
    store.claim_deliveries(vec![share], "me", HOUR).await.unwrap()
}

fn tried(row: &DeliveryRow, state: DeliveryState, error: &str) -> Tried {
    Tried {
        id: row.id,
        generation: row.generation,
        state,
        dead_lettered: false,
        due: 0,
        attempts: row.attempts + 1,
        error: error.to_owned(),
    }
}

async fn finish(store: &Store, tried: Tried) -> Option<Receipt> {
    store.finish_deliveries(vec![tried], None, Vec::new(), HOUR).await.unwrap()
}

fn ids(rows: &[DeliveryRow]) -> Vec<String> {
    let id = |row: &DeliveryRow| {
        let event: serde_json::Value = serde_json::from_str(&row.event).unwrap();
        event["id"].as_str().unwrap().to_owned()
    };
    rows.iter().map(id).collect()
}

#[tokio::test]
async fn an_event_goes_to_every_subscription_and_is_accepted_once() {
    let (_dir, store) = store().await;
    let (a, b) = (subscription(&store, "a").await, subscription(&store, "b").await);
    let both = [(&a, ""), (&b, "")];
    let events = vec![event("1", &both), event("2", &[(&a, "")]), event("1", &both)];
    let receipt = store.append_events(events, HOUR).await.unwrap();
    assert_eq!(receipt, Receipt { events: 2, deliveries: 3, duplicates: 1 });
    let again = store.append_events(vec![event("1", &both)], HOUR).await.unwrap();
    assert_eq!(again, Receipt { events: 0, deliveries: 0, duplicates: 1 });
    // The window lies behind it.
    let later = store.append_events(vec![event("1", &both)], -1).await.unwrap();
    assert_eq!(later.events, 1);
    let open: Vec<_> = store.open_deliveries().await.unwrap();
    assert_eq!(open.len(), 2);
    assert_eq!(ids(&claim(&store, &a, 10).await), ["1", "2", "1"]);
    assert!(claim(&store, &a, 10).await.is_empty(), "what is claimed is not due");
    // A subscription that has gone takes its deliveries with it, and gets no more.
    store.remove(Kind::Subscription, "o", "b").await.unwrap();
    let gone = store.append_events(vec![event("9", &both)], HOUR).await.unwrap();
    assert_eq!((gone.events, gone.deliveries), (1, 1));
    assert_eq!(store.open_deliveries().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_batch_keeps_its_order() {
    let (_dir, store) = store().await;
    let a = subscription(&store, "a").await;
    let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let events = names.iter().map(|name| event(name, &[(&a, "")])).collect();
    assert_eq!(store.append_events(events, HOUR).await.unwrap().deliveries, 100);
    assert_eq!(ids(&claim(&store, &a, 1000).await), names);
}

#[tokio::test]
async fn a_try_ends_once_and_only_by_its_claim() {
    let (_dir, store) = store().await;
    let a = subscription(&store, "a").await;
    store.append_events(vec![event("1", &[(&a, "")])], HOUR).await.unwrap();
    let row = claim(&store, &a, 1).await.remove(0);
    assert!(finish(&store, tried(&row, DeliveryState::Waiting, "no")).await.is_some());
    assert!(finish(&store, tried(&row, DeliveryState::Dead, "no")).await.is_some_and(|_| true));
    let row = claim(&store, &a, 1).await;
    assert!(row.is_empty(), "it is dead");
    let progress = store.progress(&a.id).await.unwrap();
    assert_eq!((progress.lag, progress.dead, progress.delivered), (0, 1, 0));
    assert_eq!(progress.last_error, "no");
    let dead =
        store.deliveries(std::slice::from_ref(&a.id), Some(DeliveryState::Dead), i64::MAX, 9).await;
    let dead = dead.unwrap().remove(0);
    store.redrive_delivery(dead.id).await.unwrap();
    assert!(store.redrive_delivery(dead.id).await.is_err(), "it is dead no more");
    let row = claim(&store, &a, 1).await.remove(0);
    assert_eq!(row.attempts, 0);
    let mut foreign = tried(&row, DeliveryState::Delivered, "");
    foreign.generation -= 1;
    assert!(finish(&store, foreign).await.is_none(), "an earlier claim says nothing");
    assert!(finish(&store, tried(&row, DeliveryState::Delivered, "")).await.is_some());
    assert_eq!(store.progress(&a.id).await.unwrap().delivered, 1);
}

#[tokio::test]
async fn events_with_one_ordering_key_follow_each_other() {
    let (_dir, store) = store().await;
    let a = subscription(&store, "a").await;
    let events =
        [("1", "x"), ("2", "x"), ("3", "y"), ("4", "x")].map(|(id, key)| event(id, &[(&a, key)]));
    store.append_events(events.to_vec(), HOUR).await.unwrap();
    let first = claim(&store, &a, 10).await;
    assert_eq!(ids(&first), ["1", "3"]);
    assert_eq!(store.progress(&a.id).await.unwrap().lag, 4);
    // One that is tried again holds back those behind it.
    finish(&store, tried(&first[0], DeliveryState::Waiting, "no")).await;
    let again = claim(&store, &a, 10).await;
    assert_eq!(ids(&again), ["1"]);
    finish(&store, tried(&again[0], DeliveryState::Dead, "no")).await;
    let second = claim(&store, &a, 10).await;
    assert_eq!(ids(&second), ["2"], "what is dead holds back nobody");
    // What is redriven takes its turn.
    store.redrive_deliveries(&a.id).await.unwrap();
    assert!(claim(&store, &a, 10).await.is_empty());
    finish(&store, tried(&second[0], DeliveryState::Delivered, "")).await;
    assert_eq!(ids(&claim(&store, &a, 10).await), ["1"]);
}

#[tokio::test]
async fn a_reply_is_accepted_with_the_end_of_its_delivery() {
    let (_dir, store) = store().await;
    let (a, b) = (subscription(&store, "a").await, subscription(&store, "b").await);
    store.append_events(vec![event("1", &[(&a, "")])], HOUR).await.unwrap();
    let row = claim(&store, &a, 1).await.remove(0);
    let end = || vec![tried(&row, DeliveryState::Delivered, "")];
    let reply = || vec![NewEvent { hops: 1, ..event("1/a", &[(&b, "")]) }];
    let receipt = store.finish_deliveries(end(), None, reply(), HOUR).await.unwrap();
    assert_eq!(receipt.map(|receipt| receipt.deliveries), Some(1));
    assert_eq!(store.finish_deliveries(end(), None, reply(), HOUR).await.unwrap(), None);
    assert_eq!(claim(&store, &b, 9).await.remove(0).hops, 1);
}

#[tokio::test]
async fn leases_of_an_earlier_life_end_at_once() {
    let (_dir, store) = store().await;
    let a = subscription(&store, "a").await;
    store.append_events(vec![event("1", &[(&a, "")])], HOUR).await.unwrap();
    assert_eq!(claim(&store, &a, 9).await.len(), 1);
    store.release_deliveries("somebody").await.unwrap();
    assert!(claim(&store, &a, 9).await.is_empty());
    store.release_deliveries("me").await.unwrap();
    assert_eq!(claim(&store, &a, 9).await.len(), 1);
}

#[tokio::test]
async fn the_log_is_read_in_pieces_and_forgets_what_nobody_waits_for() {
    let (_dir, store) = store().await;
    let a = subscription(&store, "a").await;
    let events = (0..10).map(|n| event(&n.to_string(), &[])).collect();
    store.append_events(events, HOUR).await.unwrap();
    store.append_events(vec![event("open", &[(&a, "")])], HOUR).await.unwrap();
    let mut stretch = Stretch { since: 0, until: i64::MAX, after: (0, 0), limit: 4 };
    let mut seen = 0;
    loop {
        let page = store.event_log("o", &stretch).await.unwrap();
        let Some(last) = page.last() else { break };
        stretch.after = (last.accepted, last.seq);
        seen += page.len();
    }
    assert_eq!(seen, 11);
    assert_eq!(store.newest_events("o", Some("t"), 3).await.unwrap().len(), 3);
    assert_eq!(store.newest_events("o", Some("u"), 3).await.unwrap(), []);
    assert_eq!(store.newest_events("p", None, 3).await.unwrap(), []);
    // 10 events of 10 bytes and one of 13: three have to go.
    assert_eq!(store.prune_events(0, 90).await.unwrap(), 3);
    assert_eq!(store.prune_events(i64::MAX, i64::MAX).await.unwrap(), 7);
    assert_eq!(store.newest_events("o", None, 9).await.unwrap().len(), 1, "one waits");
    assert_eq!(store.prune_events(0, 0).await.unwrap(), 0);
}
