//! Settings of several values, with commas between them.

use std::fmt::{self, Display};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use dispatch_runner::image::Registries;
use serde::Deserialize;

/// Values, with commas between them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String", bound = "T: FromStr<Err = String>")]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List(Vec::new())
    }
}

impl<T: FromStr<Err = String>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<List<T>, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<_, _>>().map(List)
    }
}

impl<T: FromStr<Err = String>> TryFrom<String> for List<T> {
    type Error = String;

    fn try_from(text: String) -> Result<List<T>, String> {
        text.parse()
    }
}

impl<T: Display> Display for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(T::to_string).collect::<Vec<_>>().join(","))
    }
}

/// A directory of the machine: an absolute path without detours, below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory(pub PathBuf);

impl FromStr for Directory {
    type Err = String;

    fn from_str(text: &str) -> Result<Directory, String> {
        let path = Path::new(text);
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        if path.is_absolute() && path.parent().is_some() && path.components().all(plain) {
            return Ok(Directory(path.components().collect()));
        }
        Err(format!("{text:?} is no absolute path of a directory"))
    }
}

impl Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// `registry.example:5000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(pub String);

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Host, String> {
        Registries::host(text).map(Host)
    }
}

impl Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `docker.io=mirror.example:5000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror(pub (String, String));

impl FromStr for Mirror {
    type Err = String;

    fn from_str(text: &str) -> Result<Mirror, String> {
        Registries::mirror(text).map(Mirror)
    }
}

impl Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.0.0, self.0.1)
    }
}
