//! From host, method and path to an endpoint: one structure in memory, built as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use dispatch_api::Endpoint;

/// What the table must know about the server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The domain of default hosts.
    pub domain: String,
    /// The organization whose endpoints answer requests to any unknown host, where it is the only
    /// one that has endpoints.
    pub single_organization: Option<String>,
}

/// The routes of all enabled endpoints.
#[derive(Debug, Default)]
pub struct Table {
    hosts: HashMap<String, Vec<Route>>,
    /// Routes that answer on any host that has none of its own that fits.
    any: Vec<Route>,
}

#[derive(Clone, Debug)]
struct Route {
    pattern: Vec<Segment>,
    endpoint: Arc<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Exact(String),
    Parameter(String),
    Rest,
}

/// An endpoint that takes a request.
#[derive(Debug)]
pub struct Match {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// What its path's parameters stand for.
    pub parameters: Vec<(String, String)>,
}

impl Table {
    /// Builds the table. Organization and project of the endpoints must be filled in.
    pub fn build(endpoints: impl IntoIterator<Item = Endpoint>, options: &Options) -> Table {
        let mut table = Table::default();
        for endpoint in endpoints.into_iter().filter(|endpoint| endpoint.enabled) {
            let endpoint = Arc::new(endpoint);
            let default = format!("{}.{}.{}", endpoint.project, endpoint.org, options.domain);
            let single = options.single_organization.as_ref() == Some(&endpoint.org);
            let prefix = format!("/{}/", endpoint.org);
            for uri in &endpoint.uris {
                let Ok(pattern) = parse(uri) else { continue };
                let route = Route { pattern, endpoint: Arc::clone(&endpoint) };
                for host in &endpoint.hosts {
                    table.hosts.entry(host.to_ascii_lowercase()).or_default().push(route.clone());
                }
                if endpoint.hosts.is_empty() {
                    // A path that carries its organization is told apart by it on any host.
                    if single || uri.starts_with(&prefix) {
                        table.any.push(route.clone());
                    }
                    table.hosts.entry(default.to_ascii_lowercase()).or_default().push(route);
                }
            }
        }
        for routes in table.hosts.values_mut().chain([&mut table.any]) {
            routes.sort_by(|a, b| {
                let names =
                    |route: &Route| (route.endpoint.org.clone(), route.endpoint.name.clone());
                rank(a).cmp(&rank(b)).then_with(|| names(a).cmp(&names(b)))
            });
        }
        table
    }

    /// Finds the endpoint for a request. `path` is the raw path of the request line.
    ///
    /// # Errors
    /// A path that is not well-formed.
    pub fn find(&self, host: &str, method: &str, path: &str) -> Result<Option<Match>, BadPath> {
        let path = segments(path)?;
        let own = self.hosts.get(&host_name(host));
        let routes = own.into_iter().flatten().chain(&self.any);
        for route in routes {
            if !takes(&route.endpoint, method) {
                continue;
            }
            if let Some(parameters) = matches(&route.pattern, &path) {
                return Ok(Some(Match { endpoint: Arc::clone(&route.endpoint), parameters }));
            }
        }
        Ok(None)
    }
}

/// More exact patterns come first, segment by segment; one that ends before one that goes on.
fn rank(route: &Route) -> Vec<u8> {
    let kind = |segment: &Segment| match segment {
        Segment::Exact(_) => 0,
        Segment::Parameter(_) => 1,
        Segment::Rest => 3,
    };
    let ends = (route.pattern.last() != Some(&Segment::Rest)).then_some(2);
    route.pattern.iter().map(kind).chain(ends).collect()
}

fn takes(endpoint: &Endpoint, method: &str) -> bool {
    endpoint.methods.is_empty()
        || method == "OPTIONS"
        || endpoint
            .methods
            .iter()
            .any(|allowed| allowed == method || (method == "HEAD" && allowed == "GET"))
}

fn matches(pattern: &[Segment], path: &[String]) -> Option<Vec<(String, String)>> {
    let mut parameters = Vec::new();
    let mut rest = path.iter();
    for segment in pattern {
        match segment {
            Segment::Exact(wanted) => {
                if rest.next() != Some(wanted) {
                    return None;
                }
            }
            Segment::Parameter(name) => parameters.push((name.clone(), rest.next()?.clone())),
            Segment::Rest => return Some(parameters),
        }
    }
    rest.next().is_none().then_some(parameters)
}

/// A host without port, brackets, trailing dot and case.
pub fn host_name(host: &str) -> String {
    let host = match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => &host[..colon],
        _ => host,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// A path that cannot be understood, or that could be understood in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path of the request is not well-formed")]
pub struct BadPath;

/// The decoded segments of a path. Empty ones and `.` vanish and `..` goes up, so that nothing is
/// reached by a spelling that its route does not have.
fn segments(path: &str) -> Result<Vec<String>, BadPath> {
    let mut segments: Vec<String> = Vec::new();
    for part in path.split('/') {
        let part = decode(part)?;
        match part.as_str() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(part),
        }
    }
    Ok(segments)
}

/// Percent-decodes one segment, once.
fn decode(part: &str) -> Result<String, BadPath> {
    if !part.contains('%') {
        return Ok(part.to_owned());
    }
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else { return Err(BadPath) };
        let decoded = u8::try_from(high * 16 + low).map_err(|_| BadPath)?;
        if decoded == 0 {
            return Err(BadPath);
        }
        bytes.push(decoded);
    }
    String::from_utf8(bytes).map_err(|_| BadPath)
}

fn parse(uri: &str) -> Result<Vec<Segment>, String> {
    let Some(path) = uri.strip_prefix('/') else {
        return Err("a path starts with a slash".to_owned());
    };
    let mut pattern = Vec::new();
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        if part == "*" {
            if parts.peek().is_some() {
                return Err("a * stands at the end only".to_owned());
            }
            pattern.push(Segment::Rest);
        } else if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            if !dispatch_api::validate::is_name(name) {
                return Err(format!("{{{name}}} is no name of a parameter"));
            }
            if pattern.contains(&Segment::Parameter(name.to_owned())) {
                return Err(format!("the parameter {{{name}}} is there twice"));
            }
            pattern.push(Segment::Parameter(name.to_owned()));
        } else {
            let decoded = decode(part).map_err(|error| error.to_string())?;
            pattern.push(Segment::Exact(decoded));
        }
    }
    Ok(pattern)
}

/// Checks a path of an endpoint before it is stored.
///
/// # Errors
/// What is wrong with it.
pub fn check_uri(uri: &str) -> Result<(), String> {
    if uri.len() > 1024 {
        return Err("it is longer than 1024 bytes".to_owned());
    }
    let plain = |c: char| c.is_ascii_graphic() && !"?#\\\"<>^`|".contains(c);
    if !uri.chars().all(plain) {
        return Err("it has spaces, a query, or characters that must be percent-encoded".to_owned());
    }
    if uri.split('/').any(|part| part == "." || part == "..") {
        return Err("it has a . or .. segment".to_owned());
    }
    for part in parse(uri)? {
        if let Segment::Exact(text) = part
            && text.contains(['*', '{', '}'])
        {
            return Err("a * or {parameter} is a whole segment".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

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

    fn table(endpoints: Vec<Endpoint>, single: bool) -> Table {
        let single_organization = single.then(|| "org".to_owned());
        Table::build(
            endpoints,
            &Options { domain: "dispatch.local".to_owned(), single_organization },
        )
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
        let found = table.find("h", "GET", "/a/x%20y").unwrap().unwrap();
        assert_eq!(found.parameters, [("id".to_owned(), "x y".to_owned())]);
    }

    #[test]
    fn hosts_decide_first() {
        let mut disabled = endpoint("off", &["/x"], &[], &[]);
        disabled.enabled = false;
        let all = vec![
            endpoint("default", &["/x"], &[], &[]),
            endpoint("own", &["/x"], &[], &["www.example.com"]),
            endpoint("prefixed", &["/org/y"], &[], &[]),
            disabled,
        ];
        let many = table(all.clone(), false);
        assert_eq!(name(&many, "WWW.example.com:80", "GET", "/x").as_deref(), Some("own"));
        assert_eq!(name(&many, "www.example.com.", "GET", "/x").as_deref(), Some("own"));
        assert_eq!(
            name(&many, "default.org.dispatch.local", "GET", "/x").as_deref(),
            Some("default")
        );
        assert_eq!(name(&many, "127.0.0.1:8081", "GET", "/x"), None, "whose would it be?");
        assert_eq!(name(&many, "127.0.0.1:8081", "GET", "/org/y").as_deref(), Some("prefixed"));
        let one = table(all, true);
        assert_eq!(name(&one, "127.0.0.1:8081", "GET", "/x").as_deref(), Some("default"));
        assert_eq!(name(&one, "[::1]:8081", "GET", "/x").as_deref(), Some("default"));
    }

    #[test]
    fn methods() {
        let table = table(vec![endpoint("e", &["/x"], &["GET", "POST"], &[])], true);
        for (method, fits) in
            [("GET", true), ("POST", true), ("HEAD", true), ("OPTIONS", true), ("PUT", false)]
        {
            assert_eq!(name(&table, "h", method, "/x").is_some(), fits, "{method}");
        }
    }

    #[test]
    fn no_spelling_gets_past_a_route() {
        let table = table(vec![endpoint("e", &["/a/b"], &[], &[])], true);
        for path in
            ["/a/b", "//a//b/", "/a/./b", "/a/c/../b", "/%61/b", "/a/%2e/b", "/x/%2e%2e/a/b"]
        {
            assert!(name(&table, "h", "GET", path).is_some(), "{path}");
        }
        assert!(name(&table, "h", "GET", "/a%2fb").is_none(), "an encoded slash separates nothing");
        for path in ["/%", "/%zz", "/%ff", "/%00"] {
            assert_eq!(table.find("h", "GET", path).err(), Some(BadPath), "{path}");
        }
    }

    #[test]
    fn paths_of_endpoints_are_checked() {
        for good in ["/", "/a", "/a/{id}/b", "/a/*", "/a%20b", "/~x"] {
            assert_eq!(check_uri(good), Ok(()), "{good}");
        }
        for bad in [
            "a", "/a/../b", "/a b", "/a?b", "/*/a", "/a*", "/{a}/{a}", "/{}", "/x{a}", "/%zz",
            "/a\\b",
        ] {
            assert!(check_uri(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// Whatever the path, it is understood as what a plain reading of its segments says.
        #[test]
        fn finding_never_panics_and_agrees_with_the_segments(path in "(/[ab.%2ef]{0,4}){0,5}") {
            let table = table(vec![endpoint("e", &["/a/b"], &[], &[])], true);
            let found = table.find("h", "GET", &path);
            match segments(&path) {
                Ok(segments) => prop_assert_eq!(found.unwrap().is_some(), segments == ["a", "b"]),
                Err(_) => prop_assert!(found.is_err()),
            }
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
}
