//! What package managers write down about what they have installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Deserialize;

use super::Package;

/// Bytes of a list of packages, and of what one package says of itself.
const MAX_LIST: u64 = 64 << 20;
const MAX_FILE: u64 = 1 << 20;
/// Characters of a name, a version or a licence.
const MAX_FIELD: usize = 200;

/// The text of a regular file, never of what a link leads to.
fn text(path: &Path, most: u64) -> Option<String> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    read(File::options().read(true).custom_flags(flags).open(path).ok()?, most)
}

/// The same at a path of the image's own, where links lead as inside.
fn inside(root: &Path, path: &str, most: u64) -> Option<String> {
    read(dispatch_oci::open_file(root, Path::new(path)).ok()?, most)
}

fn read(file: File, most: u64) -> Option<String> {
    let mut bytes = Vec::new();
    if !file.metadata().ok()?.is_file() || file.take(most).read_to_end(&mut bytes).is_err() {
        return None;
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn package(kind: &'static str, name: &str, version: &str, licence: &str) -> Option<Package> {
    let clean = |text: &str| {
        let text = text.trim().chars().filter(|c| !c.is_control());
        text.take(MAX_FIELD).collect::<String>()
    };
    let (name, version, licence) = (clean(name), clean(version), clean(licence));
    (!name.is_empty()).then_some(Package { kind, name, version, licence })
}

/// Those of the system: Debian's and Alpine's lists.
pub(super) fn system(root: &Path, found: &mut BTreeSet<Package>) {
    let mut lists = vec!["var/lib/dpkg/status".to_owned()];
    // Images without a package manager have a file for each package.
    let parts = dispatch_oci::names(root, Path::new("var/lib/dpkg/status.d"));
    lists.extend(parts.iter().map(|name| format!("var/lib/dpkg/status.d/{name}")));
    for list in lists {
        let Some(text) = inside(root, &list, MAX_LIST) else { continue };
        for fields in paragraphs(&text, ": ") {
            let field = |name: &str| fields.get(name).copied().unwrap_or_default();
            let status = field("Status");
            if status.is_empty() || status.ends_with(" installed") {
                let (name, version) = (field("Package"), field("Version"));
                found.extend(package("deb", name, version, &copyright(root, name)));
            }
        }
    }
    // The databases of rpm are of several kinds; what it lists is written down when packages are added.
    if let Some(text) = inside(root, "usr/lib/dispatch/packages.rpm", MAX_LIST) {
        for line in text.lines() {
            let mut fields = line.split('\t').map(str::trim);
            let mut field = || fields.next().unwrap_or_default();
            let (name, version, licence) = (field(), field(), field());
            found.extend(package("rpm", name, version, licence));
        }
    }
    if let Some(text) = inside(root, "lib/apk/db/installed", MAX_LIST) {
        for fields in paragraphs(&text, ":") {
            let field = |name: &str| fields.get(name).copied().unwrap_or_default();
            found.extend(package("apk", field("P"), field("V"), field("L")));
        }
    }
}

/// Blocks of `name: value`, with empty lines between them. Lines that begin with a space go on with the
/// one before, which is of no interest here.
fn paragraphs<'a>(text: &'a str, separator: &str) -> Vec<BTreeMap<&'a str, &'a str>> {
    let block = |block: &'a str| {
        let lines = block.lines().filter(|line| !line.starts_with([' ', '\t']));
        lines.filter_map(|line| line.split_once(separator)).collect()
    };
    text.split("\n\n").map(block).collect()
}

/// The licences that a Debian package's `copyright` names.
fn copyright(root: &Path, name: &str) -> String {
    if name.contains('/') {
        return String::new();
    }
    let path = format!("usr/share/doc/{name}/copyright");
    let Some(text) = inside(root, &path, MAX_FILE) else { return String::new() };
    let named: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("License: ")).map(str::trim).collect();
    Vec::from_iter(named).join(" AND ")
}

/// A Python package by its `METADATA`.
pub(super) fn python(directory: &Path) -> Option<Package> {
    let text = text(&directory.join("METADATA"), MAX_FILE)
        .or_else(|| text(&directory.join("PKG-INFO"), MAX_FILE))?;
    let head = text.split("\n\n").next().unwrap_or_default();
    let field = |name: &str| {
        let value =
            |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.trim().to_owned());
        head.lines().find_map(value).filter(|value| !value.is_empty() && value != "UNKNOWN")
    };
    let classifier = || {
        let line = head.lines().find(|line| line.starts_with("Classifier: License ::"))?;
        line.rsplit(" :: ").next().map(str::to_owned)
    };
    let licence = field("License-Expression").or_else(|| field("License")).or_else(classifier);
    package("pypi", &field("Name")?, &field("Version")?, &licence.unwrap_or_default())
}

/// A package of Node.js, where it is installed.
pub(super) fn npm(path: &Path) -> Option<Package> {
    #[derive(Deserialize)]
    struct Manifest {
        name: String,
        version: String,
        #[serde(default)]
        license: serde_json::Value,
    }
    path.parent()?.ancestors().skip(1).take(2).find(|up| up.ends_with("node_modules"))?;
    let Manifest { name, version, license } = serde_json::from_str(&text(path, MAX_FILE)?).ok()?;
    let licence = license.as_str().or_else(|| license.get("type")?.as_str());
    package("npm", &name, &version, licence.unwrap_or_default())
}

/// A gem by the file that was written when it was installed: `specifications/rack-3.1.0.gemspec`.
pub(super) fn gem(path: &Path) -> Option<Package> {
    let directory = path.parent()?;
    let default = directory.ends_with("specifications/default");
    if !directory.ends_with("specifications") && !default {
        return None;
    }
    let (name, version) = path.file_stem()?.to_str()?.rsplit_once('-')?;
    let text = text(path, MAX_FILE).unwrap_or_default();
    let licences = text.lines().find_map(|line| line.trim().strip_prefix("s.licenses = ["));
    let quoted = licences.unwrap_or_default().split('"').skip(1).step_by(2);
    package("gem", name, version, &quoted.collect::<Vec<_>>().join(" OR "))
}

/// A jar by what Maven puts into it, or by its name.
pub(super) fn jar(path: &Path) -> Option<Package> {
    let by_maven = || {
        let mut archive = zip::ZipArchive::new(File::open(path).ok()?).ok()?;
        let is_it = |name: &String| {
            name.starts_with("META-INF/maven/") && name.ends_with("/pom.properties")
        };
        // One that holds several is of several, and its name says which it is.
        let names: Vec<String> = archive
            .file_names()
            .flatten()
            .map(std::borrow::Cow::into_owned)
            .filter(is_it)
            .collect();
        let [name] = names.as_slice() else { return None };
        let mut text = String::new();
        archive.by_name(name).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
        let fields: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.trim().split_once('=')).collect();
        let name = format!("{}/{}", fields.get("groupId")?, fields.get("artifactId")?);
        package("maven", &name, fields.get("version")?, "")
    };
    let by_name = || {
        let stem = path.file_stem()?.to_str()?;
        let split = stem
            .match_indices('-')
            .find(|(at, _)| stem[at + 1..].starts_with(|first: char| first.is_ascii_digit()));
        let (name, version) = split.map_or((stem, ""), |(at, _)| (&stem[..at], &stem[at + 1..]));
        package("maven", name, version, "")
    };
    by_maven().or_else(by_name)
}
