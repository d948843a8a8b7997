//! Addresses that are not simply somebody on the internet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use dispatch_api::egress::Net;

use crate::pool::lock;

/// What is special about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No address at all; a connection to it would be one to this machine.
    Unspecified,
    /// This machine, seen from itself.
    Loopback,
    /// Of one cable.
    LinkLocal,
    /// Where clouds hand out credentials.
    Metadata,
    /// Of a private network.
    Private,
    /// Of a provider's own network.
    Shared,
    /// Of many machines.
    Multicast,
    /// For documentation, tests, protocols, or not given out.
    Reserved,
    /// This machine's, whatever else it is.
    Own,
}

impl Kind {
    /// Whether an operator can permit it by a range; otherwise only by the very address.
    pub fn opens_by_range(self) -> bool {
        !matches!(self, Kind::Metadata | Kind::Own)
    }

    /// Whether nobody can permit it.
    pub fn never_opens(self) -> bool {
        matches!(self, Kind::Unspecified | Kind::Multicast)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Unspecified => "the unspecified address",
            Kind::Loopback => "a loopback address",
            Kind::LinkLocal => "a link-local address",
            Kind::Metadata => "a metadata address",
            Kind::Private => "a private address",
            Kind::Shared => "an address of a provider's own network",
            Kind::Multicast => "a multicast address",
            Kind::Reserved => "a reserved address",
            Kind::Own => "an address of this machine",
        })
    }
}

/// The first range that holds an address counts. From IANA's registries of special-purpose addresses
/// for IPv4 and IPv6; the metadata addresses are those that the clouds document.
const SPECIAL: &[(&str, Kind)] = &[
    ("169.254.169.254", Kind::Metadata),
    ("169.254.169.123", Kind::Metadata),
    ("169.254.169.253", Kind::Metadata),
    ("169.254.170.2", Kind::Metadata),
    ("169.254.170.23", Kind::Metadata),
    ("100.100.100.200", Kind::Metadata),
    ("168.63.129.16", Kind::Metadata),
    ("192.0.0.192", Kind::Metadata),
    ("fd00:ec2::254", Kind::Metadata),
    ("fd00:ec2::23", Kind::Metadata),
    ("fd00:ec2::253", Kind::Metadata),
    ("fd20:ce::254", Kind::Metadata),
    ("0.0.0.0/8", Kind::Unspecified),
    ("10.0.0.0/8", Kind::Private),
    ("100.64.0.0/10", Kind::Shared),
    ("127.0.0.0/8", Kind::Loopback),
    ("169.254.0.0/16", Kind::LinkLocal),
    ("172.16.0.0/12", Kind::Private),
    ("192.0.0.0/24", Kind::Reserved),
    ("192.0.2.0/24", Kind::Reserved),
    ("192.88.99.0/24", Kind::Reserved),
    ("192.168.0.0/16", Kind::Private),
    ("198.18.0.0/15", Kind::Reserved),
    ("198.51.100.0/24", Kind::Reserved),
    ("203.0.113.0/24", Kind::Reserved),
    ("224.0.0.0/4", Kind::Multicast),
    ("240.0.0.0/4", Kind::Reserved),
    ("::", Kind::Unspecified),
    ("::1", Kind::Loopback),
    ("fc00::/7", Kind::Private),
    ("fe80::/10", Kind::LinkLocal),
    ("fec0::/10", Kind::Private),
    ("ff00::/8", Kind::Multicast),
    ("2001::/23", Kind::Reserved),
    ("2001:db8::/32", Kind::Reserved),
    ("3fff::/20", Kind::Reserved),
];

static NETS: LazyLock<Vec<(Net, Kind)>> = LazyLock::new(|| {
    let read = |(net, kind): &(&str, Kind)| net.parse().ok().map(|net| (net, *kind));
    SPECIAL.iter().filter_map(read).collect()
});

/// All special ranges, the first that holds an address being the one that counts.
pub(super) fn special() -> impl Iterator<Item = (Net, Kind)> {
    NETS.iter().copied()
}

/// What is special about an address, itself or the IPv4 address that it stands for.
pub fn kind(address: IpAddr, own: &[IpAddr]) -> Option<Kind> {
    let address = address.to_canonical();
    let of = |address: IpAddr| match NETS
        .iter()
        .find(|(net, _)| net.contains(address))
        .map(|(_, kind)| *kind)
    {
        Some(kind @ (Kind::Loopback | Kind::Metadata)) => Some(kind),
        Some(kind) if kind.never_opens() => Some(kind),
        _ if own.contains(&address) => Some(Kind::Own),
        kind => kind,
    };
    let IpAddr::V6(v6) = address else { return of(address) };
    if let Some(inner) = embedded(v6) {
        return of(address).or_else(|| of(inner.into()));
    }
    // All that is given out to the public.
    of(address).or_else(|| (v6.segments()[0] >> 13 != 1).then_some(Kind::Reserved))
}

/// The IPv4 address that translators and tunnels would take an IPv6 address for.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let v4 =
        |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match s {
        // NAT64.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        // 6to4.
        [0x2002, high, low, ..] => v4(high, low),
        // ISATAP.
        [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, high, low] => v4(high, low),
        _ => None,
    }
}

/// How long the machine's addresses are taken to stay as they are.
const FRESH: Duration = Duration::from_secs(5);

/// The machine's own addresses.
#[derive(Debug, Default)]
pub(super) struct Own(Mutex<Option<(Instant, Vec<IpAddr>)>>);

impl Own {
    /// As they are now, or were a moment ago.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut known = lock(&self.0);
        if let Some((since, addresses)) = &*known
            && since.elapsed() < FRESH
        {
            return addresses.clone();
        }
        let addresses: Vec<IpAddr> = match nix::ifaddrs::getifaddrs() {
            Ok(all) => all.filter_map(|interface| ip(&interface.address?)).collect(),
            Err(error) => {
                tracing::error!(%error, "the machine's own addresses cannot be read");
                known.as_ref().map(|(_, addresses)| addresses.clone()).unwrap_or_default()
            }
        };
        *known = Some((Instant::now(), addresses.clone()));
        addresses
    }
}

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}
