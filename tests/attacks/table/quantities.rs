//! Too much of something, and ends that leave something behind.

use super::By::{Both, Python};
use super::Expect::{Ends, Got};
use super::Layer::{Deadline, Logs, Memory, Processes, Rlimits, Separation, TmpSize};
use super::{Attack, TIMEOUT, row};

pub const ROWS: &[Attack] = &[
    row(18, "fork-bomb", Rlimits, Got("EAGAIN"), Both),
    row(18, "thread-bomb", Rlimits, Got("EAGAIN"), Python),
    row(19, "memory-bomb", Memory, Ends("MiB of memory and was killed"), Both),
    row(19, "memory-bomb-of-child", Memory, Ends("MiB of memory and was killed"), Both),
    row(19, "memory-bomb-shared", Memory, Ends("MiB of memory and was killed"), Both),
    row(19, "memory-bomb-of-file", Memory, Ends("MiB of memory and was killed"), Python),
    row(20, "busy-loop", Deadline, Ends(TIMEOUT), Both),
    row(20, "sleep-for-ever", Deadline, Ends(TIMEOUT), Both),
    row(20, "ignore-termination", Deadline, Ends(TIMEOUT), Both),
    row(20, "stop-itself", Deadline, Ends(TIMEOUT), Both),
    row(21, "fill-tmp", TmpSize, Got("ENOSPC"), Both).not_weak(),
    row(21, "fill-shared-memory", TmpSize, Got("ENOSPC"), Both).weak(Got("EACCES")),
    row(21, "many-files", TmpSize, Got("ENOSPC"), Both).not_weak(),
    row(21, "one-large-file", Rlimits, Got("EFBIG"), Both),
    row(22, "many-descriptors", Rlimits, Got("EMFILE"), Both),
    row(29, "daemon", Processes, Ends("code 4"), Both),
    row(29, "crash", Separation, Ends("SIGSEGV"), Python),
    row(29, "abort", Separation, Ends("SIGABRT"), Both),
    row(29, "leave", Separation, Ends("code 3"), Both),
    row(31, "output-flood", Logs, Got("written"), Both),
    row(31, "output-without-newline", Logs, Got("written"), Both),
    row(31, "binary-output", Logs, Got("written"), Both),
    row(31, "forged-log-lines", Logs, Got("written"), Both),
    row(31, "endless-output", Deadline, Ends(TIMEOUT), Both),
    row(31, "close-outputs", Separation, Got("closed its own"), Both),
];
