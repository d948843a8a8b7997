//! The server in this process, noun by noun, over HTTP.
#![allow(clippy::unwrap_used, missing_docs)]

mod base_image;
mod egress;
mod endpoint;
mod event;
mod function;
mod gateway;
mod image;
mod openapi;
mod run;
mod scale;
mod schedule;
mod secret;
mod support;
mod transport;
