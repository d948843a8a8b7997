//! The packages in the tree of an image and in a layer: what a bill of materials lists, and what rules
//! about packages are asked about.
//!
//! Trees are walked without following links. What cannot be read is left out: this looks at what
//! package managers wrote down, and proves nothing about files that came otherwise.

mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Entries of a tree that are looked at.
const MAX_ENTRIES: usize = 1_000_000;
/// Directories below each other.
const MAX_DEPTH: usize = 64;

/// A package that a package manager has installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// The kind, as in package URLs: `deb`, `apk`, `rpm`, `pypi`, `npm`, `gem`, `maven`, `generic`.
    pub kind: &'static str,
    /// Its name; with a namespace, if there is one: `@types/node`, `org.slf4j/slf4j-api`.
    pub name: String,
    /// `2.32.3`.
    pub version: String,
    /// What it says of its licence; empty if nothing.
    pub licence: String,
}

/// All packages below these directories, each once.
pub fn find(trees: &[&Path]) -> BTreeSet<Package> {
    let mut found = BTreeSet::new();
    for tree in trees {
        let mut left = MAX_ENTRIES;
        read::system(tree, &mut found);
        walk(tree, 0, &mut left, &mut found);
    }
    found
}

fn walk(directory: &Path, depth: usize, left: &mut usize, found: &mut BTreeSet<Package>) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let Some(rest) = left.checked_sub(1) else { return };
        *left = rest;
        let Ok(kind) = entry.file_type() else { continue };
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if kind.is_dir() {
            if name.ends_with(".dist-info") || name.ends_with(".egg-info") {
                found.extend(read::python(&path));
            } else if depth < MAX_DEPTH {
                walk(&path, depth + 1, left, found);
            }
        } else if kind.is_file() {
            match &*name {
                "package.json" => found.extend(read::npm(&path)),
                name if name.ends_with(".gemspec") => found.extend(read::gem(&path)),
                name if name.ends_with(".jar") => found.extend(read::jar(&path)),
                _ => {}
            }
        }
    }
}
