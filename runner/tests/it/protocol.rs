//! Workers that break the protocol, because the function reached for their channel.

use std::time::Duration;

use dispatch_api::ErrorType;
use dispatch_runner::Cause;

use crate::fixture::{Function, call_within, fixture};

/// A function that finds the channel and writes there what the payload says.
const FORGER: &str = r#"
import os, struct, stat
def channel():
    for fd in range(3, 1024):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode): return fd
        except OSError: pass
def frame(header, body=b''): return struct.pack('>II', len(header), len(body)) + header + body
FORGED = {
    'garbage': b'GET / HTTP/1.1\r\nhost: x\r\n\r\n',
    'header': struct.pack('>II', 1 << 20, 0),
    'body': struct.pack('>II', 10, 1 << 30),
    'unknown': frame(b'{"type":"sudo"}'),
    'other': frame(b'{"type":"end","id":999}', b'1'),
    'hello': frame(b'{"type":"hello","protocol":1}'),
    'ready': frame(b'{"type":"ready","handler":"x"}'),
    'pong': frame(b'{"type":"pong"}'),
    'chunk': frame(b'{"type":"chunk","id":1}', b'1'),
    'json': frame(b'{"type":"end","id":1}', b'{"a":'),
    'fault': frame(b'{"type":"error","id":1}', b'{"type":"RootError"}'),
}
def handle(context, payload):
    if payload is None: return 'fine'
    os.write(channel(), FORGED[payload])
    while True: os.read(0, 1); import time; time.sleep(1)
"#;

#[tokio::test]
async fn a_violation_kills_the_worker_and_only_it() {
    let fixture = fixture().await;
    let revision = fixture.deploy(Function::python(FORGER));
    for (payload, words) in [
        ("garbage", "bytes of header, but may have at most 65536"),
        ("header", "1048576 bytes of header"),
        ("body", "1073741824 bytes of body"),
        ("unknown", "unknown variant `sudo`"),
        ("other", "it answered call 999, which is not running"),
        ("hello", "an unexpected `hello` frame"),
        ("ready", "an unexpected `ready` frame"),
        ("pong", "an unexpected `pong` frame"),
        ("chunk", "an unexpected `chunk` frame"),
        ("json", "a result is not JSON"),
        ("fault", "bad `error`"),
    ] {
        // The forged frames name call 1, so it must be the worker's second.
        assert_eq!(fixture.value(&revision, "null").await, "fine");
        let failure = fixture.failure(&revision, &format!("\"{payload}\"")).await;
        assert_eq!(failure.kind, ErrorType::FunctionError);
        assert_eq!(failure.cause, Cause::Protocol, "{payload}: {}", failure.message);
        assert!(failure.message.contains(words), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_result_without_end_is_cut_off() {
    let fixture = crate::fixture::fixture_with(|options| options.result_limit = 3 << 20).await;
    let code = FORGER.replace(
        "    os.write(channel(), FORGED[payload])",
        "    fd = channel()
    os.write(fd, frame(b'{\"type\":\"head\",\"id\":0}', b'['))
    while True:
        rest = frame(b'{\"type\":\"chunk\",\"id\":0}', b'1,' * 10000)
        while rest: rest = rest[os.write(fd, rest):]",
    );
    let revision = fixture.deploy(Function::python(&code));
    let failure = fixture.failure(&revision, "1").await;
    assert_eq!(failure.cause, Cause::Protocol);
    assert!(failure.message.contains("more than 3145728 bytes"), "{}", failure.message);
}

#[tokio::test]
async fn a_flood_of_frames_does_not_escape_the_deadline() {
    let fixture = fixture().await;
    let code = FORGER.replace(
        "    os.write(channel(), FORGED[payload])",
        "    fd = channel()
    flood = frame(b'{\"type\":\"log\",\"id\":0,\"stream\":\"stdout\"}', b'x') * 1000
    while True: os.write(fd, flood)",
    );
    let revision = fixture.deploy(Function::python(&code));
    let call = call_within("1", Duration::from_secs(1));
    let failure = fixture.invoke(&revision, call).await.result.unwrap_err();
    assert_eq!(failure.cause, Cause::Timeout);
}

#[tokio::test]
async fn a_forked_copy_cannot_answer() {
    let fixture = fixture().await;
    let code = "
import os
def handle(context, payload):
    child = os.fork()
    if child: os.waitpid(child, 0)
    return 'parent' if child else 'child'
";
    let revision = fixture.deploy(Function::python(code));
    for _ in 0..3 {
        assert_eq!(fixture.value(&revision, "0").await, "parent");
    }
}
