//! The way out of one sandbox.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dispatch_api::egress::{Host, Target};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::policy::{Policy, Refusal};
use super::stream::Outward;
use super::{Door, Gate, http, socks};

/// Connections of one sandbox at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 128;
/// Names of one sandbox that are looked up at a time.
const MAX_LOOKUPS: usize = 8;
/// How long a name may take to be resolved.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// How long one address may take to answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Fault {
    /// The policy does not allow it.
    Refused(Refusal),
    /// The name has no addresses.
    Unresolved,
    /// No address answered.
    Unreachable(io::Error),
}

/// The way out of one sandbox.
pub(super) struct Session {
    gate: Arc<Gate>,
    /// Organization and function.
    who: (String, String),
    policy: Policy,
    connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    token: CancellationToken,
}

/// A connection from inside; others may come when it is dropped.
pub(super) type Place = Arc<OwnedSemaphorePermit>;

impl Session {
    pub fn new(door: Door, token: CancellationToken) -> Session {
        let Door { gate, who, policy, .. } = door;
        Session {
            gate,
            who,
            policy,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            token,
        }
    }

    /// Runs something that ends with the sandbox at the latest.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.token.clone().run_until_cancelled_owned(work));
    }

    /// Takes connections from inside: to one place, or, without a `link`, to the proxy.
    pub async fn accept(self: Arc<Session>, listener: TcpListener, link: Option<Target>) {
        loop {
            let Ok(place) = Arc::clone(&self.connections).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(function = self.who.1, %error, "no connection from a sandbox");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let session = Arc::clone(&self);
            let place = Arc::new(place);
            match link.clone() {
                Some(target) => self.spawn(async move {
                    let _place = place;
                    session.link(stream, &target).await;
                }),
                None => self.spawn(session.proxy(stream, place)),
            }
        }
    }

    async fn link(self: Arc<Session>, mut inner: TcpStream, target: &Target) {
        match self.connect(target, true).await {
            Ok(mut outer) => splice(&mut inner, &mut outer).await,
            Err(fault) => {
                tracing::debug!(function = self.who.1, %target, ?fault, "a link leads nowhere");
            }
        }
    }

    /// How long a program may take to say where it wants to go.
    pub fn patience(&self) -> Duration {
        self.gate.operator.patience
    }

    /// Both protocols start differently.
    async fn proxy(self: Arc<Session>, stream: TcpStream, place: Place) {
        let mut first = [0];
        match timeout(self.patience(), stream.peek(&mut first)).await {
            Ok(Ok(1)) if first == [socks::VERSION] => socks::serve(self, stream, place).await,
            Ok(Ok(1)) => http::serve(self, stream, place).await,
            _ => {}
        }
    }

    /// Connects to `target` if that is allowed, by an address that was checked. `linked` says that
    /// the function lists it as a link.
    pub async fn connect(
        self: &Arc<Session>,
        target: &Target,
        linked: bool,
    ) -> Result<Outward, Fault> {
        let addresses = match &target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.resolve(name.clone()).await.ok_or(Fault::Unresolved)?,
        };
        let own = self.gate.own.addresses();
        let operator = &self.gate.operator;
        let allowed = self.policy.decide(operator, target, linked, &addresses, &own);
        let allowed = allowed.map_err(|refusal| {
            self.gate.ledger.refused(&self.who, target, refusal);
            Fault::Refused(refusal)
        })?;
        let stream = reach(&allowed).await.map_err(Fault::Unreachable)?;
        self.gate.ledger.connected(&self.who, target, self.policy.learn);
        Ok(Outward::new(stream, Arc::clone(self)))
    }

    /// A lookup that takes too long goes on alone and keeps its place: no more can run at a time.
    async fn resolve(&self, name: String) -> Option<Vec<IpAddr>> {
        let place = Arc::clone(&self.lookups).acquire_owned();
        let place = timeout(LOOKUP_LIMIT, place).await.ok()?.ok()?;
        let lookup = self.gate.resolver.resolve(name);
        let lookup = tokio::spawn(async move {
            let _place = place;
            lookup.await
        });
        let found = timeout(LOOKUP_LIMIT, lookup).await.ok()?.ok()?.ok()?;
        (!found.is_empty()).then_some(found)
    }

    pub fn moved(&self, sent: u64, received: u64) {
        self.gate.ledger.moved(&self.who, sent, received);
    }
}

async fn reach(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses.iter().take(MAX_ADDRESSES) {
        match timeout(CONNECT_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // What passes through here was already gathered by whoever wrote it.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failed)
}

/// Passes bytes both ways until both ends are done.
pub(super) async fn splice<S>(inner: &mut S, outer: &mut Outward)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    // How a connection ended is the business of its two ends.
    let _ = tokio::io::copy_bidirectional(inner, outer).await;
}
