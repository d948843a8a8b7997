//! Drivers on the real thing: brokers that the tests start, and an ingest that checks what it is sent.
#![allow(missing_docs, reason = "tests")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    reason = "tests"
)]

mod http;
mod local;
mod reference;
mod support;
