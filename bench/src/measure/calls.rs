//! What a warm request costs beside time: system calls, switches of context, allocations. Counted
//! with the kernel's own counters, so `perf` (and `strace` for the names) have to be installed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use super::{Bench, missing, say};
use crate::cores::Cores;
use crate::load::{self, Bound, Target};
use crate::machine;
use crate::peers::{self, Missing};
use crate::server::{Server, source};
use crate::toys;

/// Requests that are counted.
const REQUESTS: usize = 1000;
/// Counters of the kernel, and what they are called here.
const EVENTS: [(&str, &str); 3] = [
    ("raw_syscalls:sys_enter", "system calls"),
    ("context-switches", "switches"),
    ("page-faults", "page faults"),
];
/// How long a tool may take to attach itself before the first request.
const ATTACH: Duration = Duration::from_millis(500);

/// What a request costs in the processes of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Calls {
    /// The language of the function.
    pub language: String,
    /// The cores.
    pub cores: Cores,
    /// Clients in a closed loop.
    pub clients: usize,
    /// `server`, or `below`: workers, and the process that starts them.
    pub processes: &'static str,
    /// How many of each there are for a request.
    pub counts: BTreeMap<String, f64>,
}

impl Bench {
    /// Counts for warm calls; what cannot be counted is added to `lacking`.
    ///
    /// # Errors
    /// The server does not start or answers something wrong.
    pub fn calls(&self, lacking: &mut Vec<Missing>) -> anyhow::Result<Vec<Calls>> {
        let mut events = EVENTS.map(|(event, name)| (event.to_owned(), name)).to_vec();
        let probes = Probes::new(&self.setup.program);
        match &probes {
            Ok(probes) => events.extend(probes.events()),
            Err(error) => missing(lacking, "allocations of a request", error),
        }
        let mut rows = Vec::new();
        for cores in Cores::ALL {
            let server = Server::start(&self.setup, cores, &[])?;
            for language in self.languages.iter().copied().chain([toys::LANGUAGE]) {
                server.image(language)?;
                server.deploy(language, language, source(language))?;
                for clients in [1, 16] {
                    say(&format!("{language}, what a call costs, {clients} clients"));
                    let load = || send(&server.endpoint(language), clients, cores);
                    // Workers are there before somebody looks for them.
                    load()?;
                    let all = machine::tree(server.process.id());
                    let (owner, below) = all.split_at(1);
                    for (processes, pids) in [("server", owner), ("below", below)] {
                        let (language, mut counts) = (language.to_owned(), BTreeMap::new());
                        match perf(&events, pids, load) {
                            Ok(counted) => counts.extend(counted),
                            Err(error) => {
                                missing(lacking, "system calls of a request", &error);
                            }
                        }
                        // Slow, and the same on two cores.
                        if (cores, clients) == (Cores::One, 1) {
                            match strace(pids, load) {
                                Ok(counted) => counts.extend(counted),
                                Err(error) => {
                                    missing(lacking, "names of system calls", &error);
                                }
                            }
                        }
                        // What happened a few times in all is not of the requests.
                        counts.retain(|_, count| *count >= 0.01);
                        rows.push(Calls { language, cores, clients, processes, counts });
                    }
                }
            }
        }
        Ok(rows)
    }
}

fn send(target: &Target, clients: usize, cores: Cores) -> anyhow::Result<()> {
    let (time, warm) = (Duration::from_secs(60), Duration::ZERO);
    load::run(target, clients, Bound { time, warm, requests: REQUESTS }, cores, 0)?;
    Ok(())
}

/// Counts events of processes, all threads included, while `load` runs.
fn perf(
    events: &[(String, &str)],
    pids: &[u32],
    load: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<(String, f64)>> {
    let names: Vec<&str> = events.iter().map(|(event, _)| event.as_str()).collect();
    let mut command = Command::new("perf");
    command.args(["stat", "--field-separator", ";", "--event", &names.join(","), "--pid"]);
    let text = during(command.arg(list(pids)), load)?;
    let count = |(event, name): &(String, &str)| {
        let count = of_perf(&text, event);
        let count = count.with_context(|| format!("perf cannot count {event}: {text}"))?;
        Ok(((*name).to_owned(), count / REQUESTS as f64))
    };
    events.iter().map(count).collect()
}

/// The count of an event in what `perf stat` says, its fields separated by semicolons.
fn of_perf(text: &str, event: &str) -> Option<f64> {
    let rows = text.lines().map(|line| line.split(';').collect::<Vec<_>>());
    rows.into_iter().find(|words| words.get(2) == Some(&event))?.first()?.parse().ok()
}

/// Counts system calls by name while `load` runs.
fn strace(
    pids: &[u32],
    load: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<(String, f64)>> {
    let mut command = Command::new("strace");
    command.args(["-f", "-c"]);
    for pid in pids {
        command.arg("-p").arg(pid.to_string());
    }
    let text = during(&mut command, load)?;
    let counts = of_strace(&text);
    ensure!(!counts.is_empty(), "strace counted nothing: {text}");
    Ok(counts.into_iter().map(|(name, count)| (name, count / REQUESTS as f64)).collect())
}

/// The system calls in what `strace -c` says: % time, seconds, usecs/call, calls, errors where there
/// are some, name.
fn of_strace(text: &str) -> Vec<(String, f64)> {
    let rows = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let counts = rows.filter_map(|words| {
        let (count, name) = (words.get(3)?.parse::<f64>().ok()?, words.last()?);
        (words.len() >= 5 && *name != "total").then(|| ((*name).to_owned(), count))
    });
    counts.collect()
}

fn list(pids: &[u32]) -> String {
    pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// Attaches a tool, runs `load`, ends the tool: what it said.
fn during(command: &mut Command, load: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<String> {
    let name = command.get_program().display().to_string();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let tool: Child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    std::thread::sleep(ATTACH);
    let done = load();
    kill(Pid::from_raw(i32::try_from(tool.id())?), Signal::SIGINT)?;
    let output = tool.wait_with_output()?;
    done?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Probes of the kernel on the allocator of the program; removed with their owner.
struct Probes {
    group: String,
}

/// Functions of the allocator, and what their calls are called here.
const ALLOCATOR: [(&str, &str); 3] = [
    ("mi_malloc_aligned", "allocations"),
    ("mi_zalloc_aligned", "zeroed allocations"),
    ("mi_realloc_aligned", "reallocations"),
];

impl Probes {
    fn new(program: &Path) -> anyhow::Result<Probes> {
        let probes = Probes { group: format!("dispatch_bench_{}", std::process::id()) };
        for (event, (function, _)) in probes.events().iter().zip(ALLOCATOR) {
            let mut add = Command::new("perf");
            add.args(["probe", "--quiet", "--exec"]).arg(program);
            peers::run(add.arg("--add").arg(format!("{}={function}", event.0)))?;
        }
        Ok(probes)
    }

    fn events(&self) -> Vec<(String, &'static str)> {
        let event = |(function, name)| (format!("{}:{function}", self.group), name);
        ALLOCATOR.into_iter().map(event).collect()
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        let mut remove = Command::new("perf");
        remove.args(["probe", "--quiet", "--del"]).arg(format!("{}:*", self.group));
        if let Err(error) = peers::run(&mut remove) {
            eprintln!("probes of the kernel may be left, see perf probe --list: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_in_what_tools_say() {
        let text = "29;;raw_syscalls:sys_enter;699841;100.00;;\n<not counted>;;page-faults;0;;;\n";
        assert_eq!(of_perf(text, "raw_syscalls:sys_enter"), Some(29.0));
        assert_eq!(of_perf(text, "page-faults"), None);
        assert_eq!(of_perf(text, "sys_enter"), None);

        let text = "strace: Process 7 attached with 2 threads\n\
            % time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n \
            60.00    0.000600          10        60           futex\n \
            40.00    0.000400          20        20         5 recvfrom\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    0.001000                    80         5 total\n";
        let wanted = [("futex".to_owned(), 60.0), ("recvfrom".to_owned(), 20.0)];
        assert_eq!(of_strace(text), wanted);
    }
}
