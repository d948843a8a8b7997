//! Images that come as files.

use std::path::Path;

use dispatch_oci::{Digest, Images, Limits};
use serde_json::json;

use crate::support::{Made, images, pull, tar, text};

/// Gives an archive of `directory` to the images; the name of it.
fn give(images: &Images, directory: &Path) -> String {
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", directory).unwrap();
    let bytes = builder.into_inner().unwrap();
    let digest = Digest::of(&bytes);
    std::fs::write(images.archive(&digest), bytes).unwrap();
    format!("oci:{digest}")
}

fn made() -> Made {
    Made::new(&[tar(&[("a", "1")]), tar(&[("b", "2")])])
}

#[tokio::test]
async fn a_layout_is_read() {
    let (place, layout) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let images = images(place.path(), &[], Limits::default());
    made().layout(layout.path());
    let image = pull(&images, &give(&images, layout.path())).await.unwrap();
    assert_eq!((text(&image, "a"), text(&image, "b")), ("1".into(), "2".into()));
    assert_eq!(std::fs::read_dir(place.path().join("blobs")).unwrap().count(), 0);
    let error = pull(&images, &format!("oci:{}", Digest::of(b"other"))).await.unwrap_err();
    assert!(error.contains("give the server its file again"), "{error}");
}

#[tokio::test]
async fn what_docker_save_wrote_is_read() {
    let (place, saved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let images = images(place.path(), &[], Limits::default());
    let made = made();
    std::fs::write(saved.path().join("config.json"), made.config.to_string()).unwrap();
    for (index, files) in [tar(&[("a", "1")]), tar(&[("b", "2")])].iter().enumerate() {
        let directory = saved.path().join(format!("layer{index}"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("layer.tar"), files).unwrap();
    }
    // Layers that occur twice are links in such archives.
    std::os::unix::fs::symlink("../layer1/layer.tar", saved.path().join("layer0/again.tar"))
        .unwrap();
    let manifest = json!([{"Config": "config.json", "RepoTags": ["x:1"],
        "Layers": ["layer0/layer.tar", "layer0/again.tar"]}]);
    std::fs::write(saved.path().join("manifest.json"), manifest.to_string()).unwrap();
    let image = pull(&images, &give(&images, saved.path())).await.unwrap();
    assert_eq!((text(&image, "a"), text(&image, "b")), ("1".into(), "2".into()));
}

#[tokio::test]
async fn an_archive_that_reaches_for_other_files_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let images = images(place.path(), &[], Limits::default());
    for (what, layer) in [("the host's", "/etc/passwd"), ("through a link", "link/passwd")] {
        let saved = tempfile::tempdir().unwrap();
        std::fs::write(saved.path().join("config.json"), made().config.to_string()).unwrap();
        std::os::unix::fs::symlink("/etc", saved.path().join("link")).unwrap();
        let manifest = json!([{"Config": "config.json", "Layers": [layer, "../../etc/passwd"]}]);
        std::fs::write(saved.path().join("manifest.json"), manifest.to_string()).unwrap();
        let error = pull(&images, &give(&images, saved.path())).await.unwrap_err();
        assert!(error.contains("No such file"), "{what}: {error}");
    }
    let nothing = tempfile::tempdir().unwrap();
    let error = pull(&images, &give(&images, nothing.path())).await.unwrap_err();
    assert!(error.contains("it holds no image"), "{error}");
}

#[tokio::test]
async fn a_damaged_layout_is_refused() {
    let (place, layout) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let images = images(place.path(), &[], Limits::default());
    let made = made();
    made.layout(layout.path());
    let layer = made.layers[0].trim_start_matches("sha256:");
    std::fs::write(layout.path().join("blobs/sha256").join(layer), tar(&[("a", "other")])).unwrap();
    let error = pull(&images, &give(&images, layout.path())).await.unwrap_err();
    assert!(error.contains("not what its configuration says"), "{error}");
    assert!(images.all().is_empty());
}
