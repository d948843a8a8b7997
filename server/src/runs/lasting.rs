//! Work that ends also where nobody waits for it any more.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

/// Runs with whoever waits for it; when it is dropped before its end, it goes on as a task of its own.
/// So a caller that leaves stops nothing half way, and one that stays costs no task.
pub(super) struct Lasting<T: Send + 'static> {
    work: Option<BoxFuture<'static, Option<T>>>,
}

impl<T: Send + 'static> Lasting<T> {
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static) -> Lasting<T> {
        // A panic is this work's alone, and not that of the connection it came over.
        let work = AssertUnwindSafe(work).catch_unwind().map(Result::ok);
        Lasting { work: Some(work.boxed()) }
    }
}

/// What the work gave; none where it panicked.
impl<T: Send + 'static> Future for Lasting<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let Some(work) = &mut self.work else { return Poll::Ready(None) };
        let result = ready!(work.poll_unpin(cx));
        self.work = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for Lasting<T> {
    fn drop(&mut self) {
        // Without a runtime the program is ending.
        if let (Some(work), Ok(runtime)) = (self.work.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_its_caller_leaves() -> anyhow::Result<()> {
        let (go, gate) = oneshot::channel::<()>();
        let (done, end) = oneshot::channel();
        let mut work = Lasting::new(async move {
            let _ = gate.await;
            let _ = done.send(7);
        });
        assert!(futures_util::poll!(&mut work).is_pending());
        drop(work);
        assert!(go.send(()).is_ok(), "it waits still");
        assert_eq!(end.await?, 7);
        Ok(())
    }

    #[tokio::test]
    async fn its_end_and_its_panic_reach_who_waits() {
        assert_eq!(Lasting::new(async { 7 }).await, Some(7));
        let lost: Option<()> = Lasting::new(async { panic!("on purpose") }).await;
        assert_eq!(lost, None);
    }
}
