//! What a driver was told: arguments and secrets, checked against its type's keys.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::kind::{Address, DriverType, Given, Key, Kind, Need};
use crate::{Error, state::State};

/// Checked settings of one driver.
#[derive(Clone)]
pub struct Settings {
    kind: &'static DriverType,
    values: BTreeMap<&'static str, String>,
    /// `DRIVER_NAME`, `DRIVER_STATE`, `K_SINK`, `AUTH_TOKEN`, `PORT`.
    env: BTreeMap<&'static str, String>,
}

/// Without values: among them are secrets.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("kind", &self.kind.name).finish_non_exhaustive()
    }
}

const ENV: [&str; 5] = ["AUTH_TOKEN", "DRIVER_NAME", "DRIVER_STATE", "K_SINK", "PORT"];

impl Settings {
    /// Checks what is given against the type's keys.
    ///
    /// # Errors
    /// The first thing that is wrong, for the user.
    pub fn new<'a>(
        kind: &'static DriverType,
        args: impl IntoIterator<Item = (&'a str, &'a str)>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Settings, Error> {
        let mut values = BTreeMap::new();
        for (name, value) in args {
            // As the old ticker had it.
            let name = if name == "dryrun" { "dry-run" } else { name };
            let Some(key) = kind.all_keys().find(|key| key.name == name) else {
                let known: Vec<_> = kind.all_keys().map(|key| key.name).collect();
                return Err(Error::Config(format!(
                    "driver type {} has no key {name:?}, only {}",
                    kind.name,
                    known.join(", ")
                )));
            };
            if key.given == Given::Secret {
                return Err(Error::Config(format!(
                    "key {name} of driver type {} comes from a secret only: create a secret with the \
                     key {name} and give the driver that secret",
                    kind.name
                )));
            }
            values.insert(key.name, value.to_owned());
        }
        for key in kind.all_keys() {
            if key.given != Given::Argument
                && !values.contains_key(key.name)
                && let Some(value) = env(&key.variable())
            {
                values.insert(key.name, value);
            }
            match (key.need, values.contains_key(key.name)) {
                (Need::Required, false) => return Err(missing(kind, key)),
                (Need::Default(value), false) => {
                    values.insert(key.name, value.to_owned());
                }
                _ => {}
            }
        }
        let filled: Vec<_> = values
            .iter()
            .filter(|(_, value)| value.contains('{'))
            .map(|(name, value)| (*name, fill(value, &values)))
            .collect();
        let from_default = |name: &str| {
            kind.all_keys().any(|key| key.name == name && matches!(key.need, Need::Default(_)))
        };
        values.extend(filled.into_iter().filter(|(name, _)| from_default(name)));
        let env = ENV.into_iter().filter_map(|name| Some((name, env(name)?))).collect();
        let settings = Settings { kind, values, env };
        for key in kind.all_keys() {
            settings.check(key)?;
        }
        Ok(settings)
    }

    fn check(&self, key: &Key) -> Result<(), Error> {
        let Some(value) = self.values.get(key.name) else { return Ok(()) };
        let wanted = match key.kind {
            Kind::Flag if ["", "true", "false"].contains(&value.as_str()) => return Ok(()),
            Kind::Flag => "true or false, or no value".to_owned(),
            Kind::Number(least, most) => match value.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => return Ok(()),
                _ => format!("a whole number from {least} to {most}"),
            },
            Kind::OneOf(words) if words.contains(&value.as_str()) => return Ok(()),
            Kind::OneOf(words) => format!("one of {}", words.join(", ")),
            Kind::Text if !value.is_empty() => return Ok(()),
            Kind::Text => "a text".to_owned(),
            Kind::Addresses(schemes) => match all_addresses(value, schemes) {
                Some(_) => return Ok(()),
                None => {
                    let (scheme, port) = schemes[0];
                    format!("an address, as {scheme}://host:{port}")
                }
            },
        };
        // A value that may come from a secret is not shown.
        let shown = if key.given == Given::Argument {
            format!(", not {:?}", value.chars().take(64).collect::<String>())
        } else {
            String::new()
        };
        Err(self.wrong(key.name, &format!("should be {wanted}{shown}")))
    }

    /// An error about a key.
    pub(crate) fn wrong(&self, key: &str, what: &str) -> Error {
        Error::Config(format!("key {key} of driver type {} {what}", self.kind.name))
    }

    /// The type.
    pub fn kind(&self) -> &'static DriverType {
        self.kind
    }

    /// The places that the driver connects to, but for where events are posted to.
    pub fn addresses(&self) -> Vec<Address> {
        let mut found: Vec<Address> = (self.kind.keys())
            .filter_map(|key| match key.kind {
                Kind::Addresses(schemes) => all_addresses(self.values.get(key.name)?, schemes),
                _ => None,
            })
            .flatten()
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// A value that may be missing.
    pub(crate) fn maybe(&self, key: &str) -> Option<&str> {
        debug_assert!(self.kind.all_keys().any(|known| known.name == key), "no key {key}");
        self.values.get(key).map(String::as_str)
    }

    /// A value that is required or has a default.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.maybe(key).unwrap_or_default()
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self, key: &str) -> bool {
        self.maybe(key).is_some_and(|value| value != "false")
    }

    /// A number that was checked to be one.
    pub(crate) fn number<T: FromStr + Default>(&self, key: &str) -> T {
        self.get(key).parse().unwrap_or_default()
    }

    /// A number of seconds.
    pub(crate) fn seconds(&self, key: &str) -> Duration {
        Duration::from_secs(self.number(key))
    }

    /// The events' `source`: as given, or made from the driver's name, so that two drivers never
    /// give two events the same source and id.
    pub(crate) fn source(&self) -> String {
        match self.maybe("source") {
            Some(source) => source.to_owned(),
            None => format!("/drivers/{}", self.name()),
        }
    }

    /// The driver's name, or its type's where it has none.
    pub(crate) fn name(&self) -> &str {
        self.env("DRIVER_NAME").unwrap_or(self.kind.name)
    }

    /// One of the variables that every driver gets.
    pub(crate) fn env(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Where the driver keeps its position.
    ///
    /// # Errors
    /// There is no such place.
    pub(crate) fn state(&self) -> Result<State, Error> {
        match self.env("DRIVER_STATE") {
            Some(path) => Ok(State::in_directory(PathBuf::from(path))),
            None => Err(Error::Config(
                "DRIVER_STATE is not set: it should be the path of a directory, in which the driver keeps its \
                 position"
                    .into(),
            )),
        }
    }

    /// The port to answer HTTP on.
    ///
    /// # Errors
    /// `PORT` is none.
    pub(crate) fn port(&self) -> Result<u16, Error> {
        match self.env("PORT") {
            None => Ok(80),
            Some(text) => text.parse().map_err(|_| {
                Error::Config(format!("PORT should be a port's number, not {text:?}"))
            }),
        }
    }
}

fn missing(kind: &DriverType, key: &Key) -> Error {
    let how = match key.given {
        Given::Secret => format!("give the driver a secret with the key {}", key.name),
        _ => format!("set {}=…", key.name),
    };
    Error::Config(format!("driver type {} needs the key {}: {how}", kind.name, key.name))
}

/// Replaces `{key}` by the key's value.
fn fill(text: &str, values: &BTreeMap<&'static str, String>) -> String {
    values
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// Hosts and ports in a list of addresses. Nothing when one of them is none.
fn all_addresses(text: &str, schemes: &[(&str, u16)]) -> Option<Vec<Address>> {
    text.split(',').map(|one| address(one.trim(), schemes)).collect()
}

fn address(text: &str, schemes: &[(&str, u16)]) -> Option<Address> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => (schemes.first()?.0.to_owned(), text),
    };
    let usual = schemes.iter().find(|(known, _)| *known == scheme)?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.strip_prefix('[') {
        Some(six) => {
            let (host, after) = six.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-._:".contains(letter);
    if host.is_empty() || !host.chars().all(plain) {
        return None;
    }
    let port = port.map_or(Some(usual), |port| port.parse().ok().filter(|port| *port != 0))?;
    Some(Address { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: &[(&str, u16)] = &[("nats", 4222), ("tls", 4223)];

    #[test]
    fn addresses_are_found_in_what_people_write() {
        let found = |text| {
            let links = all_addresses(text, SCHEMES)?;
            let shown = links.iter().map(|link| format!("{} {}", link.host, link.port));
            Some(shown.collect::<Vec<_>>().join(", "))
        };
        for (text, wanted) in [
            ("a", Some("a 4222")),
            ("a:1, b.example:2", Some("a 1, b.example 2")),
            ("tls://user:p@ss@a/path?x=@y", Some("a 4223")),
            ("nats://[::1]:9", Some("::1 9")),
            ("nats://[::1]", Some("::1 4222")),
            ("http://a", None),
            ("nats://", None),
            ("a:0", None),
            ("a:70000", None),
            ("a b", None),
            ("a,,b", None),
            ("", None),
        ] {
            assert_eq!(found(text).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_key() {
        let said = |name, args: &[(&'static str, &'static str)]| {
            let kind = crate::find(name).expect("a type");
            kind.check(args.iter().copied(), |_| None).map(drop).map_err(|error| error.to_string())
        };
        for (name, args, wanted) in [
            ("ticker", &[("seconds", "2")][..], None),
            ("ticker", &[("seconds", "0")], Some("seconds")),
            ("ticker", &[("second", "2")], Some("no key \"second\"")),
            ("ticker", &[("debug", "perhaps")], Some("true or false")),
            ("ticker", &[("refused", "x")], Some("one of skip, stop")),
            ("cron", &[], Some("needs the key cron")),
            ("cron", &[("cron", "99 * * * *")], Some("cron")),
            ("cron", &[("cron", "* * * * *"), ("tz", "Mars/Olympus")], Some("tz")),
            ("webhook", &[], Some("secret")),
            ("webhook", &[("secret", "x")], Some("comes from a secret only")),
            ("webhook", &[("signature", "none")], None),
        ] {
            match (said(name, args), wanted) {
                (Ok(()), None) => {}
                (Err(error), Some(part)) => assert!(error.contains(part), "{args:?}: {error}"),
                (got, _) => panic!("{name} {args:?}: {got:?}"),
            }
        }
    }
}
