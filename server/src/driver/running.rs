//! What is known of the drivers that run at the moment; nothing of it outlives the server.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dispatch_runner::Inside;

/// Bytes of a token before they are text.
const TOKEN: usize = 32;

/// The drivers that run.
#[derive(Default)]
pub struct Drivers(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// By what stands for their tokens: nobody can read a token from here.
    tokens: HashMap<Vec<u8>, (String, String)>,
    running: HashMap<(String, String), Running>,
}

struct Running {
    token: Vec<u8>,
    inside: Option<Inside>,
    /// What its process lives in, which must not be collected meanwhile.
    language: String,
    /// Whether strangers may reach it.
    exposed: bool,
}

fn hash(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}

impl Drivers {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A driver is about to run: makes the token that it proves itself with, which is told to nobody
    /// else.
    ///
    /// # Errors
    /// The machine has no randomness.
    pub(super) fn begin(
        &self,
        org: &str,
        name: &str,
        language: &str,
        exposed: bool,
    ) -> Result<String, String> {
        let mut bytes = [0; TOKEN];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "no randomness".to_owned())?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let key = (org.to_owned(), name.to_owned());
        let language = language.to_owned();
        let mut table = self.table();
        table.tokens.insert(hash(&token), key.clone());
        let running = Running { token: hash(&token), inside: None, language, exposed };
        if let Some(before) = table.running.insert(key, running) {
            table.tokens.remove(&before.token);
        }
        Ok(token)
    }

    /// It runs, and can be connected to.
    pub(super) fn started(&self, org: &str, name: &str, token: &str, inside: Inside) {
        let key = (org.to_owned(), name.to_owned());
        let mut table = self.table();
        let running = table.running.get_mut(&key);
        if let Some(running) = running.filter(|running| running.token == hash(token)) {
            running.inside = Some(inside);
        }
    }

    /// The process with this token has ended, and the token is worth nothing any more. One that came
    /// after it under the same name is not concerned.
    pub(super) fn ended(&self, org: &str, name: &str, token: &str) {
        let (key, token) = ((org.to_owned(), name.to_owned()), hash(token));
        let mut table = self.table();
        table.tokens.remove(&token);
        if table.running.get(&key).is_some_and(|running| running.token == token) {
            table.running.remove(&key);
        }
    }

    /// The way into a driver that runs.
    pub(super) fn inside(&self, org: &str, name: &str) -> Option<Inside> {
        self.table().running.get(&(org.to_owned(), name.to_owned()))?.inside.clone()
    }

    /// Whether it runs and strangers may reach it.
    pub(super) fn is_exposed(&self, org: &str, name: &str) -> bool {
        let key = (org.to_owned(), name.to_owned());
        self.table().running.get(&key).is_some_and(|running| running.exposed)
    }

    /// Whether it runs.
    pub(crate) fn runs(&self, org: &str, name: &str) -> bool {
        self.inside(org, name).is_some()
    }

    /// Whose token it is: the organization.
    pub(super) fn whose(&self, token: &str) -> Option<String> {
        self.table().tokens.get(&hash(token)).map(|(org, _)| org.clone())
    }

    /// What the processes that run live in.
    pub(crate) fn languages(&self) -> Vec<String> {
        self.table().running.values().map(|running| running.language.clone()).collect()
    }

    /// How many run.
    pub(crate) fn count(&self) -> usize {
        self.table().running.values().filter(|running| running.inside.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_as_long_as_its_process_lives() {
        let drivers = Drivers::default();
        let first = drivers.begin("o", "d", "exec", false).expect("a token");
        assert_eq!(drivers.whose(&first).as_deref(), Some("o"));
        let second = drivers.begin("o", "d", "exec", false).expect("a token");
        assert_ne!(first, second);
        assert_eq!(drivers.whose(&first), None);
        assert_eq!(drivers.whose(""), None);
        drivers.ended("o", "d", &first);
        assert!(drivers.whose(&second).is_some(), "the end of the one before");
        assert!(drivers.table().running.contains_key(&("o".to_owned(), "d".to_owned())));
        drivers.ended("o", "d", &second);
        assert_eq!(drivers.whose(&second), None);
        assert!(drivers.table().tokens.is_empty());
    }
}
