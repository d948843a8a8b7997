//! Which packages images may have: lists of the operator's for each organization, read anew for each
//! build.

use std::collections::BTreeMap;
use std::path::Path;

use dispatch_runner::packages::Package;
use serde::Deserialize;

/// Stands for every organization.
const ALL: &str = "*";
/// Packages that a refusal names.
const MOST_NAMED: usize = 10;

/// The rules of all organizations.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Rules(BTreeMap<String, Lists>);

/// The rules of one of them.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Lists {
    /// If there are any, packages must fit one of them.
    allow: Vec<Pattern>,
    /// Packages must fit none of them.
    deny: Vec<Pattern>,
}

/// `npm/event-stream`, `pypi/requests@2.1*`, `deb/*`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Pattern {
    text: String,
    kind: String,
    name: String,
    version: String,
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Pattern, String> {
        let (kind, rest) = text.split_once('/').ok_or_else(|| {
            format!("{text:?} is no pattern of packages: write KIND/NAME or KIND/NAME@VERSION")
        })?;
        // Names of npm begin with one themselves.
        let (name, version) = match rest.rsplit_once('@') {
            Some((name, version)) if !name.is_empty() => (name, version),
            _ => (rest, "*"),
        };
        let (kind, name, version) = (kind.to_owned(), name.to_owned(), version.to_owned());
        Ok(Pattern { kind, name, version, text })
    }
}

impl Pattern {
    fn fits(&self, package: &Package) -> bool {
        // Python's and others' names are the same in either case, and with `_` for `-`.
        let plain = |text: &str| text.to_lowercase().replace('_', "-");
        fits(&self.kind, package.kind)
            && fits(&plain(&self.name), &plain(&package.name))
            && fits(&self.version, &package.version)
    }
}

/// Whether a text fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

impl Rules {
    /// Reads a file; none has no rules.
    ///
    /// # Errors
    /// It cannot be read, or is not such a file.
    pub fn read(path: &Path) -> Result<Rules, String> {
        if path.as_os_str().is_empty() {
            return Ok(Rules::default());
        }
        let wrong = |error: &dyn std::fmt::Display| {
            format!("the rules for packages in {} cannot be used: {error}", path.display())
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
        toml::from_str(&text).map_err(|error| wrong(&error))
    }

    /// Whether there is anything to be asked for an organization.
    pub fn concern(&self, organization: &str) -> bool {
        self.of(organization).any(|lists| !lists.allow.is_empty() || !lists.deny.is_empty())
    }

    fn of<'a>(&'a self, organization: &'a str) -> impl Iterator<Item = &'a Lists> {
        [ALL, organization].into_iter().filter_map(|name| self.0.get(name))
    }

    /// Whether an organization's image may have these packages.
    ///
    /// # Errors
    /// Which it may not have, and why.
    pub fn check<'a>(
        &self,
        organization: &str,
        packages: impl IntoIterator<Item = &'a Package>,
    ) -> Result<(), String> {
        let mut wrong: Vec<String> = Vec::new();
        for package in packages {
            let Package { kind, name, version, .. } = package;
            for lists in self.of(organization) {
                let denied = lists.deny.iter().find(|pattern| pattern.fits(package));
                let allowed = lists.allow.is_empty()
                    || lists.allow.iter().any(|pattern| pattern.fits(package));
                let why = match denied {
                    Some(pattern) => format!("denied by {:?}", pattern.text),
                    None if allowed => continue,
                    None => "on no list of what is allowed".to_owned(),
                };
                wrong.push(format!("{kind}/{name}@{version} is {why}"));
                break;
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let more = wrong.len().saturating_sub(MOST_NAMED);
        wrong.truncate(MOST_NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(format!(
            "the image has packages that organization {organization} may not use: {}{more}; leave \
             them out, or ask the server's operator",
            wrong.join("; ")
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn package(kind: &'static str, name: &str, version: &str) -> Package {
        Package { kind, name: name.into(), version: version.into(), licence: String::new() }
    }

    #[test]
    fn patterns_stand_for_packages() {
        let pattern = |text: &str| Pattern::try_from(text.to_owned()).unwrap();
        for (text, kind, name, version, wanted) in [
            ("npm/left-pad", "npm", "left-pad", "1.0", true),
            ("npm/left-pad", "pypi", "left-pad", "1.0", false),
            ("npm/left-pad", "npm", "left-pads", "1.0", false),
            ("npm/@evil/*", "npm", "@evil/thing", "1", true),
            ("npm/@evil/a@1.*", "npm", "@evil/a", "1.2", true),
            ("npm/@evil/a@1.*", "npm", "@evil/a", "2.1", false),
            ("pypi/Django_X", "pypi", "django-x", "1", true),
            ("*/*ssl*", "deb", "libssl3", "3.0", true),
            ("*/*ssl*", "deb", "libc6", "3.0", false),
        ] {
            assert_eq!(pattern(text).fits(&package(kind, name, version)), wanted, "{text} {name}");
        }
        assert!(Pattern::try_from("left-pad".to_owned()).is_err());
    }

    #[test]
    fn lists_are_for_organizations_and_denials_come_first() {
        let text = "['*']\ndeny = ['npm/evil']\n[team]\nallow = ['npm/*', 'generic/*']\n\
                    deny = ['npm/old@1.*']\n";
        let rules: Rules = toml::from_str(text).unwrap();
        let check = |organization: &str, package: &Package| rules.check(organization, [package]);
        assert!(check("other", &package("npm", "evil", "1")).unwrap_err().contains("npm/evil@1"));
        assert!(check("team", &package("npm", "evil", "1")).is_err());
        assert!(check("other", &package("pypi", "x", "1")).is_ok());
        assert!(check("team", &package("pypi", "x", "1")).unwrap_err().contains("on no list"));
        assert!(check("team", &package("npm", "old", "1.2")).is_err());
        assert!(check("team", &package("npm", "old", "2.0")).is_ok());
        assert!(rules.concern("team") && rules.concern("other"));
        assert!(!Rules::default().concern("team"));
        assert!(toml::from_str::<Rules>("[team]\nrefuse = []").is_err());
        let many: Vec<_> = (0..12).map(|n| package("pypi", &format!("p{n}"), "1")).collect();
        assert!(rules.check("team", &many).unwrap_err().contains("and 2 more"));
    }
}
