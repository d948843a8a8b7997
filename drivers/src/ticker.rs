//! `ticker`: an event every so many seconds.

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::kind::Open;
use crate::{DriverType, Emitter, Error, Key, Source};

pub(crate) const SOURCE: DriverType = DriverType {
    name: "ticker",
    about: "Emits `ticker.tick`, without data, every so many seconds",
    exposed: false,
    keys: &[
        Key::number("seconds", "Seconds between two events", 1, 31_536_000).default("60"),
        Key::text("type", "The events' `type`").default("ticker.tick"),
    ],
    open: Open::Source(|settings| {
        Ok(Box::new(Ticker {
            every: settings.seconds("seconds"),
            event_type: settings.get("type").to_owned(),
        }))
    }),
};

struct Ticker {
    every: Duration,
    event_type: String,
}

impl Source for Ticker {
    fn run(
        self: Box<Self>,
        emitter: Emitter,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async move {
            let mut ticks = tokio::time::interval(self.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            // The first is at once: the driver has only just been started.
            ticks.tick().await;
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    _ = ticks.tick() => {}
                }
                let id = uuid::Uuid::now_v7();
                emitter.emit(emitter.event(id, &self.event_type, Timestamp::now(), None)).await?;
            }
        })
    }
}
