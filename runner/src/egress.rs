//! What functions reach on the network: a proxy, and links, on the loopback of each sandbox, served
//! from outside by one policy.
//!
//! A sandbox has no way out. The listening sockets are made in its network by the launcher and
//! accepted on here; names are resolved, checked and connected to here, by the address that was
//! checked.

pub mod address;
mod http;
mod ledger;
mod outside;
pub mod policy;
pub mod resolve;
mod session;
mod socks;
mod stream;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use dispatch_api::egress::{Allow, Target};
pub use dispatch_api::function::PROXY_PORT;
use dispatch_sandbox::{Child, Rule, Socket};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::ledger::{News, Note, Noted};
pub use self::outside::Outside;
pub use self::policy::{Operator, Policy};
pub use self::resolve::Resolve;
use self::session::Session;

/// What a function's worker may reach on the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Egress {
    /// Nothing but its own loopback interface.
    #[default]
    None,
    /// What a proxy lets through.
    Proxy(Reach),
    /// The same without a list of its own, and all that is reached is noted.
    Learn(Reach),
    /// The internet itself, by an interface of its own.
    Full,
}

/// Where a function may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The only destinations; none means all public ones.
    pub allow: Vec<Allow>,
    /// Ports of its loopback, and where they lead.
    pub links: Vec<(u16, Target)>,
}

impl Egress {
    /// Where the proxy leads, if there is one.
    pub fn reach(&self) -> Option<&Reach> {
        match self {
            Egress::Proxy(reach) | Egress::Learn(reach) => Some(reach),
            Egress::None | Egress::Full => None,
        }
    }
}

/// The variables that tell programs of the proxy, which speaks HTTP and SOCKS on one port.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
    let own = "localhost,127.0.0.1,::1".to_owned();
    let variables = [
        ("HTTP_PROXY", &proxy),
        ("HTTPS_PROXY", &proxy),
        ("ALL_PROXY", &proxy),
        ("NO_PROXY", &own),
    ];
    let both = variables.map(|(name, value)| {
        [(name.to_owned(), value.clone()), (name.to_ascii_lowercase(), value.clone())]
    });
    both.into_iter().flatten()
}

/// What all sandboxes of a runner have in common.
#[derive(Debug)]
pub(crate) struct Gate {
    operator: Operator,
    resolver: Arc<dyn Resolve>,
    own: address::Own,
    pub(crate) ledger: ledger::Ledger,
}

impl Gate {
    pub fn new(operator: Operator, resolver: Arc<dyn Resolve>) -> Arc<Gate> {
        let (own, ledger) = (address::Own::default(), ledger::Ledger::default());
        Arc::new(Gate { operator, resolver, own, ledger })
    }

    /// What a function with a network of its own may send where.
    pub fn filter(&self) -> Vec<Rule> {
        self.operator.filter(&self.own.addresses())
    }
}

/// The way out of the sandboxes of one function.
#[derive(Clone, Debug)]
pub struct Door {
    gate: Arc<Gate>,
    /// Organization and function.
    who: (String, String),
    policy: Policy,
    links: Vec<(SocketAddrV4, Target)>,
}

/// A port of a sandbox's 127.0.0.1.
fn loopback(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

impl Door {
    /// That of an organization's function, or of whatever else may reach that much, if it has one.
    pub(crate) fn new(
        gate: &Arc<Gate>,
        organization: &str,
        name: &str,
        egress: &Egress,
    ) -> Option<Door> {
        let Reach { allow, links } = egress.reach()?.clone();
        let links = links.into_iter().map(|(port, to)| (loopback(port), to)).collect();
        Some(Door {
            gate: Arc::clone(gate),
            who: (organization.to_owned(), name.to_owned()),
            policy: Policy { allow, learn: matches!(egress, Egress::Learn(_)) },
            links,
        })
    }

    /// With more links, which may have any address of the loopback.
    pub(crate) fn with(mut self, links: &[(SocketAddrV4, Target)]) -> Door {
        self.links.extend_from_slice(links);
        self
    }

    /// Serves a sandbox until the guard is dropped. `proxy` is the socket of the proxy, where it is
    /// there already. Needs a tokio runtime.
    ///
    /// # Errors
    /// Sockets that cannot be made.
    pub(crate) async fn open(
        &self,
        child: &Child,
        proxy: Option<OwnedFd>,
    ) -> Result<DropGuard, dispatch_sandbox::Error> {
        let links = self.links.iter().map(|(address, _)| *address);
        let places = proxy.is_none().then_some(loopback(PROXY_PORT)).into_iter().chain(links);
        let made = child.sockets(places.map(Socket::Listening).collect()).await?;
        let token = CancellationToken::new();
        let guard = token.clone().drop_guard();
        let session = Arc::new(Session::new(self.clone(), token));
        let ways = std::iter::once(None).chain(self.links.iter().map(|(_, to)| Some(to.clone())));
        for (socket, link) in proxy.into_iter().chain(made).zip(ways) {
            let listener = tokio::net::TcpListener::from_std(socket.into())?;
            session.spawn(Arc::clone(&session).accept(listener, link));
        }
        Ok(guard)
    }
}

#[cfg(test)]
mod tests;
