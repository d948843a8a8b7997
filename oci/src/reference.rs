//! Names of images: `registry:5000/team/image:tag@sha256:…`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// The registry of references that name none, and where its API is.
const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";
/// Bytes of a name: the distribution specification's limit for registry and repository together.
const MAX_NAME: usize = 255;

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a registry.
    Registry(Reference),
    /// In an archive that was given to the server: `oci:sha256:…`.
    Archive(Digest),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Source, String> {
        match text.strip_prefix("oci:") {
            Some(digest) => digest.parse().map(Source::Archive),
            None => text.parse().map(Source::Registry),
        }
    }
}

/// An image of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `docker.io`, `127.0.0.1:5000`.
    pub registry: String,
    /// `library/python`.
    pub repository: String,
    /// `3.12`; `latest` if nothing is said. Without meaning beside a digest.
    pub tag: String,
    /// The manifest's.
    pub digest: Option<Digest>,
}

impl Reference {
    /// The host of the registry's API.
    pub fn host(&self) -> &str {
        if self.registry == HUB { HUB_HOST } else { &self.registry }
    }

    /// What names the manifest at the registry.
    pub fn version(&self) -> String {
        self.digest.as_ref().map_or_else(|| self.tag.clone(), Digest::to_string)
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Reference, String> {
        let shown: String = text.chars().take(120).collect();
        let wrong = |why: &str| format!("{shown:?} is not the name of an image: {why}");
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse().map_err(|why: String| wrong(&why))?))
            }
            None => (text, None),
        };
        // A colon before the last slash belongs to a port.
        let slash = name.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match name[slash..].find(':') {
            Some(colon) => (&name[..slash + colon], &name[slash + colon + 1..]),
            None => (name, "latest"),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (first, rest.to_owned())
            }
            Some(_) => (HUB, name.to_owned()),
            None => (HUB, format!("library/{name}")),
        };
        if name.len() > MAX_NAME {
            return Err(wrong("it is longer than 255 characters"));
        }
        if !is_host(registry) {
            return Err(wrong("its registry is not a host and a port"));
        }
        if !repository.split('/').all(is_component) {
            return Err(wrong(
                "a repository has small letters, digits, and one of . _ __ - between them",
            ));
        }
        if !is_tag(tag) {
            return Err(wrong("a tag has at most 128 letters, digits, and . _ - after the first"));
        }
        let registry = if registry == "index.docker.io" { HUB } else { registry };
        Ok(Reference { registry: registry.to_owned(), repository, tag: tag.to_owned(), digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.repository)?;
        match &self.digest {
            Some(digest) => write!(formatter, "@{digest}"),
            None => write!(formatter, ":{}", self.tag),
        }
    }
}

/// `name`, `name:5000`, `[::1]:5000`.
pub(crate) fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let name = |host: &str| {
        !host.is_empty()
            && !host.starts_with(['-', '.'])
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid =
        address.map_or_else(|| name(host), |host| host.parse::<std::net::Ipv6Addr>().is_ok());
    valid && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let ends = |text: &str| {
        text.bytes().next().is_some_and(inner) && text.bytes().next_back().is_some_and(inner)
    };
    let separator =
        |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    ends(text) && text.split(|c: char| inner(u8::try_from(c).unwrap_or(0))).all(separator)
}

fn is_tag(text: &str) -> bool {
    let first =
        text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    first && text.len() <= 128 && text.bytes().all(rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_as_everywhere() {
        for (text, registry, repository, version) in [
            ("python", "docker.io", "library/python", "latest"),
            ("python:3.12-slim", "docker.io", "library/python", "3.12-slim"),
            ("team/tool", "docker.io", "team/tool", "latest"),
            ("docker.io/team/tool:1", "docker.io", "team/tool", "1"),
            ("index.docker.io/team/tool:1", "docker.io", "team/tool", "1"),
            ("localhost/tool", "localhost", "tool", "latest"),
            ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000", "a/b/c", "x"),
            ("[::1]:5000/a", "[::1]:5000", "a", "latest"),
            ("ghcr.io/a/b__c-d.e", "ghcr.io", "a/b__c-d.e", "latest"),
        ] {
            let found: Reference = text.parse().unwrap();
            assert_eq!(
                (found.registry.as_str(), found.repository.as_str(), found.version().as_str()),
                (registry, repository, version),
                "{text}"
            );
        }
        let digest = Digest::of(b"");
        let found: Reference = format!("a/b:1@{digest}").parse().unwrap();
        assert_eq!(found.version(), digest.to_string());
        assert_eq!("python".parse::<Reference>().unwrap().host(), "registry-1.docker.io");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in [
            "",
            ":",
            "@",
            "/",
            "a:",
            ":a",
            "A/b",
            "a//b",
            "a/../b",
            "a/b:c d",
            "a/-b",
            "a..b",
            "x.y:99999/a",
            "x.y:0/a",
            "ex ample.com/a",
            "a@sha256:1",
            "http://x/y",
            "user:pw@x.y/z",
            "a/b?x",
            "a/b#x",
            "x.y/a%2fb",
            "[zz]:1/a",
            "a___b",
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_safe_name_or_refused(text in "\\PC{0,60}") {
            if let Ok(found) = text.parse::<Reference>() {
                let path = format!("/v2/{}/manifests/{}", found.repository, found.version());
                let url = url::Url::parse(&format!("https://{}{path}", found.host())).unwrap();
                prop_assert_eq!(url.path(), path);
                prop_assert!(url.username().is_empty() && url.query().is_none());
                prop_assert_eq!(found.to_string().parse::<Reference>().unwrap(), found);
            }
        }
    }
}
