//! Places in a pool that give themselves back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Pool;
use crate::call::Call;
use crate::home::Homes;
use crate::process::room::Place;
use crate::process::uid::Uid;
use crate::worker::{Job, Order, Reply};

/// A place in a worker. Dropping it frees the place.
pub struct Lease {
    pub(super) pool: Arc<Pool>,
    pub(super) worker: u64,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    /// How long the worker took to start, if it was started for this call.
    pub start: Duration,
    /// The home that the worker is to move to before the call.
    pub(super) home: Option<usize>,
    /// Whether its worker may be sent calls while it runs one.
    pub(super) ahead: bool,
    /// What the call showed: whether others had better wait for this worker than go to another.
    pub brisk: Option<bool>,
}

/// A living worker's place in its pool. Dropping it says that the process is gone.
pub struct Member {
    pub(super) pool: Arc<Pool>,
    pub(super) worker: u64,
    pub(super) left: bool,
    pub(super) _place: Place,
    pub(super) _uid: Arc<Uid>,
}

impl Lease {
    /// Whether the worker may be sent calls while it runs one, this one or others.
    pub fn ahead(&self) -> bool {
        self.ahead
    }

    /// The home that the worker is to move to before the call.
    pub fn home(&self) -> Option<usize> {
        self.home
    }

    /// The pool of the worker.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Hands a call to the worker.
    ///
    /// # Errors
    /// The call, when the worker is gone.
    pub fn send(self, call: Call) -> Result<oneshot::Receiver<Reply>, Call> {
        let (reply, answer) = oneshot::channel();
        let orders = self.orders.clone();
        match orders.send(Order::Run(Job { call, lease: self, reply })) {
            Ok(()) => Ok(answer),
            Err(mpsc::error::SendError(Order::Run(job))) => Err(job.call),
            Err(mpsc::error::SendError(Order::Kill)) => unreachable!("a job was sent"),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.release(self.worker, self.brisk);
    }
}

impl Member {
    /// Takes the worker out of the pool before its process is gone.
    pub fn leave(&mut self) {
        if !self.left {
            self.left = true;
            self.pool.leave(self.worker);
        }
    }

    /// Its call takes long: those that wait for it may go to other workers.
    pub fn spread(&self) {
        self.pool.spread(self.worker);
    }

    /// Where workers can live.
    pub fn homes(&self) -> &Homes {
        &self.pool.shared.options.homes
    }

    /// Counts it among those that stand still, or no more.
    pub fn freezes(&self, frozen: bool) {
        match frozen {
            true => self.pool.frozen.fetch_add(1, Ordering::Relaxed),
            false => self.pool.frozen.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Whether it was taken out.
    pub fn left(&self) -> bool {
        self.left
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}
