//! What these attacks get where nothing stops them: the same code, as root, without a sandbox. An
//! attack that fails even there would prove nothing.

use std::process::Command;

use crate::inside::Targets;
use crate::support::{Server, root};

/// Attacks that succeed on any Linux for root, and change nothing there.
const HARMLESS: &[&str] = &[
    "read-shadow",
    "read-home-of-server",
    "list-homes",
    "list-data-directory",
    "list-project",
    "link-to-shadow",
    "users-of-machine",
    "command-line-of-init",
    "environment-of-server",
    "other-processes",
    "list-sys",
    "capabilities",
    "own-set-user-id-file",
    "api-on-loopback",
    "gateway-on-loopback",
    "api-by-any-address",
    "datagram-to-machine",
    "datagram-to-loopback",
    "abstract-socket",
    "socket-file",
    "raw-socket",
    "packet-socket",
    "interfaces",
    "nicer-than-others",
    "read-kernel-messages",
];

const SCRIPT: &str = "
import attack, json, sys
print(json.dumps([attack.handle(None, payload) for payload in json.loads(sys.argv[1])]))
";

#[test]
fn the_same_attacks_succeed_where_nothing_stops_them() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root may do all of this without a sandbox");
        return;
    }
    let s = Server::start();
    let targets = Targets::of(&s);
    let payloads: Vec<_> = HARMLESS.iter().map(|name| targets.payload(name)).collect();
    let done = Command::new("python3")
        .args(["-B", "-c", SCRIPT, &serde_json::to_string(&payloads).unwrap()])
        .current_dir(root().join("tests/attacks/functions/python3"))
        .output()
        .unwrap();
    let said: Vec<String> = serde_json::from_slice(&done.stdout).unwrap_or_default();
    assert_eq!(said.len(), HARMLESS.len(), "{done:?}");
    let named = HARMLESS.iter().zip(&said);
    let failed: Vec<_> = named.filter(|(_, said)| !said.starts_with("SUCCEEDED")).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
