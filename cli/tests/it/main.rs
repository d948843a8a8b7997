//! The real program against a server that plays canned answers and checks what it is asked.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod config;
mod edit;
mod errors;
mod events;
mod exec;
mod files;
mod functions;
mod golden;
mod routes;
mod schedules;
mod subscriptions;
mod support;
mod watch;
