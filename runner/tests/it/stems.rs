//! Processes that wait for a function and become its workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dispatch_runner::Runner as _;
use dispatch_runner::process::Memory;
use futures_util::future::join_all;
use serde_json::json;

use crate::fixture::{Function, fixture, fixture_with};

const VIEW: &str = "
import os, sys
def handle(context, payload):
    def size(path):
        stat = os.statvfs(path)
        return stat.f_blocks * stat.f_frsize
    def refused(path):
        try: open(path, 'w')
        except OSError as error: return error.errno
    return {
        'cwd': os.getcwd(), 'files': sorted(os.listdir('/function')), 'tmp': size('/tmp'),
        'own': os.environ.get('OWN'), 'home': os.environ['HOME'], 'ro': refused('/function/x'),
        'layer': os.path.isdir('/layer') and sorted(os.listdir('/layer')),
        'roots': sorted(os.listdir('/')), 'parent': os.getppid(),
    }
";

#[tokio::test]
async fn a_worker_is_the_same_whether_its_process_waited_or_not() {
    let (waited, started) = (fixture().await, fixture_with(|options| options.stems = 0).await);
    let layer = waited.path().join("layer");
    std::fs::create_dir(&layer).unwrap();
    std::fs::write(layer.join("dependency.py"), "VALUE = 1").unwrap();
    for layer in [None, Some(layer.as_path())] {
        let mut said = Vec::new();
        for fixture in [&waited, &started] {
            let function = Function { layer, ..Function::python(VIEW) }.set(|settings| {
                settings.memory_bytes = 64 << 20;
                settings.environment = vec![("OWN".to_owned(), "value".to_owned())];
            });
            let revision = fixture.deploy(function);
            said.push(fixture.value(&revision, "0").await);
            let node = "module.exports = () => [process.cwd(), process.env.OWN, process.env.HOME]";
            let revision = fixture.deploy(Function::nodejs(node).set(|settings| {
                settings.environment = vec![("OWN".to_owned(), "value".to_owned())];
            }));
            assert_eq!(fixture.value(&revision, "0").await, json!(["/function", "value", "/tmp"]));
        }
        // The place for a layer is there in a process that did not know whether it would have one.
        for said in &mut said {
            let roots = said["roots"].as_array_mut().unwrap();
            roots.retain(|root| root != "layer");
            if layer.is_none() {
                said["layer"] = json!(null);
            }
        }
        assert_eq!(said[0], said[1]);
        assert_eq!(said[0]["own"], "value");
        assert_eq!(said[0]["tmp"], 32 << 20);
        assert_eq!(said[0]["ro"], nix::libc::EROFS);
        if layer.is_some() {
            assert_eq!(said[0]["layer"], json!(["dependency.py"]));
        }
    }
}

#[tokio::test]
async fn one_that_waited_serves_one_function_and_another_takes_its_place() {
    let fixture = fixture().await;
    let wanted = fixture.runner.waiting("python3");
    assert!(wanted > 0);
    let revision = fixture.deploy(Function::python("def handle(c, p): return p"));
    assert_eq!(fixture.value(&revision, "1").await, 1);
    fixture.until_waiting("python3", wanted).await;
    assert_eq!(fixture.value(&revision, "2").await, 2);
    assert_eq!(fixture.pool(&revision).idle, 1);
}

#[tokio::test]
async fn as_many_wait_as_were_needed_at_once_while_there_is_ample_memory() {
    const RESERVE: u64 = 100;
    let left = Arc::new(AtomicU64::new(5 * RESERVE));
    let measured = Arc::clone(&left);
    let fixture = fixture_with(|options| {
        options.most_stems = 4;
        options.memory_reserve = RESERVE;
        options.memory = Memory::new(move || Some(measured.load(Ordering::Relaxed)));
    })
    .await;
    let code = "def handle(c, p): return p";
    let revisions: Vec<_> = (0..5).map(|_| fixture.deploy(Function::python(code))).collect();
    let values = revisions.iter().map(|revision| fixture.value(revision, "1"));
    assert!(join_all(values).await.iter().all(|value| *value == 1));
    fixture.until_waiting("python3", 4).await;
    assert_eq!(fixture.runner.waiting("nodejs"), 2, "nobody needed more of these");
    left.store(3 * RESERVE, Ordering::Relaxed);
    fixture.until_waiting("python3", 2).await;
}

#[tokio::test]
async fn variables_that_take_effect_at_start_get_a_process_of_their_own() {
    let fixture = fixture().await;
    let wanted = fixture.runner.waiting("nodejs");
    let code = "module.exports = () => [process.env.NODE_OPTIONS, typeof gc]";
    let revision = fixture.deploy(Function::nodejs(code).set(|settings| {
        settings.environment = vec![("NODE_OPTIONS".to_owned(), "--expose-gc".to_owned())];
    }));
    assert_eq!(fixture.value(&revision, "0").await, json!(["--expose-gc", "function"]));
    assert_eq!(fixture.runner.waiting("nodejs"), wanted);
    let code = "module.exports = () => process.env.NODE_ENV";
    let revision = fixture.deploy(Function::nodejs(code).set(|settings| {
        settings.environment = vec![("NODE_ENV".to_owned(), "production".to_owned())];
    }));
    assert_eq!(fixture.value(&revision, "0").await, "production");
}

#[tokio::test]
async fn a_handler_that_cannot_be_loaded_is_no_reason_to_try_again_elsewhere() {
    let fixture = fixture().await;
    let refused = fixture.refusal(Function::python("import missing_module")).await;
    assert!(refused.contains("missing_module"), "{refused}");
}

#[tokio::test]
async fn those_that_wait_die_with_the_runner() {
    let fixture = fixture().await;
    fixture.runner.drain(std::time::Duration::ZERO).await;
    assert_eq!(fixture.runner.waiting("python3"), 0);
}
