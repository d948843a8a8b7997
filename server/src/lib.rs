//! The control plane and the gateway.
//!
//! `routes` lists every URL of the API, `gateway` answers user traffic, `store` is the only place
//! with SQL, `runs` is the one hallway to functions, and `tasks` does what is done later or again.

pub mod app;
mod base_image;
mod build_log;
pub mod config;
pub mod cores;
mod driver;
mod egress;
mod endpoint;
mod event;
mod function;
pub mod gateway;
mod gc;
pub mod iam;
mod image;
mod image_archive;
pub mod live;
pub mod log;
pub mod metrics;
pub mod package_rules;
mod problem;
pub mod resource;
pub mod routes;
pub mod runs;
mod sbom;
mod scale;
mod schedule;
mod schema;
mod secret;
pub mod serve;
pub mod server;
pub mod store;
mod subscription;
mod tasks;
pub mod trace;
pub mod up;
pub mod vault;
mod watch;

pub use config::ServerArgs;
pub use dispatch_runner::adapter::run_if_adapter;
pub use dispatch_runner::process::Launcher;
pub use routes::health_of;
pub use server::Server;
