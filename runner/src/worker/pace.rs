//! Whether a worker's calls are short enough for it to share a core with what feeds it.

use std::time::Duration;

/// Calls between two looks.
const WINDOW: u32 = 16;
/// The quickest of a window's calls says what calls take where nothing stands in their way. Below
/// this, waking another core would cost more than sharing one.
const SHORT: Duration = Duration::from_micros(500);
/// Above this, a worker had better be where a core is free. In between it stays as it is.
const LONG: Duration = Duration::from_millis(2);

/// What is known of a worker's calls.
#[derive(Debug, Default)]
pub struct Pace {
    quickest: Option<Duration>,
    calls: u32,
    kept_on: Option<usize>,
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
    fn one_quick_call_among_slow_ones_shows_what_they_wait_for() {
        let mut pace = Pace::default();
        pace.after(Duration::from_micros(100), || Some(0));
        let changes: Vec<_> =
            (1..WINDOW).filter_map(|_| pace.after(Duration::from_millis(50), || Some(0))).collect();
        assert_eq!(changes, [Some(0)]);
    }
}
