//! End-to-end stories: each starts the real program and uses it as a person would.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, missing_docs)]

mod clojure;
mod crash;
mod drivers;
mod event_crash;
mod events;
mod files;
mod functions;
mod gateway;
mod gc;
mod go;
mod image_files;
mod images;
mod imports;
mod isolation;
mod java;
mod lifecycle;
mod manifests;
mod packages;
mod private;
mod programs;
mod quickstart;
mod registry;
mod ruby;
mod runs;
mod schedules;
mod secrets;
mod support;
mod system;
mod wasm;
