#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn hosts_have_one_spelling() {
    for (text, shown) in [
        ("Example.COM.", "example.com"),
        ("a_b.example", "a_b.example"),
        ("203.0.113.7", "203.0.113.7"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("2001:db8::1", "[2001:db8::1]"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[::ffff:7f00:1]", "127.0.0.1"),
    ] {
        assert_eq!(text.parse::<Host>().unwrap().to_string(), shown, "{text}");
    }
}

#[test]
fn other_notations_of_numbers_are_no_hosts() {
    for text in [
        "2130706433",
        "0x7f000001",
        "017700000001",
        "127.1",
        "0177.0.0.1",
        "127.0.0.01",
        "0x7f.0.0.1",
        "1.2.3.4.5",
        "a.0x",
        "127.0.0.1.",
        "",
        ".",
        "a..b",
        "a b",
        "é.example",
        "a@b",
        "a/b",
        "a%00b",
        "a\nb",
        "[127.0.0.1]",
        "[::1",
        "::1]",
        "[fe80::1%eth0]",
        "a:1",
    ] {
        assert!(text.parse::<Host>().is_err(), "{text:?}");
    }
    let long = format!("{}.example", "a".repeat(64));
    assert!(long.parse::<Host>().is_err());
    assert!(vec!["a"; 128].join(".").parse::<Host>().is_err());
}

#[test]
fn targets_have_a_port() {
    for (text, shown) in [
        ("db.example:5432", "db.example:5432"),
        ("[::1]:80", "[::1]:80"),
        ("127.0.0.1:65535", "127.0.0.1:65535"),
    ] {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
    }
    for text in ["db.example", "db:0", "db:65536", "db:+80", "db:", ":80", "::1:80", "a:b:80"] {
        assert!(text.parse::<Target>().is_err(), "{text:?}");
    }
}

#[test]
fn ranges_hold_their_addresses() {
    for (net, inside, outside) in [
        ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("fd00::/8", "fdff::1", "fe00::1"),
        ("0.0.0.0/0", "255.255.255.255", "::1"),
        ("::/0", "ffff::1", "127.0.0.1"),
        ("172.16.0.0/12", "172.31.255.255", "172.32.0.0"),
    ] {
        let net: Net = net.parse().unwrap();
        assert!(net.contains(ip(inside)) && !net.contains(ip(outside)), "{net}");
    }
    for bad in ["10.1.0.0/33", "10.1.0.1/16", "10.1/16", "fd00::/129", "a/8", "10.0.0.0/", "/8"] {
        assert!(bad.parse::<Net>().is_err(), "{bad}");
    }
}

#[test]
fn entries_cover_what_they_say() {
    let public = ip("203.0.113.7");
    let covers = |entry: &str, host: &str, port| {
        let entry: Allow = entry.parse().unwrap();
        let host: Host = host.parse().unwrap();
        let address = if let Host::Address(address) = host { address } else { public };
        entry.covers(&host, address, port)
    };
    for (entry, host, port, yes) in [
        ("*", "a.example", 1, true),
        ("*:443", "a.example", 443, true),
        ("*:443", "a.example", 80, false),
        ("a.example", "a.example", 80, true),
        ("A.Example:80", "a.example", 80, true),
        ("a.example", "b.a.example", 80, false),
        ("*.example", "a.b.example", 80, true),
        ("*.example", "example", 80, false),
        ("*.example", "notexample", 80, false),
        ("203.0.113.0/24:443", "203.0.113.9", 443, true),
        // Whatever a name stands for counts by its address too.
        ("203.0.113.0/24", "a.example", 80, true),
        ("203.0.113.7", "203.0.113.8", 80, false),
        ("[2001:db8::/32]:443", "[2001:db8::9]", 443, true),
        ("2001:db8::/32", "[2001:db8::9]", 80, true),
        // An address is not a name.
        ("*.0.113.7x", "203.0.113.7", 80, false),
    ] {
        assert_eq!(covers(entry, host, port), yes, "{entry} {host}:{port}");
    }
    for bad in [
        "",
        ":80",
        "a.example:",
        "a.example:0",
        "*.",
        "*.*",
        "a.*",
        "*.1.2.3.4",
        "**",
        "a:b:c",
        "[a.example]:80",
        "[::1",
        "[::1]80",
        "http://a.example",
        "a.example/x",
        "10.0.0.1/8",
    ] {
        assert!(bad.parse::<Allow>().is_err(), "{bad:?}");
    }
}

proptest! {
    /// What is shown can be read again and means the same.
    #[test]
    fn entries_are_read_as_they_are_shown(text in "(\\*\\.)?[a-z0-9.]{1,12}(:[0-9]{1,5})?") {
        if let Ok(entry) = text.parse::<Allow>() {
            prop_assert_eq!(entry.to_string().parse::<Allow>(), Ok(entry));
        }
    }

    #[test]
    fn no_text_breaks_the_readers(text in ".{0,60}") {
        let _ = (text.parse::<Host>(), text.parse::<Target>(), text.parse::<Net>());
        let _ = text.parse::<Allow>();
    }

    #[test]
    fn every_address_is_read_as_it_is_shown(bits: u128, v4: u32) {
        for address in [IpAddr::from(bits.to_be_bytes()), IpAddr::from(v4.to_be_bytes())] {
            let target = Target { host: Host::Address(address.to_canonical()), port: 1 };
            prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target.clone()));
            let entry = Allow::from(&target);
            prop_assert_eq!(entry.to_string().parse::<Allow>(), Ok(entry.clone()));
            prop_assert!(entry.covers(&target.host, address.to_canonical(), 1));
        }
    }
}
