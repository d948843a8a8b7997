#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn vault() -> (TempDir, Vault) {
    let dir = TempDir::new().unwrap();
    let vault = Vault::open(dir.path(), None, false).unwrap();
    (dir, vault)
}

fn key_error(result: Result<Vault, Error>) -> String {
    let error = result.err().unwrap();
    assert!(matches!(error, Error::Key { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn the_key_is_made_once_private_and_found_again() {
    let (dir, vault) = vault();
    let path = dir.path().join(KEY_FILE);
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!((metadata.len(), metadata.mode() & 0o777), (32, 0o600));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    let sealed = vault.seal("o", "n", 1, b"text").unwrap();
    let again = Vault::open(dir.path(), None, true).unwrap();
    assert_eq!(again.open_sealed("o", "n", 1, &sealed).unwrap()[..], *b"text");
    let elsewhere = Vault::open(&dir.path().join("none"), Some(&path), true).unwrap();
    assert_eq!(elsewhere.open_sealed("o", "n", 1, &sealed).unwrap()[..], *b"text");
}

#[test]
fn a_start_that_was_interrupted_does_not_matter() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("master.key.new"), b"half").unwrap();
    Vault::open(dir.path(), None, false).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_key_that_cannot_be_used_is_refused_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(KEY_FILE);
    let open = || Vault::open(dir.path(), None, false);
    let text = key_error(Vault::open(dir.path(), None, true));
    assert!(text.contains("restore it from the backup") && text.contains(KEY_FILE), "{text}");
    assert!(!path.exists(), "no new key hides that the old one is lost");
    let text = key_error(Vault::open(dir.path(), Some(&path), false));
    assert!(text.contains("does not exist"), "{text}");
    for length in [0, 31, 33] {
        std::fs::write(&path, vec![7; length]).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let text = key_error(open());
        assert!(text.contains("not 32 bytes"), "{text}");
    }
    std::fs::write(&path, [7; 32]).unwrap();
    for mode in [0o640, 0o604, 0o610, 0o666] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let text = key_error(open());
        assert!(text.contains(&format!("{mode:04o}")) && text.contains("chmod 600"), "{text}");
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
    open().unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let text = key_error(open());
    assert!(text.contains("not a regular file"), "{text}");
}

#[test]
fn no_two_seals_are_alike_and_none_shows_the_secret() {
    let (_dir, vault) = vault();
    let one = vault.seal("o", "n", 1, b"plain text").unwrap();
    let two = vault.seal("o", "n", 1, b"plain text").unwrap();
    for part in ["wrapped", "data"] {
        assert_ne!(one[part], two[part]);
    }
    let bytes = BASE64.decode(one["data"].as_str().unwrap()).unwrap();
    assert_eq!(bytes.len(), NONCE_LEN + 10 + 16);
    assert!(!bytes.windows(5).any(|window| window == b"plain"));
}

#[test]
fn a_seal_opens_only_where_it_was_made() {
    let (_dir, vault) = vault();
    let sealed = vault.seal("org", "name", 7, b"text").unwrap();
    assert!(vault.open_sealed("org", "name", 7, &sealed).is_ok());
    for (org, name, revision) in [
        ("other", "name", 7),
        ("org", "other", 7),
        ("org", "name", 6),
        ("org", "name", -7),
        // The same letters, divided otherwise.
        ("orgn", "ame", 7),
        ("or", "gname", 7),
        ("", "orgname", 7),
    ] {
        let error = vault.open_sealed(org, name, revision, &sealed).unwrap_err();
        assert!(matches!(error, Error::Tampered { .. }), "{error:?}");
    }
    // Half of one record and half of another, both of the same secret.
    let other = vault.seal("org", "name", 7, b"text").unwrap();
    let mut mixed = sealed.clone();
    mixed["data"] = other["data"].clone();
    let error = vault.open_sealed("org", "name", 7, &mixed).unwrap_err();
    assert!(matches!(error, Error::Tampered { .. }), "{error:?}");
    // The two ciphertexts in each other's place.
    let mut crossed = sealed.clone();
    crossed["data"] = sealed["wrapped"].clone();
    crossed["wrapped"] = sealed["data"].clone();
    let error = vault.open_sealed("org", "name", 7, &crossed).unwrap_err();
    assert!(matches!(error, Error::Tampered { .. }), "{error:?}");
}

#[test]
fn every_changed_byte_is_noticed() {
    let (_dir, vault) = vault();
    let sealed = vault.seal("o", "n", 1, b"text").unwrap();
    for part in ["wrapped", "data"] {
        let bytes = BASE64.decode(sealed[part].as_str().unwrap()).unwrap();
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            let mut record = sealed.clone();
            record[part] = BASE64.encode(changed).into();
            let error = vault.open_sealed("o", "n", 1, &record).unwrap_err();
            assert!(matches!(error, Error::Tampered { .. }), "{part} {place}: {error:?}");
        }
        for length in 0..bytes.len() {
            let mut record = sealed.clone();
            record[part] = BASE64.encode(&bytes[..length]).into();
            let error = vault.open_sealed("o", "n", 1, &record).unwrap_err();
            assert!(matches!(error, Error::Tampered { .. }), "{part} {length}: {error:?}");
        }
    }
}

#[test]
fn another_key_another_format_and_nonsense_are_told_apart() {
    let (_one, vault) = vault();
    let (_two, other) = self::vault();
    let sealed = vault.seal("o", "n", 1, b"text").unwrap();
    let error = other.open_sealed("o", "n", 1, &sealed).unwrap_err();
    assert!(
        matches!(&error, Error::WrongKey { sealed, present }
        if *sealed == vault.id && *present == other.id),
        "{error:?}"
    );
    // Claiming to be sealed with the other key does not help.
    let mut record = sealed.clone();
    record["key"] = other.id.clone().into();
    let error = other.open_sealed("o", "n", 1, &record).unwrap_err();
    assert!(matches!(error, Error::Tampered { .. }), "{error:?}");
    let mut newer = sealed.clone();
    newer["version"] = 2.into();
    let mut odd = sealed.clone();
    odd["data"] = "not base64!".into();
    for record in [newer, odd, Value::Null, 7.into(), serde_json::json!({ "version": 1 })] {
        let error = vault.open_sealed("o", "n", 1, &record).unwrap_err();
        assert!(matches!(error, Error::Format(_)), "{record}: {error:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_sealed_is_opened(
        org in ".{0,20}", name in ".{0,20}", revision: i64,
        plaintext in proptest::collection::vec(any::<u8>(), 0..500),
    ) {
        let master = data_key(&[7; KEY_LEN]).unwrap();
        let vault = Vault { master, id: "id".to_owned() };
        let sealed = vault.seal(&org, &name, revision, &plaintext).unwrap();
        let opened = vault.open_sealed(&org, &name, revision, &sealed).unwrap();
        prop_assert_eq!(&opened[..], &plaintext[..]);
    }

    #[test]
    fn any_record_is_answered_without_a_panic(wrapped in ".{0,80}", data in ".{0,80}") {
        let master = data_key(&[7; KEY_LEN]).unwrap();
        let vault = Vault { master, id: "id".to_owned() };
        let record = serde_json::json!(
            { "version": 1, "key": "id", "wrapped": wrapped, "data": data });
        prop_assert!(vault.open_sealed("o", "n", 1, &record).is_err());
    }
}
