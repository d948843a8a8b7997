//! Sandboxes with a way out. What they reach here is this machine, by an address that the filter
//! lets through: a test reaches nothing else.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use dispatch_sandbox::{Error, Exit, Launcher, Network, Rule, Spec};

use crate::support::{PATIENCE, finish, python, until};

fn full(script: &str) -> Spec {
    let mut spec = python(script);
    spec.network = Network::Full;
    spec
}

/// An address of this machine that is not of its loopback.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: this only asks which way it would go.
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}

/// Why this machine cannot do it.
fn missing() -> Option<&'static str> {
    let there = |name: &str| {
        ["/usr/sbin", "/usr/bin"].iter().any(|dir| std::path::Path::new(dir).join(name).exists())
    };
    if !there("slirp4netns") || !there("nft") {
        return Some("slirp4netns and nftables are not installed");
    }
    let device = std::fs::File::options().read(true).write(true).open("/dev/net/tun");
    device.is_err().then_some("this user may not open /dev/net/tun")
}

/// Tries to connect, when told to, to each of its arguments, and says what became of it.
fn tries(targets: &[(String, u16)]) -> String {
    format!(
        "import errno, os, socket\nos.read(3, 1)\nfor host, port in {targets:?}:\n \
          try:\n  with socket.create_connection((host, port), 20) as s: print(s.recv(9).decode())\n \
          except OSError as error: print(errno.errorcode.get(error.errno, str(error)))\n"
    )
}

#[tokio::test]
async fn it_leads_where_the_filter_says_and_ends_with_the_sandbox() {
    if let Some(reason) = missing() {
        println!("skipped: {reason}");
        return;
    }
    let Some(own) = own_address() else {
        println!("skipped: this machine has no address but loopback");
        return;
    };
    let listener = TcpListener::bind((own, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let local = TcpListener::bind("127.0.0.1:0").unwrap();
    let hidden = local.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = std::io::Write::write_all(&mut stream.unwrap(), b"reached");
        }
    });
    let targets = [
        (own.to_string(), port),
        // The machine's loopback: its own, and as slirp4netns calls it.
        ("127.0.0.1".to_owned(), hidden),
        ("10.0.2.2".to_owned(), hidden),
        ("169.254.169.254".to_owned(), 80),
        ("::1".to_owned(), hidden),
    ];
    let launcher = Launcher::start().unwrap();
    let spec = full(&tries(&targets));
    let metadata = Rule { accept: false, nets: vec![(Ipv4Addr::new(169, 254, 0, 0), 16)] };
    for (accept, expected) in [(true, "reached"), (false, "EHOSTUNREACH")] {
        let child = launcher.spawn(&spec).await.unwrap();
        let rules = [
            Rule { accept, nets: vec![(own, 32)] },
            metadata.clone(),
            Rule { accept: false, nets: vec![(Ipv4Addr::new(10, 0, 0, 0), 8)] },
        ];
        tokio::time::timeout(PATIENCE, child.uplink(&rules)).await.unwrap().unwrap();
        nix::unistd::write(std::os::fd::AsFd::as_fd(&child.channel), b"!").unwrap();
        let said = finish(child).await;
        let lines: Vec<_> = said.out.lines().collect();
        assert_eq!(said.exit, Exit::Code(0), "{}", said.err);
        assert_eq!(lines[0], expected, "{lines:?}");
        assert_eq!(lines[1], "ECONNREFUSED", "{lines:?}");
        assert!(lines[2..].iter().all(|line| *line != "reached"), "{lines:?}");
    }
    until("nothing carries packets any more", || carriers() == 0).await;
}

/// Processes of ours that carry packets.
fn carriers() -> usize {
    use std::os::unix::fs::MetadataExt as _;
    let me = std::fs::metadata("/proc/self").unwrap().uid();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| {
        let named = std::fs::read_to_string(entry.path().join("comm"));
        named.is_ok_and(|name| name.trim() == "slirp4netns")
            && entry.metadata().is_ok_and(|data| data.uid() == me)
    })
    .count()
}

#[tokio::test]
async fn nobody_inside_can_change_the_filter() {
    if let Some(reason) = missing() {
        println!("skipped: {reason}");
        return;
    }
    let launcher = Launcher::start().unwrap();
    let spec = full(
        "import errno, fcntl, os, socket, struct, subprocess\n\
         os.read(3, 1)\n\
         print(subprocess.run(['/usr/sbin/nft', 'flush', 'ruleset'], stderr=-1).stderr.decode())\n\
         down = struct.pack('16sH14x', b'tap0', 0)\n\
         try: fcntl.ioctl(socket.socket(), 0x8914, down)\n\
         except OSError as error: print(errno.errorcode[error.errno])\n\
         print(open('/etc/resolv.conf').read(), end='')",
    );
    let child = launcher.spawn(&spec).await.unwrap();
    child.uplink(&[]).await.unwrap();
    nix::unistd::write(std::os::fd::AsFd::as_fd(&child.channel), b"!").unwrap();
    let said = finish(child).await;
    assert!(said.out.contains("Operation not permitted"), "{} {}", said.out, said.err);
    assert!(said.out.ends_with("EPERM\nnameserver 10.0.2.3\n"), "{} {}", said.out, said.err);
}

#[tokio::test]
async fn a_sandbox_on_the_host_s_network_gets_none() {
    let launcher = Launcher::start().unwrap();
    let mut host = python("import os; os.read(3, 1)");
    host.network = Network::Host;
    let child = launcher.spawn(&host).await.unwrap();
    assert!(matches!(child.uplink(&[]).await, Err(Error::Setup { .. })));
}
