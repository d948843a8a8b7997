//! Sandboxes where there are no namespaces: the host's own paths, behind access rules.
//!
//! Each has a directory of its own. What would be bound at `/function` elsewhere is a link
//! `DIRECTORY/function` here, `/tmp` is a directory in it, and the words of the command and the
//! environment that name such places name these instead.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use crate::landlock::Access;
use crate::setup::{self, Failure, Step as _};
use crate::spec::{Network, Spec};

/// Files that sandboxes with a view of their own have none of, or others, and that programs take for
/// damaged where they are there and may not be read.
const ALSO_READ: &[&str] = &[
    "/etc/alpine-release",
    "/etc/debian_version",
    "/etc/group",
    "/etc/hosts",
    "/etc/lsb-release",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/redhat-release",
];

/// The directory of one sandbox, and what it comes to.
pub(crate) struct Place {
    pub root: PathBuf,
    /// Whose processes they are.
    pub owner: u32,
    /// With the host's paths.
    pub spec: Spec,
    pub rules: Vec<(PathBuf, Access)>,
}

/// Makes the directory that holds those of all sandboxes of a launcher.
pub(crate) fn base() -> io::Result<PathBuf> {
    let base = nix::unistd::mkdtemp("/tmp/dispatch-sandboxes-XXXXXX")?;
    open_way(&base)?;
    Ok(base)
}

/// Where sandbox `id` has its directory.
pub(crate) fn root(base: &Path, id: u64) -> PathBuf {
    base.join(id.to_string())
}

/// Others may pass, but not look around.
fn open_way(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o711))
}

impl Place {
    /// Makes the directory of sandbox `id`, whose processes are `owner`.
    pub(crate) fn make(base: &Path, id: u64, spec: &Spec, owner: u32) -> Result<Place, Failure> {
        if spec.root.is_some() {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)).step("image");
        }
        let root = root(base, id);
        let made = Place::fill(&root, spec, owner);
        if made.is_err() {
            remove(&root);
        }
        made
    }

    fn fill(root: &Path, spec: &Spec, owner: u32) -> Result<Place, Failure> {
        let tmp = root.join("tmp");
        fs::create_dir(root).and_then(|()| open_way(root)).step("directory")?;
        fs::create_dir(&tmp).step("directory")?;
        let mut place =
            Place { root: root.to_owned(), owner, spec: spec.clone(), rules: Vec::new() };
        let mut moved: Vec<&Path> = Vec::new();
        let mut kept: Vec<&Path> = Vec::new();
        for bind in &spec.binds {
            let step = || format!("bind at {}", bind.target.display());
            setup::inside(&bind.target).step(step())?;
            fs::metadata(&bind.source).step(format!("bind {}", bind.source.display()))?;
            place.rules.push((
                bind.source.clone(),
                if bind.writable { Access::Write } else { Access::Read },
            ));
            if bind.source == bind.target {
                kept.push(&bind.target);
                continue;
            }
            // Below a link it would be made in somebody's directory.
            if moved.iter().any(|other| bind.target.starts_with(other)) {
                return Err(io::Error::from_raw_os_error(libc::EINVAL)).step(step());
            }
            let link = inside(root, &bind.target);
            let parent = link.parent().unwrap_or(root);
            fs::create_dir_all(parent).and_then(|()| symlink(&bind.source, &link)).step(step())?;
            moved.push(&bind.target);
        }
        moved.push(Path::new("/tmp"));
        let translated = |word: &String| translate(root, &moved, &kept, word);
        place.spec.argv = spec.argv.iter().map(translated).collect();
        place.spec.env = spec.env.iter().map(|(n, value)| (n.clone(), translated(value))).collect();
        if !spec.env.iter().any(|(name, _)| name == "TMPDIR") {
            place.spec.env.push(("TMPDIR".to_owned(), tmp.display().to_string()));
        }
        place.spec.cwd = translated(&spec.cwd.display().to_string()).into();
        std::os::unix::fs::chown(&tmp, Some(owner), Some(owner)).step("directory")?;
        fs::set_permissions(&tmp, Permissions::from_mode(0o700)).step("directory")?;
        place.add_base_rules(tmp, spec.network);
        Ok(place)
    }

    /// The same parts of the machine that other sandboxes see.
    fn add_base_rules(&mut self, tmp: PathBuf, network: Network) {
        let seen = setup::system().into_iter().chain(setup::etc(network)).map(|(_, source)| source);
        let also = ALSO_READ.iter().map(PathBuf::from);
        let seen = seen.chain(also).chain([self.root.clone()]);
        self.rules.extend(seen.map(|path| (path, Access::Read)));
        self.rules.push((tmp, Access::Write));
        // The second is that of the process which takes the rules upon it.
        let used = setup::devices().chain([PathBuf::from("/proc/self")]);
        self.rules
            .extend(used.flat_map(|path| [(path.clone(), Access::Read), (path, Access::Use)]));
    }
}

/// Where `path` of a sandbox is on the host.
pub(crate) fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// A word, or several with colons between them, with the host's paths for what was moved; what was
/// `kept` where it is may lie below a moved place.
fn translate(root: &Path, moved: &[&Path], kept: &[&Path], word: &str) -> String {
    let below = |all: &[&Path], part: &str| all.iter().any(|it| Path::new(part).starts_with(it));
    let part = |part: &str| match below(moved, part) && !below(kept, part) {
        true => inside(root, Path::new(part)).display().to_string(),
        false => part.to_owned(),
    };
    word.split(':').map(part).collect::<Vec<_>>().join(":")
}

/// Removes the directory of a sandbox that has ended.
pub(crate) fn remove(root: &Path) {
    // What a function made unreadable for itself stays until /tmp is cleaned.
    let _ = fs::remove_dir_all(root);
}

/// Processes and threads of a user: where it is not the sandbox's alone, its limit counts them too.
pub(crate) fn tasks_of(uid: u32) -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = processes.filter(|entry| entry.metadata().is_ok_and(|data| data.uid() == uid));
    let tasks = own.filter_map(|entry| fs::read_dir(entry.path().join("task")).ok());
    tasks.map(|tasks| tasks.count() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_name_moved_places_name_the_hosts() {
        let moved = [Path::new("/function"), Path::new("/layer"), Path::new("/tmp")];
        for (word, wanted) in [
            ("/function", "/r/function"),
            ("/function/a.py", "/r/function/a.py"),
            ("/functions", "/functions"),
            ("/layer/bin:/usr/bin:/tmp", "/r/layer/bin:/usr/bin:/r/tmp"),
            ("/tmp/program:/tmp/programs", "/tmp/program:/r/tmp/programs"),
            ("http://host/tmp", "http://host/tmp"),
            ("--x=/tmp", "--x=/tmp"),
            ("", ""),
        ] {
            let kept = [Path::new("/tmp/program")];
            assert_eq!(translate(Path::new("/r"), &moved, &kept, word), wanted);
        }
    }
}
