//! Event drivers: programs that bring events in, or take them out, supervised while they exist.

pub(crate) mod front;
pub(crate) mod ingest;
mod log;
mod prepare;
pub(crate) mod resource;
mod running;
mod supervise;
pub(crate) mod types;

pub use running::Drivers;
pub use supervise::run as supervise;
