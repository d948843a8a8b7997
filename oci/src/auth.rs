//! Who we are to a registry.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::reference::{Reference, Source};

/// The name under which Docker keeps the account of its own registry.
const HUB_ACCOUNT: &str = "https://index.docker.io/v1/";
/// Bytes of a file of accounts.
const MAX_FILE: u64 = 1 << 20;

/// A user of a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password, or a token in its place.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// The part of Docker's `config.json` that holds accounts.
#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    auths: HashMap<String, Account>,
}

#[derive(Deserialize)]
struct Account {
    /// `user:password` in base64.
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

impl Credentials {
    /// What a file in the form of Docker's `config.json` says of a registry.
    ///
    /// # Errors
    /// The text is not such a file.
    pub fn in_config(text: &str, reference: &Reference) -> Result<Option<Credentials>, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let hub = (reference.registry == "docker.io").then_some(HUB_ACCOUNT);
        let registry = reference.registry.as_str();
        let names = [Some(registry), hub, Some(reference.host())];
        let bare = |name: &str| {
            let name = name.trim_start_matches("https://").trim_start_matches("http://");
            name.trim_end_matches('/').to_owned()
        };
        let account = names.into_iter().flatten().find_map(|name| {
            let mut all = file.auths.iter();
            all.find(|(key, _)| *key == name || bare(key) == name).map(|(_, account)| account)
        });
        let Some(account) = account else { return Ok(None) };
        if !account.username.is_empty() {
            let (username, password) = (account.username.clone(), account.password.clone());
            return Ok(Some(Credentials { username, password }));
        }
        let decoded = STANDARD.decode(account.auth.trim()).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(decoded.and_then(|text| {
            let (username, password) = text.split_once(':')?;
            let (username, password) = (username.to_owned(), password.to_owned());
            Some(Credentials { username, password })
        }))
    }

    /// The same, for an image by its name.
    ///
    /// # Errors
    /// The text is not such a file.
    pub fn for_image(text: &str, image: &str) -> Result<Option<Credentials>, String> {
        match image.parse()? {
            Source::Registry(reference) => Credentials::in_config(text, &reference),
            Source::Archive(_) => Ok(None),
        }
    }

    /// The same of a file that may not be there.
    ///
    /// # Errors
    /// It is there and cannot be read, or is not such a file.
    pub fn in_file(path: &Path, reference: &Reference) -> Result<Option<Credentials>, String> {
        use std::io::Read as _;
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let file = match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| wrong(&error))?,
        };
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| wrong(&error))?;
        Credentials::in_config(&text, reference).map_err(|error| wrong(&error))
    }

    /// The value of an `Authorization` header.
    pub(crate) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password)))
    }
}

/// What a registry wants when it answers 401.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password themselves.
    Basic,
    /// A token from there.
    Bearer { realm: String, service: String, scope: String },
}

impl Challenge {
    /// Reads a `WWW-Authenticate` header; none if it is of another kind.
    pub fn parse(header: &str) -> Option<Challenge> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut fields = fields(rest);
        let mut take = |name: &str| fields.remove(name).unwrap_or_default();
        let (realm, service, scope) = (take("realm"), take("service"), take("scope"));
        (!realm.is_empty()).then_some(Challenge::Bearer { realm, service, scope })
    }
}

/// `name="value",name=value`
fn fields(text: &str) -> HashMap<String, String> {
    let mut fields = HashMap::new();
    let mut rest = text.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        fields.insert(name.trim().to_ascii_lowercase(), value.to_owned());
        rest = after.trim_start_matches([',', ' ']);
    }
    fields
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accounts_are_found_under_every_name_of_a_registry() {
        let text = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "aHViOnB3OnB3"},
            "https://ghcr.io/": {"username": "g", "password": "t"},
            "127.0.0.1:5000": {"auth": "bG9jYWw6cHc="}, "broken.io": {"auth": "%%"}}}"#;
        let of = |image: &str| {
            let found = Credentials::in_config(text, &image.parse().unwrap()).unwrap();
            found.map(|it| (it.username, it.password))
        };
        let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(of("team/image"), pair("hub", "pw:pw"));
        assert_eq!(of("ghcr.io/a/b"), pair("g", "t"));
        assert_eq!(of("127.0.0.1:5000/a"), pair("local", "pw"));
        assert_eq!(of("127.0.0.1:5001/a"), None);
        assert_eq!(of("broken.io/a"), None);
        assert!(Credentials::in_config("[", &"a".parse().unwrap()).is_err());
    }

    #[test]
    fn challenges_are_read() {
        let header = r#"Bearer realm="https://auth.x/token",service="registry",scope="repository:a/b:pull,push""#;
        assert_eq!(
            Challenge::parse(header).unwrap(),
            Challenge::Bearer {
                realm: "https://auth.x/token".to_owned(),
                service: "registry".to_owned(),
                scope: "repository:a/b:pull,push".to_owned(),
            }
        );
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Digest realm=\"x\""), None);
        assert_eq!(Challenge::parse("Bearer"), None);
    }

    proptest! {
        #[test]
        fn no_header_is_a_surprise(text in "\\PC{0,200}") {
            let _ = Challenge::parse(&text);
            let _ = Challenge::parse(&format!("Bearer {text}"));
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let who = Credentials { username: "me".to_owned(), password: "hunter2".to_owned() };
        assert!(!format!("{who:?}").contains("hunter2"));
    }
}
