//! Functions that are WebAssembly: issue 4.

use serde_json::json;

use crate::support::{FileServer, Server, root};

#[test]
fn modules_and_components_are_functions() {
    let s = Server::start();
    s.image("wasm");
    let create = |name: &str, path: &str, flags: &[&str]| {
        let command = ["create", "function", "--image", "wasm", name, path];
        s.dispatch(&[&command[..], flags].concat()).ok();
        s.ready("function", name);
    };
    let example = root().join("examples/wasm/echo.wat").display().to_string();
    create("echo", &example, &["--concurrency", "4"]);
    for n in 0..3 {
        let run = s.run("echo", &n.to_string());
        assert_eq!(run["output"]["payload"], json!(n), "{run}");
        assert_eq!(run["output"]["context"]["function"], "echo");
    }
    let component = root().join("wasm/src/fixtures/handler.wat").display().to_string();
    create("handler", &component, &[]);
    assert_eq!(s.run("handler", r#"{"a": 1}"#)["output"], json!({"a": 1}));
}

#[test]
fn how_instances_end_is_told_and_the_next_call_has_another() {
    let s = Server::start();
    s.image("wasm");
    // The payload is the last but two of the bytes that it reads.
    let module = r#"(module
        (import "wasi_snapshot_preview1" "fd_read"
          (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write"
          (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 60000) "a log\n")
        (func (export "_start") (local $last i32)
          (i32.store (i32.const 0) (i32.const 60000))
          (i32.store (i32.const 4) (i32.const 6))
          (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
          (i32.store (i32.const 0) (i32.const 16))
          (i32.store (i32.const 4) (i32.const 50000))
          (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
          (local.set $last (i32.load8_u (i32.add (i32.load (i32.const 8)) (i32.const 13))))
          (if (i32.eq (local.get $last) (i32.const 49)) (then (loop $on (br $on))))
          (if (i32.eq (local.get $last) (i32.const 50)) (then unreachable))
          (if (i32.eq (local.get $last) (i32.const 51)) (then
            (loop $on
              (if (i32.eq (memory.grow (i32.const 1024)) (i32.const -1)) (then unreachable))
              (memory.fill (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 67108864))
                (i32.const 7) (i32.const 67108864))
              (br $on))))))"#;
    let path = s.file("ends.wat", module);
    let flags = ["--timeout", "1000", "--memory", "128"];
    let command = ["create", "function", "--image", "wasm", "ends", &path];
    s.dispatch(&[&command[..], &flags].concat()).ok();
    s.ready("function", "ends");
    let message = |input: &str| {
        let run = s.run("ends", input);
        run["error"]["message"].as_str().unwrap_or_else(|| panic!("{run}")).to_owned()
    };
    let well = || {
        let run = s.run("ends", "0");
        assert_eq!(run["error"], json!(null), "{run}");
        assert_eq!(run["logs"]["stderr"], json!(["a log"]), "{run}");
    };
    well();
    assert!(message("1").contains("timeout"), "{}", message("1"));
    well();
    assert!(message("2").contains("unreachable"), "{}", message("2"));
    well();
    assert!(message("3").contains("128 MiB of memory"), "{}", message("3"));
    well();
}

#[test]
fn requests_of_components_go_where_the_functions_egress_lets_them() {
    let s = Server::with(&["--egress-allow-private", "127.0.0.1/32"]);
    s.image("wasm");
    let files = FileServer::start(s.home());
    let there = format!("127.0.0.1:{}", files.port);
    let component = root().join("wasm/src/fixtures/outgoing.wat").display().to_string();
    for (name, flags) in [
        ("listed", &["--allow", &there][..]),
        ("unlisted", &["--allow", "example.com"]),
        ("none", &["--egress", "none"]),
    ] {
        let command = ["create", "function", "--image", "wasm", name, &component];
        s.dispatch(&[&command[..], flags].concat()).ok();
        s.ready("function", name);
    }
    let input = json!(there).to_string();
    let run = s.run("listed", &input);
    assert_eq!(run["output"], json!(200), "{run}");
    // The answer of the proxy.
    let run = s.run("unlisted", &input);
    assert_eq!(run["output"], json!(403), "{run}");
    let run = s.run("none", &input);
    let message = run["error"]["message"].as_str().unwrap_or_else(|| panic!("{run}"));
    assert!(message.starts_with("refused"), "{run}");
}
