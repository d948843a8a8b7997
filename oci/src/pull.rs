//! Getting the files of an image here.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::auth::Credentials;
use crate::digest::Digest;
use crate::layout::Files;
use crate::manifest::{self, Descriptor, Found, Manifest};
use crate::reference::Reference;
use crate::registry::{Registries, Repository};
use crate::{Error, Result};

/// Progress is told after so many bytes.
const STEP: u64 = 8 << 20;

/// Hears how far it is.
pub(crate) type Log<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// A manifest that was found, at the registry that has it.
pub(crate) struct Remote {
    repository: Repository,
    pub digest: Digest,
    pub manifest: Manifest,
}

/// Looks for an image, first where the operator says.
///
/// # Errors
/// The last registry's.
pub(crate) async fn find(
    settings: &Registries,
    reference: &Reference,
    credentials: Option<&Credentials>,
    log: Log<'_>,
) -> Result<Remote> {
    let hosts = settings.hosts(reference);
    let last = hosts.len() - 1;
    for (place, host) in hosts.into_iter().enumerate() {
        // An account is one of the registry that is named, not of a mirror.
        let known = credentials.filter(|_| place == last).cloned();
        match at(settings, host, reference, known).await {
            Err(error) if place < last => log(&format!("{host}: {error}")),
            found => return found,
        }
    }
    Err(Error::Invalid("no registry has it".to_owned()))
}

async fn at(
    settings: &Registries,
    host: &str,
    reference: &Reference,
    credentials: Option<Credentials>,
) -> Result<Remote> {
    let mut repository = Repository::new(settings, host, &reference.repository, credentials)?;
    let (mut digest, bytes) = repository.manifest(&reference.version()).await?;
    let mut found = manifest::read(&bytes)?;
    // An index leads to a manifest, and to no other index.
    if let Found::Other(next) = found {
        let (other, bytes) = repository.manifest(&next.digest.to_string()).await?;
        (digest, found) = (other, manifest::read(&bytes)?);
    }
    match found {
        Found::Manifest(manifest) => Ok(Remote { repository, digest, manifest }),
        Found::Other(_) => Err(Error::Invalid("its index leads to another index".to_owned())),
    }
}

impl Remote {
    /// Its configuration, into this directory.
    ///
    /// # Errors
    /// As of any download.
    pub async fn config(&mut self, blobs: &Path) -> Result<Vec<u8>> {
        if self.manifest.config.size > manifest::MAX_BYTES {
            return Err(Error::Invalid("its configuration is too large".to_owned()));
        }
        let place = blobs.join(self.manifest.config.digest.hex());
        self.repository.blob(&self.manifest.config, &place, &|_| {}).await?;
        tokio::fs::read(&place).await.map_err(Error::files(&place))
    }

    /// All its files, into this directory.
    ///
    /// # Errors
    /// As of any download.
    pub async fn download(mut self, config: Vec<u8>, blobs: &Path, log: Log<'_>) -> Result<Files> {
        let mut layers = Vec::new();
        let count = self.manifest.layers.len();
        for (index, layer) in self.manifest.layers.clone().iter().enumerate() {
            let told = AtomicU64::new(0);
            let progress = |have: u64| {
                if have >= told.load(Ordering::Relaxed) + STEP {
                    told.store(have, Ordering::Relaxed);
                    log(&format!("layer {} of {count}: {}", index + 1, of(have, layer.size)));
                }
            };
            let place: PathBuf = blobs.join(layer.digest.hex());
            self.repository.blob(layer, &place, &progress).await?;
            log(&format!("layer {} of {count}: {} is here", index + 1, size(layer.size)));
            layers.push(place);
        }
        Ok(Files { digest: self.digest, config, layers })
    }

    /// Its layers, as they come.
    pub fn layers(&self) -> &[Descriptor] {
        &self.manifest.layers
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn size(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn of(have: u64, all: u64) -> String {
    format!("{} of {}", size(have), size(all))
}
