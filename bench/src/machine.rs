//! What the figures were measured on.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

/// The machine, as far as it matters.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    file_system: String,
    /// Processes that wanted a core in the minute before: figures of a busy machine say little.
    load: String,
    /// Times a second that 4 KiB can be appended to a file and synced, one after the other.
    pub syncs_per_second: f64,
}

impl Machine {
    /// Looks at this machine, and at the disk under `data`.
    ///
    /// # Errors
    /// Nothing can be written there.
    pub fn look(data: &Path) -> anyhow::Result<Machine> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned());
        Ok(Machine {
            processor,
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&read("/proc/mounts"), &data.canonicalize()?),
            load: read("/proc/loadavg").split(' ').next().unwrap_or("?").to_owned(),
            syncs_per_second: syncs(data)?,
        })
    }

    /// One line.
    pub fn line(&self) -> String {
        format!(
            "{}, {} cores, Linux {}, {} ({:.0} syncs/s), load before {}",
            self.processor,
            self.cores,
            self.kernel,
            self.file_system,
            self.syncs_per_second,
            self.load
        )
    }
}

/// The type of the file system that holds `path`, from the table of mounts.
fn file_system(mounts: &str, path: &Path) -> String {
    let mut best = ("", "?");
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(mount), Some(kind)) = (words.next(), words.next()) else { continue };
        if path.starts_with(mount) && mount.len() >= best.0.len() {
            best = (mount, kind);
        }
    }
    best.1.to_owned()
}

fn syncs(data: &Path) -> anyhow::Result<f64> {
    let mut file = tempfile::tempfile_in(data)?;
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_millis(500) {
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_holds_a_path() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\nx /tmporary xfs rw 0 0\n";
        for (path, kind) in [("/tmp/x", "tmpfs"), ("/var", "ext4"), ("/tmporary", "xfs")] {
            assert_eq!(file_system(mounts, Path::new(path)), kind, "{path}");
        }
        assert_eq!(file_system("", Path::new("/")), "?");
    }
}
