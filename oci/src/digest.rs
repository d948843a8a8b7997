//! Digests, and bytes that are hashed on their way.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

/// A SHA-256, the one algorithm every registry has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Hasher::default().update(bytes).finish()
    }

    /// 64 hexadecimal digits, which are a safe file name.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() == 64 && hex.bytes().all(lower) {
            return Ok(Digest(hex.to_owned()));
        }
        let shown: String = text.chars().take(80).collect();
        Err(format!("{shown:?} is not a digest: sha256: and 64 digits from 0 to f"))
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Digest, String> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.0)
    }
}

/// A digest that grows.
#[derive(Clone)]
pub(crate) struct Hasher(Context);

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher(Context::new(&SHA256))
    }
}

impl Hasher {
    pub fn update(mut self, bytes: &[u8]) -> Hasher {
        self.add(bytes);
        self
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn finish(self) -> Digest {
        let hash = self.0.finish();
        Digest(hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Hashes and counts what is read through it.
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
    most: u64,
}

impl<R: Read> Hashing<R> {
    /// Reading more than `most` bytes is an error.
    pub fn new(inner: R, most: u64) -> Hashing<R> {
        Hashing { inner, hasher: Hasher::default(), bytes: 0, most }
    }

    /// The digest of all there is: what was not read yet is read now.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.hasher.finish(), self.bytes))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        if self.bytes > self.most {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("there are more than {} bytes", self.most),
            ));
        }
        self.hasher.add(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn digests_are_parsed_strictly() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap(), Digest::of(b""));
        for wrong in [
            "",
            "sha256:",
            "sha512:e3",
            &empty[..70],
            &format!("{empty}0"),
            &empty.replace("e3b0", "E3B0"),
            &empty.replace("e3b0", "../a"),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_left_is_hashed_too_and_too_much_is_an_error() {
        let mut reader = Hashing::new(&b"hello"[..], 5);
        reader.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(reader.finish().unwrap(), (Digest::of(b"hello"), 5));
        assert!(Hashing::new(&b"hello"[..], 4).finish().is_err());
    }
}
