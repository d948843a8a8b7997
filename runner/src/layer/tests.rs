#![allow(clippy::unwrap_used)]

use std::sync::Mutex as StdMutex;

use super::*;

async fn store(dir: &Path, limits: LayerLimits) -> LayerStore {
    let launcher = Launcher::start().unwrap();
    let languages = Languages::load(&launcher, &dir.join("languages"), None).await.unwrap();
    LayerStore::new(dir.join("layers"), languages, launcher, limits).unwrap()
}

fn request(language: &str, manifest: &str) -> LayerRequest {
    LayerRequest {
        organization: "acme".to_owned(),
        language: language.to_owned(),
        manifest: manifest.to_owned(),
        secrets: BuildSecrets::default(),
    }
}

#[tokio::test]
async fn python_packages_are_installed_once_for_all_who_want_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), LayerLimits::default()).await;
    let lines = StdMutex::new(Vec::new());
    let log = |line: &str| lines.lock().unwrap().push(line.to_owned());
    let wanted = request("python3", "six==1.16.0\n");
    let (one, two) = tokio::join!(store.build(&wanted, &log), store.build(&wanted, &log));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.reused, two.reused, "one of them built it, the other waited and found it");
    assert_eq!(one.path, two.path);
    assert!(one.path.join("six.py").is_file());
    let text = lines.lock().unwrap().join("\n");
    assert!(text.contains("six"), "{text}");
    let other = store.build(&request("python3", "six==1.15.0\n"), &log).await.unwrap();
    assert_ne!(other.key, one.key);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("layers")).unwrap().collect();
    assert_eq!(left.len(), 2, "nothing half-built is left: {left:?}");
}

#[tokio::test]
async fn node_packages_are_installed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), LayerLimits::default()).await;
    let manifest = r#"{"dependencies":{"is-number":"7.0.0"}}"#;
    let layer = store.build(&request("nodejs", manifest), &|_| {}).await.unwrap();
    assert!(layer.path.join("is-number/package.json").is_file());
}

#[tokio::test]
async fn a_failure_shows_the_installers_own_words_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), LayerLimits::default()).await;
    let wanted = request("python3", "no-such-package-of-dispatch==0\n");
    let Err(BuildError::Rejected(text)) = store.build(&wanted, &|_| {}).await else {
        panic!("it was built");
    };
    assert!(text.contains("no-such-package-of-dispatch"), "{text}");
    assert!(text.len() < 4096);
    assert_eq!(std::fs::read_dir(dir.path().join("layers")).unwrap().count(), 0);
}

#[tokio::test]
async fn time_and_size_have_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let limits = LayerLimits { build_time: Duration::from_millis(50), ..LayerLimits::default() };
    let slow = store(dir.path(), limits).await;
    let wanted = request("python3", "six==1.16.0\n");
    let error = slow.build(&wanted, &|_| {}).await.unwrap_err().to_string();
    assert!(error.contains("took longer"), "{error}");
    let limits = LayerLimits { layer_bytes: 4096, ..LayerLimits::default() };
    let small = store(dir.path(), limits).await;
    let error = small.build(&wanted, &|_| {}).await.unwrap_err();
    assert!(matches!(error, BuildError::Rejected(_)), "{error}");
}

#[test]
fn links_out_of_a_layer_are_refused() {
    for (target, fine) in [
        ("../b", true),
        ("b/../c", true),
        ("/usr/bin/env", true),
        ("/etc/passwd", false),
        ("../../x", false),
        ("/root", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("layer");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::os::unix::fs::symlink(target, root.join("a/link")).unwrap();
        let settled = settle::settle(&root, DEPENDENCIES, &LayerLimits::default());
        assert_eq!(settled.is_ok(), fine, "{target}");
    }
}
