#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::channel::Channel;
use super::exec::{Exec, Options};
use super::serve::serve;
use crate::frame::{self, Decoder, Fault, FromWorker, MAX_BODY, ToWorker};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// The supervisor's side.
struct Supervisor {
    stream: UnixStream,
    decoder: Decoder,
    _source: tempfile::TempDir,
}

impl Supervisor {
    /// Starts an adapter on these files, of which those with a mode are executable.
    async fn start(options: &[&str], files: &[(&str, &str)], handler: &str, calls: usize) -> Self {
        let source = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = source.path().join(name);
            std::fs::write(&path, text).unwrap();
            let mode = if name.ends_with(".txt") { 0o644 } else { 0o755 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let options = Options::parse(options.iter().map(|word| (*word).to_owned())).unwrap();
        tokio::spawn(async move {
            serve(Channel::new(theirs).unwrap(), Exec::new(options)).await.unwrap();
        });
        let stream = UnixStream::from_std(ours).unwrap();
        let init = init(source.path(), handler, calls);
        let mut supervisor = Supervisor { stream, decoder: Decoder::default(), _source: source };
        assert_eq!(supervisor.next().await.0, FromWorker::Hello { protocol: 1 });
        supervisor.send(&init, br#"{"OWN":"value"}"#).await;
        supervisor
    }

    async fn send(&mut self, header: &ToWorker, body: &[u8]) {
        let mut out = BytesMut::new();
        frame::encode(header, body.len(), &mut out);
        out.extend_from_slice(body);
        self.stream.write_all(&out).await.unwrap();
    }

    async fn next(&mut self) -> (FromWorker, Bytes) {
        let read = async {
            loop {
                if let Some(frame) = self.decoder.decode().unwrap() {
                    return frame;
                }
                assert!(self.stream.read_buf(self.decoder.spare(1024)).await.unwrap() > 0);
            }
        };
        timeout(PATIENCE, read).await.unwrap()
    }

    async fn ready(&mut self) -> String {
        match self.next().await {
            (FromWorker::Ready { handler, .. }, _) => handler,
            (other, body) => panic!("{other:?} {body:?}"),
        }
    }

    async fn refused(&mut self) -> String {
        let (header, body) = self.next().await;
        assert_eq!(header, FromWorker::Failed);
        serde_json::from_slice::<Fault>(&body).unwrap().message
    }

    async fn begin(&mut self, id: u64, payload: &str) {
        let context = r#"{"a":1}"#;
        let body = format!("{context}{payload}");
        let context_len = context.len();
        let header = ToWorker::Call { id, deadline_ms: None, context_len, more: false, by: None };
        self.send(&header, body.as_bytes()).await;
    }

    async fn call(&mut self, id: u64, payload: &str) -> Result<String, Fault> {
        self.begin(id, payload).await;
        self.answer(id).await
    }

    async fn answer(&mut self, id: u64) -> Result<String, Fault> {
        let mut whole = Vec::new();
        loop {
            let (header, body) = self.next().await;
            match header {
                FromWorker::Error { id: of, .. } if of == id => {
                    return Err(serde_json::from_slice(&body).unwrap());
                }
                FromWorker::Head { id: of }
                | FromWorker::Chunk { id: of }
                | FromWorker::End { id: of, .. }
                    if of == id =>
                {
                    whole.extend_from_slice(&body);
                    if let FromWorker::End { .. } = header {
                        return Ok(String::from_utf8(whole).unwrap());
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn init(source: &Path, handler: &str, concurrency: usize) -> ToWorker {
    ToWorker::Init {
        source: source.display().to_string(),
        handler: handler.to_owned(),
        concurrency,
        result_limit: 4 << 20,
        fork: false,
    }
}

const BASH: &[&str] =
    &["--mode", "once", "--interpreter", "/bin/bash", "--check", "-n", "--suffix", ".sh"];

#[tokio::test]
async fn a_script_reads_the_payload_and_writes_the_result() {
    let script =
        "read -r line; echo note >&2; echo \"{\\\"got\\\": $line, \\\"own\\\": \\\"$OWN\\\"}\"";
    let mut bash = Supervisor::start(BASH, &[("hello.sh", script)], "", 1).await;
    assert_eq!(bash.ready().await, "./hello.sh");
    for id in 0..3 {
        let result = bash.call(id, "[1]").await.unwrap();
        assert_eq!(result.trim(), r#"{"got": [1], "own": "value"}"#);
    }
}

#[tokio::test]
async fn what_is_not_json_is_a_text_and_nothing_is_null() {
    let script = "case $(cat) in 1) echo hello; echo there;; 2) ;; 3) printf '\\377';; \
                  4) cat \"$DISPATCH_CONTEXT\";; esac";
    let mut bash = Supervisor::start(BASH, &[("hello.sh", script)], "hello.sh", 1).await;
    bash.ready().await;
    assert_eq!(bash.call(1, "1").await.unwrap(), r#""hello\nthere""#);
    assert_eq!(bash.call(2, "2").await.unwrap(), "null");
    assert!(bash.call(3, "3").await.unwrap_err().message.contains("UTF-8"));
    assert_eq!(bash.call(4, "4").await.unwrap(), r#"{"a":1}"#);
}

#[tokio::test]
async fn how_it_ends_says_whose_fault_it_was() {
    let script = "echo first >&2; echo 'name is missing' >&2; exit $(cat)";
    let mut bash = Supervisor::start(BASH, &[("hello.sh", script)], "", 1).await;
    bash.ready().await;
    for (code, kind) in [
        ("3", dispatch_api::ErrorType::FunctionError),
        ("64", dispatch_api::ErrorType::InputError),
        ("65", dispatch_api::ErrorType::InputError),
    ] {
        let fault = bash.call(code.parse().unwrap(), code).await.unwrap_err();
        assert_eq!(fault.kind, kind);
        assert_eq!(
            fault.message,
            format!("name is missing (the program ended with exit code {code})")
        );
        assert_eq!(fault.stacktrace, ["first", "name is missing"]);
    }
}

#[tokio::test]
async fn a_script_that_cannot_be_read_is_refused_with_the_shells_words() {
    let mut bash = Supervisor::start(BASH, &[("hello.sh", "if true; then")], "", 1).await;
    let message = bash.refused().await;
    assert!(message.contains("hello.sh") && message.contains("line 2"), "{message}");
    let mut none = Supervisor::start(BASH, &[("hello.txt", "x")], "", 1).await;
    assert!(none.refused().await.contains("no file *.sh"));
    let mut two = Supervisor::start(BASH, &[("a.sh", ""), ("b.sh", "")], "", 1).await;
    assert!(two.refused().await.contains("(a.sh, b.sh)"));
    for outside in ["../x.sh", "/bin/true", "hello.sh/../../x"] {
        let mut bash = Supervisor::start(BASH, &[("hello.sh", "")], outside, 1).await;
        assert!(bash.refused().await.contains("does not name a file of the source"));
    }
}

const COUNT: &str = "#!/bin/bash\nn=0\nwhile read -r line; do n=$((n+1)); echo \"call $n\" >&2; \
                     echo \"[$n, $line]\"; done\n";

#[tokio::test]
async fn a_program_that_stays_has_one_call_after_the_other() {
    let mut exec = Supervisor::start(&[], &[("count", COUNT)], "", 1).await;
    assert_eq!(exec.ready().await, "./count");
    for n in 1..4 {
        let result = exec.call(n, "{\n\"x\": 1}").await.unwrap();
        assert_eq!(result, format!(r#"[{n}, {{"context":{{"a":1}},"payload":{{ "x": 1}}}}]"#));
    }
}

#[tokio::test]
async fn a_program_that_ends_after_each_answer_is_started_again() {
    let once = "#!/bin/bash\nread -r line; echo \"$line\"\n";
    // Nor need it be executable if it says what runs it.
    let mut exec = Supervisor::start(&[], &[("once.txt", once)], "once.txt", 1).await;
    exec.ready().await;
    for id in 0..3 {
        assert_eq!(exec.call(id, "7").await.unwrap(), r#"{"context":{"a":1},"payload":7}"#);
    }
    let dies = "#!/bin/bash\nread -r line; kill -9 $$\n";
    let mut exec = Supervisor::start(&[], &[("dies", dies)], "", 1).await;
    exec.ready().await;
    for id in 0..2 {
        let fault = exec.call(id, "7").await.unwrap_err();
        assert_eq!(fault.message, "the program was ended by signal 9");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_said_and_does_not_reach_the_next_call() {
    let talks = "#!/bin/bash\nwhile read -r line; do echo hello; echo 1; done\n";
    let mut exec = Supervisor::start(&[], &[("talks", talks)], "lines:talks", 1).await;
    assert_eq!(exec.ready().await, "./talks");
    for id in 0..3 {
        let fault = exec.call(id, "7").await.unwrap_err();
        assert!(fault.message.contains("not JSON") && fault.message.contains("hello"), "{fault:?}");
    }
}

#[tokio::test]
async fn frames_carry_their_length() {
    let echo = "#!/usr/bin/python3\nimport sys\nwhile True:\n    head = sys.stdin.buffer.read(4)\n    \
                if not head: break\n    body = sys.stdin.buffer.read(int.from_bytes(head, 'big'))\n    \
                sys.stdout.buffer.write(head + body)\n    sys.stdout.flush()\n";
    let mut exec = Supervisor::start(&[], &[("echo", echo)], "frames:echo", 1).await;
    assert_eq!(exec.ready().await, "frames:./echo");
    let large = format!("\"{}\"", "x".repeat(3 * MAX_BODY / 2));
    assert_eq!(exec.call(0, "1").await.unwrap(), r#"{"context":{"a":1},"payload":1}"#);
    // A payload this large comes in pieces.
    let body = format!(r#"{{"a":1}}{large}"#);
    let (first, rest) = body.as_bytes().split_at(MAX_BODY);
    exec.send(
        &ToWorker::Call { id: 1, deadline_ms: None, context_len: 7, more: true, by: None },
        first,
    )
    .await;
    exec.send(&ToWorker::End { id: 1 }, rest).await;
    let result = exec.answer(1).await.unwrap();
    assert_eq!(result, format!(r#"{{"context":{{"a":1}},"payload":{large}}}"#));
}

#[tokio::test]
async fn calls_that_overlap_have_programs_and_logs_of_their_own() {
    let slow =
        "read -r n; echo \"log $n\" >&2; while [ ! -e go ]; do sleep 0.01; done; echo \"$n\"";
    let script = format!("cd \"$(dirname \"$0\")\"; {slow}");
    let mut bash = Supervisor::start(BASH, &[("slow.sh", &script)], "", 2).await;
    bash.ready().await;
    bash.begin(1, "1").await;
    bash.begin(2, "2").await;
    let mut logs = Vec::new();
    for _ in 0..2 {
        let (header, text) = bash.next().await;
        let FromWorker::Log { id, .. } = header else { panic!("{header:?}") };
        logs.push((id, String::from_utf8(text.to_vec()).unwrap()));
    }
    logs.sort();
    assert_eq!(logs, [(1, "log 1\n".to_owned()), (2, "log 2\n".to_owned())]);
    bash.send(&ToWorker::Cancel { id: 1 }, &[]).await;
    assert_eq!(bash.answer(1).await.unwrap_err().message, "cancelled");
    std::fs::write(bash._source.path().join("go"), "").unwrap();
    assert_eq!(bash.answer(2).await.unwrap(), "2\n");
    bash.send(&ToWorker::Ping, &[]).await;
    assert_eq!(bash.next().await.0, FromWorker::Pong);
}

#[tokio::test]
async fn too_much_output_ends_the_program() {
    let mut bash = Supervisor::start(BASH, &[("yes.sh", "exec yes")], "", 1).await;
    bash.ready().await;
    assert!(bash.call(0, "1").await.unwrap_err().message.contains("at most 4194304 bytes"));
}

#[tokio::test]
async fn what_cannot_start_is_refused_before_any_call() {
    for (text, why) in [("#!/nowhere/at/all\n", "interpreter"), ("\u{7f}ELF", "cannot be started")]
    {
        let mut exec = Supervisor::start(&[], &[("program", text)], "", 1).await;
        let message = exec.refused().await;
        assert!(message.contains(why), "{message}");
    }
}
