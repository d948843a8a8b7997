//! Sockets that the owner has inside the network of a sandbox.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};

use dispatch_sandbox::{Child, Error, Exit, Launcher, MAX_PORTS, Network};

use crate::support::{PATIENCE, finish, python};

/// Connects to a port of its own loopback, when told to, and prints what it is told there.
fn caller(port: u16) -> String {
    format!(
        "import os, socket\nos.read(3, 1)\n\
         with socket.create_connection(('127.0.0.1', {port})) as s:\n  \
           s.sendall(b'ping'); print(s.recv(99).decode())"
    )
}

fn go(child: &Child) {
    nix::unistd::write(child.channel.as_fd(), b"!").unwrap();
}

/// Answers one caller.
fn serve(socket: OwnedFd) {
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(false).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut said = [0; 4];
    stream.read_exact(&mut said).unwrap();
    stream
        .write_all(format!("{} from outside", String::from_utf8_lossy(&said)).as_bytes())
        .unwrap();
}

#[tokio::test]
async fn the_owner_listens_inside_each_sandbox_apart() {
    let launcher = Launcher::start().unwrap();
    // The same port twice, and one that only a privileged user could have: each has its own network.
    for port in [3128, 3128, 443] {
        let child = launcher.spawn(&python(&caller(port))).await.unwrap();
        let mut sockets = child.listen(&[port, 5432]).await.unwrap();
        assert_eq!(sockets.len(), 2);
        let served = tokio::task::spawn_blocking({
            let socket = sockets.swap_remove(0);
            move || serve(socket)
        });
        go(&child);
        let said = finish(child).await;
        assert_eq!(
            (said.out.as_str(), said.exit),
            ("ping from outside\n", Exit::Code(0)),
            "{}",
            said.err
        );
        served.await.unwrap();
    }
}

#[tokio::test]
async fn the_machine_hears_nothing_of_it() {
    let launcher = Launcher::start().unwrap();
    let child = launcher.spawn(&python(&caller(1))).await.unwrap();
    // A port that is free on the machine, and stays so.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let sockets = child.listen(&[port]).await.unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
    drop(sockets);
}

#[tokio::test]
async fn what_cannot_be_made_is_named_and_harms_nothing() {
    let launcher = Launcher::start().unwrap();
    let child = launcher.spawn(&python(&caller(4000))).await.unwrap();
    let first = child.listen(&[4000]).await.unwrap();
    let taken = child.listen(&[4001, 4000]).await.unwrap_err();
    assert!(matches!(&taken, Error::Setup { step, .. } if step == "port 4000"), "{taken}");
    // The other one was given back.
    let again = async { while child.listen(&[4001]).await.is_err() {} };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    assert!(child.listen(&[1; MAX_PORTS + 1]).await.is_err());
    assert!(child.listen(&[]).await.unwrap().is_empty());
    drop(first);

    let mut host = python("import os; os.read(3, 1)");
    host.network = Network::Host;
    let host = launcher.spawn(&host).await.unwrap();
    assert!(host.listen(&[4000]).await.is_err(), "the machine's own ports are not given away");

    let mut ended = launcher.spawn(&python("pass")).await.unwrap();
    ended.wait().await;
    assert!(matches!(ended.listen(&[4000]).await, Err(Error::Ended)));
}
