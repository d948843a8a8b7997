//! What many measured times say.

use std::time::Duration;

use serde::Serialize;

/// Times of equal things, sorted.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<Duration>);

impl Sample {
    /// Sorts the times.
    pub fn new(mut times: Vec<Duration>) -> Sample {
        times.sort_unstable();
        Sample(times)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest time that at least `percent` of all do not exceed (nearest rank). Zero if there
    /// are none.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }
}

/// The end of one measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// Requests that were answered.
    pub requests: usize,
    /// Requests a second.
    pub per_second: f64,
    /// Half of the requests took at most this many microseconds.
    pub p50_us: f64,
    /// 99 of 100 requests took at most this many microseconds.
    pub p99_us: f64,
}

impl Rate {
    /// From the times of requests and the time that all of them took together.
    pub fn new(times: Vec<Duration>, elapsed: Duration) -> Rate {
        let sample = Sample::new(times);
        let micros = |percent| sample.percentile(percent).as_secs_f64() * 1e6;
        Rate {
            requests: sample.len(),
            per_second: sample.len() as f64 / elapsed.as_secs_f64().max(f64::EPSILON),
            p50_us: micros(50),
            p99_us: micros(99),
        }
    }

    /// Of several rounds the one whose throughput is in the middle; of an even number the slower of
    /// the two.
    pub fn median(mut rounds: Vec<Rate>) -> Option<Rate> {
        rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        let middle = rounds.len().checked_sub(1)? / 2;
        Some(rounds.swap_remove(middle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(numbers: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        numbers.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let sample = Sample::new(millis((1..=100).rev()));
        for (percent, wanted) in [(0, 1), (1, 1), (50, 50), (99, 99), (100, 100)] {
            assert_eq!(sample.percentile(percent), Duration::from_millis(wanted), "{percent}");
        }
        let few = Sample::new(millis([30, 10, 20]));
        assert_eq!(few.percentile(50), Duration::from_millis(20));
        assert_eq!(few.percentile(99), Duration::from_millis(30));
        assert_eq!(Sample::default().percentile(50), Duration::ZERO);
    }

    #[test]
    fn a_rate_counts_what_was_answered_in_the_time_of_all() {
        let rate = Rate::new(millis([2, 4, 6, 8]), Duration::from_millis(10));
        assert_eq!(rate.requests, 4);
        assert!((rate.per_second - 400.0).abs() < 1e-6, "{rate:?}");
        assert!((rate.p50_us - 4000.0).abs() < 1e-6, "{rate:?}");
        assert!((rate.p99_us - 8000.0).abs() < 1e-6, "{rate:?}");
    }

    #[test]
    fn the_median_round_is_neither_the_luckiest_nor_the_worst() {
        let rate = |per_second| Rate { requests: 1, per_second, p50_us: 0.0, p99_us: 0.0 };
        let median = |rounds: &[f64]| {
            Rate::median(rounds.iter().copied().map(rate).collect()).map(|rate| rate.per_second)
        };
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }
}
