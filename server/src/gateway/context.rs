//! What a function is told about the HTTP request behind its call. It is made for every request, so
//! it is written straight to text.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use axum::http::header::{self, HeaderMap, HeaderName};
use axum::http::request::Parts;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::{Scheme, body, host};
use crate::problem::Error;

/// Headers that concern one connection, or us, and not the function.
const OURS: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The headers that are passed on.
struct Passed<'a> {
    headers: &'a HeaderMap,
    names: Vec<&'a HeaderName>,
}

impl<'a> Passed<'a> {
    fn of(headers: &'a HeaderMap) -> Passed<'a> {
        let named = headers.get_all(header::CONNECTION).iter();
        let named = named.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        // Those that the client says concern the connection alone.
        let hop: Vec<String> = named.map(|name| name.trim().to_ascii_lowercase()).collect();
        let passed = |name: &&HeaderName| {
            let name = name.as_str();
            !OURS.contains(&name)
                && !name.starts_with("x-dispatch-")
                && !hop.iter().any(|other| other == name)
        };
        Passed { headers, names: headers.keys().filter(passed).collect() }
    }

    fn names(&self) -> impl Iterator<Item = &'a HeaderName> {
        self.names.iter().copied()
    }

    fn values(&self, name: &HeaderName) -> impl Iterator<Item = Cow<'a, str>> {
        self.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()))
    }

    /// The values of one header as one text.
    fn joined(&self, name: &HeaderName) -> Cow<'a, str> {
        let mut values = self.values(name);
        let first = values.next().unwrap_or_default();
        // HTTP/2 sends each cookie by itself.
        let between = if *name == header::COOKIE { "; " } else { ", " };
        values.fold(first, |all, value| Cow::Owned(format!("{all}{between}{value}")))
    }
}

/// Each name in lower case with all its values.
impl Serialize for Passed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.names().map(|name| (name.as_str(), Values(self, name))))
    }
}

struct Values<'a, 'b>(&'b Passed<'a>, &'b HeaderName);

impl Serialize for Values<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.values(self.1))
    }
}

/// The same, spelled `Content-Type`.
struct Canonical<'a, 'b>(&'b Passed<'a>);

impl Serialize for Canonical<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = self.0.names();
        serializer.collect_map(names.map(|name| (canonical(name.as_str()), Values(self.0, name))))
    }
}

/// Both contexts of one request.
pub struct Contexts<'a> {
    parts: &'a Parts,
    passed: Passed<'a>,
}

impl<'a> Contexts<'a> {
    /// Of the request with this head.
    pub fn of(parts: &'a Parts) -> Contexts<'a> {
        Contexts { parts, passed: Passed::of(&parts.headers) }
    }

    /// `context.httpContext`: headers in lower case, then the keys of both old gateways, which no
    /// header can replace.
    ///
    /// # Errors
    /// Never, other than for a lack of memory.
    pub fn http(
        &self,
        scheme: Scheme,
        peer: SocketAddr,
        function: &str,
        query: body::Fields,
        parameters: &[(String, String)],
    ) -> Result<Box<RawValue>, Error> {
        let (query, peer) = (body::lists(query), peer.ip());
        let context = Http { contexts: self, scheme, peer, function, query, parameters };
        to_raw_value(&context).map_err(|error| Error::internal("the context", &error))
    }

    /// `context.request` of the second old generation.
    ///
    /// # Errors
    /// Never, other than for a lack of memory.
    pub fn request(&self) -> Result<Box<RawValue>, Error> {
        to_raw_value(self).map_err(|error| Error::internal("the context", &error))
    }

    fn uri(&self) -> &str {
        self.parts.uri.path_and_query().map_or("/", |request| request.as_str())
    }
}

impl Serialize for Contexts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("uri", self.uri())?;
        map.serialize_entry("method", self.parts.method.as_str())?;
        map.serialize_entry("header", &Canonical(&self.passed))?;
        map.end()
    }
}

struct Http<'a, 'b> {
    contexts: &'b Contexts<'a>,
    scheme: Scheme,
    peer: IpAddr,
    function: &'b str,
    query: Map<String, Value>,
    parameters: &'b [(String, String)],
}

impl Serialize for Http<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Contexts { parts, passed } = self.contexts;
        let (request, protocol) = (self.contexts.uri(), format!("{:?}", parts.version));
        let own: [(&str, &str); 13] = [
            ("args", parts.uri.query().unwrap_or_default()),
            ("request", request),
            ("request_uri", request),
            ("request-uri", request),
            ("scheme", self.scheme.as_str()),
            ("server_protocol", &protocol),
            ("server-protocol", &protocol),
            ("upstream_uri", self.function),
            ("upstream-uri", self.function),
            ("uri", parts.uri.path()),
            ("method", parts.method.as_str()),
            ("host", host(&parts.uri, &parts.headers)),
            ("remote_addr", &self.peer.to_string()),
        ];
        let ours = |name: &str| {
            matches!(name, "headers" | "query" | "params")
                || own.iter().any(|(key, _)| *key == name)
        };
        let mut map = serializer.serialize_map(None)?;
        for name in passed.names().filter(|name| !ours(name.as_str())) {
            map.serialize_entry(name.as_str(), &passed.joined(name))?;
        }
        for (key, value) in own {
            map.serialize_entry(key, value)?;
        }
        map.serialize_entry("headers", passed)?;
        map.serialize_entry("query", &self.query)?;
        map.serialize_entry("params", &Parameters(self.parameters))?;
        map.end()
    }
}

/// A later parameter of the same name wins.
struct Parameters<'a>(&'a [(String, String)]);

impl Serialize for Parameters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let last = |index: usize| {
            let (name, _) = &self.0[index];
            self.0[index + 1..].iter().all(|(other, _)| other != name)
        };
        let pairs = self.0.iter().enumerate().filter(|(index, _)| last(*index));
        serializer.collect_map(pairs.map(|(_, (name, value))| (name, value)))
    }
}

fn canonical(name: &str) -> String {
    let mut start = true;
    let letter = |letter: char| {
        let first = std::mem::replace(&mut start, letter == '-');
        if first { letter.to_ascii_uppercase() } else { letter }
    };
    name.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::Request;
    use serde_json::json;

    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::put("/a/x%20y?n=1&n=2");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn context(headers: &[(&str, &str)]) -> Value {
        let parts = parts(headers);
        let peer = "192.0.2.1:5000".parse().unwrap();
        let query = body::fields(b"n=1&n=2").unwrap();
        let parameters = vec![("id".to_owned(), "x y".to_owned())];
        let http = Contexts::of(&parts).http(Scheme::Http, peer, "hello", query, &parameters);
        serde_json::from_str(http.unwrap().get()).unwrap()
    }

    #[test]
    fn the_keys_of_both_old_gateways_are_there() {
        let context = context(&[("Host", "example.com:8081"), ("X-A", "1"), ("X-A", "2")]);
        for (key, wanted) in [
            ("args", json!("n=1&n=2")),
            ("request", json!("/a/x%20y?n=1&n=2")),
            ("request_uri", json!("/a/x%20y?n=1&n=2")),
            ("request-uri", json!("/a/x%20y?n=1&n=2")),
            ("scheme", json!("http")),
            ("server_protocol", json!("HTTP/1.1")),
            ("server-protocol", json!("HTTP/1.1")),
            ("upstream_uri", json!("hello")),
            ("upstream-uri", json!("hello")),
            ("uri", json!("/a/x%20y")),
            ("method", json!("PUT")),
            ("host", json!("example.com:8081")),
            ("remote_addr", json!("192.0.2.1")),
            ("query", json!({"n": ["1", "2"]})),
            ("params", json!({"id": "x y"})),
            ("x-a", json!("1, 2")),
            ("headers", json!({"host": ["example.com:8081"], "x-a": ["1", "2"]})),
        ] {
            assert_eq!(context[key], wanted, "{key}");
        }
    }

    #[test]
    fn no_header_replaces_a_key_and_those_of_the_connection_stay_here() {
        let context = context(&[
            ("method", "FORGED"),
            ("remote_addr", "203.0.113.9"),
            ("upstream-uri", "other"),
            ("Connection", "close, X-Hop"),
            ("X-Hop", "1"),
            ("Transfer-Encoding", "chunked"),
            ("X-Dispatch-Org", "other"),
            ("Cookie", "a=1"),
            ("Cookie", "b=2"),
            ("Authorization", "Bearer x"),
        ]);
        assert_eq!(context["method"], "PUT");
        assert_eq!(context["remote_addr"], "192.0.2.1");
        assert_eq!(context["upstream-uri"], "hello");
        assert_eq!(context["headers"]["method"], json!(["FORGED"]));
        assert_eq!(context["cookie"], "a=1; b=2");
        assert_eq!(context["authorization"], "Bearer x");
        for gone in ["connection", "x-hop", "transfer-encoding", "x-dispatch-org"] {
            assert_eq!((&context[gone], &context["headers"][gone]), (&json!(null), &json!(null)));
        }
    }

    #[test]
    fn the_request_of_the_second_generation() {
        let parts = parts(&[("content-type", "text/plain"), ("x-b--c", "1")]);
        let request = Contexts::of(&parts).request().unwrap();
        let request: Value = serde_json::from_str(request.get()).unwrap();
        let header = json!({"Content-Type": ["text/plain"], "X-B--C": ["1"]});
        assert_eq!(request["header"], header);
        assert_eq!(request["uri"], "/a/x%20y?n=1&n=2");
        assert_eq!(request["method"], "PUT");
    }
}
