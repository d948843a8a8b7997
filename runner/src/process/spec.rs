//! The sandbox of a worker: what of the host it sees, and its limits.

use dispatch_api::ErrorType;
use dispatch_sandbox::{Bind, Network, Spec};

use super::Shared;
use crate::call::{Cause, Failure};
use crate::language::Pack;
use crate::worker::{Plan, failure};
use crate::{Egress, Revision};

/// Where the source, and the language's own files, are inside.
const SOURCE: &str = "/function";
const LANGUAGE: &str = "/dispatch";

const TMP_BYTES: u64 = 64 * 1024 * 1024;
const TMP_INODES: u64 = 16 * 1024;
const PROCESSES: u64 = 128;
const OPEN_FILES: u64 = 1024;

/// What every worker has in its environment. The pack's variables come after these and the
/// function's own last, so a function can set any of them, `LD_PRELOAD` too: they take effect when
/// the interpreter starts, inside the sandbox, where they can harm none but the function itself.
const ENVIRONMENT: [(&str, &str); 3] =
    [("HOME", "/tmp"), ("LANG", "C.UTF-8"), ("PATH", "/usr/local/bin:/usr/bin:/bin")];

/// How a worker of `revision` is started.
///
/// # Errors
/// When its language is not there or its environment cannot be set.
pub fn plan(shared: &Shared, revision: &Revision, host_uid: u32) -> Result<Plan, Failure> {
    let language = &revision.language;
    let (Some(pack), Some(installed)) =
        (shared.languages.resolve(language), shared.languages.installed(language))
    else {
        return Err(failure::system(format!(
            "The language {language} is not installed on this machine; install its interpreter and \
             restart the server"
        )));
    };
    let executable = installed.runtime.executable.display().to_string();
    let argv = pack.worker.command.iter().map(|word| word.replace("{executable}", &executable));

    let read_only = |source, target: &str| Bind { source, target: target.into(), writable: false };
    let mut binds = vec![
        read_only(revision.source.clone(), SOURCE),
        read_only(shared.languages.directory(language), LANGUAGE),
    ];
    binds.extend(installed.binds.iter().map(|path| Bind {
        source: path.clone(),
        target: path.clone(),
        writable: false,
    }));
    if let Some(layer) = &revision.layer {
        binds.push(read_only(layer.clone(), &pack.worker.layer_target));
    }

    let settings = &revision.settings;
    // Files in /tmp take memory too, so they must not be able to take all of it.
    let tmp_bytes = match settings.memory_bytes {
        0 => TMP_BYTES,
        limit => TMP_BYTES.min(limit / 2),
    };
    let sandbox = Spec {
        argv: argv.collect(),
        env: environment(revision, pack)?,
        cwd: SOURCE.into(),
        binds,
        mount_points: Vec::new(),
        network: match settings.egress {
            Egress::None => Network::None,
            Egress::Full => Network::Host,
        },
        tmp_bytes,
        tmp_inodes: TMP_INODES,
        memory_bytes: settings.memory_bytes,
        processes: PROCESSES,
        open_files: OPEN_FILES,
        file_bytes: TMP_BYTES,
        host_uid,
    };
    Ok(Plan {
        sandbox,
        function: revision.function.clone(),
        source: SOURCE.to_owned(),
        handler: revision.handler.clone(),
        concurrency: settings.concurrency.max(1),
        result_limit: shared.options.result_limit,
        start_timeout: shared.options.start_timeout,
    })
}

/// The whole environment of a worker; later values replace earlier ones.
fn environment(revision: &Revision, pack: &Pack) -> Result<Vec<(String, String)>, Failure> {
    let fixed = ENVIRONMENT.iter().map(|(name, value)| (*name, *value));
    let of_pack = pack.worker.environment.iter();
    let of_layer = pack.worker.layer_environment.iter().filter(|_| revision.layer.is_some());
    let all = fixed
        .chain(of_pack.chain(of_layer).map(|(name, value)| (name.as_str(), value.as_str())))
        .chain(revision.settings.environment.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    let mut merged = std::collections::BTreeMap::new();
    for (name, value) in all {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let message = format!(
                "the environment variable {name:?} cannot be set: a name is not empty and has no \
                 `=`, and neither name nor value has a NUL"
            );
            return Err(failure::failure(ErrorType::FunctionError, Cause::Load, message));
        }
        merged.insert(name, value);
    }
    Ok(merged.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}
