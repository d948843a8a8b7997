//! One worker: a sandboxed process that loads one handler and runs its calls.
//!
//! Each worker has one task that owns it and nothing else does, a `Session`: whatever happens to
//! a caller, the task brings the call in the worker to an end before the worker gets another one.

pub(crate) mod active;
pub(crate) mod failure;
pub(crate) mod link;
pub(crate) mod load;
mod logs;
mod pace;
pub(crate) mod process;
mod session;

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_sandbox::{Attachment, Rule, Spec};
use tokio::sync::{mpsc, oneshot};

use self::link::Link;
use self::process::{Ends, Process};
use self::session::Session;
use crate::call::{Call, Failure, Outcome};
use crate::egress::Door;
use crate::pool::{Lease, Member};

/// Workers of one sandbox that its limits are made for.
const MOST_FORKED: usize = 16;

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The sandbox of a process that is started for this function.
    pub sandbox: Spec,
    /// Whether workers are forked from a process that has loaded the source.
    pub forks: bool,
    /// What makes a process that waited one of this function, where that is possible.
    pub attachment: Option<Attachment>,
    /// What the function adds to the environment.
    pub environment: BTreeMap<String, String>,
    /// The way out of the sandbox, if there is one.
    pub door: Option<Door>,
    /// The filter of a network of its own that leads outside, if it has one.
    pub uplink: Option<Vec<Rule>>,
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
    /// How long a worker in a sandbox of its own is idle before it stands still, if ever.
    pub freeze: Option<Duration>,
}

impl Plan {
    /// The plan of the process that the workers, at most `most` at a time, are forked from: they are
    /// in its sandbox with it. Each has a limit of its own besides.
    pub(crate) fn of_zygote(&self, most: usize) -> Plan {
        let count = most.min(MOST_FORKED) as u64 + 1;
        let mut plan = self.clone();
        plan.attachment = None;
        plan.sandbox.memory_bytes = plan.sandbox.memory_bytes.saturating_mul(count);
        plan.sandbox.cpu_millis = plan.sandbox.cpu_millis.saturating_mul(count);
        plan.sandbox.processes = plan.sandbox.processes.saturating_mul(count);
        plan
    }
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
    /// The call waited in the worker for one that takes long: it may have it later, or another.
    Again(Call),
}

/// A worker that is ready, but not yet serving: see [`Worker::serve`].
pub struct Worker {
    session: Session,
    /// The handler, inferred where it was empty.
    pub handler: String,
    /// Whether it may be sent calls while it runs one.
    pub ahead: bool,
}

impl Worker {
    /// A process that has loaded the handler.
    pub(crate) fn new(link: Link, handler: String, ahead: bool, plan: &Plan) -> Worker {
        let ahead = ahead && plan.concurrency == 1;
        Worker { session: Session::new(link, plan), handler, ahead }
    }

    /// A process that was forked from one that has loaded the handler.
    pub(crate) async fn forked(
        process: Process,
        ends: Ends,
        handler: String,
        plan: &Plan,
    ) -> Result<Worker, Failure> {
        let link = load::forked(process, ends, plan).await?;
        Ok(Worker::new(link, handler, false, plan))
    }

    /// Serves orders until their sender is gone, the worker breaks, or it is told to stop.
    pub async fn serve(self, orders: mpsc::UnboundedReceiver<Order>, member: Member) {
        self.session.serve(orders, member).await;
    }
}
