//! Work that is done later or again: durable jobs, claimed with leases, each safe to do twice.

pub(crate) mod build;
mod retention;
mod run;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use dispatch_api::Problem;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use crate::app::App;
use crate::resource::now;
use crate::store::{self, Job, JobEnd};
use crate::{driver, event};

/// Resolves a base image.
pub const BASE_IMAGE: &str = "base_image";
/// Builds an image.
pub const IMAGE: &str = "image";
/// Builds a revision of a function and makes it serve.
pub const FUNCTION: &str = "function";
/// Makes a call that nobody waits for.
pub const RUN: &str = "run";
/// Makes the ticks of a schedule, whose name is the job's key.
pub const SCHEDULE: &str = "schedule";

/// How long a claimed job is ours without renewal, in microseconds.
pub(crate) const LEASE_MICROS: i64 = 60_000_000;
/// How often leases are renewed.
pub(crate) const RENEW: Duration = Duration::from_secs(20);
/// How long a store that fails is left alone.
pub(crate) const RETRY: Duration = Duration::from_millis(500);
/// Builds at the same time: images and functions.
const BUILDERS: usize = 4;
/// Schedules that tick at the same time; each takes one write.
const TICKERS: usize = 32;
/// The name jobs are claimed under. A data directory has one server at a time.
pub(crate) const OWNER: &str = "local";

/// The background work of a server, to be spawned.
///
/// # Errors
/// The store cannot be read.
pub async fn start(app: &Arc<App>) -> Result<Vec<BoxFuture<'static, ()>>, store::Error> {
    // Jobs that an earlier life of this server had in hand.
    app.store.release(OWNER).await?;
    app.store.release_deliveries(OWNER).await?;
    Ok(vec![
        Box::pin(work(Arc::clone(app), &[BASE_IMAGE, IMAGE, FUNCTION], BUILDERS)),
        Box::pin(work(Arc::clone(app), &[RUN], app.config.async_concurrency)),
        Box::pin(event::dispatch(Arc::clone(app))),
        Box::pin(driver::supervise(Arc::clone(app))),
        Box::pin(work(Arc::clone(app), &[SCHEDULE], TICKERS)),
        Box::pin(retention::keep(Arc::clone(app))),
    ])
}

/// Claims and does jobs of some kinds until the server stops; what runs then is finished.
async fn work(app: Arc<App>, kinds: &'static [&'static str], width: usize) {
    let mut running: JoinSet<i64> = JoinSet::new();
    let mut claimed: Vec<i64> = Vec::new();
    let mut renewal = tokio::time::interval(RENEW);
    loop {
        // Before the claim: a job committed after the claim must not be missed.
        let wake = app.store.wake();
        let woken = wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let free = width - running.len();
        // A look costs little; a claim goes through the store's one writer.
        let mut pause = pause(&app, kinds).await;
        if pause.is_zero() && free > 0 && !app.stopping.is_cancelled() {
            match app.store.claim(kinds, OWNER, LEASE_MICROS, free).await {
                Ok(jobs) => {
                    for job in jobs {
                        claimed.push(job.id);
                        running.spawn(run_one(Arc::clone(&app), job));
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "jobs cannot be claimed");
                    pause = RETRY;
                }
            }
        }
        if app.stopping.is_cancelled() && running.is_empty() {
            return;
        }
        let room = running.len() < width;
        tokio::select! {
            Some(done) = running.join_next() => {
                let mut done = Some(done);
                while let Some(Ok(id)) = done {
                    claimed.retain(|claimed| *claimed != id);
                    done = running.try_join_next();
                }
            }
            () = woken, if room => {}
            () = tokio::time::sleep(pause), if room => {}
            _ = renewal.tick() => {
                if let Err(error) = app.store.renew(&claimed, OWNER, LEASE_MICROS).await {
                    tracing::error!(%error, "leases cannot be renewed");
                }
            }
            () = app.stopping.cancelled(), if !app.stopping.is_cancelled() => {}
        }
    }
}

/// Until the next job is due; zero when one is.
async fn pause(app: &App, kinds: &[&str]) -> Duration {
    let longest = Duration::from_secs(5);
    match app.store.next_due(kinds).await {
        Ok(Some(due)) => {
            let wait = u64::try_from(due.saturating_sub(now())).unwrap_or(0);
            Duration::from_micros(wait).min(longest)
        }
        Ok(None) => longest,
        Err(error) => {
            tracing::error!(%error, "the queue cannot be read");
            RETRY
        }
    }
}

async fn run_one(app: Arc<App>, job: Job) -> i64 {
    let (id, generation) = (job.id, job.generation);
    let end = match job.kind.as_str() {
        BASE_IMAGE => build::base_image(&app, &job).await,
        IMAGE => build::image(&app, &job).await,
        FUNCTION => build::function(&app, &job).await,
        RUN => {
            run::make(&app, job).await;
            return id;
        }
        SCHEDULE => match schedule::due(&app, &job).await {
            Ok(None) => return id,
            Ok(Some(end)) => Ok(end),
            Err(error) => Err(error),
        },
        other => Err(format!("there is no job of kind {other}")),
    };
    let end = end.unwrap_or_else(|error| {
        tracing::error!(job = job.kind, org = job.org, %error, "a job failed and is tried again");
        JobEnd::Retry { at: now() + backoff(job.attempts, 500, 60_000), error }
    });
    if let Err(error) = app.store.finish_job(id, generation, end).await {
        // Its lease runs out and it is done again, which is safe.
        tracing::error!(%error, "the end of a job could not be stored");
    }
    id
}

/// Microseconds before try number `attempts + 1`, doubled for each one before, with bounds in
/// milliseconds.
pub(crate) fn backoff(attempts: i64, first_millis: i64, most_millis: i64) -> i64 {
    let doublings = u32::try_from(attempts.clamp(1, 30) - 1).unwrap_or(0);
    first_millis.saturating_mul(1 << doublings).min(most_millis).saturating_mul(1000)
}

/// A text of a closure of the store that refuses.
fn gone() -> Problem {
    Problem::new(404, "it was deleted or changed meanwhile")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound() {
        let pauses: Vec<i64> = (0..6).map(|attempts| backoff(attempts, 100, 1000)).collect();
        assert_eq!(pauses, [100_000, 100_000, 200_000, 400_000, 800_000, 1_000_000]);
        assert_eq!(backoff(i64::MAX, 1000, 3_600_000), 3_600_000_000);
    }
}
