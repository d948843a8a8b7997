//! Real interpreters in the real sandbox, through the one seam the server uses.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, missing_docs)]

mod ahead;
mod clojure;
mod egress;
mod failures;
mod fixture;
mod foreign;
mod homes;
mod java;
mod logs;
mod nodejs;
mod overlap;
mod plain;
mod pools;
mod powershell;
mod preload;
mod protocol;
mod python;
mod ruby;
mod scale;
mod stems;
