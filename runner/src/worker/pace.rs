//! Whether a worker's calls are short enough for it to share a core with what feeds it.

use std::time::Duration;

/// Calls between two looks.
const WINDOW: u32 = 16;
/// The quickest of a window's calls says what calls take where nothing stands in their way. Below
/// this, waking another core would cost more than sharing one.
const SHORT: Duration = Duration::from_micros(500);
/// Above this, a worker had better be where a core is free. In between it stays as it is.
const LONG: Duration = Duration::from_millis(2);

/// While the quickest takes less than this, calls are served sooner by waiting for this worker than by
/// another on the same core, which would only push this one's memory out of the caches.
const BRISK: Duration = Duration::from_micros(150);
/// Windows until that is tried again where it was not so; twice as many each time, up to the second.
const FIRST_PAUSE: u32 = 16;
const LONGEST_PAUSE: u32 = 4096;

/// What is known of a worker's calls.
#[derive(Debug)]
pub struct Pace {
    quickest: Option<Duration>,
    calls: u32,
    kept_on: Option<usize>,
    brisk: bool,
    /// Windows until it may be brisk again, and how many it will be the next time.
    pause: u32,
    next_pause: u32,
}

impl Default for Pace {
    fn default() -> Pace {
        let (quickest, calls, kept_on, brisk) = (None, 0, None, false);
        Pace { quickest, calls, kept_on, brisk, pause: 0, next_pause: FIRST_PAUSE }
    }
}

impl Pace {
    /// Counts a call. Says, when it changes, on which core the worker is to be kept: on that of its
    /// home, which `core` tells, or on any.
    pub fn after(
        &mut self,
        took: Duration,
        core: impl Fn() -> Option<usize>,
    ) -> Option<Option<usize>> {
        let quickest = self.quickest.map_or(took, |quickest| quickest.min(took));
        self.quickest = Some(quickest);
        self.calls += 1;
        if self.calls < WINDOW {
            return None;
        }
        (self.quickest, self.calls) = (None, 0);
        self.judge(quickest);
        let wanted = match self.kept_on {
            _ if quickest < SHORT => core(),
            Some(_) if quickest <= LONG => core(),
            _ => None,
        };
        (wanted != self.kept_on).then(|| {
            self.kept_on = wanted;
            wanted
        })
    }

    /// Whether calls had better wait for this worker than be given to another on the same core.
    pub fn is_brisk(&self) -> bool {
        self.brisk
    }

    /// A call took longer than those that wait for the worker should.
    pub fn give_up(&mut self) {
        self.brisk = false;
        self.pause = self.next_pause;
        self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
    }

    /// What calls take can be told only where no other worker takes part of the core: so it is tried.
    fn judge(&mut self, quickest: Duration) {
        if self.brisk && quickest >= BRISK {
            self.give_up();
        } else if self.brisk {
            self.next_pause = (self.next_pause / 2).max(FIRST_PAUSE);
        } else if self.pause > 0 {
            self.pause -= 1;
        } else {
            self.brisk = quickest < SHORT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pace: &mut Pace, micros: u64, core: Option<usize>) -> Vec<Option<usize>> {
        (0..WINDOW).filter_map(|_| pace.after(Duration::from_micros(micros), || core)).collect()
    }

    #[test]
    fn short_calls_share_a_core_and_long_ones_roam() {
        let mut pace = Pace::default();
        assert_eq!(run(&mut pace, 1000, Some(1)), [], "neither short nor long: as it was");
        assert_eq!(run(&mut pace, 100, Some(1)), [Some(1)]);
        assert_eq!(run(&mut pace, 100, Some(1)), []);
        assert_eq!(run(&mut pace, 1000, Some(1)), [], "as it was");
        assert_eq!(run(&mut pace, 5000, Some(1)), [None]);
        assert_eq!(run(&mut pace, 1000, Some(1)), []);
    }

    #[test]
    fn it_follows_its_home_and_leaves_a_core_that_is_behind() {
        let mut pace = Pace::default();
        assert_eq!(run(&mut pace, 100, Some(1)), [Some(1)]);
        assert_eq!(run(&mut pace, 100, Some(0)), [Some(0)]);
        assert_eq!(run(&mut pace, 100, None), [None]);
        assert_eq!(run(&mut pace, 100, Some(0)), [Some(0)]);
    }

    #[test]
    fn calls_wait_for_a_worker_only_while_that_proves_right() {
        let mut pace = Pace::default();
        run(&mut pace, 600, Some(0));
        assert!(!pace.is_brisk());
        run(&mut pace, 400, Some(0));
        assert!(pace.is_brisk(), "it is tried");
        run(&mut pace, 300, Some(0));
        assert!(!pace.is_brisk(), "it did not prove right");
        let windows = |pace: &mut Pace| {
            let windows = (1..).find(|_| {
                run(pace, 100, Some(0));
                pace.is_brisk()
            });
            windows.unwrap_or_default()
        };
        assert_eq!(windows(&mut pace), FIRST_PAUSE + 1);
        pace.give_up();
        assert_eq!(windows(&mut pace), 2 * FIRST_PAUSE + 1, "each time it takes longer");
        for _ in 0..8 {
            run(&mut pace, 100, Some(0));
        }
        pace.give_up();
        assert_eq!(windows(&mut pace), FIRST_PAUSE + 1, "but that is forgiven");
    }

    #[test]
    fn one_quick_call_among_slow_ones_shows_what_they_wait_for() {
        let mut pace = Pace::default();
        pace.after(Duration::from_micros(100), || Some(0));
        let changes: Vec<_> =
            (1..WINDOW).filter_map(|_| pace.after(Duration::from_millis(50), || Some(0))).collect();
        assert_eq!(changes, [Some(0)]);
    }
}
