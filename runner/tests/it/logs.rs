use std::time::Duration;

use dispatch_runner::{Logs, Outcome};

use crate::fixture::{Function, call_within, fixture};

fn logs(stdout: &[&str], stderr: &[&str]) -> Logs {
    let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
    Logs { stdout: lines(stdout), stderr: lines(stderr), dropped: 0 }
}

#[tokio::test]
async fn each_call_has_exactly_its_own_lines() {
    let fixture = fixture().await;
    let python = "
import sys, os, subprocess
print('while loading')
def handle(context, payload):
    print('out', payload)
    print('err', payload, file=sys.stderr)
    subprocess.run(['/bin/echo', 'child'])
    os.write(1, b'raw\\n')
    sys.stdout.write('no newline')
";
    let node = "
console.log('while loading')
const { spawnSync } = require('child_process')
module.exports = (context, payload) => {
  console.log('out', payload)
  console.error('err', payload)
  spawnSync('/bin/echo', ['child'], { stdio: 'inherit' })
  require('fs').writeSync(1, 'raw\\n')
  process.stdout.write('no newline')
}
";
    for function in [Function::python(python), Function::nodejs(node)] {
        let revision = fixture.deploy(function);
        for number in ["1", "2", "3"] {
            let outcome = fixture.call(&revision, number).await;
            let (out, err) = (format!("out {number}"), format!("err {number}"));
            assert_eq!(outcome.logs, logs(&[&out, "child", "raw", "no newline"], &[&err]));
        }
    }
}

#[tokio::test]
async fn what_is_written_between_calls_belongs_to_none() {
    let fixture = fixture().await;
    let python = "
import os, threading
written = threading.Event()
def late():
    written.wait()
    os.write(1, b'between the calls\\n')
def handle(context, payload):
    if payload == 'start':
        threading.Thread(target=late).start()
        threading.Timer(0.05, written.set).start()
    else:
        print('mine')
";
    let revision = fixture.deploy(Function::python(python));
    assert_eq!(fixture.call(&revision, "\"start\"").await.logs, Logs::default());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(fixture.call(&revision, "\"next\"").await.logs, logs(&["mine"], &[]));
}

#[tokio::test]
async fn a_flood_is_read_bounded_and_counted() {
    let fixture = fixture().await;
    let python = "
import sys
def handle(context, payload):
    for _ in range(10 * 1024): sys.stdout.write('x' * 1023 + '\\n')
    sys.stderr.write('after')
    return 'done'
";
    let node = "
module.exports = () => {
  const line = 'x'.repeat(1023) + '\\n'
  for (let i = 0; i < 10 * 1024; i++) process.stdout.write(line)
  process.stderr.write('after')
  return 'done'
}
";
    for function in [Function::python(python), Function::nodejs(node)] {
        let revision = fixture.deploy(function);
        for _ in 0..2 {
            let Outcome { result, logs, .. } = fixture.call(&revision, "0").await;
            assert_eq!(result.unwrap(), "\"done\"");
            assert_eq!(logs.stdout.len(), 256);
            assert!(logs.stdout.iter().all(|line| line.len() == 1023));
            assert_eq!(logs.stderr, ["after"]);
            assert_eq!(logs.dropped, (10 * 1024 - 256) * 1024);
        }
    }
}

#[tokio::test]
async fn bytes_that_are_not_text_do_not_disturb() {
    let fixture = fixture().await;
    let code = "
import sys, os
def handle(context, payload):
    sys.stdout.buffer.write(b'\\xff\\xfe\\n')
    print('\\ud800')
    print('nul \\x00')
    os.close(2)
    return 1
";
    let revision = fixture.deploy(Function::python(code));
    let outcome = fixture.call(&revision, "0").await;
    assert_eq!(outcome.result.unwrap(), "1");
    assert_eq!(outcome.logs.stdout, ["\u{fffd}\u{fffd}", "\\ud800", "nul \0"]);
    // With standard error closed the worker goes on.
    let outcome = fixture.call(&revision, "0").await;
    assert_eq!(outcome.logs.stdout.len(), 3);
}

#[tokio::test]
async fn what_a_call_wrote_before_it_was_killed_is_kept() {
    let fixture = fixture().await;
    let python = "
import time, os
def handle(context, payload):
    print('before', payload)
    if payload == 'crash': os._exit(3)
    time.sleep(60)
";
    let revision = fixture.deploy(Function::python(python));
    let outcome = fixture.call(&revision, "\"crash\"").await;
    assert!(outcome.result.is_err());
    assert_eq!(outcome.logs, logs(&["before crash"], &[]));
    // The worker is up before the clock starts.
    let _ = dispatch_runner::Runner::prepare(&fixture.runner, &revision).await.unwrap();
    let call = call_within("\"sleep\"", Duration::from_millis(500));
    let outcome = fixture.invoke(&revision, call).await;
    assert!(outcome.result.is_err());
    assert_eq!(outcome.logs, logs(&["before sleep"], &[]));
}
