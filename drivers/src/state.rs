//! What a driver remembers over restarts.

use std::io::Write as _;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// A directory with one small JSON file for each thing that is remembered.
#[derive(Clone, Debug)]
pub(crate) struct State {
    directory: PathBuf,
}

impl State {
    pub fn in_directory(directory: PathBuf) -> State {
        State { directory }
    }

    /// What was remembered under this name, if anything was.
    ///
    /// # Errors
    /// The file cannot be read, or was not written by this driver.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.directory.join(name);
        let failed = |why: &dyn std::fmt::Display| {
            Error::Failed(format!("cannot read the position in {}: {why}", path.display()))
        };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Remembers it: afterwards either the old or the new value is there, also when the power fails.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        let path = self.directory.join(name);
        let fresh = self.directory.join(format!(".{name}.new"));
        let write = || {
            std::fs::create_dir_all(&self.directory)?;
            let mut file = std::fs::File::create(&fresh)?;
            file.write_all(&serde_json::to_vec(value)?)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)?;
            std::fs::File::open(&self.directory)?.sync_all()
        };
        write().map_err(|error: std::io::Error| {
            Error::Failed(format!("cannot write the position to {}: {error}", path.display()))
        })
    }
}
