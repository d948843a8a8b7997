#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::{Egress, Settings};

fn revision(organization: &str, name: &str) -> Arc<Revision> {
    Arc::new(Revision {
        organization: organization.to_owned(),
        function: name.to_owned(),
        faas_id: format!("{organization}/{name}"),
        language: String::new(),
        layer: None,
        source: "/".into(),
        handler: String::new(),
        settings: Settings {
            memory_bytes: 0,
            cpu_millis: 0,
            concurrency: 1,
            min_scale: 0,
            schedules: Vec::new(),
            max_scale: 1,
            queue: 0,
            idle: std::time::Duration::ZERO,
            environment: Vec::new(),
            preload: false,
            egress: Egress::None,
        },
    })
}

fn taken(room: &Arc<Room>, revision: &Arc<Revision>, count: usize) -> Vec<Place> {
    (0..count).map(|_| room.take(revision).unwrap()).collect()
}

#[test]
fn a_place_that_becomes_free_goes_to_who_has_the_fewest() {
    let room = Room::new(4, 4);
    let (big, other, small) = (revision("big", "f"), revision("big", "g"), revision("small", "f"));
    let mut places = taken(&room, &big, 4);
    assert!(room.take(&small).is_none());
    let mut waiting = [&big, &other, &small].map(|revision| room.wait(revision));
    assert!(room.is_crowded());
    for expected in [2, 1, 0] {
        places.pop();
        let got = waiting.iter_mut().position(|it| {
            it.try_recv().is_ok_and(|place| {
                places.insert(0, place);
                true
            })
        });
        assert_eq!(got, Some(expected));
    }
    assert!(!room.is_crowded());
}

#[test]
fn a_worker_goes_for_another_only_if_that_evens_things_out() {
    let room = Room::new(4, 4);
    let (big, small) = (revision("big", "f"), revision("small", "f"));
    let mut places = taken(&room, &big, 4);
    let mut waiting: Vec<_> = (0..4).map(|_| room.wait(&small)).collect();
    assert!(room.claim(&big, true, false), "4 and 0");
    assert!(room.claim(&big, true, false), "3 and 1");
    assert!(!room.claim(&big, true, true), "2 and 2");
    places.truncate(2);
    let got = waiting.iter_mut().filter_map(|it| it.try_recv().ok()).collect::<Vec<_>>();
    assert_eq!(got.len(), 2);
    assert!(
        !room.claim(&big, true, true) && room.claim(&big, false, false),
        "it has nothing to do"
    );
    // An organization's functions share in the same way.
    let next = revision("big", "g");
    let _waiting = room.wait(&next);
    assert!(!room.claim(&big, true, false), "the other organization comes first");
}

#[test]
fn the_only_worker_of_a_function_goes_when_its_turn_is_over() {
    let room = Room::new(1, 1);
    let (greedy, modest) = (revision("org", "f"), revision("org", "g"));
    let place = room.take(&greedy).unwrap();
    let own = room.wait(&greedy);
    assert!(!room.claim(&greedy, true, true), "a worker does not make room for one like it");
    drop(own);
    let mut waiting = room.wait(&modest);
    assert!(!room.claim(&greedy, true, false));
    assert!(room.claim(&greedy, true, true));
    drop(place);
    assert!(waiting.try_recv().is_ok());
}

#[test]
fn an_organization_has_no_more_than_its_share() {
    let room = Room::new(4, 2);
    let (one, other) = (revision("one", "f"), revision("other", "f"));
    let mut places = taken(&room, &one, 2);
    assert!(room.take(&one).is_none());
    let mut more = room.wait(&one);
    assert!(!room.may_evict(&other, false, &one), "that would not help");
    assert!(room.may_evict(&one, true, &one));
    let usage = Use { taken: 2, most: 4, organization: 2, share: 2, waiting: 1 };
    assert_eq!(room.usage(&one), usage);
    assert!(room.take(&other).is_some(), "those who wait for their share keep nobody out");
    places.pop();
    assert!(more.try_recv().is_ok());
}

#[test]
fn what_is_kept_idle_goes_only_for_who_has_less() {
    let room = Room::new(3, 3);
    let (rich, poor) = (revision("rich", "f"), revision("poor", "f"));
    let _places = (taken(&room, &rich, 2), taken(&room, &poor, 1));
    assert!(room.may_evict(&rich, true, &poor) && !room.may_evict(&poor, true, &rich));
    assert!(room.may_evict(&poor, false, &rich), "nobody needs it");
}

#[tokio::test]
async fn it_is_empty_when_all_places_are_back() {
    let room = Room::new(2, 2);
    let places = taken(&room, &revision("a", "f"), 2);
    let left = room.wait(&revision("a", "f"));
    drop(left);
    let (room, again) = (Arc::clone(&room), room);
    let empty = tokio::spawn(async move { again.empty().await });
    tokio::task::yield_now().await;
    drop(places);
    empty.await.unwrap();
    assert_eq!(lock(&room.state).organizations.len(), 0, "nothing is kept of who is gone");
}

#[derive(Clone, Debug)]
enum Act {
    Wait(usize),
    Take(usize),
    GiveUp(usize),
    Drop(usize),
    Claim(usize, bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0..6_usize).prop_map(Act::Wait),
        (0..6_usize).prop_map(Act::Take),
        (0..40_usize).prop_map(Act::GiveUp),
        (0..40_usize).prop_map(Act::Drop),
        (0..40_usize, any::<bool>()).prop_map(|(index, turn)| Act::Claim(index, turn)),
    ];
    proptest::collection::vec(act, 0..120)
}

proptest! {
    #[test]
    fn it_is_never_overfull_and_nobody_waits_beside_a_free_place(
        acts in acts(), most in 1..6_usize, share in 1..6_usize,
    ) {
        let revisions = ["a", "b", "c"].map(|org| [revision(org, "f"), revision(org, "g")]);
        let revisions: Vec<_> = revisions.into_iter().flatten().collect();
        let room = Room::new(most, share);
        let mut places: Vec<Place> = Vec::new();
        let mut waiting: Vec<(usize, oneshot::Receiver<Place>)> = Vec::new();
        for act in acts {
            match act {
                Act::Wait(index) => waiting.push((index, room.wait(&revisions[index]))),
                Act::Take(index) => places.extend(room.take(&revisions[index])),
                Act::GiveUp(index) if index < waiting.len() => drop(waiting.remove(index)),
                Act::Drop(index) if index < places.len() => drop(places.remove(index)),
                Act::Claim(index, turn) if index < places.len() => {
                    let from = Arc::clone(&places[index].revision);
                    if room.claim(&from, true, turn) {
                        drop(places.remove(index));
                    }
                }
                _ => {}
            }
            let mut still = Vec::new();
            for (index, mut coming) in waiting {
                match coming.try_recv() {
                    Ok(place) => places.push(place),
                    Err(_) => still.push((index, coming)),
                }
            }
            waiting = still;
            let of = |org: &str| {
                places.iter().filter(|place| place.revision.organization == org).count()
            };
            prop_assert!(places.len() <= most);
            prop_assert_eq!(lock(&room.state).taken, places.len());
            for org in ["a", "b", "c"] {
                prop_assert!(of(org) <= share);
            }
            if places.len() < most {
                for (index, _) in &waiting {
                    prop_assert_eq!(of(&revisions[*index].organization), share.min(most));
                }
            }
        }
        drop(waiting);
        drop(places);
        let state = lock(&room.state);
        prop_assert_eq!((state.taken, state.organizations.len(), state.revisions.len()), (0, 0, 0));
    }
}
