//! What nothing refers to any more is found and removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::support::Server;

/// What a directory of the data directory holds, aged by two hours.
fn aged(s: &Server, directory: &str) -> Vec<PathBuf> {
    let then = SystemTime::now() - Duration::from_secs(7200);
    let entries = fs::read_dir(s.data.join(directory)).unwrap();
    let paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    for path in &paths {
        fs::File::open(path).unwrap().set_modified(then).unwrap();
    }
    paths
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn what_is_unused_is_shown_and_then_removed() {
    let s = Server::start();
    s.image("python3");
    s.python("stays", "def handle(context, payload):\n    return 'here'\n", &[]);
    let (kept, kept_tree) = (aged(&s, "archives"), aged(&s, "sources"));
    s.python("goes", "def handle(context, payload):\n    return 'gone'\n", &[]);
    s.run("goes", "1");
    s.dispatch(&["delete", "function", "goes"]).ok();
    let layer = s.data.join("layers/0123456789abcdef");
    fs::create_dir_all(layer.join("site")).unwrap();
    fs::write(layer.join("site/module.py"), vec![b'#'; 3 << 20]).unwrap();

    let young = s.dispatch(&["manage", "gc", "--older-than", "0"]).ok();
    assert_eq!(young, "0 removed, 0 B\n", "what is young may be about to be used");
    for directory in ["archives", "sources", "layers"] {
        aged(&s, directory);
    }
    let shown =
        s.dispatch(&["manage", "gc", "--dry-run", "--older-than", "1", "-o", "json"]).json();
    assert_eq!(shown["dryRun"], true);
    let kinds = shown["items"].as_array().unwrap().iter().map(|item| &item["kind"]);
    assert_eq!(kinds.collect::<Vec<_>>(), ["archive", "source", "layer"], "{shown}");
    assert!(layer.exists(), "nobody asked for more than a look");
    let shown = s.dispatch(&["manage", "gc", "--dry-run", "--older-than", "3"]).ok();
    assert_eq!(shown, "0 would be removed, 0 B\n");
    let removed = s.dispatch(&["manage", "gc", "--older-than", "0"]).ok();
    assert!(removed.contains("3.0 MiB") && removed.contains("3 removed"), "{removed}");
    assert!(!layer.exists());
    assert_eq!(aged(&s, "archives"), kept);
    assert_eq!(aged(&s, "sources"), kept_tree);
    assert_eq!(name(&kept[0]), name(&kept_tree[0]));
    assert_eq!(s.run("stays", "1")["output"], "here");
    let again = s.dispatch(&["manage", "gc", "--older-than", "0"]).ok();
    assert_eq!(again, "0 removed, 0 B\n");
}
