//! Real sandboxes around real programs.
#![allow(clippy::unwrap_used, missing_docs)]

mod ends;
mod support;
mod view;
