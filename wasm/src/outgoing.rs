//! Requests that instances make: through the proxy of their function, where it has one.

use std::io;

use http_body_util::{BodyDataStream, BodyExt as _};
use hyper::{Request, Response};
use reqwest::{Body, Client, Proxy};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// The variables that name the proxy of a function.
const PROXY: [&str; 2] = ["HTTP_PROXY", "http_proxy"];

/// Makes requests.
#[derive(Clone)]
pub struct Outgoing(Client);

impl Outgoing {
    /// Uses the proxy that a function's variables name.
    ///
    /// # Errors
    /// Its address is none, or there are no certificates to trust.
    pub fn new(environment: &[(String, String)]) -> Result<Outgoing, String> {
        let proxy = environment
            .iter()
            .find(|(name, value)| PROXY.contains(&name.as_str()) && !value.is_empty());
        // Redirects are the instance's business.
        let mut client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        if let Some((_, address)) = proxy {
            client = client.proxy(Proxy::all(address).map_err(|error| error.to_string())?);
        }
        client.build().map(Outgoing).map_err(|error| error.to_string())
    }
}

type End = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: End,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, End), Error>> + Send> {
        let client = self.0.clone();
        Box::new(async move {
            let request = request.map(|body| Body::wrap_stream(BodyDataStream::new(body)));
            let request = reqwest::Request::try_from(request).map_err(refused)?;
            let sent = client.execute(request);
            let response = match options.and_then(|options| options.first_byte_timeout) {
                Some(limit) => {
                    tokio::time::timeout(limit, sent).await.map_err(|_| Error::ConnectionTimeout)?
                }
                None => sent.await,
            };
            let response = Response::<Body>::from(response.map_err(refused)?);
            let response = response.map(|body| body.map_err(refused).boxed_unsync());
            Ok((response, Box::new(async { Ok(()) }) as End))
        })
    }
}

fn refused(error: reqwest::Error) -> Error {
    Error::Connect(io::Error::other(error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn requests_go_to_the_proxy_that_the_function_has() {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", proxy.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = proxy.accept().await.unwrap();
            let mut text = Vec::new();
            // The length of the body is not known, so it comes in chunks.
            while !text.ends_with(b"hello\r\n0\r\n\r\n") {
                assert!(stream.read_buf(&mut text).await.unwrap() > 0);
            }
            stream
                .write_all(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nno")
                .await
                .unwrap();
            String::from_utf8(text).unwrap()
        };
        let mut outgoing = Outgoing::new(&[("HTTP_PROXY".to_owned(), address)]).unwrap();
        let body = Full::new(Bytes::from_static(b"hello")).map_err(|never| match never {});
        let request = Request::post("http://example.test/a?b=1").header("x-a", "1");
        let request = request.body(body.boxed_unsync()).unwrap();
        let sent = Box::into_pin(outgoing.send_request(request, None, Box::new(async { Ok(()) })));
        let both = async { tokio::join!(serve, sent) };
        let (text, answer) = timeout(Duration::from_secs(60), both).await.unwrap();
        assert!(text.starts_with("POST http://example.test/a?b=1 HTTP/1.1\r\n"), "{text}");
        assert!(text.contains("x-a: 1\r\n"), "{text}");
        let (response, _) = answer.unwrap();
        assert_eq!(response.status(), 302, "whether to follow is the instance's business");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
    }

    #[test]
    fn a_proxy_that_is_none_is_refused() {
        assert!(Outgoing::new(&[("http_proxy".to_owned(), "http://[".to_owned())]).is_err());
        assert!(Outgoing::new(&[("HTTP_PROXY".to_owned(), String::new())]).is_ok());
    }
}
