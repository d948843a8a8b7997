//! Images from registries that behave well and from such that do not.
#![allow(clippy::unwrap_used, missing_docs)]

mod archives;
mod pulls;
mod support;
