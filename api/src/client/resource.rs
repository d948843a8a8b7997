//! The types that have collections in the API.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::validate::Invalid;
use crate::wire::Wire;
use crate::{
    BaseImage, Driver, DriverType, Endpoint, Function, Image, Kind, Schedule, Secret, Subscription,
};

/// A resource with a collection of its own in the API.
pub trait Resource: Serialize + DeserializeOwned + Wire {
    /// Its kind.
    const KIND: Kind;
    /// The path of the collection.
    const PATH: &'static str;

    /// Its name.
    fn name(&self) -> &str;
}

/// An endpoint as `/v1/api` shows it: its paths carry the organization.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Api(pub Endpoint);

impl Wire for Api {
    const DIALECT: &'static [(&'static str, &'static str)] = Endpoint::DIALECT;
    const FIELDS: &'static [&'static str] = Endpoint::FIELDS;

    fn validate(&self) -> Result<(), Invalid> {
        self.0.validate()
    }
}

macro_rules! resources {
    ($($type:ty, $kind:ident, $path:literal, $self:ident => $name:expr;)*) => {
        $(impl Resource for $type {
            const KIND: Kind = Kind::$kind;
            const PATH: &'static str = $path;

            fn name(&$self) -> &str {
                $name
            }
        })*
    };
}

resources! {
    BaseImage, BaseImage, "/v1/baseimage", self => &self.name;
    Image, Image, "/v1/image", self => &self.name;
    Function, Function, "/v1/function", self => &self.name;
    Secret, Secret, "/v1/secret", self => &self.name;
    Endpoint, Endpoint, "/v1/endpoint", self => &self.name;
    Api, Api, "/v1/api", self => &self.0.name;
    Subscription, Subscription, "/v1/event/subscriptions", self => &self.name;
    DriverType, DriverType, "/v1/event/drivertypes", self => &self.name;
    Driver, Driver, "/v1/event/drivers", self => &self.name;
    Schedule, Schedule, "/v1/schedule", self => &self.name;
}
