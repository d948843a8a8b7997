//! What is tried, what stops it, and how that shows. `docs/reference/attacks.md` is this table.

mod channel;
mod kernel;
mod outside;
mod quantities;
mod view;

use std::fmt;

/// What stops an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// It is not mounted where the function runs.
    View,
    /// It is mounted read-only, without devices, without set-user-id.
    Mounts,
    /// The files belong to somebody else.
    Owners,
    /// Process 1 and its own kind are all that it sees.
    Processes,
    /// A network with nothing but loopback.
    Network,
    /// No capability is left and none comes back.
    Capabilities,
    /// Access rules of the kernel (Landlock).
    Rules,
    /// The filter on system calls.
    Calls,
    /// Limits of the kernel for a process or user.
    Rlimits,
    /// Sizes of its file systems in memory.
    TmpSize,
    /// The watchdog on memory.
    Memory,
    /// The deadline of the call.
    Deadline,
    /// Frames and the states they may come in.
    Protocol,
    /// Bounded logs.
    Logs,
    /// The kernel lets nobody do this to another process, or has no such thing.
    Kernel,
    /// Nothing is inherited but what was given.
    Inheritance,
    /// One sandbox for one revision, for life.
    Separation,
    /// Lookups that know one organization only.
    Lookup,
    /// The HTTP server and the rules for responses.
    Http,
    /// Names, sizes and shapes are checked when they come in.
    Validation,
    /// The rules for source archives.
    Archives,
    /// Names are resolved, and addresses checked after it, outside of the sandbox.
    Proxy,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::View => "view",
            Layer::Mounts => "mount flags",
            Layer::Owners => "a user of its own",
            Layer::Processes => "process namespace",
            Layer::Network => "network namespace",
            Layer::Capabilities => "no capabilities",
            Layer::Rules => "access rules",
            Layer::Calls => "filter on system calls",
            Layer::Rlimits => "limits",
            Layer::TmpSize => "size of file systems",
            Layer::Memory => "memory limit",
            Layer::Deadline => "deadline",
            Layer::Protocol => "worker protocol",
            Layer::Logs => "bounded logs",
            Layer::Kernel => "kernel",
            Layer::Inheritance => "nothing inherited",
            Layer::Separation => "a sandbox of its own",
            Layer::Lookup => "lookup by organization",
            Layer::Http => "HTTP rules",
            Layer::Validation => "validation",
            Layer::Archives => "archive rules",
            Layer::Proxy => "egress proxy",
        })
    }
}

/// How it shows that an attack failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The function goes on and got exactly this: most often the name of an error.
    Got(&'static str),
    /// The call fails with a message that has this in it, and its worker is never used again.
    Ends(&'static str),
    /// The call fails with such a message; the worker did nothing wrong.
    Fails(&'static str),
    /// Nothing is promised, and it is not tried.
    NotPromised,
    /// A test of its own asserts more than one value.
    Test,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Got(got) => write!(f, "`{got}`"),
            Expect::Ends(text) => write!(f, "worker ends: `{text}`"),
            Expect::Fails(text) => write!(f, "call fails: `{text}`"),
            Expect::NotPromised => f.write_str("not promised"),
            Expect::Test => f.write_str("see the test"),
        }
    }
}

/// How a call ends that takes too long.
pub const TIMEOUT: &str = "execution exceeded the timeout";

/// Where an attack comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A function in Python; Node.js has no means for it.
    Python,
    /// A function in Node.js.
    Node,
    /// Functions in both languages.
    Both,
    /// The test of this name.
    Test(&'static str),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Python => f.write_str("Python"),
            By::Node => f.write_str("Node.js"),
            By::Both => f.write_str("Python, Node.js"),
            By::Test(name) => write!(f, "`{name}`"),
        }
    }
}

/// One attack.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// The family it belongs to.
    pub number: u8,
    /// Its name, in the table and in the functions.
    pub name: &'static str,
    /// What stops it.
    pub layer: Layer,
    /// How that shows.
    pub expect: Expect,
    /// The same where the server runs as an ordinary user, if it differs.
    pub ordinary: Option<Expect>,
    /// The same in tier C, if it differs.
    pub weak: Option<Expect>,
    /// Who tries it.
    pub by: By,
}

/// One row of the table.
pub const fn row(number: u8, name: &'static str, layer: Layer, expect: Expect, by: By) -> Attack {
    Attack { number, name, layer, expect, ordinary: None, weak: None, by }
}

impl Attack {
    /// As an ordinary user it ends otherwise.
    pub const fn ordinary(mut self, expect: Expect) -> Attack {
        self.ordinary = Some(expect);
        self
    }

    /// In tier C it ends otherwise.
    pub const fn weak(mut self, expect: Expect) -> Attack {
        self.weak = Some(expect);
        self
    }

    /// Tier C does not promise this.
    pub const fn not_weak(self) -> Attack {
        self.weak(Expect::NotPromised)
    }

    /// What is expected in a tier.
    pub fn expected(&self, tier: char) -> Expect {
        let differs = match tier {
            'B' => self.ordinary,
            'C' => self.weak,
            _ => None,
        };
        differs.unwrap_or(self.expect)
    }

    /// The row in the page.
    pub fn line(&self) -> String {
        let Attack { number, name, layer, expect, by, .. } = self;
        let mut expect = expect.to_string();
        for (tier, differs) in [('B', self.ordinary), ('C', self.weak)] {
            if let Some(differs) = differs {
                expect.push_str(&format!("; {tier}: {differs}"));
            }
        }
        format!("| {number} | {name} | {layer} | {expect} | {by} |")
    }
}

/// All rows.
pub fn all() -> impl Iterator<Item = &'static Attack> {
    [view::ROWS, kernel::ROWS, quantities::ROWS, channel::ROWS, outside::ROWS].into_iter().flatten()
}
