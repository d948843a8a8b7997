//! States and kinds of resources.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a resource is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Accepted and stored; nothing has been done yet.
    #[default]
    Initialized,
    /// Being built or started.
    Creating,
    /// Usable.
    Ready,
    /// A change was accepted and is being worked on; what was there before still serves.
    Updating,
    /// The last attempt failed; `reason` says why.
    Error,
    /// Being removed.
    Deleting,
    /// Removed: only ever seen in the answer to a DELETE.
    Deleted,
}

impl Status {
    /// The word on the wire, such as `READY`.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Initialized => "INITIALIZED",
            Status::Creating => "CREATING",
            Status::Ready => "READY",
            Status::Updating => "UPDATING",
            Status::Error => "ERROR",
            Status::Deleting => "DELETING",
            Status::Deleted => "DELETED",
        }
    }

    /// Reads the word on the wire.
    pub fn parse(word: &str) -> Option<Status> {
        [
            Status::Initialized,
            Status::Creating,
            Status::Ready,
            Status::Updating,
            Status::Error,
            Status::Deleting,
            Status::Deleted,
        ]
        .into_iter()
        .find(|status| status.as_str() == word)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The kinds of resources, as they stand in `kind`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
pub enum Kind {
    /// A base image.
    BaseImage,
    /// An image: a base image and its dependencies.
    Image,
    /// A function.
    Function,
    /// A secret.
    Secret,
    /// A route, seen through `/v1/endpoint`. It is stored under this kind.
    Endpoint,
    /// The same route, seen through `/v1/api`.
    #[serde(rename = "API")]
    Api,
    /// A subscription to events.
    Subscription,
    /// Times at which a function is called.
    Schedule,
    /// A type of event drivers.
    DriverType,
    /// An event driver.
    Driver,
}

impl Kind {
    /// All of them.
    pub const ALL: &[Kind] = &[
        Kind::BaseImage,
        Kind::Image,
        Kind::Function,
        Kind::Secret,
        Kind::Endpoint,
        Kind::Api,
        Kind::Subscription,
        Kind::Schedule,
        Kind::DriverType,
        Kind::Driver,
    ];

    /// The kind of a word, as [`Kind::as_str`] writes it.
    pub fn parse(word: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.as_str() == word)
    }

    /// The word in `kind` and in YAML files.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::BaseImage => "BaseImage",
            Kind::Image => "Image",
            Kind::Function => "Function",
            Kind::Secret => "Secret",
            Kind::Endpoint => "Endpoint",
            Kind::Api => "API",
            Kind::Subscription => "Subscription",
            Kind::DriverType => "DriverType",
            Kind::Driver => "Driver",
            Kind::Schedule => "Schedule",
        }
    }

    /// The words used in messages: `base image python3-base not found`.
    pub fn noun(self) -> &'static str {
        match self {
            Kind::BaseImage => "base image",
            Kind::Image => "image",
            Kind::Function => "function",
            Kind::Secret => "secret",
            Kind::Endpoint => "endpoint",
            Kind::Api => "API",
            Kind::Subscription => "subscription",
            Kind::DriverType => "event driver type",
            Kind::Driver => "event driver",
            Kind::Schedule => "schedule",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
