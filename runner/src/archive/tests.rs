#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outside"), "untouched").unwrap();
        Place { dir }
    }

    fn unpack(&self, archive: &[u8]) -> Result<Stats, ArchiveError> {
        self.unpack_within(archive, &Limits::default())
    }

    fn unpack_within(&self, archive: &[u8], limits: &Limits) -> Result<Stats, ArchiveError> {
        let path = self.dir.path().join("archive");
        std::fs::write(&path, archive).unwrap();
        let result = unpack_file(&path, &self.dest(), limits);
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["archive", "dest", "outside"], "nothing beside the destination");
        let outside = std::fs::read_to_string(self.dir.path().join("outside")).unwrap();
        assert_eq!(outside, "untouched");
        result
    }

    fn dest(&self) -> PathBuf {
        self.dir.path().join("dest")
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.dest().join(name)).unwrap()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// One raw entry: the names are written as they are, without the checks of a well-meaning writer.
fn entry(name: &str, kind: tar::EntryType, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, content: &str) -> Vec<u8> {
    entry(name, tar::EntryType::Regular, "", content.as_bytes())
}

fn link(name: &str, target: &str) -> Vec<u8> {
    entry(name, tar::EntryType::Symlink, target, b"")
}

#[test]
fn an_archive_that_was_never_finished_is_read() {
    let place = Place::new();
    let mut tar =
        [entry("./dir/", tar::EntryType::Directory, "", b""), file(".//hello.py", "print(1)")]
            .concat();
    tar.truncate(tar.len() - 500);
    assert_eq!(place.unpack(&gzip(&tar)).unwrap(), Stats { files: 1, bytes: 8 });
    assert_eq!(place.text("hello.py"), "print(1)");
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(place.dest().join("hello.py")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755, "executable stays, setuid does not");
}

#[test]
fn links_that_stay_inside_are_kept() {
    let place = Place::new();
    let tar = [
        file("a/b/f", "text"),
        link("a/l", "b/f"),
        link("a/b/up", "../../a/b/f"),
        entry("a/hard", tar::EntryType::Link, "a/b/f", b""),
    ]
    .concat();
    place.unpack(&gzip(&tar)).unwrap();
    for name in ["a/l", "a/b/up", "a/hard"] {
        assert_eq!(place.text(name), "text", "{name}");
    }
}

#[test]
fn every_way_out_is_refused_by_name() {
    let dir = |name| entry(name, tar::EntryType::Directory, "", b"");
    let attacks: Vec<(&str, Vec<u8>)> = vec![
        ("absolute", file("/etc/x", "x")),
        ("parent", file("../x", "x")),
        ("deep parent", file("a/../../x", "x")),
        ("parent directory", dir("../x/")),
        ("absolute link", link("l", "/etc/passwd")),
        ("link out", link("l", "../outside")),
        ("deep link out", [dir("a/"), link("a/l", "../../outside")].concat()),
        ("down and up", [dir("a/"), link("a/l", "../x"), link("m", "a/l/../../y")].concat()),
        ("through a link", [dir("a/"), link("l", "a"), file("l/x", "x")].concat()),
        ("over a link", [link("l", "x"), file("l", "x")].concat()),
        ("hard link out", entry("h", tar::EntryType::Link, "../outside", b"")),
        (
            "hard link to a link",
            [link("l", "x"), entry("h", tar::EntryType::Link, "l", b"")].concat(),
        ),
        ("hard link to nothing", entry("h", tar::EntryType::Link, "/etc/passwd", b"")),
        ("device", entry("d", tar::EntryType::Char, "", b"")),
        ("block device", entry("d", tar::EntryType::Block, "", b"")),
        ("fifo", entry("f", tar::EntryType::Fifo, "", b"")),
        ("twice", [file("x", "1"), file("x", "2")].concat()),
        ("twice by another spelling", [file("x", "1"), file("./x", "2")].concat()),
        ("below a file", [file("x", "1"), file("x/y", "2")].concat()),
        ("newline", file("a\nb", "x")),
        ("backslash", file("..\\x", "x")),
        ("no name", file("./", "x")),
    ];
    for (what, tar) in attacks {
        let place = Place::new();
        let error = place.unpack(&gzip(&tar)).expect_err(what);
        assert!(matches!(error, ArchiveError::Entry { .. }), "{what}: {error}");
    }
    let place = Place::new();
    let mut invalid = file("x\u{e9}", "x");
    invalid[2] = b'y';
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&invalid[..512]);
    header.set_cksum();
    invalid[..512].copy_from_slice(header.as_bytes());
    assert!(place.unpack(&gzip(&invalid)).unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn bombs_meet_their_limits() {
    let limits = Limits { total_bytes: 1 << 20, entries: 100, depth: 8, ..Limits::default() };
    let place = Place::new();
    let bomb = gzip(&file("zeros", &"\0".repeat(64 << 20)));
    let error = place.unpack_within(&bomb, &limits).unwrap_err();
    assert!(error.to_string().contains("1048576 bytes"), "{error}");
    let place = Place::new();
    let many: Vec<u8> = (0..200).flat_map(|n| file(&n.to_string(), "")).collect();
    let error = place.unpack_within(&gzip(&many), &limits).unwrap_err();
    assert!(error.to_string().contains("100 entries"), "{error}");
    let place = Place::new();
    let deep = format!("{}x", "a/".repeat(9));
    let error = place.unpack_within(&gzip(&file(&deep, "")), &limits).unwrap_err();
    assert!(error.to_string().contains("8 directories deep"), "{error}");
}

#[test]
fn what_is_damaged_or_something_else_says_so() {
    let whole = gzip(&file("x", &"text".repeat(1000)));
    for (bytes, word) in [
        (b"hello".to_vec(), "neither"),
        (Vec::new(), "neither"),
        (whole[..whole.len() - 4].to_vec(), "damaged"),
        (gzip(b"not a tar at all, but long enough to be looked at"), "damaged"),
        (b"PK\x03\x04broken".to_vec(), "damaged"),
    ] {
        let place = Place::new();
        let error = place.unpack(&bytes).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn zip_archives_follow_the_same_rules() {
    use zip::write::{SimpleFileOptions, ZipWriter};
    let zip = |names: &[&str]| {
        let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for name in names {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(b"text").unwrap();
        }
        zip.finish().unwrap().into_inner()
    };
    let place = Place::new();
    assert_eq!(place.unpack(&zip(&["a/hello.py", "b"])).unwrap(), Stats { files: 2, bytes: 8 });
    assert_eq!(place.text("a/hello.py"), "text");
    for name in ["../x", "/x", "a/../../x"] {
        let place = Place::new();
        assert!(place.unpack(&zip(&[name])).is_err(), "{name}");
    }
    let mut links = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    links.add_symlink("l", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    let place = Place::new();
    assert!(place.unpack(&links.finish().unwrap().into_inner()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the bytes are, nothing appears outside the destination.
    #[test]
    fn strange_bytes_stay_inside(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = Place::new().unpack(&gzip(&bytes));
        let _ = Place::new().unpack(&bytes);
    }

    /// The same for entries with names and targets that try to get out.
    #[test]
    fn strange_names_stay_inside(
        entries in proptest::collection::vec(("[a./]{1,12}", "[a./]{1,12}", 0..3u8), 1..8)
    ) {
        let tar: Vec<u8> = entries.iter().flat_map(|(name, target, kind)| match kind {
            0 => file(name, "x"),
            1 => link(name, target),
            _ => entry(name, tar::EntryType::Link, target, b""),
        }).collect();
        let _ = Place::new().unpack(&gzip(&tar));
    }
}
