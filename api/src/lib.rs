//! The contract of Dispatch: resource types, their JSON names, the checks of their shape, problem
//! bodies, and (feature `client`) the typed HTTP client.
//!
//! Every resource answers the field names of both old API generations. On input either name is
//! accepted: [`wire::decode`] folds them into one before the types here see the body.

pub mod base_image;
pub mod cloud_event;
pub mod delivery;
pub mod driver;
pub mod egress;
pub mod endpoint;
pub mod filter;
pub mod function;
pub mod gc;
pub mod image;
pub mod problem;
pub mod run;
pub mod scale;
pub mod schedule;
pub mod secret;
pub mod status;
pub mod subscription;
pub mod tag;
pub mod validate;
pub mod version;
pub mod wire;

#[cfg(feature = "client")]
pub mod client;

pub use base_image::BaseImage;
pub use cloud_event::{CloudEvent, EventError};
pub use delivery::{
    Delivery, DeliveryFilter, DeliveryState, LoggedEvent, Receipt, Redriven, Replay, Replayed,
};
pub use driver::{Driver, DriverType};
pub use egress::{Destination, Egress, EgressPolicy, Link};
pub use endpoint::Endpoint;
pub use filter::{Compiled, Filter, FilterError};
pub use function::{Function, Retries, Revision, Schema};
pub use image::{Image, RuntimeDependencies, SystemDependencies, SystemPackage};
pub use problem::Problem;
pub use run::{ErrorType, Logs, Run, RunError, Timings};
pub use scale::{Scale, ScaleSchedule};
pub use schedule::Schedule;
pub use secret::Secret;
pub use status::{Kind, Status};
pub use subscription::Subscription;
pub use tag::Tag;
pub use validate::Invalid;
pub use version::{Health, IsolationLayer, ServerVersion, Version};

/// The header that names the caller's organization.
pub const ORGANIZATION_HEADER: &str = "X-Dispatch-Org";
/// The header that names the caller's project.
pub const PROJECT_HEADER: &str = "X-Dispatch-Project";
