//! Pulling.

use std::path::PathBuf;
use std::sync::Mutex;

use dispatch_oci::{Credentials, Limits, Registries};

use crate::support::{Habits, Made, Registry, images, pull, tar, text};

fn made() -> Made {
    let many: String = (0..20_000).map(|n: u32| format!("{n} ")).collect();
    let second = [("app/main", "second"), ("app/.wh.gone", ""), ("numbers", many.as_str())];
    Made::new(&[
        tar(&[("app/main", "first"), ("app/gone", ""), ("etc/passwd", "root:x:0:0::/:/bin/sh")]),
        tar(&second),
    ])
}

#[tokio::test]
async fn an_image_is_pulled_checked_and_unpacked_once() {
    let registry = Registry::start(made(), Habits::default()).await;
    let place = tempfile::tempdir().unwrap();
    let images = images(place.path(), &[&registry.host], Limits::default());
    let name = format!("{}/team/image:1", registry.host);
    let said = Mutex::new(Vec::new());
    let log = |line: &str| said.lock().unwrap().push(line.to_owned());
    let image = images.pull(&name.parse().unwrap(), None, &log).await.unwrap();
    assert_eq!(text(&image, "app/main"), "second");
    assert!(!image.root.join("app/gone").exists());
    assert_eq!(
        (image.config.env.as_slice(), image.config.cmd.as_slice()),
        (&["A=b".to_owned()][..], &["run".to_owned()][..])
    );
    assert_eq!(
        text(&image, "etc/passwd"),
        "root:x:0:0::/:/bin/sh\nfunction:x:1000:1000::/tmp:/bin/false\n"
    );
    assert_eq!(text(&image, "etc/resolv.conf"), "nameserver 10.0.2.3\n");
    assert!(said.lock().unwrap().iter().any(|line| line.starts_with("layer 2 of 2")), "{said:?}");
    assert_eq!(std::fs::read_dir(place.path().join("blobs")).unwrap().count(), 0);
    let before = registry.seen().len();
    let again = pull(&images, &name).await.unwrap();
    assert_eq!((&again.id, &again.root), (&image.id, &image.root));
    let asked = registry.seen().split_off(before);
    assert!(!asked.iter().any(|path| made().layers.iter().any(|layer| path.contains(layer))));
    let by_digest = format!("{}/team/image@{}", registry.host, image.manifest);
    assert_eq!(pull(&images, &by_digest).await.unwrap().id, image.id);
    assert_eq!(images.all().len(), 1);
    images.remove(&image).unwrap();
    assert!(images.all().is_empty());
    assert_eq!(std::fs::read_dir(place.path().join("trees")).unwrap().count(), 0);
}

#[tokio::test]
async fn images_share_the_files_of_their_layers() {
    use std::os::unix::fs::MetadataExt as _;
    let base = tar(&[("base", "1"), ("changed", "1")]);
    let (one, two) = (
        Made::new(&[base.clone(), tar(&[("one", "")])]),
        Made::new(&[base, tar(&[("changed", "2")])]),
    );
    let first = Registry::start(one, Habits::default()).await;
    let second = Registry::start(two, Habits::default()).await;
    let place = tempfile::tempdir().unwrap();
    let images = images(place.path(), &[&first.host, &second.host], Limits::default());
    let one = pull(&images, &format!("{}/team/image:1", first.host)).await.unwrap();
    let two = pull(&images, &format!("{}/team/image:1", second.host)).await.unwrap();
    let inode = |root: &PathBuf| std::fs::metadata(root.join("base")).unwrap().ino();
    assert_eq!(inode(&one.root), inode(&two.root));
    assert_eq!((text(&one, "changed"), text(&two, "changed")), ("1".into(), "2".into()));
    images.remove(&one).unwrap();
    assert_eq!(text(&images.get(&two.id).unwrap(), "base"), "1");
}

#[tokio::test]
async fn what_breaks_off_is_taken_up_where_it_broke() {
    let made = made();
    let large = made.blobs[&made.layers[1]].len();
    let habits = Habits { breaks_after: Some(large / 3), ..Habits::default() };
    let registry = Registry::start(made.clone(), habits).await;
    let place = tempfile::tempdir().unwrap();
    let images = images(place.path(), &[&registry.host], Limits::default());
    let image = pull(&images, &format!("{}/team/image:1", registry.host)).await.unwrap();
    assert!(text(&image, "numbers").ends_with("19999 "));
    let ranges: Vec<String> =
        registry.seen().into_iter().filter(|line| line.contains("bytes=")).collect();
    assert!(ranges.len() >= 2, "{ranges:?}");
}

#[tokio::test]
async fn a_registry_without_ranges_begins_again() {
    let place = tempfile::tempdir().unwrap();
    let made = made();
    let registry =
        Registry::start(made.clone(), Habits { no_ranges: true, ..Habits::default() }).await;
    let images = images(place.path(), &[&registry.host], Limits::default());
    let partial = place.path().join("blobs").join(made.layers[1].trim_start_matches("sha256:"));
    std::fs::write(partial, "something of an earlier attempt").unwrap();
    let image = pull(&images, &format!("{}/team/image:1", registry.host)).await.unwrap();
    assert_eq!(text(&image, "app/main"), "second");
}

#[tokio::test]
async fn other_bytes_than_the_digest_says_are_refused_and_not_kept() {
    let made = made();
    let lie = Habits { lies_about: Some(made.layers[0].clone()), ..Habits::default() };
    let registry = Registry::start(made, lie).await;
    let place = tempfile::tempdir().unwrap();
    let images = images(place.path(), &[&registry.host], Limits::default());
    let error = pull(&images, &format!("{}/team/image:1", registry.host)).await.unwrap_err();
    assert!(error.contains("something else than sha256:"), "{error}");
    assert!(images.all().is_empty());
}

#[tokio::test]
async fn accounts_are_given_to_whom_they_are_for() {
    for token in [false, true] {
        let account = Some(("me:secret".to_owned(), token));
        let registry = Registry::start(made(), Habits { account, ..Habits::default() }).await;
        let place = tempfile::tempdir().unwrap();
        let images = images(place.path(), &[&registry.host], Limits::default());
        let name = format!("{}/team/image:1", registry.host);
        let error = pull(&images, &name).await.unwrap_err();
        assert!(error.contains("anybody without an account"), "{error}");
        let me = |password: &str| Credentials { username: "me".into(), password: password.into() };
        let source = name.parse().unwrap();
        let wrong =
            images.pull(&source, Some(&me("guess")), &|_| {}).await.unwrap_err().to_string();
        assert!(wrong.contains("the user me") && !wrong.contains("guess"), "{wrong}");
        images.pull(&source, Some(&me("secret")), &|_| {}).await.unwrap();
        // The image is here now, and still nobody's who cannot get it from the registry.
        assert!(pull(&images, &name).await.is_err());
    }
}

#[tokio::test]
async fn secrets_do_not_leave_for_places_without_tls() {
    let spy = Registry::start(made(), Habits::default()).await;
    let account = Some(("me:secret".to_owned(), true));
    let realm = Some(format!("http://{}/token", spy.host));
    let registry = Registry::start(made(), Habits { account, realm, ..Habits::default() }).await;
    let place = tempfile::tempdir().unwrap();
    let images_of = images(place.path(), &[&registry.host], Limits::default());
    let source = format!("{}/team/image:1", registry.host).parse().unwrap();
    let me = Credentials { username: "me".into(), password: "secret".into() };
    let error = images_of.pull(&source, Some(&me), &|_| {}).await.unwrap_err().to_string();
    assert!(error.contains("without TLS"), "{error}");
    let redirects_to = Some(format!("http://{}/v2/team/image/x", spy.host));
    let registry = Registry::start(made(), Habits { redirects_to, ..Habits::default() }).await;
    let images_of = images(place.path(), &[&registry.host], Limits::default());
    assert!(pull(&images_of, &format!("{}/team/image:1", registry.host)).await.is_err());
    assert!(spy.seen().is_empty(), "{:?}", spy.seen());
    // Nor is any registry spoken to in the clear that the operator has not named.
    let images_of = images(place.path(), &[], Limits::default());
    let error = pull(&images_of, &format!("{}/team/image:1", spy.host)).await.unwrap_err();
    assert!(error.contains("--insecure-registries") && spy.seen().is_empty(), "{error}");
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_without_the_account() {
    let mirror = Registry::start(made(), Habits::default()).await;
    let place = tempfile::tempdir().unwrap();
    let images = images(place.path(), &[&mirror.host], Limits::default());
    let mirrors = vec![("registry.invalid".to_owned(), mirror.host.clone())];
    let images =
        images.with(Registries { insecure: vec![mirror.host.clone()], mirrors, accounts: None });
    let me = Credentials { username: "me".into(), password: "secret".into() };
    let source = "registry.invalid/team/image:1".parse().unwrap();
    images.pull(&source, Some(&me), &|_| {}).await.unwrap();
    assert!(mirror.seen().iter().all(|line| !line.contains("Basic")));
    let error = pull(&images, "registry.invalid/team/other:1").await.unwrap_err();
    assert!(error.contains("cannot reach registry.invalid"), "then the registry itself: {error}");
}

#[tokio::test]
async fn an_image_that_is_too_large_is_not_even_begun() {
    let registry = Registry::start(made(), Habits::default()).await;
    let place = tempfile::tempdir().unwrap();
    let limits = Limits { bytes: 1000, entries: 100 };
    let images = images(place.path(), &[&registry.host], limits);
    let error = pull(&images, &format!("{}/team/image:1", registry.host)).await.unwrap_err();
    assert!(error.contains("1000 are allowed"), "{error}");
    assert_eq!(registry.seen().len(), 1, "the manifest");
}
