//! Two programs that do as little as can be done, to see what the gateway adds: an HTTP server that
//! is nothing but hyper, and a worker that answers at once. Both are this program, started again.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use serde::Deserialize;
use serde_json::json;

/// The socket that every worker inherits.
const SOCKET: i32 = 3;
/// Bytes of a frame that the worker reads at most.
const MAX_FRAME: usize = 2 << 20;
/// What its copy is called, so that no other program on `PATH` is taken for it.
const PROGRAM: &str = "dispatch-bench-toy";
/// The language of functions that are served by [`worker`].
pub const LANGUAGE: &str = "instant";

#[derive(Deserialize)]
struct Greeting {
    name: String,
    place: String,
}

/// Serves the same work with hyper alone, a thread for each core this process may use, until it is
/// ended.
///
/// # Errors
/// The port is taken.
pub fn serve(port: u16) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let mut builder = match cores {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.enable_all().build()?.block_on(async {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = tokio::net::TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let serving =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(greet));
            tokio::spawn(async {
                // The client leaves when it has seen enough.
                let _ = serving.await;
            });
        }
    })
}

async fn greet(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let greeting = body.ok().and_then(|body| serde_json::from_slice::<Greeting>(&body).ok());
    let (status, text) = match greeting {
        Some(Greeting { name, place }) => {
            (StatusCode::OK, json!({"myField": format!("Hello, {name} from {place}")}).to_string())
        }
        None => (StatusCode::BAD_REQUEST, String::new()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}

/// The header of a frame to a worker, as far as this one needs it.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: u64,
    #[serde(default)]
    more: bool,
}

/// Speaks the worker protocol and answers every call with the same bytes, until the socket closes.
///
/// # Errors
/// The socket is missing, or something else than a frame arrives.
pub fn worker() -> anyhow::Result<()> {
    let answer = json!({"myField": crate::load::ANSWER}).to_string();
    write(&frame(r#"{"type":"hello","protocol":1}"#, ""))?;
    let (mut buffer, mut filled) = (vec![0; 64 << 10], 0);
    loop {
        while let Some((header, length)) = parse(&buffer[..filled])? {
            buffer.copy_within(length..filled, 0);
            filled -= length;
            match header.kind.as_str() {
                "init" => write(&frame(r#"{"type":"ready","handler":"instant"}"#, ""))?,
                "ping" => write(&frame(r#"{"type":"pong"}"#, ""))?,
                "call" | "end" if !header.more => {
                    let head = format!(r#"{{"type":"end","id":{}}}"#, header.id);
                    write(&frame(&head, &answer))?;
                }
                _ => {}
            }
        }
        if filled == buffer.len() {
            ensure!(filled < MAX_FRAME, "a frame has more than {MAX_FRAME} bytes");
            buffer.resize(filled * 2, 0);
        }
        match recv(SOCKET, &mut buffer[filled..], MsgFlags::empty()) {
            Ok(0) => return Ok(()),
            Ok(read) => filled += read,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot read from the socket"),
        }
    }
}

fn write(mut bytes: &[u8]) -> anyhow::Result<()> {
    while !bytes.is_empty() {
        match send(SOCKET, bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot write to the socket"),
        }
    }
    Ok(())
}

/// Lengths of header and body, big-endian, then both.
fn frame(header: &str, body: &str) -> Vec<u8> {
    let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length(header), &length(body), header.as_bytes(), body.as_bytes()].concat()
}

/// The first frame's header and the length of all of it, once it is there.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(Header, usize)>> {
    let number = |range: std::ops::Range<usize>| {
        let bytes = bytes.get(range)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    };
    let (Some(header), Some(body)) = (number(0..4), number(4..8)) else { return Ok(None) };
    let length = 8 + header + body;
    ensure!(length <= MAX_FRAME, "a frame has more than {MAX_FRAME} bytes");
    if bytes.len() < length {
        return Ok(None);
    }
    let header = serde_json::from_slice(&bytes[8..8 + header]).context("a header is no JSON")?;
    Ok(Some((header, length)))
}

/// Writes a language pack for [`worker`] below `languages` in a directory, and a copy of this program
/// below `bin`, which is then all that its workers need of this machine.
///
/// # Errors
/// Nothing can be written there.
pub fn write_pack(directory: &Path) -> anyhow::Result<()> {
    let (pack, bin) = (directory.join("languages").join(LANGUAGE), directory.join("bin"));
    std::fs::create_dir_all(&pack)?;
    std::fs::create_dir_all(&bin)?;
    let program = bin.join(PROGRAM);
    std::fs::copy(std::env::current_exe()?, &program).context("cannot copy this program")?;
    let text = format!(
        "name = {LANGUAGE:?}\nbase_images = [\"dispatchframework/{LANGUAGE}-base\"]\n\
         [runtime]\nprograms = [{PROGRAM:?}]\npatterns = [{program:?}]\nprobe = [\"toy\", \"probe\"]\n\
         [worker]\ncommand = [\"{{executable}}\", \"toy\", \"worker\"]\nlayer_target = \"/layer\"\n"
    );
    std::fs::write(pack.join("language.toml"), text)?;
    Ok(())
}

/// What the language pack's probe prints.
///
/// # Errors
/// This program does not know where it is.
pub fn probe() -> anyhow::Result<String> {
    let executable = std::env::current_exe()?;
    let directory = executable.parent().context("this program is in no directory")?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(json!({"executable": executable, "version": version, "prefixes": [directory]}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_one_after_the_other() {
        let bytes = [frame(r#"{"type":"init"}"#, ""), frame(r#"{"type":"call","id":7}"#, "{}")];
        let bytes = bytes.concat();
        let (first, length) = parse(&bytes).unwrap().unwrap();
        assert_eq!((first.kind.as_str(), first.id, first.more), ("init", 0, false));
        let (second, rest) = parse(&bytes[length..]).unwrap().unwrap();
        assert_eq!((second.kind.as_str(), second.id, rest), ("call", 7, bytes.len() - length));
        for short in [&bytes[..3], &bytes[..9], &bytes[..length - 1], &[]] {
            assert!(parse(short).unwrap().is_none());
        }
        assert!(parse(&frame("hello", "")).is_err());
        assert!(parse(&[0xff; 8]).is_err());
    }
}
