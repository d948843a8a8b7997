//! Abuse of the channel to the supervisor.

use super::By::{Both, Python};
use super::Expect::{Ends, Fails, Got};
use super::Layer::{Deadline, Inheritance, Protocol};
use super::{Attack, TIMEOUT, row};

pub const ROWS: &[Attack] = &[
    row(
        32,
        "frame-of-another-protocol",
        Protocol,
        Ends("bytes of header, but may have at most"),
        Both,
    ),
    row(32, "frame-with-huge-header", Protocol, Ends("1048576 bytes of header"), Both),
    row(32, "frame-with-huge-body", Protocol, Ends("1073741824 bytes of body"), Both),
    row(32, "frame-with-longest-lengths", Protocol, Ends("4294967295 bytes of header"), Both),
    row(32, "frame-that-is-no-json", Protocol, Ends("not understood"), Both),
    row(32, "frame-that-is-deep", Protocol, Ends("not understood"), Both),
    row(32, "frame-of-unknown-type", Protocol, Ends("unknown variant `sudo`"), Both),
    row(32, "frame-twice-a-type", Protocol, Ends("not understood"), Both),
    row(32, "second-hello", Protocol, Ends("an unexpected `hello` frame"), Both),
    row(32, "second-ready", Protocol, Ends("an unexpected `ready` frame"), Both),
    row(32, "unasked-pong", Protocol, Ends("an unexpected `pong` frame"), Both),
    row(32, "answer-to-another-call", Protocol, Ends("which is not running"), Both),
    row(32, "answer-to-past-call", Protocol, Ends("which is not running"), Both),
    row(32, "answer-to-largest-call", Protocol, Ends("which is not running"), Both),
    row(32, "answer-with-negative-call", Protocol, Ends("not understood"), Both),
    row(32, "answer-twice", Protocol, Ends("first"), Both),
    row(32, "chunk-without-head", Protocol, Ends("an unexpected `chunk` frame"), Both),
    row(32, "two-heads", Protocol, Ends("an unexpected `head` frame"), Both),
    row(32, "answer-that-is-no-json", Protocol, Ends("a result is not JSON"), Both),
    row(32, "answer-that-is-two", Protocol, Ends("a result is not JSON"), Both),
    row(32, "answer-with-bad-text", Protocol, Ends("a result is not JSON"), Both),
    row(32, "fault-of-unknown-type", Protocol, Ends("bad `error`"), Both),
    row(32, "endless-answer", Protocol, Ends("a result has more than"), Both),
    row(32, "huge-answer", Protocol, Fails("but may have at most"), Both),
    row(32, "deep-answer", Protocol, Ends("recursion limit exceeded"), Both),
    row(32, "huge-fault", Protocol, Fails("xxxx"), Both),
    row(32, "flood-of-frames", Deadline, Ends(TIMEOUT), Both),
    row(32, "half-a-frame", Deadline, Ends(TIMEOUT), Both),
    row(32, "descriptors-over-channel", Deadline, Ends(TIMEOUT), Python),
    row(32, "close-channel", Protocol, Ends("it closed its channel and went on"), Python),
    row(32, "shut-channel-down", Protocol, Ends("it closed its channel and went on"), Python),
    row(32, "another-reader", Inheritance, Got("no channel in the child"), Both),
];
