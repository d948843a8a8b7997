//! Waiting between tries.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Error;

const FIRST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(30);
/// How long something may be away before the driver gives up and is started anew, with new addresses and
/// new secrets.
const GIVE_UP: Duration = Duration::from_secs(600);

/// Growing, random pauses.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    since: Option<Instant>,
    patience: Option<Duration>,
}

impl Backoff {
    /// Tries until it was in vain for ten minutes.
    pub fn new() -> Backoff {
        Backoff { next: FIRST, since: None, patience: Some(GIVE_UP) }
    }

    /// Tries for ever.
    pub fn endless() -> Backoff {
        Backoff { patience: None, ..Backoff::new() }
    }

    /// It worked.
    pub fn reset(&mut self) {
        (self.next, self.since) = (FIRST, None);
    }

    /// Says what is wrong and waits, at least for `least`.
    ///
    /// # Errors
    /// The driver is to stop, or it was in vain for too long.
    pub async fn wait(
        &mut self,
        stop: &CancellationToken,
        what: &str,
        why: &str,
        least: Duration,
    ) -> Result<(), Error> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.patience.is_some_and(|patience| since.elapsed() > patience) {
            let minutes = GIVE_UP.as_secs() / 60;
            return Err(Error::Failed(format!("{what}: {why}; gave up after {minutes} minutes")));
        }
        // Between half and all of it, so that many do not come back at once.
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0).max(least);
        self.next = (self.next * 2).min(MOST);
        tracing::warn!("{what}: {why}; trying again in {:.1} s", pause.as_secs_f64());
        tokio::select! {
            () = stop.cancelled() => Err(Error::Stopped),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}
