//! Container images: pulled, unpacked, and searched for the language that functions on them are in.

mod system;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dispatch_oci::{Error, Image, Images, Inside, Source};
use dispatch_sandbox::{INSIDE, Launcher, NAMESERVER};

use crate::BuildError;
use crate::language::{Found, Languages};

pub use dispatch_oci::{Credentials, Limits, Registries};

/// What is kept of the runtimes that were found in an image, beside the image.
const RUNTIMES: &str = "runtimes";

/// An image to be made ready.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The organization it is for.
    pub organization: String,
    /// `registry:5000/team/image:tag`, or `oci:sha256:…` for an archive that was given to the server.
    pub reference: String,
    /// The language of functions on it; empty if the image is to say it.
    pub language: String,
    /// Who asks the registry.
    pub credentials: Option<Credentials>,
    /// Whether the operator's own accounts may be used where there are no credentials.
    pub operators_accounts: bool,
}

/// An image that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The language as users know it: `python3`.
    pub language: String,
    /// The name of that language in this image, for everything that is run in it. Who knows it may
    /// use it, so it is never taken from users.
    pub runtime: String,
    /// `3.12.1`.
    pub version: String,
    /// The digest of its manifest.
    pub digest: String,
}

/// What the operator says about images.
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// How registries are spoken to.
    pub registries: Registries,
    /// What an image may be at most.
    pub limits: Limits,
}

/// The images of a runner.
pub(crate) struct ImageStore {
    images: Images,
    /// The same, for those who must not use the operator's accounts.
    anonymous: Images,
    runtimes: PathBuf,
    languages: Languages,
    launcher: Launcher,
    /// Packages are added to one image at a time: each takes a copy of it.
    adding: tokio::sync::Mutex<()>,
}

impl ImageStore {
    /// Those below `directory`; the languages in them are known from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn open(
        directory: &Path,
        options: ImageOptions,
        languages: Languages,
        launcher: Launcher,
    ) -> io::Result<ImageStore> {
        let inside = Inside { id: INSIDE, nameserver: NAMESERVER.to_owned() };
        let ImageOptions { registries, limits } = options;
        let images =
            Images::open(directory.to_owned(), registries.clone(), limits, inside.clone())?;
        let registries = Registries { accounts: None, ..registries };
        let anonymous = images.with(registries);
        let runtimes = directory.join(RUNTIMES);
        fs::create_dir_all(&runtimes)?;
        let store = ImageStore {
            images,
            anonymous,
            runtimes,
            languages,
            launcher,
            adding: tokio::sync::Mutex::default(),
        };
        for image in store.images.all() {
            for found in store.found(&image) {
                store.languages.know(&image, &found)?;
            }
        }
        store.languages.tidy()?;
        Ok(store)
    }

    /// Gets an image and finds its language.
    ///
    /// # Errors
    /// [`BuildError::Rejected`] for what its owner can do something about.
    pub async fn pull(
        &self,
        request: &PullRequest,
        log: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<Pulled, BuildError> {
        let rejected = BuildError::Rejected;
        if !self.launcher.has_views() {
            return Err(rejected(
                "container images cannot be run here: that needs namespaces, which this machine does \
                 not allow; `dispatch manage check` says how to get them"
                    .to_owned(),
            ));
        }
        let source: Source = request.reference.parse().map_err(rejected)?;
        let images = match request.operators_accounts {
            true => &self.images,
            false => &self.anonymous,
        };
        let image = images.pull(&source, request.credentials.as_ref(), log).await;
        let image = image.map_err(|error| match error {
            Error::Files { .. } => BuildError::Failed(error.to_string()),
            // A registry that does not answer is told at once: its user may have misspelt it.
            error => rejected(format!("error when pulling image {}: {error}", request.reference)),
        })?;
        let found = self.languages.find_in(&self.launcher, &image, &request.language).await;
        let (runtime, found) = found.map_err(rejected)?;
        log(&format!("functions on it are in {} {}", found.language, found.version));
        self.pulled(&image, runtime, found)
    }

    /// Keeps what was found in an image.
    fn pulled(&self, image: &Image, runtime: String, found: Found) -> Result<Pulled, BuildError> {
        self.keep(image, &found).map_err(|error| BuildError::Failed(error.to_string()))?;
        Ok(Pulled {
            runtime,
            language: found.language,
            version: found.version,
            digest: image.manifest.to_string(),
        })
    }

    /// Where an archive is to be put, so that a request can name it.
    pub fn archive(&self, digest: &dispatch_oci::Digest) -> PathBuf {
        self.images.archive(digest)
    }

    fn found(&self, image: &Image) -> Vec<Found> {
        let text = fs::read(self.runtimes.join(image.id.hex())).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Adds to what is kept of an image.
    fn keep(&self, image: &Image, found: &Found) -> io::Result<()> {
        let mut all = self.found(image);
        all.retain(|other| other.language != found.language);
        all.push(found.clone());
        let file = tempfile::NamedTempFile::new_in(&self.runtimes)?;
        fs::write(file.path(), serde_json::to_vec(&all)?)?;
        file.as_file().sync_all()?;
        file.persist(self.runtimes.join(image.id.hex()))?;
        Ok(())
    }

    /// Removes images whose languages are none of `used` and that were made longer than `age` ago, or
    /// only says which: their ids, bytes and times.
    ///
    /// # Errors
    /// The system's.
    pub fn collect(
        &self,
        used: &HashSet<String>,
        age: Duration,
        dry_run: bool,
    ) -> io::Result<Vec<(String, u64, SystemTime)>> {
        let ids: HashSet<&str> =
            used.iter().filter_map(|name| name.split_once("@sha256:").map(|(_, id)| id)).collect();
        let mut gone = Vec::new();
        for image in self.images.all() {
            let since = self.images.used(&image)?;
            let idle = SystemTime::now().duration_since(since).unwrap_or_default();
            if ids.contains(image.id.hex()) || idle < age {
                continue;
            }
            gone.push((image.id.hex().to_owned(), self.images.bytes(&image), since));
            if !dry_run {
                self.languages.forget(&image);
                let _ = fs::remove_file(self.runtimes.join(image.id.hex()));
                self.images.remove(&image)?;
            }
        }
        Ok(gone)
    }
}
