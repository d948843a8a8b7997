//! `cron`: an event at times of the calendar.

use std::time::Duration;

use croner::Cron;
use dispatch_api::cloud_event::Data;
use futures_util::future::BoxFuture;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use tokio_util::sync::CancellationToken;

use crate::kind::Open;
use crate::state::State;
use crate::{DriverType, Emitter, Error, Key, Settings, Source, message};

pub(crate) const SOURCE: DriverType = DriverType {
    name: "cron",
    about: "Emits an event at times of the calendar",
    exposed: false,
    keys: &[
        Key::text("cron", "When: `MINUTE HOUR DAY MONTH WEEKDAY`, with seconds in front if wanted")
            .required(),
        Key::text("tz", "Time zone of the IANA database").default("UTC"),
        Key::text("type", "The events' `type`").default("cron.tick"),
        Key::text("data", "The events' data: JSON, or a text"),
        Key::text("missed", "After a stop: nothing, or one event for all times that were missed")
            .one_of(&["skip", "once"])
            .default("skip"),
    ],
    open: Open::Source(open),
};

/// Longer pauses are cut, since clocks are set and machines sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
const POSITION: &str = "cron.json";

struct Calendar {
    cron: Cron,
    zone: TimeZone,
    event_type: String,
    data: Option<Data>,
    catch_up: bool,
    state: Option<State>,
}

fn open(settings: &Settings) -> Result<Box<dyn Source>, Error> {
    let cron: Cron = settings
        .get("cron")
        .parse()
        .map_err(|error| settings.wrong("cron", &format!("is no time: {error}")))?;
    let zone = TimeZone::get(settings.get("tz"))
        .map_err(|_| settings.wrong("tz", "should be a time zone, as Europe/Berlin"))?;
    Ok(Box::new(Calendar {
        cron,
        zone,
        event_type: settings.get("type").to_owned(),
        data: settings.maybe("data").and_then(|text| message::data(None, text.as_bytes())),
        catch_up: settings.get("missed") == "once",
        state: settings.state().ok(),
    }))
}

impl Calendar {
    fn next(&self, after: Timestamp) -> Result<Timestamp, Error> {
        let after: Zoned = after.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&after, false);
        let next = next.map_err(|error| Error::Failed(format!("no further time: {error}")))?;
        Ok(next.timestamp())
    }

    /// Where to go on from: a time up to which everything is done.
    fn start(&self, now: Timestamp) -> Result<Timestamp, Error> {
        let last: Option<i64> = match &self.state {
            Some(state) => state.read(POSITION)?,
            None => None,
        };
        let last = last.and_then(|second| Timestamp::from_second(second).ok());
        let Some(last) = last.filter(|last| *last <= now) else { return Ok(now) };
        if !self.catch_up {
            return Ok(now);
        }
        // The last of the missed times stands for all of them.
        let mut missed = last;
        for _ in 0..100_000 {
            let next = self.next(missed)?;
            if next > now {
                break;
            }
            if self.next(next)? > now {
                return Ok(missed);
            }
            missed = next;
        }
        Ok(missed)
    }
}

impl Source for Calendar {
    fn run(
        self: Box<Self>,
        emitter: Emitter,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let mut done = self.start(Timestamp::now())?;
            loop {
                let next = self.next(done)?;
                loop {
                    let left = next.duration_since(Timestamp::now());
                    let Ok(left) = Duration::try_from(left) else { break };
                    if left.is_zero() {
                        break;
                    }
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(left.min(LONGEST_SLEEP)) => {}
                    }
                }
                // The same time is the same event, whoever sends it again after a crash.
                let event = emitter.event(next, &self.event_type, next, self.data.clone());
                emitter.emit(event).await?;
                done = next;
                if let Some(state) = &self.state {
                    state.write(POSITION, &next.as_second())?;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cron(text: &str, zone: &str, catch_up: bool, state: State) -> Calendar {
        Calendar {
            cron: text.parse().expect("a time"),
            zone: TimeZone::get(zone).expect("a zone"),
            event_type: "a".into(),
            data: None,
            catch_up,
            state: Some(state),
        }
    }

    #[test]
    fn times_are_local_and_missed_ones_come_once_if_wanted() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = State::in_directory(directory.path().join("state"));
        let berlin = cron("30 8 * * *", "Europe/Berlin", true, state.clone());
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        // Summer, and winter.
        assert_eq!(
            berlin.next(at("2026-07-01T00:00:00Z")).expect("next"),
            at("2026-07-01T06:30:00Z")
        );
        assert_eq!(
            berlin.next(at("2026-12-01T00:00:00Z")).expect("next"),
            at("2026-12-01T07:30:00Z")
        );

        let now = at("2026-07-05T12:00:00Z");
        assert_eq!(berlin.start(now).expect("start"), now, "nothing is known");
        state.write(POSITION, &at("2026-07-01T06:30:00Z").as_second()).expect("written");
        let start = berlin.start(now).expect("start");
        assert_eq!(
            berlin.next(start).expect("next"),
            at("2026-07-05T06:30:00Z"),
            "the last missed"
        );
        let skipping = cron("30 8 * * *", "Europe/Berlin", false, state);
        assert_eq!(skipping.start(now).expect("start"), now);
    }
}
