//! SOCKS 5 (RFC 1928): connections only, and nobody has to say who they are.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dispatch_api::egress::{Host, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::session::{Fault, Place, Session, splice};

/// The first byte of everything.
pub(super) const VERSION: u8 = 5;

const FAILED: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const REFUSED: u8 = 5;
const NO_SUCH_COMMAND: u8 = 7;
const NO_SUCH_ADDRESS: u8 = 8;

pub(super) async fn serve(session: Arc<Session>, mut stream: TcpStream, _place: Place) {
    let target = match timeout(session.patience(), negotiate(&mut stream)).await {
        Ok(Ok(Ok(target))) => target,
        Ok(Ok(Err(reply))) => return refuse(stream, reply).await,
        _ => return,
    };
    let mut outer = match session.connect(&target, false).await {
        Ok(outer) => outer,
        Err(fault) => {
            let reply = match fault {
                Fault::Refused(_) => NOT_ALLOWED,
                Fault::Unresolved => HOST_UNREACHABLE,
                Fault::Unreachable(error) => match error.kind() {
                    std::io::ErrorKind::ConnectionRefused => REFUSED,
                    _ => HOST_UNREACHABLE,
                },
            };
            return refuse(stream, reply).await;
        }
    };
    if stream.write_all(&answer(0)).await.is_ok() {
        splice(&mut stream, &mut outer).await;
    }
}

/// Which address we connect from is nobody's business inside.
fn answer(reply: u8) -> [u8; 10] {
    [VERSION, reply, 0, 1, 0, 0, 0, 0, 0, 0]
}

async fn refuse(mut stream: TcpStream, reply: u8) {
    let _ = stream.write_all(&answer(reply)).await;
}

/// What is wanted, or the reply that says what is wrong with it.
async fn negotiate(stream: &mut TcpStream) -> std::io::Result<Result<Target, u8>> {
    let broken = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let [_version, count] = read(stream).await?;
    let mut methods = vec![0; count.into()];
    stream.read_exact(&mut methods).await?;
    if !methods.contains(&0) {
        stream.write_all(&[VERSION, 0xff]).await?;
        return Err(broken());
    }
    stream.write_all(&[VERSION, 0]).await?;
    let [version, command, _, kind] = read(stream).await?;
    if version != VERSION {
        return Err(broken());
    }
    let host = match kind {
        1 => Ok(Host::Address(Ipv4Addr::from(read::<4>(stream).await?).into())),
        4 => {
            let address = std::net::IpAddr::from(Ipv6Addr::from(read::<16>(stream).await?));
            Ok(Host::Address(address.to_canonical()))
        }
        3 => {
            let [length] = read(stream).await?;
            let mut name = vec![0; length.into()];
            stream.read_exact(&mut name).await?;
            String::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or(FAILED)
        }
        _ => return Ok(Err(NO_SUCH_ADDRESS)),
    };
    let port = u16::from_be_bytes(read(stream).await?);
    Ok(match (command, host) {
        (1, Ok(host)) if port > 0 => Ok(Target { host, port }),
        (1, Ok(_)) => Err(FAILED),
        (1, Err(reply)) => Err(reply),
        _ => Err(NO_SUCH_COMMAND),
    })
}

async fn read<const N: usize>(stream: &mut TcpStream) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
