//! Source archives: a file or a directory as `tar.gz`. The same source gives the same bytes.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::error::{Error, Result, file_cause};

/// The most bytes of an archive; the server takes no more.
pub const MAX_ARCHIVE: usize = 50 << 20;
/// Directories that are left out.
const LEFT_OUT: &[&str] = &[".git"];

/// Packs the source of a function, as base64.
///
/// # Errors
/// What cannot be read or packed; a directory without a handler.
pub fn source(function: &str, handler: &str, path: &Path) -> Result<String> {
    let name = path.display();
    let metadata = fs::metadata(path).map_err(|error| {
        let cause = file_cause("stat", &name.to_string(), &error);
        Error::local(format!("failed to determine if path is dir: '{name}': {cause}"))
    })?;
    let failed = |cause: &dyn std::fmt::Display| {
        Error::local(format!("error creating function {function}: {cause}"))
    };
    if metadata.is_dir() && handler.is_empty() {
        return Err(failed(&format!("handler is required, source path {name} is a directory")));
    }
    let archive = archive(path, &metadata).map_err(|error| failed(&error))?;
    Ok(STANDARD.encode(archive))
}

fn archive(path: &Path, metadata: &Metadata) -> io::Result<Vec<u8>> {
    let limited = Limited(Vec::new());
    let gzip = GzBuilder::new().mtime(0).write(limited, Compression::default());
    let mut builder = Builder::new(gzip);
    if metadata.is_dir() {
        directory(&mut builder, path, Path::new(""))?;
    } else {
        let name = path.file_name().ok_or_else(|| io::Error::other("the path has no file name"))?;
        file(&mut builder, path, Path::new(name), metadata)?;
    }
    Ok(builder.into_inner()?.finish()?.0)
}

/// Adds what a directory holds, in the order of names.
fn directory<W: Write>(builder: &mut Builder<W>, root: &Path, inside: &Path) -> io::Result<()> {
    let dir = root.join(inside);
    let with_name =
        |error: io::Error| io::Error::other(file_cause("read", &dir.display().to_string(), &error));
    let mut entries = fs::read_dir(&dir).map_err(with_name)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, inside) = (entry.path(), inside.join(entry.file_name()));
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            if LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            let mut header = header(EntryType::Directory, 0o755, 0);
            append(builder, &mut header, &inside, io::empty())?;
            directory(builder, root, &inside)?;
        } else if metadata.is_symlink() {
            link(builder, &path, &inside)?;
        } else {
            file(builder, &path, &inside, &metadata)?;
        }
    }
    Ok(())
}

fn file<W: Write>(
    builder: &mut Builder<W>,
    path: &Path,
    inside: &Path,
    metadata: &Metadata,
) -> io::Result<()> {
    if !metadata.is_file() {
        let text = format!("{} is neither a file nor a directory nor a link", path.display());
        return Err(io::Error::other(text));
    }
    let name = path.display().to_string();
    let file = fs::File::open(path)
        .map_err(|error| io::Error::other(file_cause("open", &name, &error)))?;
    // The size as it is now: the file may have changed since it was listed.
    let size = file.metadata()?.len();
    let mode = if executable(metadata) { 0o755 } else { 0o644 };
    append(
        builder,
        &mut header(EntryType::Regular, mode, size),
        inside,
        Exactly { file, left: size, name },
    )
}

#[cfg(unix)]
fn executable(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn executable(_: &Metadata) -> bool {
    false
}

fn link<W: Write>(builder: &mut Builder<W>, path: &Path, inside: &Path) -> io::Result<()> {
    let target = fs::read_link(path)?;
    if !stays_inside(inside, &target) {
        let text = format!(
            "{} is a link to {}, which is outside of the source: put a copy in its place",
            path.display(),
            target.display()
        );
        return Err(io::Error::other(text));
    }
    let mut header = header(EntryType::Symlink, 0o777, 0);
    if header.set_link_name(&target).is_err() {
        return builder.append_link(&mut header, dotted(inside), &target);
    }
    append(builder, &mut header, inside, io::empty())
}

/// Whether a link that stands at `inside` leads to something in the same tree, by its words.
fn stays_inside(inside: &Path, target: &Path) -> bool {
    let mut depth = inside.components().count() as isize - 1;
    target.components().all(|component| {
        match component {
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
        depth >= 0
    })
}

/// A header that says nothing about the machine it was made on.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header
}

/// The name in the archive: `./path`, as it always was.
fn dotted(inside: &Path) -> PathBuf {
    Path::new(".").join(inside)
}

fn append<W: Write>(
    builder: &mut Builder<W>,
    header: &mut Header,
    inside: &Path,
    data: impl io::Read,
) -> io::Result<()> {
    let path = dotted(inside);
    let parts: Vec<&[u8]> =
        path.components().map(|part| part.as_os_str().as_encoded_bytes()).collect();
    let name = parts.join(&b'/');
    let field = &mut header.as_old_mut().name;
    if name.len() > field.len() {
        return builder.append_data(header, path, data);
    }
    // By hand, since the library takes the `./` off.
    field[..name.len()].copy_from_slice(&name);
    header.set_cksum();
    builder.append(header, data)
}

/// A file of which as many bytes are read as its header says.
struct Exactly {
    file: fs::File,
    left: u64,
    name: String,
}

impl io::Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read(&mut buffer[..most])?;
        self.left -= read as u64;
        if read == 0 && most > 0 {
            return Err(io::Error::other(format!(
                "{} became shorter while it was read",
                self.name
            )));
        }
        Ok(read)
    }
}

/// Bytes, up to [`MAX_ARCHIVE`].
struct Limited(Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_ARCHIVE {
            let text = format!(
                "the source archive has more than {} MiB: leave out what the function does not \
                 need, such as dependencies that belong into an image",
                MAX_ARCHIVE >> 20
            );
            return Err(io::Error::other(text));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
