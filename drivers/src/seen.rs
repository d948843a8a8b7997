//! What a driver that looks again and again has told of already.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dispatch_api::CloudEvent;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::emitter::BATCH_EVENTS;
use crate::state::State;
use crate::{Emitter, Error};

/// How old the file may be while there is much to tell: what it lacks after a crash is told again with the
/// same ids.
const EVERY: Duration = Duration::from_secs(1);
/// Names that are remembered.
pub(crate) const MOST: usize = 100_000;

/// Names, and for each a mark that changes when the thing does.
#[derive(Debug)]
pub(crate) struct Seen<M> {
    state: State,
    file: &'static str,
    marks: BTreeMap<String, M>,
    written: Instant,
}

impl<M: Clone + PartialEq + Serialize + DeserializeOwned> Seen<M> {
    /// What was seen in an earlier life, if there was one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(state: &State, file: &'static str) -> Result<Option<Seen<M>>, Error> {
        let marks: Option<BTreeMap<String, M>> = state.read(file)?;
        Ok(marks.map(|marks| Seen { state: state.clone(), file, marks, written: Instant::now() }))
    }

    /// The first life: what is there already.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(
        state: &State,
        file: &'static str,
        marks: BTreeMap<String, M>,
    ) -> Result<Seen<M>, Error> {
        let mut seen = Seen { state: state.clone(), file, marks, written: Instant::now() };
        seen.write()?;
        Ok(seen)
    }

    /// Whether it is there with this mark.
    pub fn has(&self, name: &str, mark: &M) -> bool {
        self.marks.get(name) == Some(mark)
    }

    /// Emits what `event` makes of each, told whether the name is new, and remembers it.
    ///
    /// # Errors
    /// As [`Emitter::emit_all`]; or it cannot be written.
    pub async fn tell(
        &mut self,
        emitter: &Emitter,
        fresh: &[(String, M)],
        event: impl Fn(&str, &M, bool) -> CloudEvent,
    ) -> Result<(), Error> {
        for some in fresh.chunks(BATCH_EVENTS) {
            let events: Vec<CloudEvent> = (some.iter())
                .map(|(name, mark)| event(name, mark, !self.marks.contains_key(name)))
                .collect();
            emitter.emit_all(&events).await?;
            self.marks.extend(some.iter().cloned());
            if self.written.elapsed() > EVERY {
                self.write()?;
            }
        }
        if fresh.is_empty() { Ok(()) } else { self.write() }
    }

    /// Forgets what is not there any more: when it comes again, it is new.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&mut self, there: &BTreeMap<String, M>) -> Result<(), Error> {
        let many = self.marks.len();
        self.marks.retain(|name, _| there.contains_key(name));
        if self.marks.len() == many { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), Error> {
        self.state.write(self.file, &self.marks)?;
        self.written = Instant::now();
        Ok(())
    }
}
