//! The times at which a schedule ticks.

use std::iter;

use croner::Cron;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::validate::{self, Invalid};

/// The times at which a schedule ticks.
///
/// Where a time zone sets its clocks forward, a tick at a fixed time of day that there is not comes right
/// after the gap, and ticks of ranges and steps in it are left out. Where clocks are set back, a tick at a
/// fixed time of day comes once, at the first of the two, and those of ranges and steps at both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ticks {
    /// Again and again.
    Cron(Box<Cron>, TimeZone),
    /// Once.
    At(Timestamp),
}

impl Ticks {
    /// Reads the fields `cron`, `at` and `timezone`, of which one of the first two is to be empty.
    ///
    /// # Errors
    /// The field that says nothing that could be read.
    pub(super) fn read(cron: &str, at: &str, zone: &str) -> Result<Ticks, Invalid> {
        let wrong = |text: String| Invalid::new(validate::PATTERN, text);
        let zone = match zone {
            "" => TimeZone::UTC,
            name => TimeZone::get(name).map_err(|_| {
                let what = "is no time zone of the IANA database, as Europe/Berlin is";
                wrong(format!("timezone in body: {name:?} {what}"))
            })?,
        };
        match (cron, at) {
            ("", "") => Err(Invalid::new(
                validate::REQUIRED,
                "cron in body is required, or at for a single time",
            )),
            (cron, "") => {
                let cron = cron.parse().map_err(|error| {
                    let form = "minute hour day month weekday, as in */5 8-18 * * mon-fri";
                    wrong(format!("cron in body: {cron:?} is not of the form {form}: {error}"))
                })?;
                Ok(Ticks::Cron(Box::new(cron), zone))
            }
            ("", at) => {
                let local =
                    || zone.to_ambiguous_zoned(at.parse::<DateTime>().ok()?).compatible().ok();
                // A date alone would be midnight, which nobody said.
                let exact = at.contains(':').then(|| at.parse().ok());
                let time = exact.and_then(|exact| exact.or_else(|| Some(local()?.timestamp())));
                time.map(Ticks::At).ok_or_else(|| {
                    let form = "2026-12-24T18:00:00+01:00, or 2026-12-24T18:00 in its timezone";
                    wrong(format!("at in body: {at:?} is no time as {form} is"))
                })
            }
            (_, _) => Err(wrong("cron and at in body exclude each other".to_owned())),
        }
    }

    /// The first tick later than `time`; none when there is none.
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        match self {
            Ticks::At(at) => Some(*at).filter(|at| *at > time),
            Ticks::Cron(cron, zone) => {
                let time = time.to_zoned(zone.clone());
                cron.find_next_occurrence(&time, false).ok().map(|tick| tick.timestamp())
            }
        }
    }

    /// The ticks from `first` to `last`, both included, the newest first.
    pub fn back(&self, first: Timestamp, last: Timestamp) -> impl Iterator<Item = Timestamp> {
        let before = move |time: &Zoned, inclusive| match self {
            Ticks::At(at) => {
                Some(at.to_zoned(TimeZone::UTC)).filter(|at| inclusive && at.timestamp() <= last)
            }
            Ticks::Cron(cron, _) => cron.find_previous_occurrence(time, inclusive).ok(),
        };
        let zone = match self {
            Ticks::At(_) => TimeZone::UTC,
            Ticks::Cron(_, zone) => zone.clone(),
        };
        let newest = before(&last.to_zoned(zone), true);
        iter::successors(newest, move |tick| before(tick, false))
            .map(|tick| tick.timestamp())
            .take_while(move |tick| *tick >= first)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn cron(text: &str, zone: &str) -> Ticks {
        Ticks::read(text, "", zone).unwrap()
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The next ticks, as local times.
    fn next(ticks: &Ticks, from: &str, count: usize) -> Vec<String> {
        let Ticks::Cron(_, zone) = ticks else { panic!("it ticks once") };
        let later = iter::successors(ticks.after(time(from)), |tick| ticks.after(*tick));
        later
            .take(count)
            .map(|tick| tick.to_zoned(zone.clone()).strftime("%F %T %Z").to_string())
            .collect()
    }

    #[test]
    fn steps_ranges_and_names() {
        let ticks = cron("*/20 8-9 * * mon-fri", "UTC");
        // A Friday.
        let wanted =
            ["2026-11-27 09:40:00 UTC", "2026-11-30 08:00:00 UTC", "2026-11-30 08:20:00 UTC"];
        assert_eq!(next(&ticks, "2026-11-27T09:20:00.5Z", 3), wanted);
        let seconds = cron("*/30 * * * * *", "");
        let wanted = ["2026-11-27 09:20:30 UTC", "2026-11-27 09:21:00 UTC"];
        assert_eq!(next(&seconds, "2026-11-27T09:20:00Z", 2), wanted);
        assert_eq!(
            next(&cron("0 0 L * *", ""), "2026-02-01T00:00:00Z", 1),
            ["2026-02-28 00:00:00 UTC"]
        );
        assert_eq!(
            next(&cron("@yearly", ""), "2026-02-01T00:00:00Z", 1),
            ["2027-01-01 00:00:00 UTC"]
        );
        assert_eq!(cron("0 0 30 2 *", "").after(time("2026-01-01T00:00:00Z")), None);
        assert_eq!(cron("0 0 0 1 1 * 2026", "").after(time("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn a_gap_delays_a_fixed_time_and_leaves_out_steps() {
        // Berlin goes from 02:00 to 03:00 on 2026-03-29.
        let from = "2026-03-28T12:00:00Z";
        let wanted = ["2026-03-29 03:00:00 CEST", "2026-03-30 02:30:00 CEST"];
        assert_eq!(next(&cron("30 2 * * *", "Europe/Berlin"), from, 2), wanted);
        let wanted =
            ["2026-03-29 01:30:00 CET", "2026-03-29 03:00:00 CEST", "2026-03-29 03:30:00 CEST"];
        let steps = cron("*/30 * * * *", "Europe/Berlin");
        assert_eq!(next(&steps, "2026-03-29T00:00:00Z", 3), wanted);
    }

    #[test]
    fn a_fold_has_a_fixed_time_once_and_steps_twice() {
        // Berlin goes from 03:00 back to 02:00 on 2026-10-25.
        let wanted = ["2026-10-25 02:30:00 CEST", "2026-10-26 02:30:00 CET"];
        assert_eq!(next(&cron("30 2 * * *", "Europe/Berlin"), "2026-10-24T12:00:00Z", 2), wanted);
        let wanted = [
            "2026-10-25 02:00:00 CEST",
            "2026-10-25 02:30:00 CEST",
            "2026-10-25 02:00:00 CET",
            "2026-10-25 02:30:00 CET",
            "2026-10-25 03:00:00 CET",
        ];
        let steps = cron("*/30 * * * *", "Europe/Berlin");
        assert_eq!(next(&steps, "2026-10-24T23:30:00Z", 5), wanted);
    }

    #[test]
    fn a_single_time_is_local_where_it_has_no_offset() {
        let at =
            |at, zone| Ticks::read("", at, zone).unwrap().after(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(at("2026-12-24T18:00:00+01:00", ""), time("2026-12-24T17:00:00Z"));
        assert_eq!(at("2026-12-24T18:00:00Z", "Europe/Berlin"), time("2026-12-24T18:00:00Z"));
        assert_eq!(at("2026-12-24T18:00", "Europe/Berlin"), time("2026-12-24T17:00:00Z"));
        assert_eq!(at("2026-12-24 18:00", ""), time("2026-12-24T18:00:00Z"));
        let ticks = Ticks::read("", "2026-12-24T18:00:00Z", "").unwrap();
        let tick = time("2026-12-24T18:00:00Z");
        assert_eq!(ticks.after(tick), None);
        let back = |first, last| ticks.back(time(first), time(last)).collect::<Vec<_>>();
        assert_eq!(back("2026-12-24T18:00:00Z", "2026-12-24T18:00:00Z"), [tick]);
        assert_eq!(back("2026-12-24T18:00:01Z", "2027-01-01T00:00:00Z"), []);
        assert_eq!(back("2026-01-01T00:00:00Z", "2026-12-24T17:59:59Z"), []);
    }

    proptest! {
        /// What is counted backwards after a standstill is what would have come.
        #[test]
        fn backwards_there_are_the_same_ticks(
            text in prop::sample::select(vec![
                "*/5 * * * *", "30 2 * * *", "0 2,3 * * *", "15 */2 * * *", "0 0 * * *", "59 1 * * *",
                "*/50 */10 * * * *", "0 3 29 3 *", "30 2 * * 0", "1 0 0 * * *", "0-30/7 1-3 * * *",
            ]),
            zone in prop::sample::select(vec![
                "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "UTC",
            ]),
            // Around changes of the clocks of these zones.
            from in prop::sample::select(vec![
                "2026-03-07T00:00:00Z", "2026-03-28T00:00:00Z", "2026-04-04T00:00:00Z",
                "2026-10-03T00:00:00Z", "2026-10-24T00:00:00Z", "2026-10-31T00:00:00Z",
                "2018-11-03T00:00:00Z", "2018-02-17T00:00:00Z",
            ]),
            start in 0_i64..86_400,
            length in 0_i64..86_400,
        ) {
            let ticks = cron(text, zone);
            let first = Timestamp::from_second(time(from).as_second() + start).unwrap();
            let last = Timestamp::from_second(first.as_second() + length).unwrap();
            let before = Timestamp::from_second(first.as_second() - 1).unwrap();
            let forward = iter::successors(ticks.after(before), |tick| ticks.after(*tick));
            let forward: Vec<_> = forward.take_while(|tick| *tick <= last).collect();
            let mut back: Vec<_> = ticks.back(first, last).collect();
            back.reverse();
            prop_assert_eq!(forward, back);
        }

        #[test]
        fn no_text_breaks_it(cron in "\\PC{0,40}", at in "\\PC{0,40}") {
            for (cron, at) in [(cron.as_str(), ""), ("", at.as_str())] {
                if let Ok(ticks) = Ticks::read(cron, at, "Europe/Berlin") {
                    let now = time("2026-11-27T12:00:00Z");
                    let next = ticks.after(now);
                    prop_assert!(next.is_none_or(|next| next > now));
                }
            }
        }

        #[test]
        fn no_cron_breaks_it(cron in "[0-9*/,LW#a-z? -]{1,20}( [0-9*/,LW#-]{1,5}){4,6}") {
            if let Ok(ticks) = Ticks::read(&cron, "", "America/New_York") {
                let now = time("2026-11-01T04:12:00Z");
                prop_assert!(ticks.after(now).is_none_or(|next| next > now));
                prop_assert!(ticks.back(now, now).all(|tick| tick == now));
            }
        }
    }
}
