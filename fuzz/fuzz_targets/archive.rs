//! Source archives: whatever the bytes, nothing appears outside of the destination.
#![no_main]

use dispatch_runner::archive::{Limits, unpack_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    let archive = dir.path().join("archive");
    std::fs::write(&archive, data).expect("a file");
    let limits = Limits { total_bytes: 1 << 20, entries: 256, ..Limits::default() };
    let _ = unpack_file(&archive, &dir.path().join("dest"), &limits);
    for entry in std::fs::read_dir(dir.path()).expect("the directory").flatten() {
        let name = entry.file_name();
        assert!(name == "archive" || name == "dest", "{name:?} is outside");
    }
});
