//! Event drivers: small programs that turn what happens elsewhere into events, and the other way
//! round. Each type is described by data ([`types`]) and runs as `dispatch driver TYPE --key=value …`.

#[cfg_attr(not(feature = "full"), allow(dead_code, reason = "brokers use the rest"))]
mod backoff;
mod cloudevents;
#[cfg_attr(not(feature = "full"), allow(dead_code, reason = "brokers use the rest"))]
mod connect;
mod cron;
mod emitter;
mod file;
mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod kind;
#[cfg_attr(not(feature = "full"), allow(dead_code, reason = "brokers use the rest"))]
mod message;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "postgres")]
mod postgres;
mod program;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "s3")]
mod s3;
mod seen;
mod settings;
mod sink;
mod state;
mod ticker;
mod webhook;

use dispatch_api::CloudEvent;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub use emitter::{Emitter, Verdict};
pub use kind::{Address, DriverType, Given, Key, Kind, Need, Role, common};
pub use program::{main, run};
pub use settings::Settings;

/// Where events come from. It runs until `stop` fires, or until it cannot go on.
pub(crate) trait Source: Send {
    /// Emits what happens. Nothing is acknowledged elsewhere before [`Emitter::emit`] says that it is
    /// settled.
    fn run(
        self: Box<Self>,
        emitter: Emitter,
        stop: CancellationToken,
    ) -> BoxFuture<'static, Result<(), Error>>;
}

/// Where events go to.
pub(crate) trait Sink: Send + Sync {
    /// Hands over one event; done when it is safe there.
    fn publish<'a>(&'a self, event: &'a CloudEvent) -> BoxFuture<'a, Result<(), Unpublished>>;
}

/// Why a driver ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What it was told is wrong. Starting it again changes nothing.
    #[error("{0}")]
    Config(String),
    /// It cannot go on: what it is connected to refuses it, or was away for too long.
    #[error("{0}")]
    Failed(String),
    /// It was asked to stop.
    #[error("asked to stop")]
    Stopped,
}

/// Why an event was not published.
#[derive(Debug)]
pub(crate) enum Unpublished {
    /// It may work later.
    Later(String),
    /// This event never will.
    Never(String),
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}

/// All types that are built in, by name.
pub fn types() -> &'static [DriverType] {
    static TYPES: &[DriverType] = &[
        cloudevents::SOURCE,
        cloudevents::SINK,
        cron::SOURCE,
        file::SOURCE,
        file::SINK,
        #[cfg(feature = "kafka")]
        kafka::SOURCE,
        #[cfg(feature = "kafka")]
        kafka::SINK,
        #[cfg(feature = "mqtt")]
        mqtt::SOURCE,
        #[cfg(feature = "mqtt")]
        mqtt::SINK,
        #[cfg(feature = "nats")]
        nats::SOURCE,
        #[cfg(feature = "nats")]
        nats::SINK,
        #[cfg(feature = "postgres")]
        postgres::SOURCE,
        #[cfg(feature = "postgres")]
        postgres::SINK,
        #[cfg(feature = "rabbitmq")]
        rabbitmq::SOURCE,
        #[cfg(feature = "rabbitmq")]
        rabbitmq::SINK,
        #[cfg(feature = "redis")]
        redis::SOURCE,
        #[cfg(feature = "redis")]
        redis::SINK,
        #[cfg(feature = "s3")]
        s3::SOURCE,
        #[cfg(feature = "s3")]
        s3::SINK,
        ticker::SOURCE,
        webhook::SOURCE,
    ];
    TYPES
}

/// The type of a name.
pub fn find(name: &str) -> Option<&'static DriverType> {
    types().iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_keys_have_names_that_do_not_collide() {
        for pair in types().windows(2) {
            assert!(pair[0].name < pair[1].name, "{} before {}", pair[0].name, pair[1].name);
        }
        for kind in types() {
            assert!(kind.name.len() <= 32, "{}", kind.name);
            let mut names: Vec<_> = kind.all_keys().map(|key| key.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{}", kind.name);
        }
    }
}
