//! One worker: a sandboxed process that loads one handler and runs its calls.
//!
//! Each worker has one task that owns it and nothing else does, a `Session`: whatever happens to
//! a caller, the task brings the call in the worker to an end before the worker gets another one.

mod active;
pub(crate) mod failure;
mod link;
pub(crate) mod load;
mod logs;
mod pace;
mod session;

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_sandbox::{Attachment, Child, Launcher, Spec};
use tokio::sync::{mpsc, oneshot};

use self::session::Session;
use crate::call::{Call, Failure, Outcome};
use crate::pool::{Lease, Member};

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The sandbox of a process that is started for this function.
    pub sandbox: Spec,
    /// What makes a process that waited one of this function, where that is possible.
    pub attachment: Option<Attachment>,
    /// What the function adds to the environment.
    pub environment: BTreeMap<String, String>,
    /// The function's name, for the log.
    pub function: String,
    /// The directory of the source, as the worker sees it.
    pub source: String,
    /// The handler; empty when it is to be inferred.
    pub handler: String,
    /// Calls that it takes at a time.
    pub concurrency: usize,
    /// Bytes a result may have.
    pub result_limit: usize,
    /// How long it may take until it is ready.
    pub start_timeout: Duration,
}

/// What a worker is told to do.
pub enum Order {
    /// Run a call.
    Run(Job),
    /// End at once, with all calls.
    Kill,
}

/// A call on its way to a worker.
pub struct Job {
    /// The call.
    pub call: Call,
    /// The place in the worker that the call takes until it has ended.
    pub lease: Lease,
    /// Where the answer goes. When nobody waits there any more, the call is cancelled.
    pub reply: oneshot::Sender<Reply>,
}

/// What became of a [`Job`].
pub enum Reply {
    /// The call ended. Its times but that in the function are zero.
    Ended(Outcome),
    /// The worker was gone before the handler got the call: another worker may have it.
    NotStarted(Call),
}

/// A worker that is ready, but not yet serving: see [`Worker::serve`].
pub struct Worker {
    session: Session,
    /// The handler, inferred where it was empty.
    pub handler: String,
}

impl Worker {
    /// Starts a process and lets it load the handler.
    ///
    /// # Errors
    /// [`Cause::Load`](crate::Cause::Load) or one of a crash's causes when it is the function's
    /// fault, [`Cause::System`](crate::Cause::System) when it is the machine's.
    pub async fn start(launcher: &Launcher, plan: &Plan) -> Result<Worker, Failure> {
        let (link, handler) = load::start(launcher, plan).await?;
        Ok(Worker { session: Session::new(link, plan), handler })
    }

    /// The same with a process that waits.
    ///
    /// # Errors
    /// As [`Worker::start`]; `None` when nothing of the function was used yet, so that it can be
    /// tried in another way.
    pub async fn adopt(child: Child, plan: &Plan) -> Result<Worker, Option<Failure>> {
        let (link, handler) = load::adopt(child, plan).await?;
        Ok(Worker { session: Session::new(link, plan), handler })
    }

    /// Serves orders until their sender is gone, the worker breaks, or it is told to stop.
    pub async fn serve(self, orders: mpsc::UnboundedReceiver<Order>, member: Member) {
        self.session.serve(orders, member).await;
    }
}
