#![allow(clippy::unwrap_used)]
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;

enum Item<'a> {
    Dir(&'a str),
    File(&'a str, &'a str),
    Mode(&'a str, u32),
    Soft(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Device(&'a str),
}
use Item::{Device, Dir, File as Text, Hard, Mode, Soft};

/// Headers as nobody checks them.
fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for item in items {
        let (kind, name, link, text, mode) = match item {
            Dir(name) => (EntryType::Directory, name, "", "", 0o755),
            Text(name, text) => (EntryType::Regular, name, "", *text, 0o640),
            Mode(name, mode) => (EntryType::Regular, name, "", "x", *mode),
            Soft(name, to) => (EntryType::Symlink, name, *to, "", 0o777),
            Hard(name, to) => (EntryType::Link, name, *to, "", 0o777),
            Device(name) => (EntryType::Char, name, "", "", 0o666),
        };
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(text.len() as u64);
        header.set_mtime(1_000_000);
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("root")).unwrap();
        fs::write(directory.path().join("outside"), "untouched").unwrap();
        Place { directory }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn bytes(&self, bytes: &[u8]) -> Result<Digest> {
        let file = self.directory.path().join("layer");
        fs::write(&file, bytes).unwrap();
        extract(&file, &self.root(), &mut Budget { bytes: 1 << 20, entries: 1000 })
    }

    fn apply(&self, items: &[Item<'_>]) -> Result<()> {
        self.bytes(&layer(items)).map(drop)
    }

    fn refused(&self, items: &[Item<'_>]) -> String {
        let error = self.apply(items).unwrap_err().to_string();
        self.nothing_happened_outside();
        error
    }

    fn nothing_happened_outside(&self) {
        let outside = self.directory.path().join("outside");
        assert_eq!(fs::read_to_string(outside).unwrap(), "untouched");
        let names = fs::read_dir(self.directory.path()).unwrap().count();
        assert_eq!(names, 3, "root, outside, layer");
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.root().join(path)).is_ok()
    }
}

#[test]
fn layers_add_change_and_remove() {
    let place = Place::new();
    place
        .apply(&[
            Dir("./"),
            Dir("./usr/lib"),
            Text("usr/lib/a", "1"),
            Text("usr/lib/gone", "1"),
            Soft("lib", "usr/lib"),
            Dir("opaque/deep"),
            Text("opaque/old", "1"),
            Text("opaque/deep/old", "1"),
            Text("was-file", "1"),
            Dir("was-dir"),
            Text("was-dir/x", "1"),
            Device("dev/null"),
            Device("pipe"),
        ])
        .unwrap();
    place
        .apply(&[
            Text("lib/a", "2"),
            Text("lib/.wh.gone", ""),
            Text(".wh.never-there", ""),
            Text("opaque/new", "2"),
            Text("opaque/.wh..wh..opq", ""),
            Dir("was-file"),
            Text("was-file/inside", "2"),
            Text("was-dir", "2"),
            Hard("second-name", "lib/a"),
        ])
        .unwrap();
    assert_eq!(place.text("usr/lib/a"), "2", "through the link");
    assert!(fs::symlink_metadata(place.root().join("lib")).unwrap().is_symlink());
    assert!(!place.has("usr/lib/gone") && !place.has("usr/lib/.wh.gone"));
    assert_eq!(place.text("opaque/new"), "2", "what the layer itself brought");
    assert!(!place.has("opaque/old") && !place.has("opaque/deep"));
    assert_eq!((place.text("was-file/inside"), place.text("was-dir")), ("2".into(), "2".into()));
    assert_eq!(place.text("second-name"), "2");
    assert!(!place.has("dev") && !place.has("pipe"), "no devices");
}

#[test]
fn compressed_layers_are_recognised() {
    let plain = layer(&[Text("file", "text")]);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd =
        ruzstd::encoding::compress_to_vec(&plain[..], ruzstd::encoding::CompressionLevel::Fastest);
    for bytes in [&plain, &gzip, &zstd] {
        let place = Place::new();
        assert_eq!(place.bytes(bytes).unwrap(), Digest::of(&plain));
        assert_eq!(place.text("file"), "text");
    }
    assert!(Place::new().bytes(&gzip[..gzip.len() - 20]).is_err(), "it is cut off");
}

#[test]
fn permissions_are_for_one_user_and_nobody_becomes_another() {
    let place = Place::new();
    place.apply(&[Mode("tool", 0o4711), Mode("secret", 0o600), Mode("group", 0o2070)]).unwrap();
    let mode =
        |name: &str| fs::metadata(place.root().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("tool"), mode("secret"), mode("group")), (0o755, 0o644, 0o555));
    assert_eq!(fs::metadata(place.root().join("tool")).unwrap().mtime(), 1_000_000);
}

#[test]
fn nothing_leaves_the_tree() {
    let cases: [&[Item<'_>]; 7] = [
        &[Text("../outside", "x")],
        &[Text("a/../../outside", "x")],
        &[Text("../.wh.outside", "")],
        &[Dir("a"), Text("a/.wh...", "")],
        &[Text("a/.wh..", "")],
        &[Hard("mine", "../outside")],
        &[Hard("mine", "not-there")],
    ];
    for items in cases {
        let why = Place::new().refused(items);
        assert!(why.contains("is refused because of its entry"), "{why}");
    }
}

#[test]
fn links_lead_nowhere_but_into_the_tree() {
    let place = Place::new();
    let outside = place.directory.path().join("outside");
    let outside = outside.to_str().unwrap();
    place
        .apply(&[
            Soft("up", "../../../../.."),
            Soft("etc", "/elsewhere"),
            Soft("file", outside),
            Text("up/landed", "1"),
            Text("etc/passwd", "1"),
            // In the place of the link, not through it.
            Text("file", "1"),
            Soft("again", outside),
            Text(".wh.again", ""),
        ])
        .unwrap();
    place.nothing_happened_outside();
    assert_eq!(place.text("landed"), "1");
    assert!(fs::symlink_metadata(place.root().join("etc")).unwrap().is_dir(), "it led to nothing");
    assert_eq!(place.text("etc/passwd"), "1");
    assert!(fs::symlink_metadata(place.root().join("file")).unwrap().is_file());
    let looped = Place::new();
    assert!(looped.refused(&[Soft("a", "b"), Soft("b", "a"), Text("a/x", "")]).contains("refused"));
}

#[test]
fn a_hard_link_to_a_link_does_not_open_what_it_leads_to() {
    let place = Place::new();
    place.apply(&[Soft("soft", "/outside"), Hard("hard", "soft"), Text("hard", "x")]).unwrap();
    place.nothing_happened_outside();
    assert_eq!(place.text("hard"), "x");
}

#[test]
fn changing_a_file_leaves_other_trees_with_the_same_file_alone() {
    let place = Place::new();
    place.apply(&[Text("file", "1"), Soft("link", "file"), Dir("d"), Text("d/x", "1")]).unwrap();
    let other = place.directory.path().join("root2");
    crate::tree::link_tree(&place.root(), &other).unwrap();
    fs::rename(place.root(), place.directory.path().join("first")).unwrap();
    fs::rename(&other, place.root()).unwrap();
    place.apply(&[Text("file", "2"), Text("d/.wh.x", "")]).unwrap();
    let first = place.directory.path().join("first");
    assert_eq!(fs::read_to_string(first.join("file")).unwrap(), "1");
    assert_eq!(fs::read_to_string(first.join("d/x")).unwrap(), "1");
    assert_eq!(place.text("link"), "2");
}

#[test]
fn there_is_an_end_to_everything() {
    let place = Place::new();
    let large = "x".repeat((1 << 20) + 1);
    assert!(place.refused(&[Text("large", &large)]).contains("more bytes than allowed"));
    let names: Vec<String> = (0..1001).map(|n| format!("f{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| Text(name, "")).collect();
    assert!(Place::new().refused(&many).contains("too many entries"));
    // A gigabyte of nothing in a megabyte.
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    let mut header = Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(1 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    bomb.write_all(header.as_bytes()).unwrap();
    for _ in 0..1024 {
        bomb.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let place = Place::new();
    assert!(place.bytes(&bomb.finish().unwrap()).is_err());
    assert!(fs::metadata(place.root().join("zeros")).unwrap().len() <= (1 << 20) + 1);
}

#[test]
fn a_layer_must_be_what_its_configuration_says() {
    let place = Place::new();
    let file = place.directory.path().join("layer");
    let bytes = layer(&[Text("file", "text")]);
    fs::write(&file, &bytes).unwrap();
    let mut budget = Budget { bytes: 1 << 20, entries: 10 };
    assert!(apply(&file, &Digest::of(b"other"), &place.root(), &mut budget).is_err());
    assert!(apply(&file, &Digest::of(&bytes), &place.root(), &mut budget).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn strange_names_stay_inside(
        names in prop::collection::vec("(\\.{1,2}|a|b|\\.wh\\.|/){1,6}", 1..8),
        targets in prop::collection::vec("(\\.{1,2}|a|b|/){1,6}", 8),
        kinds in prop::collection::vec(0..4, 8),
    ) {
        let place = Place::new();
        let items: Vec<_> = names.iter().zip(&targets).zip(&kinds).map(|((name, target), kind)| {
            match kind {
                0 => Text(name, "x"),
                1 => Soft(name, target),
                2 => Hard(name, target),
                _ => Dir(name),
            }
        }).collect();
        let _ = place.apply(&items);
        place.nothing_happened_outside();
    }

    #[test]
    fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = Place::new().bytes(&bytes);
    }
}
