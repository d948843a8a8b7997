//! Changing a tree that holds links of strangers, without ever following one out of it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

/// Directories of a layer below each other.
pub(crate) const MAX_DEPTH: usize = 128;

/// A directory that is the root of every link below it.
pub(crate) struct Tree(OwnedFd);

/// A place in a tree, whose directory is there.
pub(crate) struct Place {
    directory: OwnedFd,
    name: PathBuf,
}

impl Tree {
    /// Of this directory, which is there.
    ///
    /// # Errors
    /// The system's.
    pub fn open(root: &Path) -> io::Result<Tree> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Tree(nix::fcntl::open(root, flags, Mode::empty())?))
    }

    /// A place by the names that lead to it, none of which is `..`. Links on the way are followed as
    /// if the tree were all there is; directories that are missing are made.
    ///
    /// # Errors
    /// There is something else on the way.
    pub fn place(&self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok(Place { directory: self.directory(parent)?, name: name.into() })
    }

    /// The same where nothing is made.
    ///
    /// # Errors
    /// It is not there.
    pub fn existing(&self, path: &Path) -> io::Result<Place> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok(Place { directory: self.open_directory(parent)?, name: name.into() })
    }

    /// Opens a file for reading, following links within the tree.
    ///
    /// # Errors
    /// It is not there, or is no file.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(self.resolve(path, flags)?);
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::ErrorKind::InvalidInput.into())
    }

    /// The names in a directory.
    ///
    /// # Errors
    /// It is not there.
    pub fn list(&self, path: &Path) -> io::Result<Vec<std::ffi::OsString>> {
        let directory = self.open_directory(path)?;
        let place = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
        fs::read_dir(place)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        openat2(self.0.as_fd(), path, how).map_err(io::Error::from)
    }

    fn open_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
    }

    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open_directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.file_name().is_some() => {
                let place = self.place(path)?;
                match place.make_directory() {
                    // A link to a place that is not there.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        place.remove()?;
                        place.make_directory()?;
                    }
                    made => made?,
                }
                self.open_directory(path)
            }
            opened => opened,
        }
    }
}

impl Place {
    /// A path that only leads through the directory that is held open.
    pub fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.directory.as_raw_fd().to_string()).join(&self.name)
    }

    /// What is there, a link being a link.
    pub fn kind(&self) -> Option<fs::FileType> {
        fs::symlink_metadata(self.path()).ok().map(|data| data.file_type())
    }

    /// Removes whatever is there.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self) -> io::Result<()> {
        match self.kind() {
            None => Ok(()),
            Some(kind) if kind.is_dir() => fs::remove_dir_all(self.path()),
            Some(_) => fs::remove_file(self.path()),
        }
    }

    /// Makes an empty directory.
    ///
    /// # Errors
    /// Something is there.
    pub fn make_directory(&self) -> io::Result<()> {
        fs::create_dir(self.path())?;
        // Whatever our umask is, other users run what is in it.
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o755))
    }

    /// Makes an empty file with these permissions.
    ///
    /// # Errors
    /// Something is there.
    pub fn make_file(&self, mode: u32) -> io::Result<File> {
        let file = File::create_new(self.path())?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        Ok(file)
    }
}

/// Makes `to` what `from` is: directories of its own, and the same files. What is changed in it later
/// must be removed first.
///
/// # Errors
/// The system's; also when `to` is there.
pub(crate) fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            link_tree(&source, &target)?;
        } else {
            match fs::hard_link(&source, &target) {
                // A file cannot have any number of names.
                Err(error) if error.kind() == io::ErrorKind::TooManyLinks => {
                    copy(&source, &target)?;
                }
                linked => linked?,
            }
        }
    }
    Ok(())
}

fn copy(source: &Path, target: &Path) -> io::Result<()> {
    if fs::symlink_metadata(source)?.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(source)?, target);
    }
    fs::copy(source, target).map(drop)
}

/// Makes `to` what `from` is, with nothing in common, for `owner` if it is not to be ours; `each` hears
/// the bytes of each file and directory.
///
/// # Errors
/// The system's; also when `to` is there.
pub(crate) fn copy_tree(
    from: &Path,
    to: &Path,
    owner: Option<u32>,
    each: &mut dyn FnMut(u64),
) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let data = entry.metadata()?;
        if data.is_dir() {
            copy_tree(&source, &target, owner, each)?;
            continue;
        }
        copy(&source, &target)?;
        if data.is_file() {
            // What is compiled names the time of what it was compiled from.
            File::open(&target)?.set_modified(data.modified()?)?;
        }
        std::os::unix::fs::lchown(&target, owner, owner)?;
        each(data.len());
    }
    each(0);
    std::os::unix::fs::lchown(to, owner, owner)
}

/// Makes everything below a directory ours to read and to remove, as far as it may be by now.
///
/// # Errors
/// The system's.
pub(crate) fn reclaim(directory: &Path) -> io::Result<()> {
    let give = |path: &Path, data: &fs::Metadata, bits: u32| {
        let mode = data.permissions().mode();
        if mode & bits == bits {
            return Ok(());
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o777 | bits))
    };
    let mut queue = vec![directory.to_owned()];
    while let Some(directory) = queue.pop() {
        give(&directory, &fs::symlink_metadata(&directory)?, 0o700)?;
        for entry in fs::read_dir(&directory)? {
            let (path, data) = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)))?;
            if data.is_dir() {
                queue.push(path);
            } else if data.is_file() {
                give(&path, &data, 0o400)?;
            }
        }
    }
    Ok(())
}
