//! How much memory is left: on the machine, and where our own control groups have a limit, in those.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Measure = dyn Fn() -> Option<u64> + Send + Sync;

/// Says how many bytes of memory are left.
#[derive(Clone)]
pub struct Memory(Arc<Measure>);

impl Memory {
    /// Asks `measure`, which may know nothing.
    pub fn new(measure: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Memory {
        Memory(Arc::new(measure))
    }

    /// Bytes that are left, without swapping.
    pub fn available(&self) -> Option<u64> {
        (self.0)()
    }
}

impl Default for Memory {
    /// That of this machine.
    fn default() -> Memory {
        let groups = groups(Path::new("/"));
        Memory::new(move || available(Path::new("/"), &groups))
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

/// The files of a group that say what it may use and uses, and which of its counts can be had back.
struct Group {
    limit: PathBuf,
    usage: PathBuf,
    counts: PathBuf,
    cache: &'static str,
}

/// The groups of memory that we are in, the innermost first: mounted in the usual places.
fn groups(root: &Path) -> Vec<Group> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut groups = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(kinds), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mount, limit, usage, cache) = if kinds.is_empty() {
            ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
        } else if kinds.split(',').any(|kind| kind == "memory") {
            let names = ("memory.limit_in_bytes", "memory.usage_in_bytes");
            ("sys/fs/cgroup/memory", names.0, names.1, "total_inactive_file")
        } else {
            continue;
        };
        for path in Path::new(path.trim_start_matches('/')).ancestors() {
            let directory = root.join(mount).join(path);
            groups.push(Group {
                limit: directory.join(limit),
                usage: directory.join(usage),
                counts: directory.join("memory.stat"),
                cache,
            });
        }
    }
    groups.retain(|group| group.limit.exists());
    groups
}

fn available(root: &Path, groups: &[Group]) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let machine = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = machine.split_whitespace().next()?.parse().ok()?;
    Some(groups.iter().filter_map(Group::left).fold(kib.saturating_mul(1024), u64::min))
}

impl Group {
    /// What is left of its limit, if it has one.
    fn left(&self) -> Option<u64> {
        let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        // `max`, or a number of version 1 that no machine has, means none.
        let limit = number(&self.limit).filter(|limit| *limit < 1 << 60)?;
        let counts = fs::read_to_string(&self.counts).unwrap_or_default();
        let cache = counts.lines().find_map(|line| {
            line.split_once(' ').filter(|(name, _)| *name == self.cache)?.1.parse::<u64>().ok()
        });
        let used = number(&self.usage)?.saturating_sub(cache.unwrap_or(0));
        Some(limit.saturating_sub(used))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Option<u64> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        available(directory.path(), &groups(directory.path()))
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal: 8192 kB\nMemAvailable: 4096 kB\n");

    #[test]
    fn the_machine_counts_where_no_group_has_a_limit() {
        assert_eq!(machine(&[]), None);
        assert_eq!(machine(&[MACHINE]), Some(4096 << 10));
        let group = [
            MACHINE,
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.current", "77\n"),
        ];
        assert_eq!(machine(&group), Some(4096 << 10));
    }

    #[test]
    fn the_tightest_group_counts_without_its_cache_in_a_fake_tree() {
        let unified = [
            MACHINE,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "1000000\n"),
            ("sys/fs/cgroup/a/memory.current", "900000\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 50000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "800000\n"),
            ("sys/fs/cgroup/a/b/memory.current", "100000\n"),
        ];
        assert_eq!(machine(&unified), Some(150_000));
        let older = [
            MACHINE,
            ("proc/self/cgroup", "3:cpu,memory:/x\n1:name=systemd:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "5\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "1500\n"),
            ("sys/fs/cgroup/memory/x/memory.stat", "total_inactive_file 100\n"),
        ];
        assert_eq!(machine(&older), Some(600));
    }
}
