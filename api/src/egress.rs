//! What a function may reach on the network: hosts, address ranges, rules, links.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A host as somebody names it: in lower case, without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name to be resolved.
    Name(String),
    /// An address. An IPv4 address in IPv6's notation is the IPv4 address.
    Address(IpAddr),
}

impl FromStr for Host {
    type Err = String;

    /// Reads `db.example`, `203.0.113.7`, `::1` or `[::1]`. Numbers in other notations, which some
    /// resolvers take for addresses, are refused.
    fn from_str(text: &str) -> Result<Host, String> {
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(inner) = bracketed {
            let address: std::net::Ipv6Addr =
                inner.parse().map_err(|_| format!("{text:?} is not an IPv6 address"))?;
            return Ok(Host::Address(IpAddr::from(address).to_canonical()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Host::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let word = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(word) {
            return Err(format!("{text:?} is not a host name: letters, digits, dashes and dots"));
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x").is_some_and(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        if hex || last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("{text:?} is no address in the usual notation, as 203.0.113.7 is"));
        }
        Ok(Host::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Host::Address(address) => write!(f, "{address}"),
        }
    }
}

/// A host and a port: `db.example:5432`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The TCP port, never 0.
    pub port: u16,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        let (host, port) = text
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains(':') || host.ends_with(']'))
            .ok_or_else(|| format!("{text:?} is not HOST:PORT"))?;
        Ok(Target { host: host.parse()?, port: self::port(port)? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err(format!("{text:?} is not a port: 1 to 65535")),
    }
}

/// A range of addresses: `10.1.0.0/16`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Net {
    address: IpAddr,
    prefix: u8,
}

impl Net {
    /// How many bits of the address count.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its first address and its bits, where it is of IPv4.
    pub fn v4(self) -> Option<(std::net::Ipv4Addr, u8)> {
        match self.address {
            IpAddr::V4(address) => Some((address, self.prefix)),
            IpAddr::V6(_) => None,
        }
    }

    /// Whether it is the range of one address.
    pub fn is_single(self) -> bool {
        self.prefix == width(self.address)
    }

    /// Whether an address is in it. IPv4 addresses are never in a range of IPv6.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && masked(address, self.prefix) == masked(self.address, self.prefix)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The first `prefix` bits of an address.
fn masked(address: IpAddr, prefix: u8) -> u128 {
    let bits = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    if prefix == 0 { 0 } else { bits >> (128 - u32::from(prefix)) }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Net, String> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let bad = || format!("{text:?} is not a range of addresses such as 10.1.0.0/16");
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = width(address);
        let prefix = match prefix {
            None => most,
            Some(prefix) => prefix.parse().ok().filter(|p| *p <= most).ok_or_else(bad)?,
        };
        let rest = u32::from(most - prefix);
        let low = match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        if rest > 0 && low & (u128::MAX >> (128 - rest)) != 0 {
            return Err(format!("{text:?} has more digits than /{prefix} counts: make them zero"));
        }
        Ok(Net { address, prefix })
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_single() {
            true => write!(f, "{}", self.address),
            false => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}

/// One entry of an allow-list: `api.example`, `*.example:443`, `10.1.0.0/16:5432`, `*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allow {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Hosts {
    Any,
    Name(String),
    /// All names that end in a dot and this, whatever comes before.
    Below(String),
    Net(Net),
}

impl Allow {
    /// Whether it covers `host`, which has the address `address`, at `port`.
    pub fn covers(&self, host: &Host, address: IpAddr, port: u16) -> bool {
        let named =
            |wanted: &dyn Fn(&str) -> bool| matches!(host, Host::Name(name) if wanted(name));
        let host = match &self.hosts {
            Hosts::Any => true,
            Hosts::Net(net) => net.contains(address),
            Hosts::Name(name) => named(&|asked| asked == name),
            Hosts::Below(name) => named(&|asked| {
                asked.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }),
        };
        host && self.port.is_none_or(|own| own == port)
    }
}

impl From<&Target> for Allow {
    fn from(target: &Target) -> Allow {
        let hosts = match &target.host {
            Host::Name(name) => Hosts::Name(name.clone()),
            Host::Address(address) => {
                Hosts::Net(Net { address: *address, prefix: width(*address) })
            }
        };
        Allow { hosts, port: Some(target.port) }
    }
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Allow, String> {
        let (hosts, port) = if let Some(rest) = text.strip_prefix('[') {
            let (hosts, port) =
                rest.split_once(']').ok_or_else(|| format!("{text:?} has no closing bracket"))?;
            let port = match port.strip_prefix(':') {
                None if port.is_empty() => None,
                port => Some(self::port(port.unwrap_or_default())?),
            };
            (Hosts::Net(hosts.parse()?), port)
        } else {
            let (host, port) = match text.split_once(':') {
                // More than one colon: IPv6 without brackets has no port.
                Some((host, port)) if !port.contains(':') => (host, Some(self::port(port)?)),
                _ => (text, None),
            };
            (hosts(host)?, port)
        };
        Ok(Allow { hosts, port })
    }
}

fn hosts(text: &str) -> Result<Hosts, String> {
    if text == "*" {
        return Ok(Hosts::Any);
    }
    if text.contains('/') {
        return text.parse().map(Hosts::Net);
    }
    let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
    match name.parse()? {
        Host::Name(name) if below => Ok(Hosts::Below(name)),
        Host::Name(name) => Ok(Hosts::Name(name)),
        Host::Address(_) if below => Err(format!("{text:?}: only names have parts before a dot")),
        Host::Address(address) => Ok(Hosts::Net(Net { address, prefix: width(address) })),
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Any => f.write_str("*")?,
            Hosts::Name(name) => f.write_str(name)?,
            Hosts::Below(name) => write!(f, "*.{name}")?,
            Hosts::Net(net) if net.address.is_ipv6() => write!(f, "[{net}]")?,
            Hosts::Net(net) => write!(f, "{net}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A port of the function's own `127.0.0.1` that leads to a place outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Link {
    /// The port inside, 1 to 65535.
    pub listen: u16,
    /// Where it leads: `HOST:PORT`.
    pub to: String,
}

/// Where a function went, or wanted to go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    /// The host, as the function named it.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// Connections, or refusals.
    pub count: i64,
    /// Unix seconds.
    pub first_seen: i64,
    /// Unix seconds.
    pub last_seen: i64,
    /// Why it was refused; absent where it was not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The part of a function that says what it may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressPolicy {
    /// One of [`EGRESS`](crate::function::EGRESS).
    pub egress: String,
    /// The only destinations; none listed means all public ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_allow: Vec<String>,
    /// Ports inside that lead outside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
}

/// What a function may reach, what it reached, and the policy that would allow just that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Egress {
    /// The policy in force, with the server's defaults filled in.
    pub policy: EgressPolicy,
    /// Where it went while it was learnt.
    pub reached: Vec<Destination>,
    /// What was refused.
    pub refused: Vec<Destination>,
    /// Destinations that are in neither list because it was full.
    pub unlisted: i64,
    /// The policy that allows what was reached, and nothing else; absent where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested: Option<EgressPolicy>,
}

#[cfg(test)]
mod tests;
