//! Drivers on the real thing: brokers that the tests start, and an ingest that checks what it is sent.
#![allow(missing_docs, reason = "tests")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    reason = "tests"
)]

mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod local;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
mod reference;
#[cfg(feature = "s3")]
mod s3;
mod support;
