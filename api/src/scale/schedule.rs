//! Times at which a function has workers ready.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: u16 = 24 * 60;

/// So many workers on certain days between two times: `5 mon-fri 08:00-18:00 Europe/Berlin`.
///
/// In this order: the number of workers; days, as names and ranges of names with commas between them,
/// or `*` for all; from when to when, the end excluded; a time zone of the IANA database, UTC when
/// there is none. An end before the start, or equal to it, is on the next day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleSchedule {
    workers: usize,
    /// From Monday.
    days: [bool; 7],
    /// Minutes of the day.
    from: u16,
    until: u16,
    zone: TimeZone,
    text: String,
}

impl ScaleSchedule {
    /// The workers it asks for.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The workers it asks for now.
    pub fn least_now(&self) -> usize {
        self.least(Timestamp::now())
    }

    /// The workers it asks for at `time`.
    pub fn least(&self, time: Timestamp) -> usize {
        let local: Zoned = time.to_zoned(self.zone.clone());
        let minute =
            u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        let day = usize::from(local.weekday().to_monday_zero_offset().unsigned_abs());
        let before = (day + 6) % 7;
        let within = if self.from < self.until {
            self.days[day] && (self.from..self.until).contains(&minute)
        } else {
            (self.days[day] && minute >= self.from) || (self.days[before] && minute < self.until)
        };
        if within { self.workers } else { 0 }
    }
}

impl fmt::Display for ScaleSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ScaleSchedule {
    type Err = String;

    fn from_str(text: &str) -> Result<ScaleSchedule, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (&[workers, days, times], zone) = words.split_at(words.len().min(3)) else {
            return Err(format!(
                "{text:?} is no schedule: say workers, days and times, as in 5 mon-fri 08:00-18:00 \
                 Europe/Berlin"
            ));
        };
        let zone = match zone {
            [] => TimeZone::UTC,
            [name] => TimeZone::get(name).map_err(|_| format!("{name:?} is no time zone"))?,
            [_, more, ..] => return Err(format!("{more:?} is one word too many")),
        };
        let count = workers.parse().ok().filter(|count| (1..=1000).contains(count));
        let (from, until) = times
            .split_once('-')
            .and_then(|(from, until)| Some((minutes(from)?, minutes(until)?)))
            .filter(|(from, _)| *from < DAY)
            .ok_or_else(|| format!("{times:?} are no times, as 08:00-18:00 are"))?;
        Ok(ScaleSchedule {
            workers: count.ok_or_else(|| format!("{workers:?} is no number from 1 to 1000"))?,
            days: read_days(days)?,
            from,
            until,
            zone,
            text: words.join(" "),
        })
    }
}

/// Minutes of the day: `00:00` to `24:00`.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let total = number(hours)? * 60 + number(minutes).filter(|minutes| *minutes < 60)?;
    (total <= DAY).then_some(total)
}

fn read_days(text: &str) -> Result<[bool; 7], String> {
    if text == "*" {
        return Ok([true; 7]);
    }
    let number = |name: &str| {
        let found = DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("{name:?} is no day: use {}, or *", DAYS.join(", ")))
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        for offset in 0..=(last + 7 - first) % 7 {
            days[(first + offset) % 7] = true;
        }
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn least(schedule: &str, time: &str) -> usize {
        schedule.parse::<ScaleSchedule>().unwrap().least(time.parse().unwrap())
    }

    #[test]
    fn it_is_local_time_on_the_given_days() {
        let berlin = "5 mon-fri 08:00-18:00 Europe/Berlin";
        // 2026-11-23 is a Monday, and Berlin is an hour ahead of UTC; in July it is two.
        for (time, wanted) in [
            ("2026-11-23T06:59:59Z", 0),
            ("2026-11-23T07:00:00Z", 5),
            ("2026-11-23T16:59:59Z", 5),
            ("2026-11-23T17:00:00Z", 0),
            ("2026-07-20T06:00:00Z", 5),
            ("2026-11-22T12:00:00Z", 0),
        ] {
            assert_eq!(least(berlin, time), wanted, "{time}");
        }
        assert_eq!(least("1 sat,SUN 00:00-24:00", "2026-11-22T23:59:59Z"), 1);
        assert_eq!(least("1 sat,sun 00:00-24:00", "2026-11-23T00:00:00Z"), 0);
        assert_eq!(least("2 * 00:00-24:00", "2026-11-23T00:00:00Z"), 2);
    }

    #[test]
    fn over_midnight_it_belongs_to_the_day_it_begins_on() {
        let night = "3 fri 22:00-06:00";
        for (time, wanted) in [
            ("2026-11-27T21:59:00Z", 0),
            ("2026-11-27T22:00:00Z", 3),
            ("2026-11-28T05:59:00Z", 3),
            ("2026-11-28T06:00:00Z", 0),
            ("2026-11-28T22:00:00Z", 0),
            ("2026-11-27T05:00:00Z", 0),
        ] {
            assert_eq!(least(night, time), wanted, "{time}");
        }
        assert_eq!(least("1 sat-mon 00:00-00:00", "2026-11-23T12:00:00Z"), 1, "round the week");
    }

    #[test]
    fn what_is_no_schedule_says_why() {
        for (text, what) in [
            ("", "say workers, days and times"),
            ("5 mon", "say workers, days and times"),
            ("0 mon 08:00-18:00", "no number"),
            ("1001 mon 08:00-18:00", "no number"),
            ("5 monday 08:00-18:00", "no day"),
            ("5 mon- 08:00-18:00", "no day"),
            ("5 mon 8:00-18:00", "no times"),
            ("5 mon 08:00", "no times"),
            ("5 mon 24:00-02:00", "no times"),
            ("5 mon 08:60-18:00", "no times"),
            ("5 mon 08:00-24:01", "no times"),
            ("5 mon 08:00-18:00 Mars/Base", "no time zone"),
            ("5 mon 08:00-18:00 UTC now", "too many"),
        ] {
            let said = text.parse::<ScaleSchedule>().unwrap_err();
            assert!(said.contains(what), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "\\PC{0,60}") {
            if let Ok(schedule) = text.parse::<ScaleSchedule>() {
                prop_assert_eq!(schedule.to_string().parse::<ScaleSchedule>().unwrap(), schedule);
            }
        }
    }
}
