#![allow(clippy::unwrap_used)]
use std::net::IpAddr;

use proptest::prelude::*;

use super::address::{Kind, kind};
use super::policy::{Operator, Policy, Refusal};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const OWN: &str = "93.184.216.1";

#[test]
fn every_special_range_is_known() {
    use Kind::*;
    for (kind_of, addresses) in [
        (Unspecified, "0.0.0.0 0.1.2.3 :: ::ffff:0.0.0.0 64:ff9b::"),
        (Loopback, "127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::"),
        (LinkLocal, "169.254.1.1 fe80::1 febf::1 ::ffff:169.254.1.1"),
        (Metadata, "169.254.169.254 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1"),
        (Metadata, "fd00:ec2::254 fd20:ce::254 100.100.100.200 168.63.129.16 192.0.0.192"),
        (Metadata, "169.254.170.2 169.254.170.23 2001:4860::5efe:a9fe:a9fe"),
        (Private, "10.0.0.0 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 fc00::1 fdff::1"),
        (
            Private,
            "::ffff:10.0.0.1 64:ff9b::c0a8:1 2002:ac10:1::1 fec0::1 2001:4860::200:5efe:a00:1",
        ),
        (Shared, "100.64.0.1 100.127.255.255 ::ffff:100.64.0.1"),
        (Multicast, "224.0.0.1 239.255.255.255 ff02::1 ff0e::1 ::ffff:224.0.0.1"),
        (Reserved, "192.0.0.1 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.1"),
        (Reserved, "203.0.113.1 240.0.0.1 255.255.255.255 100::1 2001::1 2001:2::1 2001:db8::1"),
        (Reserved, "3fff::1 5f00::1 64:ff9b:1::1 ::7f00:1 ::2 ::ffff:0:7f00:1 4000::1 200::1"),
        (Own, "93.184.216.1 ::ffff:93.184.216.1 64:ff9b::5db8:d801 2002:5db8:d801::1"),
    ] {
        for address in addresses.split(' ') {
            assert_eq!(kind(ip(address), &[ip(OWN)]), Some(kind_of), "{address}");
        }
    }
    for public in
        "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 \
                   128.0.0.1 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 \
                   192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 168.63.129.15 192.0.1.0 \
                   2606:4700::1111 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1 \
                   2001:4860:4860::8888"
            .split_whitespace()
    {
        assert_eq!(kind(ip(public), &[ip(OWN)]), None, "{public}");
    }
}

fn operator(permit: &[&str], deny: &[&str]) -> Operator {
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
    Operator { permit: nets(permit), deny: nets(deny), ..Operator::default() }
}

fn policy(allow: &[&str]) -> Policy {
    Policy { allow: allow.iter().map(|entry| entry.parse().unwrap()).collect(), learn: false }
}

/// The addresses that may be connected to, or why none.
fn decide(
    policy: &Policy,
    operator: &Operator,
    target: &str,
    addresses: &str,
) -> Result<String, &'static str> {
    let addresses: Vec<IpAddr> = addresses.split_whitespace().map(ip).collect();
    let decided = policy.decide(operator, &target.parse().unwrap(), false, &addresses, &[ip(OWN)]);
    let words = |all: Vec<_>| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    decided.map(words).map_err(Refusal::word)
}

#[test]
fn without_a_list_the_public_internet_is_open_and_nothing_else() {
    let (open, nobody) = (policy(&[]), Operator::default());
    for (addresses, expected) in [
        ("1.1.1.1 2606:4700::1111", Ok("1.1.1.1:443 [2606:4700::1111]:443")),
        // A name with several addresses: only those that may be connected to are.
        ("127.0.0.1 1.1.1.1 10.0.0.1", Ok("1.1.1.1:443")),
        ("::ffff:1.1.1.1", Ok("1.1.1.1:443")),
        ("127.0.0.1", Err("loopback")),
        ("169.254.169.254", Err("metadata")),
        ("10.0.0.1 127.0.0.1", Err("private")),
        ("93.184.216.1", Err("own")),
        ("64:ff9b::a00:1", Err("private")),
        ("", Ok("")),
    ] {
        let decided = decide(&open, &nobody, "a.example:443", addresses);
        assert_eq!(decided.as_deref(), expected.as_deref(), "{addresses}");
    }
}

#[test]
fn a_function_opens_only_what_the_operator_permits() {
    let lists = policy(&["*", "10.0.0.0/8", "127.0.0.1", "169.254.169.254", "93.184.216.1"]);
    let some = operator(&["10.1.0.0/16"], &[]);
    for (address, expected) in [
        ("10.1.2.3", Ok("10.1.2.3:80")),
        ("10.2.0.1", Err("private")),
        ("127.0.0.1", Err("loopback")),
        ("169.254.169.254", Err("metadata")),
        ("93.184.216.1", Err("own")),
        // Another way to write the same network is another way in, which nobody permitted.
        ("64:ff9b::a01:203", Err("private")),
    ] {
        let decided = decide(&lists, &some, "a.example:80", address);
        assert_eq!(decided.as_deref(), expected.as_deref(), "{address}");
    }
    // What the operator permits a function still has to list.
    assert_eq!(decide(&policy(&[]), &some, "a.example:80", "10.1.2.3"), Err("not-listed"));
    assert_eq!(
        decide(&policy(&["b.example"]), &some, "a.example:80", "10.1.2.3"),
        Err("not-listed")
    );
    let learns = Policy { learn: true, ..policy(&["b.example"]) };
    assert!(decide(&learns, &some, "a.example:80", "10.1.2.3").is_ok());
    assert_eq!(decide(&learns, &some, "a.example:80", "10.2.2.3"), Err("private"));
}

#[test]
fn ranges_do_not_open_metadata_or_the_machine_itself() {
    let lists = policy(&["*"]);
    let ranges = operator(&["169.254.0.0/16", "93.184.0.0/16", "fd00::/8", "100.64.0.0/10"], &[]);
    for (address, reason) in [
        ("169.254.169.254", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("93.184.216.1", "own"),
    ] {
        assert_eq!(decide(&lists, &ranges, "a.example:80", address), Err(reason));
        assert!(decide(&lists, &operator(&[address], &[]), "a.example:80", address).is_ok());
    }
    assert!(decide(&lists, &ranges, "a.example:80", "169.254.1.1").is_ok());
    for address in ["0.0.0.0", "224.0.0.1", "::", "ff02::1"] {
        assert!(decide(&lists, &operator(&[address], &[]), "a.example:80", address).is_err());
    }
}

#[test]
fn what_the_operator_denies_stays_denied() {
    let denies = operator(&["10.0.0.0/8"], &["1.1.1.0/24", "10.9.0.0/16"]);
    for policy in [policy(&["*"]), Policy { learn: true, ..Policy::default() }] {
        assert_eq!(decide(&policy, &denies, "a.example:80", "1.1.1.1"), Err("denied"));
        assert_eq!(decide(&policy, &denies, "a.example:80", "::ffff:1.1.1.1"), Err("denied"));
        assert_eq!(decide(&policy, &denies, "a.example:80", "10.9.0.1"), Err("denied"));
        assert!(decide(&policy, &denies, "a.example:80", "10.8.0.1").is_ok());
    }
}

#[test]
fn a_link_is_a_listing_of_its_own_and_no_more() {
    let (policy, nobody) = (policy(&["b.example"]), Operator::default());
    let target = "a.example:5432".parse().unwrap();
    let decide = |operator: &Operator, linked, address| {
        policy.decide(operator, &target, linked, &[ip(address)], &[]).map_err(Refusal::word)
    };
    assert_eq!(decide(&nobody, false, "1.1.1.1"), Err("not-listed"));
    assert!(decide(&nobody, true, "1.1.1.1").is_ok());
    assert_eq!(decide(&nobody, true, "10.0.0.1"), Err("private"));
    assert!(decide(&operator(&["10.0.0.0/8"], &[]), true, "10.0.0.1").is_ok());
}

#[test]
fn the_filter_of_a_network_says_the_same_as_the_proxy() {
    let operator = operator(&["10.1.0.0/16", "169.254.0.0/16", "127.0.0.1"], &["10.1.9.0/24"]);
    let own = [ip(OWN)];
    let rules = operator.filter(&own);
    let filtered = |address: std::net::Ipv4Addr| {
        let found = rules.iter().find(|rule| {
            rule.nets.iter().any(|(net, bits)| {
                let net: dispatch_api::egress::Net = format!("{net}/{bits}").parse().unwrap();
                net.contains(address.into())
            })
        });
        found.is_none_or(|rule| rule.accept)
    };
    let target = "a.example:80".parse().unwrap();
    let learns = Policy { learn: true, ..Policy::default() };
    for address in [
        "1.1.1.1",
        "10.1.0.1",
        "10.1.9.1",
        "10.2.0.1",
        "169.254.169.254",
        "169.254.1.1",
        "127.0.0.1",
        "127.0.0.2",
        OWN,
        "224.0.0.1",
        "0.0.0.0",
        "100.64.0.1",
        "100.100.100.200",
        "255.255.255.255",
    ] {
        let decided = learns.decide(&operator, &target, false, &[ip(address)], &own).is_ok();
        assert_eq!(filtered(address.parse().unwrap()), decided, "{address}");
    }
}

proptest! {
    /// However an address is written, a function without an operator's help reaches only addresses
    /// that are nobody's but the public's.
    #[test]
    fn only_public_addresses_come_out(v4: u32, high: u64, low: u64, form in 0..5) {
        let v4 = std::net::Ipv4Addr::from(v4);
        let inner = u128::from(v4.to_bits());
        let address: IpAddr = match form {
            0 => v4.into(),
            1 => v4.to_ipv6_mapped().into(),
            2 => std::net::Ipv6Addr::from(0x64_ff9b_u128 << 96 | inner).into(),
            3 => std::net::Ipv6Addr::from(0x2002_u128 << 112 | inner << 80 | u128::from(low)).into(),
            _ => std::net::Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)).into(),
        };
        let target = "a.example:80".parse().unwrap();
        let policy = policy(&["*"]);
        let own = [ip(OWN)];
        let decided = policy.decide(&Operator::default(), &target, true, &[address], &own);
        let plain = kind(v4.into(), &own).is_none();
        if form < 4 {
            prop_assert_eq!(decided.is_ok(), plain, "{}", address);
        }
        for allowed in decided.into_iter().flatten() {
            prop_assert!(kind(allowed.ip(), &own).is_none());
            prop_assert!(!matches!(allowed.ip(), IpAddr::V4(a) if a.is_private() || a.is_loopback()
                || a.is_link_local() || a.is_multicast() || a.is_broadcast() || a.is_unspecified()));
        }
    }
}
