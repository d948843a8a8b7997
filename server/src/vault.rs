//! The vault: secrets at rest. Every seal encrypts with a fresh data key, which is encrypted with the
//! master key. Both are bound to the organization, the name and the revision of the secret, so that
//! a record that is moved, swapped or put back does not open.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

/// The master key's file in the data directory.
pub const KEY_FILE: &str = "master.key";
/// Bytes of a key.
const KEY_LEN: usize = 32;
/// The format of sealed records.
const VERSION: u32 = 1;

/// What can go wrong in the vault. The texts are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The master key's file cannot be used.
    #[error("the master key {}: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// The record is not one of this vault.
    #[error("the sealed secret cannot be read: {0}")]
    Format(String),
    /// The record was sealed with another master key.
    #[error(
        "the secret is sealed with the master key {sealed}, but this server has {present}: restore \
         the key that belongs to the database, or set the secret again"
    )]
    WrongKey {
        /// The id of the key the secret needs.
        sealed: String,
        /// The id of this vault's key.
        present: String,
    },
    /// The record was changed, or belongs to another secret or another revision of it.
    #[error(
        "the sealed secret was changed or moved: it does not belong to revision {revision} of \
         secret {name} of organization {org}; restore the database, or set the secret again"
    )]
    Tampered {
        /// The organization it was opened for.
        org: String,
        /// The name it was opened for.
        name: String,
        /// The revision it was opened for.
        revision: i64,
    },
    /// The system gives no randomness, or encryption failed.
    #[error("a secret cannot be sealed: the cryptography of this system failed")]
    Crypto,
}

/// Seals and opens secrets with the master key.
pub struct Vault {
    master: LessSafeKey,
    id: String,
}

/// A sealed record. All binary members are base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    version: u32,
    /// The id of the master key.
    key: String,
    /// The data key, encrypted with the master key.
    wrapped: String,
    /// The plaintext, encrypted with the data key.
    data: String,
}

impl Vault {
    /// Reads the master key, from `key_file` or from the data directory `dir`. In the data directory
    /// it is made where there is none, unless `secrets_exist`: they would be lost without notice.
    ///
    /// # Errors
    /// [`Error::Key`] when the file is missing, unreadable, of the wrong size or open to others.
    pub fn open(dir: &Path, key_file: Option<&Path>, secrets_exist: bool) -> Result<Vault, Error> {
        let path = key_file.map_or_else(|| dir.join(KEY_FILE), Path::to_owned);
        let failed = |problem| Error::Key { path: path.clone(), problem };
        let key = match read_key(&path) {
            Ok(key) => key,
            Err(Unreadable::Missing) if key_file.is_some() => {
                return Err(failed(format!(
                    "the file does not exist: put the key there ({KEY_LEN} random bytes, mode 0600)"
                )));
            }
            Err(Unreadable::Missing) if secrets_exist => {
                return Err(failed(
                    "the file does not exist, but there are secrets that need it: restore it from \
                     the backup"
                        .to_owned(),
                ));
            }
            Err(Unreadable::Missing) => make_key(&path)
                .map_err(|error| failed(format!("the file cannot be made: {error}")))?,
            Err(Unreadable::Problem(problem)) => return Err(failed(problem)),
        };
        let master = data_key(&key)?;
        // Says which key it is without saying anything about it.
        let mut named = b"dispatch master key id ".to_vec();
        named.extend_from_slice(&key[..]);
        let named = Zeroizing::new(named);
        let digest = digest::digest(&digest::SHA256, &named);
        let id = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Vault { master, id })
    }

    /// Encrypts a secret for one revision of one name in one organization.
    ///
    /// # Errors
    /// [`Error::Crypto`] when the system gives no randomness.
    pub fn seal(
        &self,
        org: &str,
        name: &str,
        revision: i64,
        plaintext: &[u8],
    ) -> Result<Value, Error> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        rand::fill(&mut key[..]).map_err(|_| Error::Crypto)?;
        let wrapped = encrypt(&self.master, &bound(WRAP, &self.id, org, name, revision), &key[..])?;
        let aad = bound(DATA, &self.id, org, name, revision);
        let data = encrypt(&data_key(&key)?, &aad, plaintext)?;
        let sealed = Sealed { version: VERSION, key: self.id.clone(), wrapped, data };
        serde_json::to_value(sealed).map_err(|_| Error::Crypto)
    }

    /// Decrypts what [`Vault::seal`] made for the same revision, name and organization. The plaintext
    /// is wiped from memory when it is dropped.
    ///
    /// # Errors
    /// [`Error::Format`], [`Error::WrongKey`] or [`Error::Tampered`].
    pub fn open_sealed(
        &self,
        org: &str,
        name: &str,
        revision: i64,
        sealed: &Value,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let sealed =
            Sealed::deserialize(sealed).map_err(|error| Error::Format(error.to_string()))?;
        if sealed.version != VERSION {
            return Err(Error::Format(format!(
                "it has format {}, but this program knows only {VERSION}: start the release that \
                 wrote it",
                sealed.version
            )));
        }
        if sealed.key != self.id {
            return Err(Error::WrongKey { sealed: sealed.key, present: self.id.clone() });
        }
        let tampered = || Error::Tampered { org: org.to_owned(), name: name.to_owned(), revision };
        let aad = bound(WRAP, &self.id, org, name, revision);
        let key = decrypt(&self.master, &aad, &sealed.wrapped)?.ok_or_else(tampered)?;
        let key: &[u8; KEY_LEN] = key[..].try_into().map_err(|_| tampered())?;
        let aad = bound(DATA, &self.id, org, name, revision);
        decrypt(&data_key(key)?, &aad, &sealed.data)?.ok_or_else(tampered)
    }
}

const WRAP: &str = "dispatch secret key";
const DATA: &str = "dispatch secret data";

/// What a ciphertext is bound to. Every part has its length in front, so that no two lists of parts
/// make the same bytes.
fn bound(purpose: &str, key: &str, org: &str, name: &str, revision: i64) -> Vec<u8> {
    let mut bytes = VERSION.to_be_bytes().to_vec();
    for part in [purpose, key, org, name] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes.extend_from_slice(&revision.to_be_bytes());
    bytes
}

fn data_key(key: &[u8; KEY_LEN]) -> Result<LessSafeKey, Error> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| Error::Crypto)
}

/// Nonce, ciphertext and tag, in base64.
fn encrypt(key: &LessSafeKey, aad: &[u8], plaintext: &[u8]) -> Result<String, Error> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(|_| Error::Crypto)?;
    let mut text = plaintext.to_vec();
    let tag = key.seal_in_place_separate_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(aad),
        &mut text,
    );
    let tag = tag.map_err(|_| Error::Crypto)?;
    Ok(BASE64.encode([&nonce[..], &text, tag.as_ref()].concat()))
}

/// None when it was not encrypted with this key for this purpose.
fn decrypt(
    key: &LessSafeKey,
    aad: &[u8],
    sealed: &str,
) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let bytes = BASE64.decode(sealed).map_err(|error| Error::Format(error.to_string()))?;
    let Some((nonce, text)) = bytes.split_first_chunk::<NONCE_LEN>() else { return Ok(None) };
    let mut text = Zeroizing::new(text.to_vec());
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let Ok(length) = key.open_in_place(nonce, Aad::from(aad), &mut text).map(|text| text.len())
    else {
        return Ok(None);
    };
    text.truncate(length);
    Ok(Some(text))
}

enum Unreadable {
    Missing,
    Problem(String),
}

fn read_key(path: &Path) -> Result<Zeroizing<[u8; KEY_LEN]>, Unreadable> {
    let problem = |text: &str| Unreadable::Problem(text.to_owned());
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Unreadable::Missing,
        _ => Unreadable::Problem(format!("the file cannot be read: {error}")),
    };
    // Asked before it is opened: opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(problem("it is not a regular file: put a file with the key there"));
    }
    let mut file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        let text = format!(
            "its mode is {:04o}, so that other users of this machine can use it: run chmod 600",
            mode & 0o7777
        );
        return Err(Unreadable::Problem(text));
    }
    let mut key = Zeroizing::new([0; KEY_LEN]);
    let exact = file.read_exact(&mut key[..]);
    if exact.is_err() || file.read(&mut [0]).map_err(failed)? != 0 {
        let text = format!("it is not {KEY_LEN} bytes long: restore it from the backup");
        return Err(Unreadable::Problem(text));
    }
    Ok(key)
}

/// Makes a key that is completely on disk before it has its name: half a key would lock out for good.
fn make_key(path: &Path) -> std::io::Result<Zeroizing<[u8; KEY_LEN]>> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    rand::fill(&mut key[..]).map_err(|_| std::io::Error::other("no randomness"))?;
    let unfinished = path.with_extension("key.new");
    // Of a start that was interrupted.
    if let Err(error) = std::fs::remove_file(&unfinished)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(&key[..])?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests;
