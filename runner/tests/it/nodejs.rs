use dispatch_api::ErrorType;
use dispatch_runner::Cause;
use serde_json::json;

use crate::fixture::{Function, fixture};

const HELLO: &str = "module.exports = (context, payload) => ({ hello: payload })";
const ESM: &str = "export default async (context, payload) => ({ hello: payload })";

#[tokio::test]
async fn every_form_of_a_handler() {
    let fixture = fixture().await;
    let one = &[("hello.js", HELLO), ("data.json", "{}")][..];
    let named = &[("lib/hello.js", "exports.greet = (c, p) => ({ hello: p })")][..];
    let esm = &[("hello.mjs", ESM)][..];
    let package = &[("hello.js", ESM), ("package.json", "{\"type\":\"module\"}")][..];
    let handler = &[("hello.js", "exports.handler = (c, p) => ({ hello: p })")][..];
    for (files, handler, full) in [
        (one, "", "./hello.js"),
        (one, "./hello.js", "./hello.js"),
        (one, "hello.js", "./hello.js"),
        (one, "hello", "./hello.js"),
        (named, "lib/hello.greet", "./lib/hello.js::greet"),
        (named, "./lib/hello.js::greet", "./lib/hello.js::greet"),
        (esm, "", "./hello.mjs"),
        (esm, "hello.default", "./hello.mjs::default"),
        (package, "./hello.js", "./hello.js"),
        (handler, "./hello.js", "./hello.js"),
    ] {
        let revision = fixture.deploy(Function::new("nodejs", files, handler));
        let found = dispatch_runner::Runner::prepare(&fixture.runner, &revision).await;
        assert_eq!(found.as_deref(), Ok(full), "{handler}");
        assert_eq!(fixture.value(&revision, "7").await, json!({"hello": 7}));
    }
}

#[tokio::test]
async fn what_can_be_wrong_with_a_handler() {
    let fixture = fixture().await;
    for (files, handler, message) in [
        (
            &[("hello.js", HELLO)][..],
            "./nope.js",
            "handler \"./nope.js\": there is no file ./nope.js in the source",
        ),
        (
            &[("hello.js", "exports.greet = () => 1")],
            "hello.nope",
            "handler \"hello.nope\": hello.js exports no function nope; it has greet",
        ),
        (
            &[("hello.js", "module.exports = 3")],
            "",
            "handler \"./hello.js\": hello.js does not export a function; write module.exports = \
             function (context, payload) { ... }",
        ),
        (
            &[("a.js", ""), ("b.mjs", "")],
            "",
            "Exactly 1 source file needed when HANDLER is empty, but there are 2: a.js, b.mjs; name \
             the handler, such as ./hello.js",
        ),
        (
            &[("hello.js", "\n\nmodule.exports = {")],
            "./hello.js",
            "SyntaxError: Unexpected end of input (hello.js, line 3)",
        ),
        (
            &[("hello.mjs", "\nexport default {")],
            "./hello.mjs",
            "SyntaxError: Unexpected end of input (hello.mjs, line 2)",
        ),
        (
            &[("hello.js", "\nrequire('nothing-like-this')")],
            "./hello.js",
            "Error: Cannot find module 'nothing-like-this' (hello.js, line 2)",
        ),
        (
            &[("hello.js", "const a = 1\nnull.x")],
            "./hello.js",
            "TypeError: Cannot read properties of null (reading 'x') (hello.js, line 2)",
        ),
    ] {
        assert_eq!(fixture.refusal(Function::new("nodejs", files, handler)).await, message);
    }
}

#[tokio::test]
async fn results_of_all_kinds() {
    let fixture = fixture().await;
    let code = "
module.exports = (context, payload) => ({
  undefined: () => undefined,
  promise: async () => { await null; return 'later' },
  thenable: () => ({ then: (done) => setTimeout(() => done('thenable'), 1) }),
  text: () => 'ü\\u{1f600}',
  date: () => new Date(0)
})[payload]()
";
    let revision = fixture.deploy(Function::nodejs(code));
    for (payload, expected) in [
        ("undefined", json!(null)),
        ("promise", json!("later")),
        ("thenable", json!("thenable")),
        ("text", json!("ü\u{1f600}")),
        ("date", json!("1970-01-01T00:00:00.000Z")),
    ] {
        assert_eq!(fixture.value(&revision, &format!("\"{payload}\"")).await, expected);
    }
}

#[tokio::test]
async fn errors_have_their_type_message_and_trace() {
    let fixture = fixture().await;
    let code = "
class Custom extends Error {}
const circle = {}
circle.circle = circle
module.exports = (context, payload) => ({
  type: () => { throw new TypeError('bad type') },
  error: () => { throw new Error('bad') },
  custom: async () => { await null; throw new Custom('custom') },
  string: () => { throw 'a string' },
  object: () => { throw { code: 7 } },
  nothing: () => { throw undefined },
  circle: () => circle,
  bigint: () => 1n,
  function: () => () => 1
})[payload]()
";
    let revision = fixture.deploy(Function::nodejs(code));
    let cannot = "the result cannot be written as JSON: ";
    for (payload, kind, message, traced) in [
        ("type", ErrorType::InputError, "bad type".to_owned(), true),
        ("error", ErrorType::FunctionError, "bad".to_owned(), true),
        ("custom", ErrorType::FunctionError, "custom".to_owned(), true),
        ("string", ErrorType::FunctionError, "a string".to_owned(), false),
        ("object", ErrorType::FunctionError, "{\"code\":7}".to_owned(), false),
        ("nothing", ErrorType::FunctionError, "undefined".to_owned(), false),
        (
            "circle",
            ErrorType::FunctionError,
            format!("{cannot}Converting circular structure to JSON"),
            false,
        ),
        (
            "bigint",
            ErrorType::FunctionError,
            format!("{cannot}Do not know how to serialize a BigInt"),
            false,
        ),
        ("function", ErrorType::FunctionError, format!("{cannot}it is a function"), false),
    ] {
        let failure = fixture.failure(&revision, &format!("\"{payload}\"")).await;
        assert_eq!((failure.kind, &failure.cause), (kind, &Cause::Handler), "{payload}");
        assert_eq!(failure.message, message);
        let trace = failure.stacktrace.join("\n");
        assert_eq!(trace.contains("/function/hello.js:"), traced, "{payload}: {trace}");
        assert!(!trace.contains("/dispatch/"), "{trace}");
    }
    assert_eq!(fixture.pool(&revision).idle, 1);
}

#[tokio::test]
async fn large_payloads_and_results_travel_in_pieces() {
    let fixture = fixture().await;
    let revision = fixture.deploy(Function::nodejs("module.exports = (c, p) => p + p.slice(0, 3)"));
    let exactly = (1 << 20) - "{}\"\"".len();
    for size in [70_000, exactly - 1, exactly, exactly + 1, 2 << 20, 5 << 20] {
        let text = "abcdefghij".repeat(size / 10 + 1)[..size].to_owned();
        let result = fixture.call(&revision, &format!("\"{text}\"")).await.result.unwrap();
        assert_eq!(result, format!("\"{text}abc\""), "{size}");
    }
}

#[tokio::test]
async fn an_error_that_nobody_catches_fails_the_call_and_ends_the_worker() {
    let fixture = fixture().await;
    let code = "
let calls = 0
module.exports = (context, payload) => {
  calls += 1
  if (payload === 'reject') { Promise.reject(new Error('rejected')); return new Promise(() => {}) }
  if (payload === 'throw') { setTimeout(() => { throw new TypeError('thrown') }, 1); return new Promise(() => {}) }
  return calls
}
";
    let revision = fixture.deploy(Function::nodejs(code));
    for (payload, message) in [("reject", "rejected"), ("throw", "thrown")] {
        assert_eq!(fixture.value(&revision, "0").await, 1);
        let failure = fixture.failure(&revision, &format!("\"{payload}\"")).await;
        assert_eq!((failure.kind, failure.message.as_str()), (ErrorType::FunctionError, message));
        assert!(failure.stacktrace.join("\n").contains("/function/hello.js"));
    }
    assert_eq!(fixture.value(&revision, "0").await, 1);
}

#[tokio::test]
async fn a_layer_is_importable_both_ways() {
    let fixture = fixture().await;
    let layer = fixture.path().join("layer");
    std::fs::create_dir_all(layer.join("dependency")).unwrap();
    std::fs::write(layer.join("dependency/index.js"), "module.exports = 42").unwrap();
    let cjs = "module.exports = () => require('dependency')";
    let esm = "import answer from 'dependency'\nexport default () => answer";
    for files in [[("hello.js", cjs)], [("hello.mjs", esm)]] {
        let function = Function::new("nodejs", &files, "");
        let revision = fixture.deploy(Function { layer: Some(&layer), ..function });
        assert_eq!(fixture.value(&revision, "0").await, 42);
    }
}
