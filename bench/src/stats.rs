//! What many measured times say.

use std::time::Duration;

use serde::Serialize;

use crate::machine::Use;

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

/// Times of one kind of thing that happens one at a time.
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    /// How many there were.
    pub count: usize,
    /// Half of them took at most this many milliseconds.
    pub p50_ms: f64,
    /// Nine of ten did.
    pub p90_ms: f64,
    /// 95 of 100 did.
    pub p95_ms: f64,
    /// 99 of 100 did.
    pub p99_ms: f64,
    /// Who else used the machine.
    pub foreign_percent: f64,
}

impl Times {
    /// From the times and what was seen of the machine meanwhile.
    pub fn new(times: Vec<Duration>, seen: Use) -> Times {
        let sample = Sample::new(times);
        let millis = |percent| sample.percentile(percent).as_secs_f64() * 1e3;
        Times {
            count: sample.len(),
            p50_ms: millis(50),
            p90_ms: millis(90),
            p95_ms: millis(95),
            p99_ms: millis(99),
            foreign_percent: seen.foreign_percent,
        }
    }
}

/// The end of one measurement of throughput.
#[derive(Clone, Debug, Serialize)]
pub struct Rate {
    /// Requests that were answered.
    pub requests: usize,
    /// Requests a second.
    pub per_second: f64,
    /// Half of the requests took at most this many microseconds.
    pub p50_us: f64,
    /// Nine of ten did.
    pub p90_us: f64,
    /// 99 of 100 did.
    pub p99_us: f64,
    /// Processor time of the server and of all processes below it for a request, in microseconds.
    pub server_us: f64,
    /// Connections that the server closed and that were opened again.
    pub reopened: usize,
    /// Who else used the machine.
    pub foreign_percent: f64,
}

impl Rate {
    /// From the times of requests, the time that all of them took together, and what was seen of the
    /// machine meanwhile.
    pub fn new(times: Vec<Duration>, elapsed: Duration, seen: Use, reopened: usize) -> Rate {
        let sample = Sample::new(times);
        let micros = |percent| sample.percentile(percent).as_secs_f64() * 1e6;
        Rate {
            requests: sample.len(),
            per_second: sample.len() as f64 / elapsed.as_secs_f64().max(f64::EPSILON),
            p50_us: micros(50),
            p90_us: micros(90),
            p99_us: micros(99),
            server_us: seen.server_seconds * 1e6 / sample.len().max(1) as f64,
            reopened,
            foreign_percent: seen.foreign_percent,
        }
    }

    /// Of several rounds the one whose throughput is in the middle; of an even number the slower of
    /// the two.
    pub fn median(rounds: &[Rate]) -> Option<&Rate> {
        let mut rounds: Vec<&Rate> = rounds.iter().collect();
        rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
        let middle = rounds.len().checked_sub(1)? / 2;
        rounds.get(middle).copied()
    }
}

/// The number in the middle; of an even count the lower of the two.
pub fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len().checked_sub(1)? / 2;
    numbers.get(middle).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Use = Use { foreign_percent: 0.0, server_seconds: 0.002 };

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
        let rate = Rate::new(millis([2, 4, 6, 8]), Duration::from_millis(10), SEEN, 0);
        assert_eq!(rate.requests, 4);
        assert!((rate.server_us - 500.0).abs() < 1e-6, "{rate:?}");
        assert!((rate.per_second - 400.0).abs() < 1e-6, "{rate:?}");
        assert!((rate.p50_us - 4000.0).abs() < 1e-6, "{rate:?}");
        assert!((rate.p99_us - 8000.0).abs() < 1e-6, "{rate:?}");
    }

    #[test]
    fn the_median_round_is_neither_the_luckiest_nor_the_worst() {
        assert!(Rate::median(&[]).is_none());
        let rates = [30, 10, 20].map(|millis| {
            let times = vec![Duration::ZERO; 6];
            Rate {
                per_second: 6000.0 / f64::from(millis),
                ..Rate::new(times, Duration::ZERO, SEEN, 0)
            }
        });
        assert_eq!(Rate::median(&rates).map(|rate| rate.per_second), Some(300.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(median(vec![]), None);
    }
}
