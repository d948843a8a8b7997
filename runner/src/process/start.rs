//! The three ways to a worker: forked from one that has loaded the source, from a process that
//! waited, or from nothing.

use std::sync::Arc;

use super::uid::Uid;
use super::{Shared, spec, zygotes};
use crate::Revision;
use crate::call::Failure;
use crate::worker::link::Link;
use crate::worker::load::{self, Loaded};
use crate::worker::{Plan, Worker, failure};

/// A worker of `revision` and the user it runs as.
///
/// # Errors
/// [`Cause::Load`](crate::Cause::Load) or one of a crash's causes when it is the function's fault,
/// [`Cause::System`](crate::Cause::System) when it is the machine's.
pub(crate) async fn worker(
    shared: &Shared,
    revision: &Arc<Revision>,
) -> Result<(Worker, Arc<Uid>), Failure> {
    let prepared = shared.languages.prepare(&shared.launcher, &revision.language).await;
    prepared.map_err(failure::system)?;
    let mut plan = spec::plan(shared, revision)?;
    if plan.forks {
        if let Some(forked) = zygotes::worker(shared, revision, &plan).await? {
            return Ok(forked);
        }
        plan.forks = false;
        plan.freeze = spec::freeze(shared);
    }
    let (link, loaded, uid) = process(shared, revision, &plan).await?;
    Ok((Worker::new(link, loaded.handler, loaded.ahead, &plan), Arc::new(uid)))
}

/// A process that has loaded the handler.
pub(super) async fn process(
    shared: &Shared,
    revision: &Revision,
    plan: &Plan,
) -> Result<(Link, Loaded, Uid), Failure> {
    if plan.attachment.is_some()
        && let Some(stem) = shared.stems.take(&revision.language)
    {
        match load::adopt(stem.child, stem.proxy, plan).await {
            Ok((link, loaded)) => return Ok((link, loaded, stem.uid)),
            Err(Some(failed)) => return Err(failed),
            Err(None) => {}
        }
    }
    let uid = shared.uids.take();
    let (link, loaded) = load::start(&shared.launcher, &shared.gates, plan, uid.number()).await?;
    Ok((link, loaded, uid))
}
