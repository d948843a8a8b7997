#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::path::{Segment, parse, segments};
use super::*;

fn endpoint(name: &str, uris: &[&str], methods: &[&str], hosts: &[&str]) -> Endpoint {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Endpoint {
        name: name.to_owned(),
        function: "f".to_owned(),
        enabled: true,
        uris: texts(uris),
        methods: texts(methods),
        hosts: texts(hosts),
        org: "org".to_owned(),
        project: "default".to_owned(),
        ..Endpoint::default()
    }
}

fn of(org: &str, endpoint: Endpoint) -> Endpoint {
    Endpoint { org: org.to_owned(), ..endpoint }
}

fn table(endpoints: Vec<Endpoint>, single: bool) -> Table {
    let single_organization = single.then(|| "org".to_owned());
    Table::build(endpoints, &Options { domain: "dispatch.local".to_owned(), single_organization })
}

fn name(table: &Table, host: &str, method: &str, path: &str) -> Option<String> {
    table.find(host, method, path).unwrap().map(|found| found.endpoint.name.clone())
}

#[test]
fn the_more_exact_route_wins() {
    let all = vec![
        endpoint("rest", &["/a/*"], &[], &[]),
        endpoint("parameter", &["/a/{id}"], &[], &[]),
        endpoint("exact", &["/a/b"], &[], &[]),
        endpoint("longer", &["/a/b/*"], &[], &[]),
        endpoint("root", &["/"], &["GET"], &[]),
    ];
    let table = table(all, true);
    for (path, wanted) in [
        ("/a/b", Some("exact")),
        ("/a/c", Some("parameter")),
        ("/a/c/d", Some("rest")),
        ("/a/b/c", Some("longer")),
        ("/a", Some("rest")),
        ("/", Some("root")),
        ("/x", None),
    ] {
        assert_eq!(name(&table, "h", "GET", path).as_deref(), wanted, "{path}");
    }
}

#[test]
fn parameters_stand_for_one_decoded_segment() {
    let table = table(vec![endpoint("e", &["/a/{id}/{other}"], &[], &[])], true);
    for (path, id) in [
        ("/a/x%20y/z", "x y"),
        ("/a/%C3%A9/z", "é"),
        ("/a/..%2f..%2Fetc/z", "..%2F..%2Fetc"),
        ("/a/%252e%252e/z", "%2e%2e"),
    ] {
        let found = table.find("h", "GET", path).unwrap().unwrap();
        let wanted = [("id".to_owned(), id.to_owned()), ("other".to_owned(), "z".to_owned())];
        assert_eq!(found.parameters, wanted, "{path}");
    }
}

#[test]
fn hosts_decide_first() {
    let mut disabled = endpoint("off", &["/off"], &[], &["off.example.com"]);
    disabled.enabled = false;
    let all = vec![
        endpoint("default", &["/x"], &[], &[]),
        endpoint("own", &["/x", "/*"], &["GET"], &["www.example.com"]),
        endpoint("prefixed", &["/org/y"], &[], &[]),
        disabled,
    ];
    let many = table(all.clone(), false);
    for (host, path, wanted) in [
        ("WWW.example.com:80", "/x", Some("own")),
        ("www.example.com.", "/x", Some("own")),
        ("default.org.dispatch.local", "/x", Some("default")),
        ("127.0.0.1:8081", "/org/y", Some("prefixed")),
        ("www.example.com", "/org/y", Some("own")),
        // Whose would it be?
        ("127.0.0.1:8081", "/x", None),
        ("www.example.com..", "/x", None),
    ] {
        assert_eq!(name(&many, host, "GET", path).as_deref(), wanted, "{host} {path}");
    }
    assert_eq!(name(&many, "www.example.com", "PUT", "/org/y").as_deref(), Some("prefixed"));
    let one = table(all, true);
    for host in ["127.0.0.1:8081", "[::1]:8081", "[::1]", "", "localhost"] {
        assert_eq!(name(&one, host, "GET", "/x").as_deref(), Some("default"), "{host}");
    }
    // A known host answers for itself alone, also while its endpoints are disabled.
    assert_eq!(name(&one, "www.example.com", "POST", "/x"), None);
    assert_eq!(name(&one, "off.example.com", "GET", "/x"), None);
    assert_eq!(name(&one, "off.example.com", "GET", "/off"), None);
}

#[test]
fn no_organization_answers_for_another() {
    let all = vec![
        of("a", endpoint("first", &["/x"], &[], &["www.example.com"])),
        of("b", endpoint("second", &["/x/y"], &[], &["www.example.com"])),
        of("a", endpoint("thief", &["/*"], &[], &["default.b.dispatch.local"])),
        of("b", endpoint("honest", &["/x"], &[], &[])),
        of("a", endpoint("squatter", &["/b/x"], &[], &[])),
        of("b", endpoint("prefixed", &["/b/y"], &[], &[])),
    ];
    let table = table(all, false);
    for (host, path, wanted) in [
        ("www.example.com", "/x", Some("first")),
        ("www.example.com", "/x/y", None),
        ("default.b.dispatch.local", "/x", Some("honest")),
        ("default.b.dispatch.local", "/z", None),
        ("localhost", "/b/x", None),
        ("localhost", "/b/y", Some("prefixed")),
    ] {
        assert_eq!(name(&table, host, "GET", path).as_deref(), wanted, "{host} {path}");
    }
    for (host, org, free) in [
        ("www.example.com", "a", true),
        ("WWW.Example.com", "b", false),
        ("shop.example.com", "b", true),
        ("default.b.dispatch.local", "a", false),
        ("p.b.dispatch.local", "b", true),
        ("b.dispatch.local", "a", false),
        ("notdispatch.local", "a", true),
    ] {
        assert_eq!(table.check_host(host, org).is_ok(), free, "{host} {org}");
    }
}

#[test]
fn methods() {
    let all = vec![
        endpoint("a", &["/x"], &["GET", "POST"], &[]),
        endpoint("b", &["/x"], &["OPTIONS", "DELETE"], &[]),
        endpoint("c", &["/*"], &[], &[]),
    ];
    let table = table(all, true);
    for (method, path, wanted) in [
        ("GET", "/x", Some("a")),
        ("HEAD", "/x", Some("a")),
        ("DELETE", "/x", Some("b")),
        ("OPTIONS", "/x", Some("b")),
        ("PUT", "/x", Some("c")),
        ("OPTIONS", "/y", Some("c")),
        ("CONNECT", "/y", None),
        ("get", "/x", Some("c")),
    ] {
        assert_eq!(name(&table, "h", method, path).as_deref(), wanted, "{method} {path}");
    }
}

#[test]
fn no_spelling_gets_past_a_route() {
    let table = table(vec![endpoint("e", &["/a/b"], &[], &[])], true);
    for path in [
        "/a/b",
        "//a//b/",
        "/a/./b",
        "/a/c/../b",
        "/%61/b",
        "/a/%2e/b",
        "/x/%2e%2e/a/b",
        "/../a/b",
        "/x/.%2E/a/b",
    ] {
        assert!(name(&table, "h", "GET", path).is_some(), "{path}");
    }
    for path in ["/a%2fb", "/a/b%2f", "/%252e%252e/a/b", "/A/b", "/a\\b"] {
        assert!(name(&table, "h", "GET", path).is_none(), "{path}");
    }
    for path in ["/%", "/%z", "/%zz", "/%ff", "/%00", "/a/%c0%af", "/%+1"] {
        assert_eq!(table.find("h", "GET", path).err(), Some(BadPath), "{path}");
    }
}

#[test]
fn paths_of_endpoints_are_checked() {
    for good in ["/", "/a", "/a/{id}/b", "/a/*", "/a%20b", "/~x", "/a%2fb", "/a%2Ab"] {
        assert_eq!(check_uri(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "a",
        "/a/../b",
        "/a/%2e%2e/b",
        "/a b",
        "/a?b",
        "/*/a",
        "/a*",
        "/{a}/{a}",
        "/{}",
        "/x{a}",
        "/{a}x",
        "/%zz",
        "/a\\b",
        "/é",
    ] {
        assert!(check_uri(bad).is_err(), "{bad}");
    }
    assert!(check_uri(&format!("/{}", "a".repeat(1024))).is_err());
}

/// The plain reading of the rules: of all routes that fit, the most exact, then the first by name.
fn model(endpoints: &[Endpoint], method: &str, path: &[String]) -> Option<String> {
    let fits = |pattern: &[Segment]| {
        let open = pattern.last() == Some(&Segment::Rest);
        let fixed = &pattern[..pattern.len() - usize::from(open)];
        (if open { path.len() >= fixed.len() } else { path.len() == fixed.len() })
            && fixed.iter().zip(path).all(|(segment, part)| match segment {
                Segment::Exact(text) => text == part,
                Segment::Parameter(_) => true,
                Segment::Rest => false,
            })
    };
    let rank = |pattern: &[Segment]| -> Vec<u8> {
        let kinds = pattern.iter().map(|segment| match segment {
            Segment::Exact(_) => 0,
            Segment::Parameter(_) => 1,
            Segment::Rest => 3,
        });
        kinds.chain((pattern.last() != Some(&Segment::Rest)).then_some(2)).collect()
    };
    let takes = |endpoint: &Endpoint| endpoint.methods.is_empty() || endpoint.methods[0] == method;
    endpoints
        .iter()
        .filter(|endpoint| takes(endpoint))
        .flat_map(|endpoint| endpoint.uris.iter().map(move |uri| (parse(uri).unwrap(), endpoint)))
        .filter(|(pattern, _)| fits(pattern))
        .min_by_key(|(pattern, endpoint)| (rank(pattern), endpoint.name.clone()))
        .map(|(_, endpoint)| endpoint.name.clone())
}

fn uris() -> impl Strategy<Value = Vec<String>> {
    let segment = prop_oneof![3 => Just("a"), 3 => Just("b"), 2 => Just("{}")];
    let uri = (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(parts, open)| {
        let numbered = parts.iter().enumerate().map(|(at, part)| match *part {
            "{}" => format!("/{{p{at}}}"),
            text => format!("/{text}"),
        });
        let tail = if open { "/*" } else { "/" };
        numbered.chain([tail.to_owned()]).collect::<String>()
    });
    prop::collection::vec(uri, 1..3)
}

proptest! {
    #[test]
    fn finding_agrees_with_the_plain_reading_of_the_rules(
        routes in prop::collection::vec((uris(), prop::option::of("GET|PUT")), 0..12),
        method in "GET|PUT",
        path in "(/[ab]){0,4}",
    ) {
        let endpoints: Vec<Endpoint> = routes
            .iter()
            .enumerate()
            .map(|(at, (uris, method))| {
                let uris: Vec<&str> = uris.iter().map(String::as_str).collect();
                endpoint(&format!("e{at:02}"), &uris, method.as_deref().as_slice(), &[])
            })
            .collect();
        let wanted = model(&endpoints, &method, &segments(&path).unwrap());
        let table = table(endpoints, true);
        let found = table.find("h", &method, &path).unwrap();
        if let Some(found) = &found {
            let parts = segments(&path).unwrap();
            for (name, value) in &found.parameters {
                prop_assert_eq!(value, &parts[name[1..].parse::<usize>().unwrap()]);
            }
        }
        prop_assert_eq!(found.map(|found| found.endpoint.name.clone()), wanted);
    }

    /// However a path is spelled, its segments never lead out of the root, are never empty, and are
    /// the same when they are written plainly.
    #[test]
    fn normalising_never_escapes(path in "(/([ab.]|%2[eEfF]|%61|%25){0,4}){0,6}") {
        let segments = segments(&path).unwrap();
        for segment in &segments {
            prop_assert!(!matches!(segment.as_str(), "" | "." | ".."));
            prop_assert!(!segment.contains('/'));
        }
        let plain: String =
            segments.iter().map(|part| format!("/{}", part.replace("%2F", "/").replace('%', "%25").replace('/', "%2F"))).collect();
        prop_assert_eq!(super::path::segments(&plain).unwrap(), segments);
    }

    #[test]
    fn strange_paths_and_hosts_are_found_or_refused(host in ".{0,12}", path in ".{0,24}") {
        let table = table(vec![endpoint("e", &["/a/{b}", "/*"], &[], &[])], true);
        let _ = table.find(&host, "GET", &path);
    }

    #[test]
    fn stored_paths_that_pass_are_found_again(uri in "(/[a-z{}*]{1,3}){1,4}") {
        if check_uri(&uri).is_ok() {
            let table = table(vec![endpoint("e", &[&uri], &[], &[])], true);
            let path = uri.replace('*', "x").replace(['{', '}'], "");
            prop_assert!(name(&table, "h", "GET", &path).is_some());
        }
    }
}
