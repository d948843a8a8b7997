#![allow(clippy::unwrap_used)]
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dispatch_api::ErrorType;
use dispatch_runner::adapter::{Adapter as _, Call, Init, Loaded as _, Log};
use dispatch_runner::frame::Fault;
use tokio::time::timeout;

use crate::{Ready, Wasm, compiled, engine};

const ECHO: &str = include_str!("../../examples/wasm/echo.wat");
const HANDLER: &str = include_str!("fixtures/handler.wat");

async fn load(files: &[(&str, &str)], handler: &str) -> Result<Arc<Ready>, Fault> {
    let source = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(source.path().join(name), text).unwrap();
    }
    // The source is opened for each call.
    let path = source.keep();
    let init = Init {
        source: path.display().to_string(),
        handler: handler.to_owned(),
        concurrency: 4,
        result_limit: 1 << 20,
        environment: HashMap::new(),
    };
    let wasm = Wasm { engine: engine::new().unwrap() };
    wasm.load(init).await.map(Arc::new)
}

async fn call(ready: &Arc<Ready>, payload: &str) -> Result<String, Fault> {
    let call =
        Call { id: 1, context: Bytes::from_static(b"{}"), payload: payload.to_owned().into() };
    let result = Arc::clone(ready).call(call, Log::ours()).await?;
    Ok(String::from_utf8(result.to_vec()).unwrap())
}

/// A command with these instructions.
fn command(code: &str) -> String {
    format!(
        "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))\
         (import \"wasi_snapshot_preview1\" \"fd_write\" \
         (func $write (param i32 i32 i32 i32) (result i32)))\
         (memory (export \"memory\") 1) (data (i32.const 64) \"hello\\n\")\
         (func $say (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 6))\
         (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))\
         (func (export \"_start\") {code}))"
    )
}

#[tokio::test]
async fn a_module_reads_the_call_and_writes_the_result() {
    let ready = load(&[("echo.wat", ECHO), ("readme.md", "")], "").await.unwrap();
    assert_eq!(dispatch_runner::adapter::Loaded::handler(&*ready), "./echo.wat");
    for payload in ["1", "[null]"] {
        let wanted = format!("{{\"context\":{{}},\"payload\":{payload}}}\n");
        assert_eq!(call(&ready, payload).await.unwrap(), wanted);
    }
    let large = format!("\"{}\"", "x".repeat(300_000));
    assert!(call(&ready, &large).await.unwrap().contains(&large));
    let larger = format!("\"{}\"", "x".repeat(2 << 20));
    assert!(call(&ready, &larger).await.unwrap_err().message.contains("at most 1048576 bytes"));
}

#[tokio::test]
async fn text_is_a_result_and_how_it_ends_says_whose_fault_it_was() {
    for (code, wanted) in [
        ("call $say", Ok("\"hello\"")),
        ("nop", Ok("null")),
        ("(call $say) (call $exit (i32.const 0))", Ok("\"hello\"")),
        ("(call $exit (i32.const 3))", Err((ErrorType::FunctionError, "exit code 3"))),
        ("(call $exit (i32.const 65))", Err((ErrorType::InputError, "exit code 65"))),
        ("unreachable", Err((ErrorType::FunctionError, "unreachable"))),
        ("(drop (i32.load (i32.const -1)))", Err((ErrorType::FunctionError, "out of bounds"))),
    ] {
        let ready = load(&[("a.wat", &command(code))], "").await.unwrap();
        match (call(&ready, "1").await, wanted) {
            (Ok(result), Ok(wanted)) => assert_eq!(result, wanted, "{code}"),
            (Err(failed), Err((kind, message))) => {
                assert_eq!(failed.kind, kind, "{code}");
                assert!(failed.message.contains(message), "{failed:?}");
            }
            (result, wanted) => panic!("{code}: {result:?}, not {wanted:?}"),
        }
    }
}

#[tokio::test]
async fn every_call_has_an_instance_of_its_own() {
    let counts = "(global.set $n (i32.add (global.get $n) (i32.const 1)))\
                  (call $exit (global.get $n))";
    let code = command(counts).replace("(memory", "(global $n (mut i32) (i32.const 0)) (memory");
    let ready = load(&[("a.wat", &code)], "./a.wat").await.unwrap();
    for _ in 0..3 {
        assert!(call(&ready, "1").await.unwrap_err().message.ends_with("exit code 1"));
    }
}

#[tokio::test]
async fn a_call_that_never_ends_lets_others_go_on_and_can_be_given_up() {
    let never = load(&[("a.wat", &command("(loop $on (br $on))"))], "").await.unwrap();
    let other = load(&[("echo.wat", ECHO)], "").await.unwrap();
    let running = call(&never, "1");
    tokio::pin!(running);
    for _ in 0..3 {
        let others = async {
            tokio::select! {
                _ = &mut running => panic!("it ended"),
                result = call(&other, "2") => result,
            }
        };
        assert!(timeout(Duration::from_secs(60), others).await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_component_with_the_interface_of_functions() {
    let ready = load(&[("handler.wat", HANDLER)], "").await.unwrap();
    assert_eq!(call(&ready, "{\"a\":[1]}").await.unwrap(), "{\"a\":[1]}");
    for (payload, kind) in [("in", ErrorType::InputError), ("fu", ErrorType::FunctionError)] {
        let failed = call(&ready, payload).await.unwrap_err();
        assert_eq!((failed.kind, failed.message.as_str()), (kind, payload));
    }
    assert!(call(&ready, "no").await.unwrap_err().message.contains("not JSON"));
}

#[tokio::test]
async fn what_is_no_function_is_refused_with_the_reason() {
    for (files, handler, reason) in [
        (&[("a.wat", "(module)")][..], "", "no _start"),
        (&[("a.wat", "(component)")], "", "exports none of"),
        (
            &[("a.wat", "(module (import \"env\" \"f\" (func)) (func (export \"_start\")))")],
            "",
            "env",
        ),
        (&[("a.wat", "(modul")], "", "modul"),
        (&[("a.wasm", "\0asm\u{1}\0\0\0\u{7f}")], "", "./a.wasm"),
        (&[("a.txt", "")], "", "no file *.wasm or *.wat"),
        (&[("a.wat", ""), ("b.wasm", "")], "", "(a.wat, b.wasm)"),
        (&[("a.wat", "")], "../a.wat", "does not name a file of the source"),
        (&[("a.wat", "")], "b.wat", "is not a file of the source"),
    ] {
        let failed = load(files, handler).await.err().unwrap();
        assert!(failed.message.contains(reason), "{failed:?}");
    }
}

#[tokio::test]
async fn a_component_that_answers_http_requests() {
    let ready = load(&[("http.wat", include_str!("fixtures/http.wat"))], "").await.unwrap();
    assert_eq!(call(&ready, "1").await.unwrap(), "\"/\"", "a call that is no request");
    let context = br#"{"request":{"uri":"/a/b?c=1","method":"GET","header":{"Host":["x"]}}}"#;
    let call = Call { id: 1, context: Bytes::from_static(context), payload: "null".into() };
    let result = Arc::clone(&ready).call(call, Log::ours()).await.unwrap();
    let wanted = r#"{"statusCode":201,"multiValueHeaders":{"x-answer":["42"]},"body":"/a/b?c=1","isBase64Encoded":false}"#;
    assert_eq!(result, wanted);
}

#[tokio::test]
async fn what_was_compiled_when_the_function_was_built_is_used() {
    let (source, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, text) in
        [("a.wat", ECHO), ("lib/b.wat", HANDLER), ("lib/data", "x"), (".compiled/b.cwasm", "?")]
    {
        let path = source.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let engine = engine::new().unwrap();
    compiled::build(&engine, source.path(), output.path(), "lib/b.wat").unwrap();
    assert_eq!(std::fs::read(output.path().join("lib/data")).unwrap(), b"x");
    let made: Vec<_> =
        std::fs::read_dir(output.path().join(".compiled")).unwrap().flatten().collect();
    assert_eq!(made.len(), 1, "nothing of the source's own is among them: {made:?}");
    // The text is not needed any more, so it was not compiled again.
    std::fs::write(output.path().join("lib/b.wat"), "broken").unwrap();
    assert!(compiled::load(&engine, output.path(), "./lib/b.wat").is_ok());
    // What no engine or another one made is compiled again.
    std::fs::write(made[0].path(), "broken").unwrap();
    let failed = compiled::load(&engine, output.path(), "./lib/b.wat").err().unwrap();
    assert!(failed.contains("expected"), "{failed}");
    std::fs::write(output.path().join("lib/b.wat"), HANDLER).unwrap();
    assert!(compiled::load(&engine, output.path(), "./lib/b.wat").is_ok());
    let other = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("a.wat"), "(module").unwrap();
    let failed = compiled::build(&engine, source.path(), other.path(), "").unwrap_err();
    assert!(failed.starts_with("./a.wat: ") || failed.starts_with("a.wat: "), "{failed}");
}
