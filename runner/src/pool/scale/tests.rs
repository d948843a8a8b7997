#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

const QUIET: Seen = Seen {
    idle: 0,
    expired: 0,
    busy: 0,
    starting: 0,
    calls: 0,
    queued: 0,
    lined: 0,
    concurrency: 1,
    least: 0,
    scheduled: false,
    most: 4,
    retired: false,
    failing: false,
    short: false,
};

fn decision(start: usize, spare: usize, stop: usize) -> Decision {
    Decision { start, spare, stop }
}

#[test]
fn calls_that_wait_get_workers_up_to_the_most() {
    assert_eq!(Seen { queued: 3, ..QUIET }.decide(), decision(3, 0, 0));
    assert_eq!(Seen { queued: 3, starting: 2, ..QUIET }.decide(), decision(1, 0, 0));
    assert_eq!(Seen { queued: 9, busy: 3, calls: 3, ..QUIET }.decide(), decision(1, 0, 0));
    assert_eq!(Seen { queued: 9, busy: 4, calls: 4, ..QUIET }.decide(), decision(0, 0, 0));
    // Three of them fit into each.
    assert_eq!(Seen { queued: 4, concurrency: 3, ..QUIET }.decide(), decision(2, 0, 0));
    // Two of them wait for one that is there.
    assert_eq!(
        Seen { queued: 3, lined: 2, busy: 1, calls: 1, ..QUIET }.decide(),
        decision(1, 0, 0)
    );
    assert_eq!(
        Seen { queued: 2, lined: 2, idle: 2, expired: 1, ..QUIET }.decide(),
        decision(0, 0, 1)
    );
    // Calls of a revision that another one replaced still end.
    assert_eq!(Seen { queued: 1, retired: true, ..QUIET }.decide(), decision(1, 0, 0));
}

#[test]
fn the_least_is_kept_and_what_is_beyond_it_goes_after_its_time() {
    let kept = Seen { least: 2, ..QUIET };
    assert_eq!(kept.decide(), decision(0, 2, 0));
    assert_eq!(Seen { queued: 1, ..kept }.decide(), decision(1, 1, 0));
    assert_eq!(Seen { idle: 4, expired: 3, ..kept }.decide(), decision(0, 0, 2));
    assert_eq!(Seen { idle: 4, expired: 1, ..kept }.decide(), decision(0, 0, 1));
    assert_eq!(Seen { least: 9, idle: 1, ..kept }.decide(), decision(0, 3, 0));
    assert_eq!(Seen { idle: 4, retired: true, ..kept }.decide(), decision(0, 0, 4));
    // Nothing that no call needs is started now.
    assert_eq!(Seen { failing: true, ..kept }.decide(), decision(0, 0, 0));
    assert_eq!(Seen { short: true, ..kept }.decide(), decision(0, 0, 0));
    assert_eq!(Seen { short: true, queued: 1, ..QUIET }.decide(), decision(1, 0, 0));
}

#[test]
fn each_state_has_its_reason() {
    let busy = Seen { busy: 4, calls: 4, ..QUIET };
    let lacking = Seen { queued: 2, starting: 2, ..QUIET };
    let kept = Seen { least: 2, idle: 2, ..QUIET };
    for (seen, crowded, reason) in [
        (QUIET, None, Reason::Zero),
        (busy, None, Reason::Demand),
        (Seen { queued: 1, ..busy }, None, Reason::Maximum),
        (lacking, None, Reason::Demand),
        (lacking, Some(Reason::Room), Reason::Room),
        (lacking, Some(Reason::Share), Reason::Share),
        (Seen { failing: true, ..lacking }, Some(Reason::Room), Reason::Failing),
        (kept, None, Reason::Minimum),
        (Seen { scheduled: true, ..kept }, None, Reason::Schedule),
        (Seen { idle: 3, ..kept }, None, Reason::Idle),
        (Seen { idle: 1, short: true, ..kept }, None, Reason::Pressure),
        (Seen { idle: 1, failing: true, ..kept }, None, Reason::Failing),
        (Seen { busy: 1, idle: 1, calls: 1, ..kept }, None, Reason::Minimum),
        (Seen { retired: true, ..kept }, None, Reason::Retired),
    ] {
        assert_eq!(seen.reason(crowded), reason, "{seen:?} {crowded:?}");
    }
}

#[test]
fn the_last_changes_are_remembered() {
    let mut history = History::default();
    for workers in 1..=3 {
        history.note(1, workers, Reason::Demand);
    }
    history.note(-1, 2, Reason::Idle);
    let steps: Vec<_> = history.steps().iter().map(|it| (it.change, it.workers)).collect();
    assert_eq!(steps, [(3, 3), (-1, 2)]);
    for round in 0..40 {
        history.note(if round % 2 == 0 { 1 } else { -1 }, 2, Reason::Demand);
    }
    assert_eq!(history.steps().len(), REMEMBERED);
}

fn seen() -> impl Strategy<Value = Seen> {
    let counts = (0..9_usize, 0..9_usize, 0..9_usize, 0..9_usize, 0..30_usize, 0..30_usize);
    let settings = (1..5_usize, 0..12_usize, 1..12_usize);
    (counts, settings, any::<[bool; 4]>()).prop_map(|(counts, settings, flags)| {
        let (idle, expired, busy, starting, queued, lined) = counts;
        let (concurrency, least, most) = settings;
        let [scheduled, retired, failing, short] = flags;
        Seen {
            idle,
            expired: expired.min(idle),
            busy,
            starting,
            calls: busy,
            queued,
            lined: lined.min(queued),
            concurrency,
            least,
            scheduled,
            most,
            retired,
            failing,
            short,
        }
    })
}

proptest! {
    #[test]
    fn what_is_decided_is_within_the_limits(seen in seen()) {
        let Decision { start, spare, stop } = seen.decide();
        let now = seen.workers() + seen.starting;
        prop_assert!(now - stop + start + spare <= seen.most.max(now));
        prop_assert!(stop <= seen.idle);
        prop_assert!(start * seen.concurrency < seen.queued + seen.concurrency);
        prop_assert!(spare == 0 || !(seen.failing || seen.short || seen.retired));
        prop_assert!(stop == 0 || seen.retired || seen.workers() - stop >= seen.least.min(seen.most));
        // Done, it leaves nothing to do.
        let idle = seen.idle - stop;
        let expired = if seen.retired { 0 } else { seen.expired - stop };
        let next = Seen { idle, expired, starting: seen.starting + start + spare, ..seen };
        prop_assert_eq!(next.decide(), Decision::default());
    }
}
