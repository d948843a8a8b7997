//! What a function is told about the HTTP request behind its call.

use std::net::SocketAddr;

use axum::http::header::{self, HeaderMap};
use axum::http::request::Parts;
use serde_json::{Map, Value, json};

use super::{Scheme, body, host};

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

/// The headers that are passed on, in lower case, each with all its values.
fn passed_on(headers: &HeaderMap) -> Map<String, Value> {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let ours = |name: &str| {
        OURS.contains(&name)
            || name.starts_with("x-dispatch-")
            || named.iter().any(|other| other == name)
    };
    let passed = headers.iter().filter(|(name, _)| !ours(name.as_str()));
    let text = |value: &[u8]| json!(String::from_utf8_lossy(value));
    body::lists(
        passed.map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect(),
    )
}

/// The values of one header as one text.
fn joined(name: &str, values: &Value) -> Value {
    let texts: Vec<&str> =
        values.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    // HTTP/2 sends each cookie by itself.
    json!(texts.join(if name == "cookie" { "; " } else { ", " }))
}

/// `context.httpContext`: headers in lower case, then the keys of both old gateways, which no header
/// can replace.
pub fn http(
    parts: &Parts,
    scheme: Scheme,
    peer: SocketAddr,
    function: &str,
    query: body::Fields,
    parameters: Vec<(String, String)>,
) -> Map<String, Value> {
    let headers = passed_on(&parts.headers);
    let mut context: Map<String, Value> =
        headers.iter().map(|(name, values)| (name.clone(), joined(name, values))).collect();
    let request = request_uri(parts);
    let protocol = format!("{:?}", parts.version);
    let parameters: Map<String, Value> =
        parameters.into_iter().map(|(name, value)| (name, json!(value))).collect();
    let own = json!({
        "args": parts.uri.query().unwrap_or_default(),
        "request": request,
        "request_uri": request,
        "request-uri": request,
        "scheme": scheme.as_str(),
        "server_protocol": protocol,
        "server-protocol": protocol,
        "upstream_uri": function,
        "upstream-uri": function,
        "uri": parts.uri.path(),
        "method": parts.method.as_str(),
        "host": host(&parts.uri, &parts.headers),
        "remote_addr": peer.ip().to_string(),
        "headers": headers,
        "query": body::lists(query),
        "params": parameters,
    });
    if let Value::Object(own) = own {
        context.extend(own);
    }
    context
}

fn request_uri(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", |request| request.as_str())
}

/// `context.request` of the second old generation, whose headers were spelled `Content-Type`.
pub fn request(parts: &Parts) -> Value {
    let header: Map<String, Value> = passed_on(&parts.headers)
        .into_iter()
        .map(|(name, values)| (canonical(&name), values))
        .collect();
    json!({ "uri": request_uri(parts), "method": parts.method.as_str(), "header": header })
}

fn canonical(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::Request;

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
        Value::Object(http(&parts, Scheme::Http, peer, "hello", query, parameters))
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
        let request = request(&parts(&[("content-type", "text/plain"), ("x-b--c", "1")]));
        let header = json!({"Content-Type": ["text/plain"], "X-B--C": ["1"]});
        assert_eq!(request["header"], header);
        assert_eq!(request["uri"], "/a/x%20y?n=1&n=2");
        assert_eq!(request["method"], "PUT");
    }
}
