//! Unpacking source archives of strangers: `tar.gz` and `zip`, into a new directory and nowhere
//! else.

mod tree;

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::Path;

use flate2::read::GzDecoder;

use tree::Tree;

/// What an archive may be at most. Bytes are counted as they are unpacked; what headers claim is not
/// believed.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of all files together.
    pub total_bytes: u64,
    /// Entries.
    pub entries: usize,
    /// Bytes of a path.
    pub path_bytes: usize,
    /// Directories below each other.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { total_bytes: 512 << 20, entries: 50_000, path_bytes: 1024, depth: 64 }
    }
}

/// The archive of no files.
///
/// # Errors
/// There is none in memory.
pub fn empty() -> io::Result<Vec<u8>> {
    let compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    tar::Builder::new(compressed).into_inner()?.finish()
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files.
    pub files: usize,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is of neither form.
    #[error("the source is neither a gzip-compressed tar nor a zip archive")]
    Unknown,
    /// It is damaged.
    #[error("the source archive is damaged: {0}")]
    Damaged(String),
    /// One entry is refused.
    #[error("the source archive is refused because of its entry {name:?}: {reason}")]
    Entry {
        /// The entry's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is larger than allowed.
    #[error("the source archive is refused: it has more than {0}")]
    TooLarge(String),
    /// The machine failed.
    #[error("the source archive could not be unpacked: {0}")]
    Io(#[from] io::Error),
}

/// Unpacks the archive at `archive` into `dest`, which must not exist. Blocks.
///
/// # Errors
/// What is wrong with the archive, or with the machine. `dest` may then be half filled.
pub fn unpack_file(archive: &Path, dest: &Path, limits: &Limits) -> Result<Stats, ArchiveError> {
    let mut file = File::open(archive)?;
    let mut magic = [0; 4];
    let known = file.read_exact(&mut magic).is_ok();
    file.seek(SeekFrom::Start(0))?;
    let tree = Tree::create(dest, limits)?;
    match magic {
        [0x1f, 0x8b, ..] if known => unpack_tar(GzDecoder::new(file), tree),
        [b'P', b'K', 3, 4] if known => unpack_zip(file, tree),
        _ => Err(ArchiveError::Unknown),
    }
}

fn damaged(error: &io::Error) -> ArchiveError {
    ArchiveError::Damaged(error.to_string())
}

/// Old clients never finish their archives: the padding of the last file and the end marker are
/// missing. Zeros after a complete gzip stream make up for it.
fn unpack_tar(gzip: GzDecoder<File>, mut tree: Tree<'_>) -> Result<Stats, ArchiveError> {
    let mut archive = tar::Archive::new(gzip.chain(io::repeat(0).take(2 * 512)));
    for entry in archive.entries().map_err(|error| damaged(&error))? {
        let mut entry = entry.map_err(|error| damaged(&error))?;
        let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|error| {
            let name = String::from_utf8_lossy(error.as_bytes()).into_owned();
            ArchiveError::Entry { name, reason: "its name is not UTF-8".to_owned() }
        })?;
        let mode = entry.header().mode().unwrap_or(0o644);
        let link = entry.link_name().ok().flatten();
        let link = link.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default();
        match entry.header().entry_type() {
            tar::EntryType::Directory => tree.directory(&name)?,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                tree.file(&name, mode, &mut entry)?;
            }
            tar::EntryType::Symlink => tree.symlink(&name, &link)?,
            tar::EntryType::Link => tree.hard_link(&name, &link)?,
            tar::EntryType::XGlobalHeader => {}
            _ => {
                let reason = "only files, directories and links are allowed".to_owned();
                return Err(ArchiveError::Entry { name, reason });
            }
        }
    }
    // What is left of the stream must be sound too, or the archive was cut off.
    let mut rest = archive.into_inner();
    io::copy(&mut Read::by_ref(&mut rest).take(1 << 20), &mut io::sink())
        .map_err(|error| damaged(&error))?;
    Ok(tree.stats())
}

fn unpack_zip(file: File, mut tree: Tree<'_>) -> Result<Stats, ArchiveError> {
    const TYPE: u32 = 0o170_000;
    const LINK: u32 = 0o120_000;
    let broken = |error: zip::result::ZipError| ArchiveError::Damaged(error.to_string());
    let mut archive = zip::ZipArchive::new(file).map_err(broken)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(broken)?;
        let name = entry.name().map_err(broken)?.into_owned();
        let mode = entry.unix_mode().unwrap_or(0o644);
        if entry.is_dir() {
            tree.directory(&name)?;
        } else if mode & TYPE == LINK {
            let mut target = String::new();
            Read::by_ref(&mut entry)
                .take(4096)
                .read_to_string(&mut target)
                .map_err(|error| damaged(&error))?;
            tree.symlink(&name, &target)?;
        } else if matches!(mode & TYPE, 0 | 0o100_000) {
            tree.file(&name, mode, &mut entry)?;
        } else {
            let reason = "only files, directories and links are allowed".to_owned();
            return Err(ArchiveError::Entry { name, reason });
        }
    }
    Ok(tree.stats())
}

#[cfg(test)]
mod tests;
