//! Words that must reach neither a log nor what is built.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use memchr::memmem;

/// Shorter ones are words like others.
const SHORTEST: usize = 4;
/// Bytes of a file looked at at a time.
const PIECE: usize = 1 << 20;
/// What stands before a password in the files of installers.
const BEFORE: [&str; 5] = ["password", "_authToken", "_auth", "_password", "token"];

/// Passwords, and what else is like them.
#[derive(Clone, Default)]
pub(crate) struct Hidden(Vec<String>);

impl Hidden {
    /// The passwords in a variable's or a file's text.
    pub fn add(&mut self, name: &str, text: &str) {
        let upper = name.to_ascii_uppercase();
        if ["TOKEN", "PASSWORD", "AUTH"].iter().any(|word| upper.contains(word)) {
            self.word(text);
        }
        // https://user:password@host
        for rest in text.split("://").skip(1) {
            let authority =
                rest.split(|c: char| c == '/' || c.is_whitespace()).next().unwrap_or_default();
            if let Some((user, _)) = authority.rsplit_once('@') {
                self.word(user.split_once(':').map_or(user, |(_, password)| password));
            }
        }
        // machine … password …, //host/:_authToken=…, <password>…</password>
        let ends = |c: char| c.is_whitespace() || "=<>\"'".contains(c);
        let mut words = text.split(ends).filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            if BEFORE.iter().any(|before| word.rsplit(':').next() == Some(before))
                && let Some(password) = words.next()
            {
                self.word(password);
            }
        }
    }

    fn word(&mut self, word: &str) {
        let word = word.trim();
        if word.len() >= SHORTEST && !self.0.iter().any(|known| known == word) {
            self.0.push(word.to_owned());
        }
    }

    /// A line without them.
    pub fn cover(&self, line: String) -> String {
        self.0.iter().fold(line, |line, word| line.replace(word.as_str(), "***"))
    }

    /// A file below `tree` that has one of them, links left aside.
    ///
    /// # Errors
    /// The system's.
    pub fn find(&self, tree: &Path) -> io::Result<Option<PathBuf>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut queue = vec![tree.to_owned()];
        while let Some(directory) = queue.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    queue.push(entry.path());
                } else if kind.is_file() && self.is_in(File::open(entry.path())?)? {
                    return Ok(Some(entry.path()));
                }
            }
        }
        Ok(None)
    }

    fn is_in(&self, mut file: impl Read) -> io::Result<bool> {
        let longest = self.0.iter().map(String::len).max().unwrap_or_default();
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece)?;
            if self.0.iter().any(|word| memmem::find(&piece, word.as_bytes()).is_some()) {
                return Ok(true);
            }
            if read == 0 {
                return Ok(false);
            }
            // One may begin in this piece and end in the next.
            piece.drain(..piece.len().saturating_sub(longest));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hidden(name: &str, text: &str) -> Vec<String> {
        let mut hidden = Hidden::default();
        hidden.add(name, text);
        hidden.0
    }

    #[test]
    fn passwords_are_found_where_installers_have_them() {
        for (name, text, wanted) in [
            ("PIP_INDEX_URL", "https://me:s3cret@host/simple", &["s3cret"][..]),
            ("PIP_INDEX_URL", "https://onlytoken@host/simple", &["onlytoken"]),
            ("PIP_INDEX_URL", "https://host/a@b", &[]),
            ("UV_INDEX_PASSWORD", "s3cret", &["s3cret"]),
            (".npmrc", "//host/:_authToken=abcdef\nregistry=https://host/\n", &["abcdef"]),
            (".netrc", "machine host login me password s3cret\n", &["s3cret"]),
            ("settings.xml", "<server><password>s3cret</password></server>", &["s3cret"]),
            ("pip.conf", "[global]\nindex-url = https://me:s3cret@host/simple\n", &["s3cret"]),
            ("pip.conf", "[global]\nindex-url = https://host/simple\n", &[]),
        ] {
            assert_eq!(hidden(name, text), wanted, "{text}");
        }
    }

    #[test]
    fn they_are_covered_and_found_also_across_pieces() {
        let mut all = Hidden::default();
        all.add("TOKEN", "s3cret");
        assert_eq!(all.cover("a s3cret b".to_owned()), "a *** b");
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(all.find(dir.path()).unwrap(), None);
        let text = format!("{}s3cret", "x".repeat(PIECE - 3));
        fs::write(deep.join("file"), text).unwrap();
        assert_eq!(all.find(dir.path()).unwrap(), Some(deep.join("file")));
    }
}
