//! The sandbox of a worker: what of the host it sees, and its limits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dispatch_api::ErrorType;
use dispatch_sandbox::{Attachment, Bind, Network, Spec};

use super::Shared;
use crate::adapter;
use crate::call::{Cause, Failure};
use crate::egress::{self, Door};
use crate::language::Pack;
use crate::service::{STATE, STATE_BYTES, Service};
use crate::worker::{Plan, failure};
use crate::{Egress, Revision};

/// Where the source is inside.
const SOURCE: &str = "/function";
/// Where sandboxes see the files of their language pack.
pub(crate) const LANGUAGE: &str = "/dispatch";

const TMP_BYTES: u64 = 64 * 1024 * 1024;
const TMP_INODES: u64 = 16 * 1024;
/// Processes and threads of a worker at a time.
pub(crate) const PROCESSES: u64 = 128;
const OPEN_FILES: u64 = 1024;

/// Stands for the variables that name a proxy.
const PROXY: &str = "HTTP_PROXY";

/// What every worker has in its environment. The pack's variables come after these and the
/// function's own last, so a function can set any of them, `LD_PRELOAD` too: they take effect when
/// the interpreter starts, inside the sandbox, where they can harm none but the function itself.
const ENVIRONMENT: [(&str, &str); 3] =
    [("HOME", "/tmp"), ("LANG", "C.UTF-8"), ("PATH", "/usr/local/bin:/usr/bin:/bin")];

/// What a process of a language is started with, whatever its function is.
struct Base<'a> {
    pack: &'a Pack,
    sandbox: Spec,
}

fn base<'a>(shared: &'a Shared, language: &str, host_uid: u32) -> Result<Base<'a>, Failure> {
    let (Some(pack), Some(installed)) =
        (shared.languages.pack(language), shared.languages.installed(language))
    else {
        return Err(failure::system(format!(
            "The language {language} is not installed on this machine; install its interpreter and \
             restart the server"
        )));
    };
    let executable = installed.runtime.executable.display().to_string();
    let argv = pack.worker.command.iter().flat_map(|word| match (word.as_str(), &installed.root) {
        ("{command}", Some(root)) => root.command.clone(),
        ("{directory}", Some(root)) => vec![root.directory.display().to_string()],
        ("{ports}", Some(root)) => {
            let ports: Vec<String> = root.ports.iter().map(u16::to_string).collect();
            vec![ports.join(",")]
        }
        _ => vec![word.replace("{executable}", &executable)],
    });
    let mut binds = vec![read_only(shared.languages.directory(language), LANGUAGE)];
    binds.extend(installed.binds.iter().map(|path| Bind {
        source: path.clone(),
        target: path.clone(),
        writable: false,
    }));
    let fixed = ENVIRONMENT.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let linked = pack.worker.link_environment.iter().filter(|_| !shared.launcher.has_views());
    let of_pack = pack.worker.environment.iter().chain(linked);
    let of_pack = of_pack.map(|(name, value)| (name.clone(), value.clone()));
    let mut sandbox = Spec {
        argv: argv.collect(),
        env: installed
            .environment(fixed)
            .into_iter()
            .chain(of_pack)
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect(),
        cwd: SOURCE.into(),
        root: None,
        scratch: Vec::new(),
        installs: false,
        binds,
        mount_points: vec![SOURCE.into(), pack.worker.layer_target.clone().into()],
        network: Network::None,
        tmp_bytes: TMP_BYTES,
        tmp_inodes: TMP_INODES,
        memory_bytes: 0,
        cpu_millis: 0,
        processes: PROCESSES,
        open_files: OPEN_FILES,
        file_bytes: TMP_BYTES,
        syscalls: installed.syscalls.clone(),
        host_uid,
    };
    installed.place(&mut sandbox);
    Ok(Base { pack, sandbox })
}

/// The sandbox of a process that waits for a function of `language`.
///
/// # Errors
/// When the language is not there.
pub fn waiting(shared: &Shared, language: &str, host_uid: u32) -> Result<Spec, Failure> {
    let Base { pack, mut sandbox } = base(shared, language, host_uid)?;
    if pack.worker.takes_at_start(PROXY) && has_sockets(shared) {
        sandbox.env.extend(egress::environment());
    }
    Ok(sandbox)
}

/// How a worker of `revision` comes to be.
///
/// # Errors
/// When its language is not there or its environment cannot be set.
pub fn plan(shared: &Shared, revision: &Revision) -> Result<Plan, Failure> {
    let Base { pack, mut sandbox } = base(shared, &revision.language, 0)?;
    let mut environment = environment(revision, pack)?;
    let settings = &revision.settings;
    let mut binds = vec![read_only(revision.source.clone(), SOURCE)];
    if let Some(layer) = &revision.layer {
        binds.push(read_only(layer.clone(), &pack.worker.layer_target));
    }
    // Files in /tmp take memory too, so they must not be able to take all of it.
    let tmp_bytes = match settings.memory_bytes {
        0 => TMP_BYTES,
        limit => TMP_BYTES.min(limit / 2),
    };
    sandbox.tmp_bytes = tmp_bytes;
    sandbox.memory_bytes = settings.memory_bytes;
    sandbox.cpu_millis = settings.cpu_millis;
    let can_wait = pack.worker.waits
        && settings.egress != Egress::Full
        && !environment.keys().any(|name| pack.worker.takes_at_start(name));
    let attachment =
        can_wait.then(|| Attachment { binds: binds.clone(), limits: sandbox.limits(), tmp_bytes });
    for (name, proxy) in egress::environment().filter(|_| has_sockets(shared)) {
        if settings.egress.reach().is_some() {
            environment.entry(name).or_insert(proxy);
        } else if can_wait && pack.worker.takes_at_start(PROXY) {
            // What waits was told of a proxy that is not there.
            environment.entry(name).or_default();
        }
    }
    sandbox.mount_points.clear();
    sandbox.binds.extend(binds);
    let at_start = sandbox.env.into_iter().collect::<BTreeMap<_, _>>();
    sandbox.env = at_start
        .into_iter()
        .chain(environment.clone())
        .collect::<BTreeMap<_, _>>()
        .into_iter()
        .collect();
    sandbox.network = match settings.egress {
        Egress::Full => Network::Full,
        _ => Network::None,
    };
    // Without a view of its own a sandbox is one process's: rules name it, and its own /tmp.
    let forks = settings.preload && pack.worker.forks && shared.launcher.has_views();
    Ok(Plan {
        sandbox,
        forks,
        attachment,
        environment,
        door: Door::new(&shared.gate, &revision.organization, &revision.function, &settings.egress)
            .filter(|_| has_sockets(shared)),
        uplink: (settings.egress == Egress::Full).then(|| shared.gate.filter()),
        function: revision.function.clone(),
        source: SOURCE.to_owned(),
        handler: revision.handler.clone(),
        concurrency: settings.concurrency.max(1),
        result_limit: shared.options.result_limit,
        start_timeout: shared.options.start_timeout,
        freeze: freeze(shared).filter(|_| !forks),
    })
}

/// The sandbox of a program that runs beside functions, whose first process waits until it is told
/// that all it needs is there. It writes to `state`; `hosts` says where its names lead.
///
/// # Errors
/// When what it runs in is not there.
pub fn service(
    shared: &Shared,
    service: &Service,
    hosts: PathBuf,
    host_uid: u32,
) -> Result<Spec, String> {
    let missing = || format!("{} is not installed on this machine", service.language);
    let installed = shared.languages.installed(&service.language).ok_or_else(missing)?;
    let base = base(shared, &service.language, host_uid).map_err(|failed| failed.message)?;
    let mut spec = base.sandbox;
    let ourselves = installed.runtime.executable.display().to_string();
    let (directory, command) = match &installed.root {
        Some(root) => (root.directory.display().to_string(), root.command.clone()),
        None => ("/tmp".to_owned(), vec![ourselves.clone()]),
    };
    let words = [ourselves, adapter::WORD.to_owned(), adapter::SERVICE.to_owned(), directory];
    let words = words.into_iter().chain(command).chain(service.arguments.iter().cloned());
    spec.argv = installed.command(words.collect());
    spec.cwd = "/tmp".into();
    spec.mount_points.clear();
    spec.binds.push(read_only(hosts, "/etc/hosts"));
    let state = Bind { source: service.state.clone(), target: STATE.into(), writable: true };
    spec.binds.push(state);
    spec.binds.extend(service.directories.iter().map(|path| Bind {
        source: path.clone(),
        target: path.clone(),
        writable: true,
    }));
    let proxy = egress::environment().filter(|_| service.egress.reach().is_some());
    let at_start = spec.env.into_iter().chain(proxy).chain(service.environment.iter().cloned());
    spec.env = at_start.collect::<BTreeMap<_, _>>().into_iter().collect();
    spec.memory_bytes = service.memory_bytes;
    spec.cpu_millis = service.cpu_millis;
    spec.file_bytes = STATE_BYTES;
    spec.network = match service.egress {
        Egress::Full => Network::Full,
        _ => Network::None,
    };
    Ok(spec)
}

/// How long a worker in a sandbox of its own is idle before it stands still, if ever.
pub fn freeze(shared: &Shared) -> Option<Duration> {
    shared.options.freeze.filter(|_| shared.launcher.can_freeze())
}

/// Whether sandboxes have sockets that can lead to a proxy: those of a network of their own.
pub fn has_sockets(shared: &Shared) -> bool {
    shared.launcher.has_views()
}

fn read_only(source: PathBuf, target: &str) -> Bind {
    Bind { source, target: target.into(), writable: false }
}

/// What a function adds to the environment of its language; its own variables win.
fn environment(revision: &Revision, pack: &Pack) -> Result<BTreeMap<String, String>, Failure> {
    let of_layer = pack.worker.layer_environment.iter().filter(|_| revision.layer.is_some());
    let own = revision.settings.environment.iter().map(|(name, value)| (name, value));
    let mut merged = BTreeMap::new();
    for (name, value) in of_layer.chain(own) {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let message = format!(
                "the environment variable {name:?} cannot be set: a name is not empty and has no \
                 `=`, and neither name nor value has a NUL"
            );
            return Err(failure::failure(ErrorType::FunctionError, Cause::Load, message));
        }
        merged.insert(name.clone(), value.clone());
    }
    Ok(merged)
}
