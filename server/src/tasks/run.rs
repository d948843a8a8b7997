//! Jobs that make calls nobody waits for.

use std::sync::Arc;

use dispatch_api::ErrorType;
use dispatch_runner::{Cause, Failure};
use jiff::Timestamp;

use super::backoff;
use crate::app::App;
use crate::resource::now;
use crate::runs::{Finished, Invocation, RunRecord, attempt};
use crate::store::{Job, JobEnd};
use crate::trace::Trace;

/// Makes one accepted call and stores how it ended, together with the end of the job.
pub(super) async fn make(app: &Arc<App>, job: Job) {
    let id = job.key.clone();
    let row = match app.store.run(&job.org, &id).await {
        Ok(Some(row)) => row,
        Ok(None) => return finish_job(app, &job, JobEnd::Done).await,
        Err(error) => {
            tracing::error!(%error, run = id, "an accepted run cannot be read");
            let at = now() + backoff(job.attempts, 500, 60_000);
            return finish_job(app, &job, JobEnd::Retry { at, error: error.to_string() }).await;
        }
    };
    let mut record = RunRecord::from_row(&row);
    let snapshot = app.live.load();
    let function = snapshot.function(&row.org, &row.function);
    let Some(function) = function.filter(|function| function.id == row.function_id) else {
        return finish_job(app, &job, JobEnd::Done).await;
    };
    let retries = function.serving.as_ref().map(|serving| serving.retries).unwrap_or_default();
    let run = record.clone().into_run();
    let invocation = Invocation {
        org: row.org.clone(),
        function: Arc::clone(function),
        input: run.input.unwrap_or_default().to_string().into(),
        http_context: crate::runs::api::text(&run.http_context),
        request: None,
        event: run.event,
        secrets: run.secrets,
        services: run.services,
        tags: run.tags,
        trace: Trace::default(),
    };
    let accepted = Timestamp::from_microsecond(row.created).unwrap_or_else(|_| Timestamp::now());
    let finished = attempt(app, id, accepted, &invocation).await;
    let attempts = row.attempts + 1;
    let end = decide(&finished, attempts, retries);
    match &end {
        End::NotMade { pause } => {
            // The call did not reach the function: it does not count as a try.
            let end = JobEnd::Retry { at: now() + pause, error: "not made yet".to_owned() };
            return finish_job(app, &job, end).await;
        }
        End::Done => record.end(&finished, attempts),
        End::Again { .. } => {
            record.end(&finished, attempts);
            record.again();
        }
        End::Dead => {
            record.end(&finished, attempts);
            record.bury();
        }
    }
    let error = record.clone().into_run().reason.pop().unwrap_or_default();
    let end = match end {
        End::Again { pause } => JobEnd::Retry { at: now() + pause, error },
        End::Dead => JobEnd::Dead { error },
        End::Done | End::NotMade { .. } => JobEnd::Done,
    };
    if let Err(error) = app.store.finish_run(record.into_row(), job.id, job.generation, end).await {
        // The lease runs out and the call is made again: accepted means at least once.
        tracing::error!(%error, "the end of an accepted run could not be stored");
    }
}

async fn finish_job(app: &App, job: &Job, end: JobEnd) {
    if let Err(error) = app.store.finish_job(job.id, job.generation, end).await {
        tracing::error!(%error, "the end of a job could not be stored");
    }
}

enum End {
    Done,
    Again { pause: i64 },
    NotMade { pause: i64 },
    Dead,
}

fn decide(finished: &Finished, attempts: i64, retries: dispatch_api::Retries) -> End {
    let Err(failure) = &finished.result else { return End::Done };
    match &failure.cause {
        Cause::Overload { retry_after } => {
            End::NotMade { pause: i64::try_from(retry_after.as_micros()).unwrap_or(1_000_000) }
        }
        Cause::Cancelled => End::NotMade { pause: 0 },
        _ if worth_retrying(failure) && attempts <= retries.max => {
            End::Again { pause: backoff(attempts, retries.backoff.max(1), 3_600_000) }
        }
        _ => End::Dead,
    }
}

/// An input that does not fit will not fit the next time.
fn worth_retrying(failure: &Failure) -> bool {
    failure.kind != ErrorType::InputError
}
