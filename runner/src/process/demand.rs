//! How many processes are worth keeping ready: as many as were asked for at once a while ago. What
//! came together once, a schedule or a crowd, comes together again.

use std::time::{Duration, Instant};

/// What comes within this time comes at once.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How long the most that came at once is remembered: a little longer than the quarter of an hour
/// that schedules often have.
const REMEMBERED: Duration = Duration::from_secs(16 * 60);

/// What was asked for, and when.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// When the latest lot began, and how many belong to it.
    lot: Option<(Instant, usize)>,
    /// The largest lot that is remembered, and when it ended.
    most: Option<(Instant, usize)>,
}

impl Demand {
    /// Counts one.
    pub fn count(&mut self, now: Instant) {
        let lot = self.lot.filter(|(began, _)| *began + AT_ONCE > now);
        let (began, count) = lot.map_or((now, 1), |(began, count)| (began, count + 1));
        self.lot = Some((began, count));
        if count >= self.most(now) {
            self.most = Some((now, count));
        }
    }

    /// The most that came at once in the time that is remembered.
    pub fn most(&self, now: Instant) -> usize {
        let remembered = self.most.filter(|(ended, _)| *ended + REMEMBERED > now);
        remembered.map_or(0, |(_, count)| count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_lot_counts_until_it_is_forgotten() {
        let (mut demand, start) = (Demand::default(), Instant::now());
        assert_eq!(demand.most(start), 0);
        let at = |seconds| start + Duration::from_secs(seconds);
        (0..40).for_each(|_| demand.count(at(0)));
        (0..20).for_each(|_| demand.count(at(1)));
        assert_eq!(demand.most(at(1)), 60, "they came at once");
        for second in 10..20 {
            demand.count(at(second));
        }
        assert_eq!(demand.most(at(20)), 60, "fewer at a time change nothing");
        assert_eq!(demand.most(at(16 * 60)), 60);
        assert_eq!(demand.most(at(16 * 60 + 2)), 0);
        (0..3).for_each(|_| demand.count(at(2000)));
        assert_eq!(demand.most(at(2001)), 3);
    }

    #[test]
    fn a_steady_trickle_is_no_crowd() {
        let (mut demand, start) = (Demand::default(), Instant::now());
        for second in 0..600 {
            demand.count(start + Duration::from_secs(second));
        }
        assert_eq!(demand.most(start + Duration::from_secs(600)), 2);
    }
}
