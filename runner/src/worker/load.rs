//! Starting a worker: the process, and the handshake until the handler is loaded.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dispatch_api::ErrorType;
use dispatch_sandbox::{Child, Launcher, Spec};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::active::background;
use super::link::Link;
use super::process::{Ends, Process};
use super::{Plan, failure};
use crate::call::{Cause, Failure};
use crate::egress::PROXY_PORT;
use crate::frame::{Fault, FromWorker, PROTOCOL, ToWorker};

/// Bytes of what a worker wrote while it loaded that are shown when it does not come up.
const TAIL: usize = 2048;

/// What a process said once it had loaded the handler.
pub struct Loaded {
    /// The handler, inferred where it was empty.
    pub handler: String,
    /// Whether it forks workers and runs no calls.
    pub forks: bool,
    /// Why it does not, though it was to.
    pub not_forking: Option<String>,
    /// Whether it may be sent calls while it runs one.
    pub ahead: bool,
}

/// Starts a process that loads the handler, as this user outside. As many at a time as there are
/// `gates` become ready for that: what needs the processor only is done sooner one after the other.
pub async fn start(
    launcher: &Launcher,
    gates: &Semaphore,
    plan: &Plan,
    host_uid: u32,
) -> Result<(Link, Loaded), Failure> {
    let sandbox = Spec { host_uid, ..plan.sandbox.clone() };
    let gate = gates.acquire().await;
    let child = launcher.spawn(&sandbox).await.map_err(|error| system("started", &error))?;
    let mut wrote = Wrote::of(&plan.function);
    let mut link = connect(child)?;
    let steps = async {
        greet(&mut link, &mut wrote).await?;
        drop(gate);
        open(&mut link, None, plan).await?;
        load(&mut link, plan, &mut wrote).await
    };
    let loaded = within(plan.start_timeout, steps).await;
    finish(link, loaded).await
}

/// Starts a process that has said hello, for a function that is not known yet. The socket is where
/// that one's proxy will be, if it can have one.
pub async fn wait(
    launcher: &Launcher,
    spec: &Spec,
    limit: Duration,
) -> Result<(Child, Option<OwnedFd>), Failure> {
    let child = launcher.spawn(spec).await.map_err(|error| system("started", &error))?;
    let mut link = connect(child)?;
    let greeted = within(limit, greet(&mut link, &mut Wrote::of(""))).await;
    let (link, ()) = finish(link, greeted).await?;
    let child = link.into_child().ok_or_else(|| failure::system("A forked process cannot wait"))?;
    if !launcher.has_views() {
        return Ok((child, None));
    }
    let sockets = child.listen(&[PROXY_PORT]).await.map_err(|error| system("connected", &error))?;
    match sockets.into_iter().next() {
        Some(proxy) => Ok((child, Some(proxy))),
        None => Err(system("connected", &"no socket came")),
    }
}

/// Lets a process that waited load the handler; fails with `None` while no harm is done.
pub async fn adopt(
    child: Child,
    proxy: Option<OwnedFd>,
    plan: &Plan,
) -> Result<(Link, Loaded), Option<Failure>> {
    let Some(attachment) = &plan.attachment else { return Err(None) };
    if let Err(error) = child.attach(attachment).await {
        tracing::debug!(function = plan.function, %error, "a waiting process is of no use");
        return Err(None);
    }
    let mut link = connect(child)?;
    let mut wrote = Wrote::of(&plan.function);
    let steps = async {
        open(&mut link, proxy, plan).await?;
        load(&mut link, plan, &mut wrote).await
    };
    let loaded = within(plan.start_timeout, steps).await;
    finish(link, loaded).await.map_err(Some)
}

/// Takes over a worker that was forked and has loaded the handler by that.
pub async fn forked(process: Process, ends: Ends, plan: &Plan) -> Result<Link, Failure> {
    let mut link = Link::of(process, ends).map_err(|error| system("connected", &error))?;
    let mut wrote = Wrote::of(&plan.function);
    let greeted = within(plan.start_timeout, greet(&mut link, &mut wrote)).await;
    finish(link, greeted).await.map(|(link, ())| link)
}

fn system(what: &str, error: &dyn std::fmt::Display) -> Failure {
    failure::system(format!("A worker could not be {what}: {error}"))
}

fn connect(child: Child) -> Result<Link, Failure> {
    Link::new(child).map_err(|error| system("connected", &error))
}

/// Opens the way out, before anything of the function runs.
async fn open(link: &mut Link, proxy: Option<OwnedFd>, plan: &Plan) -> Result<(), Failure> {
    let Process::Own(child) = link.process() else { return Ok(()) };
    if let Some(rules) = &plan.uplink {
        let led = child.uplink(rules).await;
        led.map_err(|error| system("connected to the network", &error))?;
    }
    if let Some(door) = &plan.door {
        let guard = door.open(child, proxy).await;
        link.guard = Some(guard.map_err(|error| system("connected to its way out", &error))?);
    }
    Ok(())
}

async fn within<T>(
    limit: Duration,
    steps: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(limit, steps).await.unwrap_or_else(|_| {
        let message = format!(
            "The handler was not loaded within {} s; move slow work out of the source's top level",
            limit.as_secs_f32()
        );
        Err(failure::failure(ErrorType::FunctionError, Cause::Load, message))
    })
}

/// No worker that failed is left.
async fn finish<T>(mut link: Link, done: Result<T, Failure>) -> Result<(Link, T), Failure> {
    match done {
        Ok(value) => Ok((link, value)),
        Err(failed) => {
            link.end().await;
            Err(failed)
        }
    }
}

/// Waits for the worker's first frame.
async fn greet(link: &mut Link, wrote: &mut Wrote) -> Result<(), Failure> {
    match frame(link, wrote).await? {
        (FromWorker::Hello { protocol: PROTOCOL }, _) => Ok(()),
        (FromWorker::Hello { protocol }, _) => Err(failure::system(format!(
            "The language's worker speaks version {protocol} of the worker protocol, but this \
             server version {PROTOCOL}; install a matching language pack"
        ))),
        (other, _) => Err(failure::unexpected(&other)),
    }
}

/// Lets a worker that has said hello load the handler.
async fn load(link: &mut Link, plan: &Plan, wrote: &mut Wrote) -> Result<Loaded, Failure> {
    let init = ToWorker::Init {
        source: link.inside(Path::new(&plan.source)).display().to_string(),
        handler: plan.handler.clone(),
        concurrency: plan.concurrency,
        result_limit: plan.result_limit,
        fork: plan.forks,
    };
    let environment = serde_json::to_vec(&plan.environment)
        .map_err(|error| system("told its environment", &error))?;
    link.send_body(&init, [environment.into()]);
    match frame(link, wrote).await? {
        (FromWorker::Ready { handler, forks, not_forking, ahead }, _) => {
            if forks && !plan.forks {
                return Err(failure::protocol("it forks workers without having been asked to"));
            }
            Ok(Loaded { handler, forks, not_forking, ahead })
        }
        (FromWorker::Failed, body) => {
            let fault = serde_json::from_slice::<Fault>(&body)
                .map_err(|error| failure::protocol(&format!("bad `failed`: {error}")))?;
            Err(failure::reported(fault, Cause::Load))
        }
        (other, _) => Err(failure::unexpected(&other)),
    }
}

/// The next frame. A worker that is gone instead is shown with its last words.
async fn frame(link: &mut Link, wrote: &mut Wrote) -> Result<(FromWorker, Bytes), Failure> {
    let next = poll_fn(|cx| {
        link.poll(cx, &mut |stream, bytes| {
            background(&wrote.function, stream, bytes);
            keep_tail(&mut wrote.tail, bytes);
        })
    });
    match next.await {
        Ok(frame) => Ok(frame),
        Err(gone) => {
            let keep = &mut |_, bytes: &[u8]| keep_tail(&mut wrote.tail, bytes);
            let mut failed = link.post_mortem(gone, keep).await;
            let said = String::from_utf8_lossy(&wrote.tail);
            if !said.trim().is_empty() {
                failed.message.push_str("; it wrote: ");
                failed.message.push_str(said.trim());
            }
            failed.message.insert_str(0, "The handler could not be loaded. ");
            Err(failed)
        }
    }
}

/// What a process wrote while it loaded.
struct Wrote {
    function: String,
    tail: Vec<u8>,
}

impl Wrote {
    fn of(function: &str) -> Wrote {
        Wrote { function: function.to_owned(), tail: Vec::new() }
    }
}

fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
    tail.drain(..tail.len().saturating_sub(TAIL));
}
