//! The kernel's program: a search tree over the numbers of calls. Where the answer does not depend on
//! an argument the kernel computes it once for each number when the filter is installed, and the
//! shorter the way to each number is, the sooner that is done.

use libc::{
    BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, sock_filter,
};

use super::{Answer, Condition, Verdict};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
/// Calls of x86's other ABI, which this kernel may know but nobody uses, and invalid numbers.
const X32: u32 = 0x4000_0000;

/// What the kernel is to do at a call: `ranges` are numbers from which on a verdict holds, from 0 up.
pub(super) fn program(audit: u32, ranges: &[(u32, Verdict<'_>)]) -> Vec<sock_filter> {
    let mut all = vec![
        load(ARCHITECTURE),
        jump(BPF_JEQ, audit, 1, 0),
        answer(Answer::Kill),
        load(NUMBER),
        jump(BPF_JGE, X32, 0, 1),
        answer(Answer::Kill),
    ];
    all.extend(tree(ranges));
    all
}

fn tree(ranges: &[(u32, Verdict<'_>)]) -> Vec<sock_filter> {
    let (left, right) = match ranges {
        [] => return vec![answer(Answer::Kill)],
        [(_, verdict)] => return leaf(*verdict),
        _ => ranges.split_at(ranges.len() / 2),
    };
    let (from, left, right) = (right[0].0, tree(left), tree(right));
    let mut all = match u8::try_from(left.len()) {
        Ok(over) => vec![jump(BPF_JGE, from, over, 0)],
        // A conditional jump reaches 255 instructions far.
        Err(_) => {
            vec![jump(BPF_JGE, from, 0, 1), instruction(BPF_JMP | BPF_JA, length(&left), 0, 0)]
        }
    };
    all.extend(left);
    all.extend(right);
    all
}

fn leaf(verdict: Verdict<'_>) -> Vec<sock_filter> {
    match verdict {
        Verdict::Allow => vec![allow()],
        Verdict::Answer(other) => vec![answer(other)],
        Verdict::Ask(condition) => ask(condition),
    }
}

fn ask(condition: &Condition) -> Vec<sock_filter> {
    // The lower half comes first: both machines are little-endian.
    let mut all = vec![load(ARGUMENTS + 8 * u32::from(condition.argument))];
    let bits = condition.without.values().fold(0, |bits, bit| bits | bit);
    if bits != 0 {
        all.extend([jump(BPF_JSET, bits, 0, 1), answer(condition.otherwise)]);
    }
    for value in condition.none_of.values() {
        all.extend([jump(BPF_JEQ, *value, 0, 1), answer(condition.otherwise)]);
    }
    for value in condition.one_of.values() {
        all.extend([jump(BPF_JEQ, *value, 0, 1), allow()]);
    }
    all.push(if condition.one_of.is_empty() { allow() } else { answer(condition.otherwise) });
    all
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}

fn jump(comparison: u32, value: u32, over_if: u8, over_else: u8) -> sock_filter {
    instruction(BPF_JMP | comparison | BPF_K, value, over_if, over_else)
}

fn allow() -> sock_filter {
    instruction(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0)
}

fn answer(answer: Answer) -> sock_filter {
    let errno = match answer {
        Answer::NotPermitted => libc::EPERM,
        Answer::NoSuchCall => libc::ENOSYS,
        Answer::NoSuchFamily => libc::EAFNOSUPPORT,
        Answer::Invalid => libc::EINVAL,
        Answer::Done => 0,
        Answer::Kill => return instruction(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0),
    };
    instruction(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | errno.unsigned_abs(), 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // All codes fit: the structure is the kernel's.
    sock_filter { code: code as u16, jt, jf, k }
}

fn length(instructions: &[sock_filter]) -> u32 {
    // The kernel takes 4096 at most.
    u32::try_from(instructions.len()).unwrap_or(u32::MAX)
}
