//! Event drivers, which bring events in from elsewhere or take them there, and the types they are of.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::egress::{Allow, Link, Target};
use crate::validate::{self, Invalid};
use crate::wire::{Wire, null_is_default, null_when_empty};
use crate::{Status, Tag};

/// The longest name of a driver type, in bytes.
pub const MAX_TYPE: usize = 32;
/// The most settings, secrets or links of a driver.
pub const MAX_LIST: usize = 64;
/// What begins the image of a type that is built into the server.
pub const BUILTIN: &str = "builtin:";

/// A setting of a driver: `--key=value`, or `--key` where the value is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Setting {
    /// Its name.
    pub key: String,
    /// Its value.
    #[serde(deserialize_with = "text")]
    pub value: String,
}

/// Files have numbers and truth values where a text is meant.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    })
}

/// A kind of event driver: a program, in a container image or built in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DriverType {
    /// Unique in the organization. One of the built-in ones can be replaced.
    pub name: String,
    /// The container image, or `builtin:NAME`.
    pub image: String,
    /// Whether its drivers take HTTP requests of strangers, through the gateway.
    pub expose: bool,
    /// Settings that its drivers have, unless they say otherwise.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub config: Vec<Setting>,
    /// The secret with an account at the image's registry.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registry_secret: String,
    /// Whether it came with the server. Only answered.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub built_in: bool,
    /// Always `DriverType`.
    pub kind: String,
    /// Free labels.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub tags: Vec<Tag>,
    /// Unix seconds.
    #[serde(rename = "created-time")]
    pub created_time: i64,
    /// Unix seconds.
    #[serde(rename = "modified-time")]
    pub modified_time: i64,
    /// The organization it belongs to.
    pub org: String,
    /// The project it belongs to.
    pub project: String,
    /// Changes with every write; send it back with an update to refuse a lost update.
    pub revision: String,
}

/// A program of a driver type that runs, with its settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Driver {
    /// Unique in the organization.
    pub name: String,
    /// The driver type.
    #[serde(rename = "type")]
    pub driver_type: String,
    /// Its settings.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub config: Vec<Setting>,
    /// Secrets whose keys become variables of its environment, in capitals and with `_` for `-`.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub secrets: Vec<String>,
    /// Whether it takes HTTP requests of strangers, as its type says. Only answered.
    pub expose: bool,
    /// Where, if it does; `0.0.0.0` stands for the server. Only answered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// MiB it may use; 0 means 256.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub memory: i64,
    /// Thousandths of a core it may use; 0 means no limit.
    #[serde(skip_serializing_if = "crate::wire::is_zero")]
    pub cpu: i64,
    /// What it may reach on the network besides the addresses in its settings: as of a function.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub egress: String,
    /// The only destinations: as of a function.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub egress_allow: Vec<String>,
    /// Ports of its own `127.0.0.1` that lead to places outside.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub links: Vec<Link>,
    /// Always `Driver`.
    pub kind: String,
    /// Where it is in its life.
    pub status: Status,
    /// Why it does not run: a text and its cause.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub reason: Vec<String>,
    /// Free labels.
    #[serde(serialize_with = "null_when_empty", deserialize_with = "null_is_default")]
    pub tags: Vec<Tag>,
    /// Unix seconds.
    #[serde(rename = "created-time")]
    pub created_time: i64,
    /// Unix seconds.
    #[serde(rename = "modified-time")]
    pub modified_time: i64,
    /// The organization it belongs to.
    pub org: String,
    /// The project it belongs to.
    pub project: String,
    /// Changes with every write; send it back with an update to refuse a lost update.
    pub revision: String,
}

fn short(field: &str, length: usize, most: usize) -> Result<(), Invalid> {
    if length <= most {
        return Ok(());
    }
    let text = format!("{field} in body should be at most {most} long");
    Err(Invalid::new(validate::TOO_LONG, text))
}

fn settings(settings: &[Setting]) -> Result<(), Invalid> {
    short("config", settings.len(), MAX_LIST)?;
    for Setting { key, value } in settings {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if key.is_empty() || key.starts_with('-') || !key.bytes().all(plain) || key.len() > 128 {
            let text = format!("config in body: {key:?} is no name of a setting");
            return Err(Invalid::new(validate::PATTERN, text));
        }
        short("config", value.len(), 64 << 10)?;
        if value.contains('\0') {
            let text = format!("config in body: the value of {key} has a NUL");
            return Err(Invalid::new(validate::PATTERN, text));
        }
    }
    Ok(())
}

impl Wire for DriverType {
    const DIALECT: &'static [(&'static str, &'static str)] = &[];
    const FIELDS: &'static [&'static str] =
        &["name", "image", "expose", "config", "registrySecret", "tags", "revision"];

    fn validate(&self) -> Result<(), Invalid> {
        validate::name(&self.name)?;
        short("name", self.name.len(), MAX_TYPE)?;
        if self.image.is_empty() {
            return Err(Invalid::required("image", "body"));
        }
        short("image", self.image.len(), 512)?;
        if !self.registry_secret.is_empty() {
            validate::path_name("registrySecret", "body", &self.registry_secret)?;
        }
        settings(&self.config)
    }
}

impl Wire for Driver {
    const DIALECT: &'static [(&'static str, &'static str)] = &[];
    const FIELDS: &'static [&'static str] = &[
        "name",
        "type",
        "config",
        "secrets",
        "memory",
        "cpu",
        "egress",
        "egressAllow",
        "links",
        "status",
        "tags",
        "revision",
    ];

    fn validate(&self) -> Result<(), Invalid> {
        validate::name(&self.name)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.name.starts_with('-') || !self.name.bytes().all(plain) {
            let text = "name should start with lower case letter or number and may only contain \
                        lower case letters, numbers and dashes";
            return Err(Invalid::new(validate::PATTERN, text));
        }
        validate::reference("type", &self.driver_type)?;
        short("type", self.driver_type.len(), MAX_TYPE)?;
        settings(&self.config)?;
        for (field, length) in [
            ("secrets", self.secrets.len()),
            ("links", self.links.len()),
            ("egressAllow", self.egress_allow.len()),
        ] {
            short(field, length, MAX_LIST)?;
        }
        for secret in &self.secrets {
            validate::path_name("secrets", "body", secret)?;
        }
        for (field, value) in [("memory", self.memory), ("cpu", self.cpu)] {
            if value < 0 {
                return Err(Invalid::too_small(field, 0));
            }
        }
        let modes = ["", "none", "proxy", "learn", "full"];
        if !modes.contains(&self.egress.as_str()) {
            return Err(Invalid::not_in("egress", "body", &modes[1..]));
        }
        for entry in &self.egress_allow {
            let wrong = |error| {
                Invalid::new(validate::PATTERN, format!("egressAllow in body: {entry:?}: {error}"))
            };
            entry.parse::<Allow>().map_err(wrong)?;
        }
        for link in &self.links {
            let wrong = |error| {
                Invalid::new(validate::PATTERN, format!("links in body: {:?}: {error}", link.to))
            };
            link.to.parse::<Target>().map_err(wrong)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::decode;

    #[test]
    fn names_of_drivers_are_lower_case_and_their_settings_are_texts() {
        let body = |name: &str| {
            format!(
                r#"{{"name":"{name}","type":"t","config":[{{"key":"seconds","value":2}},{{"key":"debug"}}]}}"#
            )
        };
        let driver: Driver = decode(body("a-1").as_bytes()).expect("a driver");
        let values: Vec<_> = driver.config.iter().map(|setting| setting.value.as_str()).collect();
        assert_eq!(values, ["2", ""]);
        for bad in ["testDriver-1", "test_driver-1", "-a"] {
            assert!(decode::<Driver>(body(bad).as_bytes()).is_err(), "{bad}");
        }
        let shown = serde_json::to_value(&driver).expect("JSON");
        assert_eq!(shown["expose"], false);
        assert!(shown.get("created-time").is_some() && shown.get("id").is_none());
    }

    #[test]
    fn settings_cannot_be_made_into_other_arguments() {
        for bad in ["", "-x", "a=b", "a b", "a\n"] {
            let setting = Setting { key: bad.to_owned(), value: String::new() };
            assert!(settings(&[setting]).is_err(), "{bad:?}");
        }
    }
}
