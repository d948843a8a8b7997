//! What every tree has besides what is in its layers: it stands read-only below a sandbox, so this
//! must be there before.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::tree::Tree;

/// What a sandbox without the host's network knows of it.
const HOSTS: &str = "127.0.0.1 localhost function\n::1 localhost\n";
/// Bytes read of a list of users.
const MAX_USERS: u64 = 256 << 10;

/// Who functions are, and whom they ask for addresses.
#[derive(Clone, Debug)]
pub struct Inside {
    /// The user and group id.
    pub id: u32,
    /// The address of the name server.
    pub nameserver: String,
}

/// Adds the user that functions are, and the files that say whom to ask for addresses.
///
/// # Errors
/// The system's.
pub(crate) fn furnish(root: &Path, inside: &Inside) -> io::Result<()> {
    let tree = Tree::open(root)?;
    let id = inside.id;
    users(&tree, "etc/passwd", id, &format!("function:x:{id}:{id}::/tmp:/bin/false"))?;
    users(&tree, "etc/group", id, &format!("function:x:{id}:"))?;
    write(&tree, "etc/hosts", HOSTS.as_bytes())?;
    write(&tree, "etc/resolv.conf", format!("nameserver {}\n", inside.nameserver).as_bytes())
}

/// Adds a line to a list of users, unless it has one with that id.
fn users(tree: &Tree, path: &str, id: u32, line: &str) -> io::Result<()> {
    let mut text = Vec::new();
    if let Ok(file) = tree.file(Path::new(path)) {
        file.take(MAX_USERS).read_to_end(&mut text)?;
    }
    let id = id.to_string();
    let known = text.split(|byte| *byte == b'\n').any(|line| {
        line.split(|byte| *byte == b':').nth(2).is_some_and(|field| field == id.as_bytes())
    });
    if !known {
        if text.last().is_some_and(|byte| *byte != b'\n') {
            text.push(b'\n');
        }
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    write(tree, path, &text)
}

/// Replaces a file, which other trees may have too.
fn write(tree: &Tree, path: &str, text: &[u8]) -> io::Result<()> {
    let place = tree.place(Path::new(path))?;
    place.remove()?;
    place.make_file(0o644)?.write_all(text)
}
