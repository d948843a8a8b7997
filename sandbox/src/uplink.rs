//! A way out for sandboxes that need more than a proxy: an interface of their own, behind a filter
//! that they cannot change, and a program that carries its packets as an ordinary user's.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns};

use crate::setup::{Failure, Step as _};
use crate::spec::Rule;
use crate::sys;
use crate::wire::{self, Event};

/// Where names are resolved: slirp4netns answers there.
pub const NAMESERVER: &str = "10.0.2.3";

/// Where programs of administrators are; the launcher has no `PATH`.
const PLACES: &[&str] = &["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"];

/// Lets a helper connect the network `there`, for as long as the other end of `life` is open, and
/// tell the owner, whose `request` it is.
///
/// # Errors
/// When there is no helper to be had.
pub(crate) fn open(
    control: RawFd,
    request: u64,
    there: &File,
    rules: &[Rule],
    life: &OwnedFd,
) -> io::Result<()> {
    if sys::fork_into(0)? > 0 {
        return Ok(());
    }
    let failed = connect(there, rules, life)
        .err()
        .map(|Failure { step, error }| (step, error.raw_os_error().unwrap_or(libc::EIO)));
    let sent = wire::send(control, &Event::Listening { request, failed }, &[]);
    sys::exit(i32::from(sent.is_err()))
}

fn connect(there: &File, rules: &[Rule], life: &OwnedFd) -> Result<(), Failure> {
    // An ordinary user's programs would lose them by being executed.
    sys::keep_network_rights().step("network rights")?;
    // The filter comes first: there must be no moment without it.
    filter(there, rules)?;
    let (ready, tell) = nix::unistd::pipe().step("pipe")?;
    fcntl(&ready, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).step("descriptors")?;
    let inherit = FcntlArg::F_SETFD(FdFlag::empty());
    fcntl(there, inherit).step("descriptors")?;
    fcntl(life, FcntlArg::F_SETFD(FdFlag::empty())).step("descriptors")?;
    let started = Command::new(program("slirp4netns")?)
        .args(["--configure", "--mtu=65520", "--disable-host-loopback"])
        .args(["--enable-seccomp", "--netns-type=path"])
        // It empties its own view of the machine and gives its rights up; it wants to be root for that.
        .args(nix::unistd::geteuid().is_root().then_some("--enable-sandbox"))
        .arg(format!("--ready-fd={}", tell.as_raw_fd()))
        .arg(format!("--exit-fd={}", life.as_raw_fd()))
        .arg(format!("/proc/self/fd/{}", there.as_raw_fd()))
        .arg("tap0")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    started.step("slirp4netns")?;
    drop(tell);
    // It says so when the interface is there, and nothing when it ends before.
    File::from(ready)
        .read_exact(&mut [0])
        .map_err(|_| io::Error::from_raw_os_error(libc::EIO))
        .step("slirp4netns")
}

/// Sets the filter of the network `there`. It holds for whatever leaves it, and only who owns the
/// network may change it: nobody in the sandbox has the right.
fn filter(there: &File, rules: &[Rule]) -> Result<(), Failure> {
    let nft = program("nft")?;
    let text = ruleset(rules);
    match sys::fork().step("processes")? {
        0 => {
            let done =
                setns(there, CloneFlags::CLONE_NEWNET).step("network namespace").and_then(|()| {
                    let mut child = Command::new(nft)
                        .args(["-f", "-"])
                        .env_clear()
                        .stdin(Stdio::piped())
                        .stdout(Stdio::null())
                        .stderr(Stdio::null())
                        .spawn()
                        .step("nft")?;
                    if let Some(mut input) = child.stdin.take() {
                        input.write_all(text.as_bytes()).step("nft")?;
                    }
                    let end = child.wait().step("nft")?;
                    if end.success() {
                        Ok(())
                    } else {
                        Err(io::Error::other("refused")).step("nft")
                    }
                });
            sys::exit(i32::from(done.is_err()))
        }
        _ => match sys::reap(true) {
            Ok(Some((_, 0))) => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::EIO)).step("nft"),
        },
    }
}

/// In the language of nft. Only numbers come from outside.
fn ruleset(rules: &[Rule]) -> String {
    let mut text = format!(
        "table inet egress {{\n chain leaving {{\n  type filter hook output priority 0; policy drop;\n  \
         oifname \"lo\" accept\n  ip daddr {NAMESERVER} udp dport 53 accept\n  \
         ip daddr {NAMESERVER} tcp dport 53 accept\n"
    );
    for Rule { accept, nets } in rules.iter().filter(|rule| !rule.nets.is_empty()) {
        let nets: Vec<_> = nets.iter().map(|(address, bits)| format!("{address}/{bits}")).collect();
        let verdict = if *accept { "accept" } else { "reject with icmpx type admin-prohibited" };
        // One rule each: sets do not take ranges that overlap.
        for net in nets {
            text += &format!("  ip daddr {net} {verdict}\n");
        }
    }
    text += "  meta nfproto ipv4 accept\n }\n}\n";
    text
}

fn program(name: &str) -> Result<PathBuf, Failure> {
    let found =
        PLACES.iter().map(|place| PathBuf::from(place).join(name)).find(|path| path.exists());
    found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT)).step(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_what_was_asked_for_in_its_order() {
        let net = |text: &str, bits| (text.parse().expect("an address"), bits);
        let rules = [
            Rule { accept: true, nets: vec![net("10.1.0.0", 16)] },
            Rule { accept: false, nets: vec![net("10.0.0.0", 8), net("127.0.0.0", 8)] },
            Rule { accept: false, nets: Vec::new() },
        ];
        let text = ruleset(&rules);
        let lines: Vec<_> = text.lines().filter(|line| line.contains('/')).collect();
        assert_eq!(
            lines,
            [
                "  ip daddr 10.1.0.0/16 accept",
                "  ip daddr 10.0.0.0/8 reject with icmpx type admin-prohibited",
                "  ip daddr 127.0.0.0/8 reject with icmpx type admin-prohibited",
            ]
        );
        assert!(text.contains("policy drop;"));
    }
}
