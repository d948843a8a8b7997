//! The images of a data directory: trees named by what is in them, and records of what they are.

mod extend;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

pub use self::extend::Copy;
use crate::auth::Credentials;
use crate::digest::{Digest, Hasher};
use crate::furnish::{Inside, furnish};
use crate::layout::{self, Files};
use crate::manifest::{Config, ImageConfig};
use crate::pull::{self, Log};
use crate::reference::Source;
use crate::registry::Registries;
use crate::unpack::{self, Budget, Limits};
use crate::{Error, Result};

/// The start of the names of trees that are being made.
const PARTIAL: &str = ".partial-";

/// An image that is here, ready to be the root of sandboxes.
#[derive(Clone, Debug)]
pub struct Image {
    /// Names it: the digest of its configuration, which says all that is in it.
    pub id: Digest,
    /// Its manifest's digest, which registries know it by.
    pub manifest: Digest,
    /// Its read-only tree.
    pub root: PathBuf,
    /// What its processes get.
    pub config: Config,
}

/// What is kept of an image beside its tree.
#[derive(Serialize, Deserialize)]
struct Record {
    manifest: Digest,
    config: ImageConfig,
    /// What it was made for here, if no registry has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    purpose: Option<String>,
}

/// The images of a data directory.
#[derive(Clone, Debug)]
pub struct Images {
    directory: PathBuf,
    registries: Registries,
    limits: Limits,
    inside: Inside,
    turns: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Images {
    /// Makes the directory, and removes what an interrupted server left half-done, but for downloads,
    /// which are taken up again.
    ///
    /// # Errors
    /// The system's.
    pub fn open(
        directory: PathBuf,
        registries: Registries,
        limits: Limits,
        inside: Inside,
    ) -> io::Result<Images> {
        let images = Images { directory, registries, limits, inside, turns: Arc::default() };
        for name in ["archives", "blobs", "records", "trees"] {
            let place = images.directory.join(name);
            fs::create_dir_all(&place)?;
            // Sandboxes of other users pass here; they cannot look around.
            fs::set_permissions(&place, fs::Permissions::from_mode(0o711))?;
            for entry in fs::read_dir(&place)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                    remove(&entry.path())?;
                }
            }
        }
        fs::set_permissions(&images.directory, fs::Permissions::from_mode(0o711))?;
        Ok(images)
    }

    /// The same images, for those to whom registries are spoken to in another way.
    #[must_use]
    pub fn with(&self, registries: Registries) -> Images {
        let (directory, limits) = (self.directory.clone(), self.limits);
        let (inside, turns) = (self.inside.clone(), Arc::clone(&self.turns));
        Images { directory, registries, limits, inside, turns }
    }

    /// Where an archive that was given to the server is kept.
    pub fn archive(&self, digest: &Digest) -> PathBuf {
        self.directory.join("archives").join(digest.hex())
    }

    /// An image that is here.
    pub fn get(&self, id: &Digest) -> Option<Image> {
        let Record { manifest, config, .. } = self.read(id)?;
        let root = self.tree(&chain(&config, usize::MAX));
        root.is_dir().then(|| Image { id: id.clone(), manifest, root, config: config.config })
    }

    /// All images that are here.
    pub fn all(&self) -> Vec<Image> {
        self.ids().filter_map(|id| self.get(&id)).collect()
    }

    fn ids(&self) -> impl Iterator<Item = Digest> {
        let records = fs::read_dir(self.directory.join("records")).into_iter().flatten().flatten();
        records.filter_map(|entry| {
            format!("sha256:{}", entry.file_name().to_string_lossy()).parse().ok()
        })
    }

    fn read(&self, id: &Digest) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.record(id)).ok()?).ok()
    }

    /// Gets an image, unless it is here already; `log` hears how far it is.
    ///
    /// # Errors
    /// There is none, it is refused, or the way there is blocked.
    pub async fn pull(
        &self,
        source: &Source,
        credentials: Option<&Credentials>,
        log: Log<'_>,
    ) -> Result<Image> {
        let blobs = self.directory.join("blobs");
        let files = match source {
            Source::Archive(digest) => {
                let _turn = self.turn(digest.hex()).await;
                self.unpack_archive(digest).await?
            }
            Source::Registry(reference) => {
                let known = match (credentials, &self.registries.accounts) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(file)) => {
                        Credentials::in_file(file, reference).map_err(Error::Invalid)?
                    }
                    (None, None) => None,
                };
                let found = pull::find(&self.registries, reference, known.as_ref(), log).await;
                let mut found = found?;
                log(&format!("{reference} is {}", found.digest));
                let all: u64 =
                    found.layers().iter().map(|layer| layer.size).fold(0, u64::saturating_add);
                if all > self.limits.bytes {
                    return Err(Error::Invalid(format!(
                        "it has {all} bytes; {} are allowed",
                        self.limits.bytes
                    )));
                }
                // Two that want the same image, or such that share layers, do not write one file.
                let _turn = self.turn("registries").await;
                let config = found.config(&blobs).await?;
                if let Some(image) = self.get(&Digest::of(&config)) {
                    self.mark(&image);
                    log("it is here already");
                    return Ok(image);
                }
                found.download(config, &blobs, log).await?
            }
        };
        let id = Digest::of(&files.config);
        let _turn = self.turn(id.hex()).await;
        if let Some(image) = self.get(&id) {
            self.mark(&image);
            return Ok(image);
        }
        log("the layers are unpacked");
        let work = self.work(&files)?;
        let record =
            Record { manifest: files.digest.clone(), config: work.config.clone(), purpose: None };
        let made = tokio::task::spawn_blocking(move || work.make());
        made.await.map_err(|error| Error::Unavailable(error.to_string()))??;
        self.write(&id, &record)?;
        // What the layers came in is of no use any more.
        let _ = match source {
            Source::Archive(digest) => fs::remove_dir_all(blobs.join(digest.hex())),
            Source::Registry(_) => {
                let config = blobs.join(id.hex());
                files.layers.iter().chain([&config]).try_for_each(fs::remove_file)
            }
        };
        self.get(&id).ok_or_else(|| Error::Unavailable("the image is gone again".to_owned()))
    }

    /// When an image was made, or pulled for the last time.
    ///
    /// # Errors
    /// The system's.
    pub fn used(&self, image: &Image) -> io::Result<SystemTime> {
        fs::metadata(self.record(&image.id))?.modified()
    }

    fn mark(&self, image: &Image) {
        let record = fs::File::open(self.record(&image.id));
        let _ = record.and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Bytes of the files that no other image has.
    pub fn bytes(&self, image: &Image) -> u64 {
        own_bytes(&image.root)
    }

    /// Removes an image, and what no other one needs of it.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, image: &Image) -> io::Result<()> {
        fs::remove_file(self.record(&image.id))?;
        let mut needed = Vec::new();
        for id in self.ids() {
            let config = self.read(&id).map(|record| record.config);
            needed
                .extend(config.iter().flat_map(|config| [1, usize::MAX].map(|n| chain(config, n))));
        }
        for entry in fs::read_dir(self.directory.join("trees"))? {
            let entry = entry?;
            let name = entry.file_name();
            let known = needed.iter().any(|chain| name == *chain.hex());
            if known || name.to_string_lossy().starts_with(PARTIAL) {
                continue;
            }
            // Under another name, so that nobody finds a part of it.
            let going = entry.path().with_file_name(format!("{PARTIAL}{}", name.to_string_lossy()));
            fs::rename(entry.path(), &going)?;
            fs::remove_dir_all(going)?;
        }
        Ok(())
    }

    async fn turn(&self, key: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(key.to_owned()).or_default())
        };
        turn.lock_owned().await
    }

    async fn unpack_archive(&self, digest: &Digest) -> Result<Files> {
        let archive = self.archive(digest);
        if !archive.is_file() {
            return Err(Error::Invalid(format!(
                "the archive {digest} is not here: give the server its file again"
            )));
        }
        let place = self.directory.join("blobs").join(digest.hex());
        let mut budget = self.budget();
        let unpacked = tokio::task::spawn_blocking(move || {
            if !place.is_dir() {
                let partial =
                    partial(place.parent().unwrap_or(&place)).map_err(Error::files(&place))?;
                unpack::extract(&archive, partial.path(), &mut budget)?;
                fs::rename(partial.path(), &place).map_err(Error::files(&place))?;
            }
            layout::read(&place)
        });
        unpacked.await.map_err(|error| Error::Unavailable(error.to_string()))?
    }

    fn budget(&self) -> Budget {
        Budget { bytes: self.limits.bytes, entries: self.limits.entries }
    }

    fn record(&self, id: &Digest) -> PathBuf {
        self.directory.join("records").join(id.hex())
    }

    fn tree(&self, chain: &Digest) -> PathBuf {
        self.directory.join("trees").join(chain.hex())
    }

    fn write(&self, id: &Digest, record: &Record) -> Result<()> {
        use std::io::Write as _;
        let place = self.record(id);
        let directory = self.directory.join("records");
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(&directory)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.as_file().sync_all()?;
            file.persist(&place)?;
            fs::File::open(&directory)?.sync_all()
        };
        write().map_err(Error::files(&place))
    }

    fn work(&self, files: &Files) -> Result<Work> {
        let config = ImageConfig::read(&files.config, files.layers.len())?;
        let all = self.tree(&chain(&config, usize::MAX));
        // What is here already of another image; otherwise the first layer, which images have in
        // common.
        let known =
            (1..files.layers.len()).rev().map(|count| (count, self.tree(&chain(&config, count))));
        let known = known.into_iter().find(|(_, tree)| tree.is_dir());
        let base = known.unwrap_or_else(|| (1, self.tree(&chain(&config, 1))));
        let (layers, inside) = (files.layers.clone(), self.inside.clone());
        Ok(Work {
            trees: self.directory.join("trees"),
            base,
            all,
            layers,
            config,
            inside,
            budget: self.budget(),
        })
    }
}

/// What names the tree of the first `count` layers.
fn chain(config: &ImageConfig, count: usize) -> Digest {
    let mut ids = config.rootfs.diff_ids.iter().take(count);
    let first = ids.next().cloned().unwrap_or_else(|| Digest::of(b""));
    ids.fold(first, |chain, id| {
        Hasher::default().update(format!("{chain} {id}").as_bytes()).finish()
    })
}

/// The making of a tree.
struct Work {
    trees: PathBuf,
    /// The tree of so many layers, to begin with.
    base: (usize, PathBuf),
    all: PathBuf,
    layers: Vec<PathBuf>,
    config: ImageConfig,
    inside: Inside,
    budget: Budget,
}

impl Work {
    fn make(mut self) -> Result<()> {
        let failed = Error::files;
        let ids = self.config.rootfs.diff_ids.clone();
        let (count, base) = &self.base;
        let layers: Vec<_> = self.layers.iter().zip(&ids).collect();
        if ids.len() > 1 && !base.is_dir() {
            let tree = partial(&self.trees).map_err(failed(base))?;
            for (file, id) in layers.iter().take(*count) {
                unpack::apply(file, id, tree.path(), &mut self.budget)?;
            }
            finish(&tree, base).map_err(failed(base))?;
        }
        if self.all.is_dir() {
            return Ok(());
        }
        let place = partial(&self.trees).map_err(failed(&self.all))?;
        let tree = place.path().join("tree");
        let done = if ids.len() > 1 {
            crate::tree::link_tree(base, &tree).map_err(failed(&self.all))?;
            *count
        } else {
            fs::create_dir(&tree).map_err(failed(&self.all))?;
            0
        };
        for (file, id) in layers.into_iter().skip(done) {
            unpack::apply(file, id, &tree, &mut self.budget)?;
        }
        furnish(&tree, &self.inside).map_err(failed(&self.all))?;
        finish(&tree, &self.all).map_err(failed(&self.all))
    }
}

/// A directory that is removed again if it gets no other name.
fn partial(parent: &Path) -> io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(PARTIAL).tempdir_in(parent)
}

/// Gives a tree its name, once all of it is on the disk.
fn finish(tree: impl AsRef<Path>, place: &Path) -> io::Result<()> {
    let tree = tree.as_ref();
    fs::set_permissions(tree, fs::Permissions::from_mode(0o755))?;
    nix::unistd::syncfs(fs::File::open(tree)?)?;
    match fs::rename(tree, place) {
        Err(_) if place.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::File::open(place.parent().unwrap_or(place))?.sync_all(),
    }
}

/// Bytes of files below that have one name only.
fn own_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => own_bytes(&entry.path()),
        Ok(data) if data.nlink() == 1 => data.len(),
        _ => 0,
    });
    bytes.sum()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => extend::remove_tree(path),
        false => fs::remove_file(path),
    }
}
