//! Starting a worker: the process, and the handshake until the handler is loaded.

use std::future::poll_fn;

use dispatch_api::ErrorType;
use dispatch_sandbox::Launcher;
use tokio::time::timeout;

use super::active::background;
use super::link::Link;
use super::{Plan, failure};
use crate::call::{Cause, Failure};
use crate::frame::{Fault, FromWorker, PROTOCOL, ToWorker};

/// Bytes of what a worker wrote while it loaded that are shown when it does not come up.
const TAIL: usize = 2048;

/// Starts a worker. Returns it with the handler, inferred where it was empty.
pub async fn start(launcher: &Launcher, plan: &Plan) -> Result<(Link, String), Failure> {
    let system = |what: &str, error: &dyn std::fmt::Display| {
        failure::system(format!("A worker could not be {what}: {error}"))
    };
    let child = launcher.spawn(&plan.sandbox).await.map_err(|error| system("started", &error))?;
    let mut link = Link::new(child).map_err(|error| system("connected", &error))?;
    let mut wrote = Vec::new();
    let failed = match timeout(plan.start_timeout, load(&mut link, plan, &mut wrote)).await {
        Ok(Ok(handler)) => return Ok((link, handler)),
        Ok(Err(failed)) => failed,
        Err(_) => failure::failure(
            ErrorType::FunctionError,
            Cause::Load,
            format!(
                "The handler was not loaded within {} s; move slow work out of the source's top \
                 level",
                plan.start_timeout.as_secs_f32()
            ),
        ),
    };
    link.end().await;
    Err(failed)
}

/// The handshake.
async fn load(link: &mut Link, plan: &Plan, wrote: &mut Vec<u8>) -> Result<String, Failure> {
    let init = ToWorker::Init {
        source: plan.source.clone(),
        handler: plan.handler.clone(),
        concurrency: plan.concurrency,
        result_limit: plan.result_limit,
    };
    let mut greeted = false;
    loop {
        let frame = poll_fn(|cx| {
            link.poll(cx, &mut |stream, bytes| {
                background(&plan.function, stream, bytes);
                keep_tail(wrote, bytes);
            })
        });
        match frame.await {
            Ok((FromWorker::Hello { protocol: PROTOCOL }, _)) if !greeted => {
                greeted = true;
                link.send(&init);
            }
            Ok((FromWorker::Hello { protocol }, _)) if !greeted => {
                return Err(failure::system(format!(
                    "The language's worker speaks version {protocol} of the worker protocol, \
                     but this server version {PROTOCOL}; install a matching language pack"
                )));
            }
            Ok((FromWorker::Ready { handler }, _)) if greeted => return Ok(handler),
            Ok((FromWorker::Failed, body)) if greeted => {
                let fault = serde_json::from_slice::<Fault>(&body)
                    .map_err(|error| failure::protocol(&format!("bad `failed`: {error}")))?;
                return Err(failure::reported(fault, Cause::Load));
            }
            Ok((frame, _)) => return Err(failure::unexpected(&frame)),
            Err(gone) => {
                let keep = &mut |_, bytes: &[u8]| keep_tail(wrote, bytes);
                let mut failed = link.post_mortem(gone, keep).await;
                let wrote = String::from_utf8_lossy(wrote);
                if !wrote.trim().is_empty() {
                    failed.message.push_str("; it wrote: ");
                    failed.message.push_str(wrote.trim());
                }
                failed.message.insert_str(0, "The handler could not be loaded. ");
                return Err(failed);
            }
        }
    }
}

fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
    tail.drain(..tail.len().saturating_sub(TAIL));
}
