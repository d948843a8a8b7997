//! Attacks on the real program: each must fail, by the layer that the table names.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, missing_docs)]

mod archives;
mod controls;
mod gateway;
mod http;
mod inside;
mod names;
mod page;
#[path = "../it/support.rs"]
#[allow(dead_code)]
mod support;
mod table;
mod tenants;
