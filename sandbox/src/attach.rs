//! Making more visible in a sandbox that runs already: how a waiting process gets its function.
//!
//! The trees are opened in our own namespace, where the host is in sight, and attached in the
//! sandbox's. Nothing of the sandbox runs with our rights meanwhile, and its processes cannot see
//! us: we enter its mounts only.

use std::fs::File;
use std::io;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};

use crate::mounts::Tree;
use crate::setup::{self, Failure, Step as _};
use crate::spec::{Attachment, Bind};
use crate::sys;

/// The mounts that the process `pid` sees. To be asked for before it gives up its rights: then
/// nobody may look at it any more.
pub(crate) fn mounts_of(pid: i32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/ns/mnt"))
}

/// The mount namespace to come back to.
pub(crate) struct Home(File);

impl Home {
    /// The one we are in.
    pub(crate) fn here() -> io::Result<Home> {
        File::open("/proc/self/ns/mnt").map(Home)
    }

    /// Attaches in the sandbox whose mount namespace `there` is.
    ///
    /// # Errors
    /// The outer one says that we could not come back and must not go on; the inner one what could
    /// not be attached.
    pub(crate) fn attach(
        &self,
        there: &File,
        attachment: &Attachment,
    ) -> io::Result<Result<(), Failure>> {
        let trees = match open(&attachment.binds) {
            Ok(trees) => trees,
            Err(failure) => return Ok(Err(failure)),
        };
        let attached = setns(there, CloneFlags::CLONE_NEWNS)
            .step("mount namespace")
            .and_then(|()| place(&trees, attachment));
        setns(&self.0, CloneFlags::CLONE_NEWNS)?;
        Ok(attached)
    }
}

fn open(binds: &[Bind]) -> Result<Vec<(&Bind, Tree)>, Failure> {
    let mut trees = Vec::new();
    for bind in binds {
        let Bind { source, target, writable } = bind;
        setup::inside(target).step(format!("bind at {}", target.display()))?;
        let read_only = if *writable { 0 } else { sys::RDONLY };
        let attributes = read_only | sys::NOSUID | sys::NODEV;
        let tree = Tree::open(source, attributes).step(format!("bind {}", source.display()))?;
        trees.push((bind, tree));
    }
    Ok(trees)
}

fn place(trees: &[(&Bind, Tree)], attachment: &Attachment) -> Result<(), Failure> {
    for (bind, tree) in trees {
        tree.attach_detached(&bind.target).step(format!("bind at {}", bind.target.display()))?;
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let size = format!("size={}", attachment.tmp_bytes.max(4096));
    mount(None::<&str>, "/tmp", None::<&str>, flags, Some(size.as_str())).step("tmp")
}
