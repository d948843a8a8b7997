//! Files that commands read.

use std::io::{self, Read as _};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result, file_cause};

/// The most bytes of a file or of standard input.
pub const MAX_INPUT: u64 = 64 << 20;

/// Reads a file.
///
/// # Errors
/// The cause, such as `open x: no such file or directory`.
pub fn read(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| file_cause("open", &name, &error))?;
    bounded(file).map_err(|error| file_cause("read", &name, &error))
}

/// Reads a text file.
///
/// # Errors
/// The cause, such as `open x: no such file or directory`.
pub fn text(path: &Path) -> std::result::Result<String, String> {
    String::from_utf8(read(path)?).map_err(|_| format!("read {}: not UTF-8", path.display()))
}

/// Reads a JSON file.
///
/// # Errors
/// What is wrong with it.
pub fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let name = path.display();
    let bytes = read(path)
        .map_err(|cause| Error::local(format!("error when reading content of {name}: {cause}")))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::local(format!("error when parsing JSON from {name}: {error}")))
}

/// Reads standard input to its end.
///
/// # Errors
/// It cannot be read, or is too large.
pub fn stdin() -> Result<Vec<u8>> {
    bounded(io::stdin().lock())
        .map_err(|error| Error::local(format!("error reading standard input: {error}")))
}

fn bounded(reader: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_INPUT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(io::Error::other(format!("more than {MAX_INPUT} bytes")));
    }
    Ok(bytes)
}
