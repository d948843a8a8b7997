//! The HTTP proxy: `CONNECT`, and requests that name a whole `http://` URL.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use dispatch_api::egress::Target;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri, Version, client, server};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::session::{Fault, Place, Session, splice};

/// Bytes of a head.
const MAX_HEAD: usize = 64 * 1024;
/// Header fields of a head.
const MAX_HEADERS: usize = 128;

type Body = BoxBody<Bytes, hyper::Error>;

/// What is answered instead of what was asked for.
struct Refused {
    status: StatusCode,
    /// The error of RFC 9209, by which a program can tell our answers from a server's.
    error: &'static str,
    text: String,
}

pub(super) async fn serve(session: Arc<Session>, stream: TcpStream, place: Place) {
    let answer = service_fn(|request| {
        let (session, place) = (Arc::clone(&session), Arc::clone(&place));
        async move {
            let answered = answer(session, request, place).await;
            Ok::<_, Infallible>(answered.unwrap_or_else(Refused::into_response))
        }
    });
    // How it ends is the business of the program inside.
    let _ = server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(session.patience())
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades()
        .await;
}

async fn answer(
    session: Arc<Session>,
    request: Request<Incoming>,
    place: Place,
) -> Result<Response<Body>, Refused> {
    if request.method() == Method::CONNECT {
        return tunnel(session, request, place).await;
    }
    forward(session, request).await
}

async fn tunnel(
    session: Arc<Session>,
    request: Request<Incoming>,
    place: Place,
) -> Result<Response<Body>, Refused> {
    let target = target(request.uri(), None)?;
    let outer = session.connect(&target, false).await;
    let mut outer = outer.map_err(|fault| Refused::of(&target, &fault))?;
    session.spawn(async move {
        let _place = place;
        if let Ok(inner) = hyper::upgrade::on(request).await {
            splice(&mut TokioIo::new(inner), &mut outer).await;
        }
    });
    Ok(Response::new(Full::default().map_err(|never| match never {}).boxed()))
}

async fn forward(
    session: Arc<Session>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refused> {
    let uri = request.uri();
    match uri.scheme_str() {
        Some("http") => {}
        Some(_) => {
            return Err(Refused::bad("only http:// URLs are fetched; use CONNECT for others"));
        }
        None => {
            return Err(Refused::bad("this is a proxy: name a whole http:// URL, or use CONNECT"));
        }
    }
    let target = target(uri, Some(80))?;
    // What was checked is what is asked for, whatever else the head says.
    let host = match uri.port_u16() {
        Some(_) => target.to_string(),
        None => target.host.to_string(),
    };
    let host = HeaderValue::from_str(&host).map_err(|_| Refused::bad("the host is not usable"))?;
    let path = uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
    let path = path.parse::<Uri>().map_err(|_| Refused::bad("the path is not usable"))?;
    *request.uri_mut() = path;
    *request.version_mut() = Version::HTTP_11;
    end_here(request.headers_mut());
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let outer = session.connect(&target, false).await;
    let outer = outer.map_err(|fault| Refused::of(&target, &fault))?;
    let unusable =
        |_| Refused::gateway("http_protocol_error", format!("{target} does not speak HTTP"));
    let (mut sender, connection) = client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(outer))
        .await
        .map_err(unusable)?;
    session.spawn(async move {
        let _ = connection.await;
    });
    let mut response = sender.send_request(request).await.map_err(unusable)?;
    end_here(response.headers_mut());
    Ok(response.map(http_body_util::BodyExt::boxed))
}

/// Removes what is meant for the next hop only, whose lengths are then counted anew.
fn end_here(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let fixed =
        [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE];
    let old = ["keep-alive", "proxy-connection"].map(HeaderName::from_static);
    // A length is not the next hop's alone, whoever says so.
    for name in named.into_iter().filter(|name| *name != CONTENT_LENGTH).chain(fixed).chain(old) {
        headers.remove(name);
    }
}

/// The host and port that a URL names, without anything else in that place.
fn target(uri: &Uri, port: Option<u16>) -> Result<Target, Refused> {
    let authority = uri.authority().map(hyper::http::uri::Authority::as_str).unwrap_or_default();
    let whole = match port {
        Some(port) if uri.port().is_none() => format!("{authority}:{port}"),
        _ => authority.to_owned(),
    };
    whole.parse().map_err(|what: String| Refused::bad(&what))
}

impl Refused {
    fn bad(text: &str) -> Refused {
        let text = text.to_owned();
        Refused { status: StatusCode::BAD_REQUEST, error: "http_request_error", text }
    }

    fn gateway(error: &'static str, text: String) -> Refused {
        Refused { status: StatusCode::BAD_GATEWAY, error, text }
    }

    fn of(target: &Target, fault: &Fault) -> Refused {
        match fault {
            Fault::Refused(refusal) => Refused {
                status: StatusCode::FORBIDDEN,
                error: "destination_ip_prohibited",
                text: format!("{target} {refusal}"),
            },
            Fault::Unresolved => {
                Refused::gateway("dns_error", format!("{} has no address", target.host))
            }
            Fault::Unreachable(error) if error.kind() == std::io::ErrorKind::TimedOut => Refused {
                status: StatusCode::GATEWAY_TIMEOUT,
                error: "connection_timeout",
                text: format!("{target} does not answer"),
            },
            Fault::Unreachable(error) => {
                Refused::gateway("connection_refused", format!("{target}: {error}"))
            }
        }
    }

    fn into_response(self) -> Response<Body> {
        let Refused { status, error, text } = self;
        let body = Full::new(Bytes::from(format!("egress: {text}\n")));
        let mut response = Response::new(body.map_err(|never| match never {}).boxed());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Ok(value) = HeaderValue::from_str(&format!("dispatch; error={error}")) {
            headers.insert(HeaderName::from_static("proxy-status"), value);
        }
        // A refused CONNECT is no connection to anywhere; a new one is needed in any case.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}
