//! HTTP to drivers: requests of strangers to those that are exposed, and events to those that take them
//! elsewhere.

use std::time::Duration;

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Request, Response, StatusCode, Uri};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::prepare::PORT;
use crate::app::App;
use crate::problem::Error;

/// Where drivers are on the gateway.
const PREFIX: &str = "/driver/";
/// Bytes of a body, either way.
const MAX_BODY: usize = 16 << 20;
/// How long a driver may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Headers of a connection, not of what goes over it.
const HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Where an exposed driver is reached; clients put the server's name in.
pub(super) fn url(app: &App, org: &str, name: &str) -> String {
    format!("http://0.0.0.0:{}{PREFIX}{org}/{name}", app.config.gateway_port)
}

/// The driver that a path of the gateway names: its organization, its name, and the rest of the path.
pub(crate) fn named(path: &str) -> Option<(&str, &str, &str)> {
    let rest = path.strip_prefix(PREFIX)?;
    let (org, rest) = rest.split_once('/')?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    (!org.is_empty() && !name.is_empty()).then_some((org, name, rest))
}

/// Passes a request of a stranger on to an exposed driver. Drivers that are not exposed are not there.
///
/// # Errors
/// 404, 413, 502, 503 or 504.
pub(crate) async fn forward<B>(
    app: &App,
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, Error>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let nothing = || Error::new(StatusCode::NOT_FOUND, "no driver takes requests here");
    let (org, name, rest) = named(parts.uri.path()).ok_or_else(nothing)?;
    if !app.drivers.is_exposed(org, name) {
        return Err(nothing());
    }
    let too_large =
        |_| Error::new(StatusCode::PAYLOAD_TOO_LARGE, "the body cannot be read, or is too large");
    let body = tokio::time::timeout(TIMEOUT, Limited::new(body, MAX_BODY).collect());
    let late = |_| Error::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
    let body = body.await.map_err(late)?.map_err(too_large)?.to_bytes();
    let path = if rest.is_empty() { "/" } else { rest };
    let target = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut inner = Request::new(Full::new(body));
    *inner.method_mut() = parts.method;
    *inner.uri_mut() = target.parse().unwrap_or_else(|_| Uri::from_static("/"));
    *inner.headers_mut() = own(parts.headers);
    let (parts, body) = exchange(app, org, name, inner, TIMEOUT).await?.into_parts();
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = own(parts.headers);
    Ok(answer)
}

/// Headers of the message alone; its length is said anew.
fn own(mut headers: HeaderMap) -> HeaderMap {
    let listed = headers.get_all(header::CONNECTION).iter().filter_map(|list| list.to_str().ok());
    let listed: Vec<HeaderName> = listed
        .flat_map(|list| list.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP.iter().chain(&listed).chain([&header::CONTENT_LENGTH]) {
        headers.remove(name);
    }
    headers
}

/// Sends a request to a driver that runs and reads the whole answer.
///
/// # Errors
/// 502 for an answer that is none, 503 while it does not run, 504 when it takes too long.
pub(crate) async fn exchange(
    app: &App,
    org: &str,
    name: &str,
    mut request: Request<Full<Bytes>>,
    patience: Duration,
) -> Result<Response<Bytes>, Error> {
    let down = || {
        let text = format!("event driver {name} does not run, or does not listen on port {PORT}");
        Error::new(StatusCode::SERVICE_UNAVAILABLE, text)
    };
    let inside = app.drivers.inside(org, name).ok_or_else(down)?;
    let bad = |error: String| {
        let text = format!("event driver {name} does not answer as it should: {error}");
        Error::new(StatusCode::BAD_GATEWAY, text)
    };
    request.headers_mut().entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
    let work = async {
        let stream = inside.connect(PORT).await.map_err(|_| down())?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| bad(e.to_string()))?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(|e| bad(e.to_string()))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|e| bad(e.to_string()))?;
        connection.abort();
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
        let text = format!("event driver {name} did not answer in time");
        Err(Error::new(StatusCode::GATEWAY_TIMEOUT, text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_an_organization_and_a_driver() {
        for (path, wanted) in [
            ("/driver/o/d", Some(("o", "d", ""))),
            ("/driver/o/d/", Some(("o", "d", "/"))),
            ("/driver/o/d/hook/1", Some(("o", "d", "/hook/1"))),
            ("/driver/o", None),
            ("/driver//d", None),
            ("/drivers/o/d", None),
        ] {
            assert_eq!(named(path), wanted, "{path}");
        }
    }

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "close, x-mine"), ("x-mine", "1"), ("te", "x"), ("x-other", "2")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let left = own(headers);
        assert_eq!(left.len(), 1);
        assert!(left.contains_key("x-other"));
    }
}
