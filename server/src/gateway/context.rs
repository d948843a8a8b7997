//! What a function is told about the HTTP request behind its call.

use std::net::SocketAddr;

use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde_json::{Map, Value, json};

use super::Scheme;
use super::body::fields;

/// Headers that concern one connection, or us, and not the function.
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    ) || name.starts_with("x-dispatch-")
}

fn lists(headers: &HeaderMap) -> Map<String, Value> {
    let mut lists: Map<String, Value> = Map::new();
    for (name, value) in headers.iter().filter(|(name, _)| !is_ours(name.as_str())) {
        let value = json!(String::from_utf8_lossy(value.as_bytes()));
        let list = lists.entry(name.as_str()).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(value);
        }
    }
    lists
}

/// `context.httpContext`: headers in lower case, then the keys of both old gateways, which no header
/// can replace.
pub fn http(
    parts: &Parts,
    scheme: Scheme,
    peer: SocketAddr,
    function: &str,
    parameters: &[(String, String)],
) -> Map<String, Value> {
    let lists = lists(&parts.headers);
    let mut context: Map<String, Value> = lists
        .iter()
        .map(|(name, values)| {
            let texts: Vec<&str> =
                values.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            (name.clone(), json!(texts.join(", ")))
        })
        .collect();
    let uri = &parts.uri;
    let query = uri.query().unwrap_or_default();
    let request = uri.path_and_query().map_or("/", |request| request.as_str());
    let protocol = format!("{:?}", parts.version);
    let host = parts.headers.get("host").and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.host()).unwrap_or_default();
    let params: Map<String, Value> =
        parameters.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    for (key, value) in [
        ("args", json!(query)),
        ("request", json!(request)),
        ("request_uri", json!(request)),
        ("request-uri", json!(request)),
        ("scheme", json!(scheme.as_str())),
        ("server_protocol", json!(protocol)),
        ("server-protocol", json!(protocol)),
        ("upstream_uri", json!(function)),
        ("upstream-uri", json!(function)),
        ("uri", json!(uri.path())),
        ("method", json!(parts.method.as_str())),
        ("host", json!(host)),
        ("remote_addr", json!(peer.ip().to_string())),
        ("headers", Value::Object(lists)),
        ("query", Value::Object(fields(query.as_bytes(), Map::new()).unwrap_or_default())),
        ("params", Value::Object(params)),
    ] {
        context.insert(key.to_owned(), value);
    }
    context
}

/// `context.request` of the second old generation.
pub fn request(parts: &Parts) -> Value {
    let uri = parts.uri.path_and_query().map_or("/", |request| request.as_str());
    json!({ "uri": uri, "method": parts.method.as_str(), "header": lists(&parts.headers) })
}
