//! The filter on system calls: `syscalls.toml`, with what a language adds, made into the program that
//! the kernel runs at every call.

mod program;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::str::FromStr as _;

use libc::sock_filter;
use serde::Deserialize;

static LIST: &str = include_str!("../syscalls.toml");

/// The base list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// Unlisted calls from this number on answer as on an older kernel.
    newer: u32,
    allow: Vec<Group>,
    condition: Vec<Condition>,
    /// Where nothing but this keeps sandboxes from networks.
    no_network: Vec<Refusal>,
    /// Answered to what installs packages as if it were done.
    pretend: Vec<Group>,
    refuse: Vec<Refusal>,
    kill: Vec<Group>,
}

/// Calls of one kind. Reasons are for who reads the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reader"))]
    reason: String,
    calls: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    errno: Answer,
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reader"))]
    reason: String,
    calls: Vec<String>,
}

/// A call that is allowed where one of its arguments is right: one of these values, none of these
/// values, or without any of these bits.
#[derive(Deserialize, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
struct Condition {
    call: String,
    argument: u8,
    #[serde(default)]
    one_of: BTreeMap<String, u32>,
    #[serde(default)]
    none_of: BTreeMap<String, u32>,
    #[serde(default)]
    without: BTreeMap<String, u32>,
    otherwise: Answer,
    reason: String,
}

/// What a call that is not made answers.
#[derive(Clone, Copy, Deserialize, PartialEq, Debug)]
enum Answer {
    #[serde(rename = "EPERM")]
    NotPermitted,
    #[serde(rename = "ENOSYS")]
    NoSuchCall,
    #[serde(rename = "EAFNOSUPPORT")]
    NoSuchFamily,
    #[serde(rename = "EINVAL")]
    Invalid,
    /// None: the process is killed by `SIGSYS`.
    #[serde(rename = "kill")]
    Kill,
    /// That it is done.
    #[serde(skip)]
    Done,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Verdict<'a> {
    Allow,
    Answer(Answer),
    Ask(&'a Condition),
}

/// What differs between machines.
struct Machine {
    /// `AUDIT_ARCH_*` of linux/audit.h.
    audit: u32,
    number: fn(&str) -> Option<u32>,
}

const X86_64: Machine = Machine {
    audit: 0xc000_003e,
    number: |name| syscalls::x86_64::Sysno::from_str(name).ok().map(|call| call as u32),
};
const AARCH64: Machine = Machine {
    audit: 0xc000_00b7,
    number: |name| syscalls::aarch64::Sysno::from_str(name).ok().map(|call| call as u32),
};

fn here() -> Option<&'static Machine> {
    match std::env::consts::ARCH {
        "x86_64" => Some(&X86_64),
        "aarch64" => Some(&AARCH64),
        _ => None,
    }
}

/// Whether filters can be made for this machine and this kernel takes them.
pub(crate) fn available() -> bool {
    here().is_some() && crate::sys::can_filter_calls()
}

/// Says what is wrong with the name of a call that a language wants to have besides the base list.
///
/// # Errors
/// It is no call of Linux, one that kills, or one whose argument decides.
pub fn check_call(name: &str) -> Result<(), String> {
    if [X86_64, AARCH64].iter().all(|machine| (machine.number)(name).is_none()) {
        return Err(format!("{name:?} is not a system call of Linux"));
    }
    let list = List::read().map_err(|error| error.to_string())?;
    if list.kill.iter().any(|group| group.calls.iter().any(|call| call == name)) {
        return Err(format!("the system call {name} is never allowed"));
    }
    if let Some(condition) = list.condition.iter().find(|condition| condition.call == name) {
        return Err(format!(
            "the system call {name} is allowed as far as it can be: {}",
            condition.reason
        ));
    }
    Ok(())
}

/// What a sandbox is for, as far as calls differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Purpose {
    /// Whether sockets are wanted.
    pub sockets: bool,
    /// Whether it is told that it can do what only root can.
    pub installs: bool,
}

/// The programs of this machine, one for each set of additions.
pub(crate) struct Filters {
    list: List,
    machine: &'static Machine,
    made: HashMap<(Vec<String>, Purpose), Rc<[sock_filter]>>,
}

impl Filters {
    /// None where this kernel or machine has no filters.
    pub(crate) fn new() -> Result<Option<Filters>, toml::de::Error> {
        match here().filter(|_| available()) {
            Some(machine) => {
                Ok(Some(Filters { list: List::read()?, machine, made: HashMap::new() }))
            }
            None => Ok(None),
        }
    }

    /// The program for the base list and these calls.
    pub(crate) fn program(&mut self, additions: &[String], kind: Purpose) -> Rc<[sock_filter]> {
        let made = self.made.entry((additions.to_vec(), kind));
        Rc::clone(made.or_insert_with(|| self.list.program(self.machine, additions, kind).into()))
    }
}

impl List {
    fn read() -> Result<List, toml::de::Error> {
        toml::from_str(LIST)
    }

    fn program(&self, machine: &Machine, additions: &[String], kind: Purpose) -> Vec<sock_filter> {
        let verdicts = self.verdicts(machine, additions, kind);
        // From the first number after the listed ones on, every call is one that is not listed.
        let end = verdicts.keys().last().map_or(0, |last| last + 1);
        let mut ranges: Vec<(u32, Verdict<'_>)> = Vec::new();
        for number in 0..=end.max(self.newer) {
            let unlisted =
                if number < self.newer { Answer::NotPermitted } else { Answer::NoSuchCall };
            let verdict = verdicts.get(&number).copied().unwrap_or(Verdict::Answer(unlisted));
            if ranges.last().is_none_or(|(_, last)| *last != verdict) {
                ranges.push((number, verdict));
            }
        }
        program::program(machine.audit, &ranges)
    }

    /// What is answered to each call that is listed. A later table wins over an earlier one, so that
    /// nothing undoes what kills.
    fn verdicts(
        &self,
        machine: &Machine,
        additions: &[String],
        kind: Purpose,
    ) -> BTreeMap<u32, Verdict<'_>> {
        let mut verdicts = BTreeMap::new();
        let mut add = |calls: &[String], verdict| {
            // A name that this machine does not have is one that others have.
            for number in calls.iter().filter_map(|name| (machine.number)(name)) {
                verdicts.insert(number, verdict);
            }
        };
        self.refuse.iter().for_each(|of| add(&of.calls, Verdict::Answer(of.errno)));
        self.allow.iter().for_each(|of| add(&of.calls, Verdict::Allow));
        add(additions, Verdict::Allow);
        for condition in &self.condition {
            add(std::slice::from_ref(&condition.call), Verdict::Ask(condition));
        }
        let closed = self.no_network.iter().filter(|_| !kind.sockets);
        closed.for_each(|of| add(&of.calls, Verdict::Answer(of.errno)));
        self.kill.iter().for_each(|of| add(&of.calls, Verdict::Answer(Answer::Kill)));
        // Nothing is done, so this undoes nothing either.
        let pretended = self.pretend.iter().filter(|_| kind.installs);
        pretended.for_each(|of| add(&of.calls, Verdict::Answer(Answer::Done)));
        verdicts
    }
}
