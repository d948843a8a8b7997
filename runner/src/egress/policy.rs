//! Who may connect where. A pure function of the policy, the question and what names resolve to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dispatch_api::egress::{Allow, Net, Target};
use dispatch_sandbox::Rule;

use super::address::{self, Kind};

/// What the operator of the server says, for all functions.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Special ranges that functions may list: private ones, for example.
    pub permit: Vec<Net>,
    /// Ranges that no function reaches.
    pub deny: Vec<Net>,
    /// How long a program may take to say where it wants to go.
    pub patience: Duration,
}

impl Default for Operator {
    fn default() -> Operator {
        Operator { permit: Vec::new(), deny: Vec::new(), patience: Duration::from_secs(30) }
    }
}

/// What one function may reach.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The only destinations; none means all public ones.
    pub allow: Vec<Allow>,
    /// Whether all is allowed that the operator permits.
    pub learn: bool,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The function's list does not have it.
    NotListed,
    /// It is special, and the operator does not permit it.
    Special(Kind),
    /// The operator denies it.
    Denied,
}

/// All that [`Refusal::word`] can be.
pub const WORDS: [&str; 11] = [
    "unspecified",
    "loopback",
    "link-local",
    "metadata",
    "private",
    "shared",
    "multicast",
    "reserved",
    "own",
    "not-listed",
    "denied",
];

impl Refusal {
    /// In one word, for counters and records.
    pub fn word(self) -> &'static str {
        WORDS[match self {
            Refusal::Special(kind) => kind as usize,
            Refusal::NotListed => 9,
            Refusal::Denied => 10,
        }]
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotListed => f.write_str(
                "is not a destination that this function lists; add it with --allow HOST:PORT",
            ),
            Refusal::Special(kind) if kind.never_opens() => write!(f, "is {kind}"),
            Refusal::Special(kind) => write!(
                f,
                "is {kind}, which functions reach only where the server's operator permits it \
                 (--egress-allow-private) and the function lists it (--allow)"
            ),
            Refusal::Denied => f.write_str("is denied by the server's operator (--egress-deny)"),
        }
    }
}

impl Operator {
    /// The same rules for a function that needs no proxy, as a filter of IPv4 addresses.
    pub(super) fn filter(&self, own: &[IpAddr]) -> Vec<Rule> {
        let rule = |accept, nets: &mut dyn Iterator<Item = Net>| Rule {
            accept,
            nets: nets.filter_map(Net::v4).collect(),
        };
        let permit = || self.permit.iter().copied();
        let special = |all: bool| {
            address::special()
                .filter(move |(_, kind)| all || !kind.opens_by_range())
                .map(|(net, _)| net)
        };
        let v4 = own.iter().filter_map(|address| match address {
            IpAddr::V4(address) => Some((*address, 32)),
            IpAddr::V6(_) => None,
        });
        vec![
            rule(false, &mut self.deny.iter().copied()),
            rule(true, &mut permit().filter(|net| net.is_single())),
            rule(false, &mut special(false)),
            Rule { accept: false, nets: v4.collect() },
            rule(true, &mut permit()),
            rule(false, &mut special(true)),
        ]
    }
}

impl Policy {
    /// The addresses among `addresses`, which `target` resolved to, that may be connected to.
    /// `linked` says that the function lists this very target as a link.
    ///
    /// # Errors
    /// Why none of them may.
    pub fn decide(
        &self,
        operator: &Operator,
        target: &Target,
        linked: bool,
        addresses: &[IpAddr],
        own: &[IpAddr],
    ) -> Result<Vec<SocketAddr>, Refusal> {
        let mut allowed = Vec::new();
        let mut refused = None;
        for address in addresses.iter().map(IpAddr::to_canonical) {
            match self.check(operator, target, linked, address, own) {
                Ok(()) => allowed.push(SocketAddr::new(address, target.port)),
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        match refused {
            Some(refusal) if allowed.is_empty() => Err(refusal),
            _ => Ok(allowed),
        }
    }

    fn check(
        &self,
        operator: &Operator,
        target: &Target,
        linked: bool,
        address: IpAddr,
        own: &[IpAddr],
    ) -> Result<(), Refusal> {
        if operator.deny.iter().any(|net| net.contains(address)) {
            return Err(Refusal::Denied);
        }
        let kind = address::kind(address, own);
        let permitted = |kind: Kind| {
            let opens =
                |net: &Net| net.contains(address) && (kind.opens_by_range() || net.is_single());
            !kind.never_opens() && operator.permit.iter().any(opens)
        };
        if let Some(kind) = kind.filter(|kind| !permitted(*kind)) {
            return Err(Refusal::Special(kind));
        }
        let open = self.learn || linked || (self.allow.is_empty() && kind.is_none());
        let listed = || self.allow.iter().any(|e| e.covers(&target.host, address, target.port));
        if open || listed() { Ok(()) } else { Err(Refusal::NotListed) }
    }
}
