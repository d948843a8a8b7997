//! Real sandboxes around real programs.
#![allow(clippy::unwrap_used, missing_docs)]

mod again;
mod attach;
mod calls;
mod ends;
mod groups;
mod limits;
mod network;
mod owners;
mod plain;
mod rootfs;
mod support;
mod uplink;
mod view;
