use dispatch_api::ErrorType;
use dispatch_runner::{Call, Cause};
use serde_json::{Value, json};

use crate::fixture::{Function, call, fixture};

const HELLO: &str = "def handle(context, payload):\n    return {'hello': payload}\n";

#[tokio::test]
async fn every_form_of_a_handler() {
    let fixture = fixture().await;
    let nested = &[("pkg/__init__.py", ""), ("pkg/mod.py", HELLO), ("other.py", "")][..];
    let one = &[("hello.py", HELLO), ("data.json", "{}")][..];
    let shadow = &[("json.py", HELLO)][..];
    let method =
        &[("hello.py", "class Hello:\n    @staticmethod\n    def go(c, p): return p\n")][..];
    for (files, handler, full) in [
        (one, "", "hello.handle"),
        (one, "hello.handle", "hello.handle"),
        (one, "hello", "hello.handle"),
        (one, "./hello.py", "hello.handle"),
        (one, "hello.py::handle", "hello.handle"),
        (nested, "pkg.mod.handle", "pkg.mod.handle"),
        (nested, "pkg/mod.py::handle", "pkg.mod.handle"),
        (shadow, "json.handle", "json.handle"),
        (method, "hello::Hello.go", "hello.Hello.go"),
    ] {
        let found = fixture.prepare(Function::new("python3", files, handler)).await;
        assert_eq!(found.as_deref(), Ok(full), "{handler}");
    }
}

#[tokio::test]
async fn what_can_be_wrong_with_a_handler() {
    let fixture = fixture().await;
    for (files, handler, message) in [
        (
            &[("hello.py", HELLO)][..],
            "hello.nope",
            "handler \"hello.nope\": module hello has no function nope; it has handle",
        ),
        (
            &[("hello.py", HELLO)],
            "nope.handle",
            "handler \"nope.handle\": there is no module nope in the source",
        ),
        (
            &[("a.py", ""), ("b.py", "")],
            "",
            "Exactly 1 source file needed when HANDLER is empty, but there are 2: a.py, b.py; name \
             the handler, such as hello.handle",
        ),
        (
            &[("a.txt", "")],
            "",
            "Exactly 1 source file needed when HANDLER is empty, but there are 0; name the handler, \
             such as hello.handle",
        ),
        (
            &[("hello.py", "\n\ndef handle(:\n")],
            "hello.handle",
            "SyntaxError: invalid syntax (hello.py, line 3)",
        ),
        (
            &[("hello.py", "import os\nimport nothing_like_this\n")],
            "hello.handle",
            "ModuleNotFoundError: No module named 'nothing_like_this' (hello.py, line 2)",
        ),
        (
            &[("hello.py", "import sys\nsys.exit('no')\n")],
            "hello.handle",
            "SystemExit: no (hello.py, line 2)",
        ),
        (
            &[("hello.py", "handle = 3")],
            "hello.handle",
            "handler \"hello.handle\": handle is a int and not a function",
        ),
        (
            &[("hello.py", "def handle(context): pass")],
            "hello.handle",
            "handler \"hello.handle\": the function must take two positional arguments, context and \
             payload",
        ),
        (
            &[("hello.py", "def handle(context, payload, *, more): pass")],
            "hello.handle",
            "handler \"hello.handle\": the function must take two positional arguments, context and \
             payload",
        ),
        (
            &[("hello.py", HELLO)],
            "he-llo.handle",
            "handler \"he-llo.handle\" is not the name of a function; write module.function, such \
             as hello.handle",
        ),
    ] {
        assert_eq!(fixture.refusal(Function::new("python3", files, handler)).await, message);
    }
}

#[tokio::test]
async fn signatures_that_take_two() {
    let fixture = fixture().await;
    for code in [
        "handle = lambda context, payload: payload",
        "def handle(*args): return args[1]",
        "def handle(context, payload=None, more=3): return payload",
        "class Handler:\n    def __call__(self, context, payload): return payload\nhandle = Handler()",
        "import functools\ndef both(a, b, c): return c\nhandle = functools.partial(both, 1)",
        "import functools\ndef wrap(f):\n    @functools.wraps(f)\n    def inner(*a): return f(*a)\n    \
         return inner\n@wrap\ndef handle(context, payload): return payload",
    ] {
        let revision = fixture.deploy(Function::python(code));
        assert_eq!(fixture.value(&revision, "[7]").await, json!([7]), "{code}");
    }
}

#[tokio::test]
async fn context_and_payload_arrive_as_they_are() {
    let fixture = fixture().await;
    let code = "def handle(context, payload): return [context, payload]";
    let revision = fixture.deploy(Function::python(code));
    let context = json!({"secrets": {"password": "ü\u{1f600}"}, "deadline": null});
    for payload in [json!(null), json!("ß\u{0}\u{2028}"), json!({"a": [1, 2.5, true]}), json!("")]
    {
        let call = Call { context: context.to_string().into(), ..call(&payload.to_string()) };
        let result = fixture.invoke(&revision, call).await.result.unwrap();
        let result: Value = serde_json::from_slice(&result).unwrap();
        assert_eq!(result, json!([context, payload]));
    }
}

#[tokio::test]
async fn large_payloads_and_results_travel_in_pieces() {
    let fixture = fixture().await;
    let code = "def handle(context, payload): return payload + payload[:3]";
    let revision = fixture.deploy(Function::python(code));
    let exactly = (1 << 20) - "{}\"\"".len();
    for size in [exactly - 1, exactly, exactly + 1, 2 << 20, 5 << 20] {
        let text = "abcdefghij".repeat(size / 10 + 1)[..size].to_owned();
        let result = fixture.call(&revision, &format!("\"{text}\"")).await.result.unwrap();
        assert_eq!(result, format!("\"{text}abc\""), "{size}");
    }
}

#[tokio::test]
async fn errors_have_their_type_message_and_trace() {
    let fixture = fixture().await;
    let code = "
import sys
class Odd(Exception):
    def __str__(self): raise RuntimeError()
def handle(context, payload):
    kinds = {'value': ValueError('bad value'), 'type': TypeError('bad type'),
             'key': KeyError('k'), 'empty': RuntimeError(), 'odd': Odd(),
             'interrupt': KeyboardInterrupt(), 'surrogate': Exception('\\ud800')}
    if payload == 'exit': sys.exit(3)
    if payload == 'deep': return deep()
    raise kinds[payload]
def deep(): return deep()
";
    let revision = fixture.deploy(Function::python(code));
    for (payload, kind, message) in [
        ("value", ErrorType::InputError, "bad value"),
        ("type", ErrorType::InputError, "bad type"),
        ("key", ErrorType::FunctionError, "'k'"),
        ("empty", ErrorType::FunctionError, "RuntimeError"),
        ("odd", ErrorType::FunctionError, "Odd"),
        ("interrupt", ErrorType::FunctionError, "the handler raised KeyboardInterrupt"),
        ("surrogate", ErrorType::FunctionError, "?"),
        (
            "exit",
            ErrorType::FunctionError,
            "the handler called sys.exit(3); return a value or raise an error",
        ),
        ("deep", ErrorType::FunctionError, "maximum recursion depth exceeded"),
    ] {
        let failure = fixture.failure(&revision, &format!("\"{payload}\"")).await;
        assert_eq!((failure.kind, &failure.cause), (kind, &Cause::Handler), "{payload}");
        assert_eq!(failure.message, message);
        let trace = failure.stacktrace.join("\n");
        assert!(trace.starts_with("Traceback (most recent call last):\n"), "{trace}");
        assert!(trace.contains("File \"/function/hello.py\", line"), "{trace}");
        assert!(!trace.contains("/dispatch/"), "{trace}");
    }
    // All of that did not cost the worker.
    assert_eq!(fixture.pool(&revision).idle, 1);
}

#[tokio::test]
async fn results_that_are_not_json_are_refused() {
    let fixture = fixture().await;
    let code = "
def handle(context, payload):
    circle = []
    circle.append(circle)
    deep = []
    for _ in range(100000): deep = [deep]
    return {'set': {1}, 'nan': float('nan'), 'circle': circle, 'deep': deep,
            'surrogate': '\\ud800', 'long': 'x' * (65 << 20)}[payload]
";
    let revision = fixture.deploy(Function::python(code).set(|s| s.memory_bytes = 0));
    for (payload, reason) in [
        (
            "set",
            "the result cannot be written as JSON: Object of type set is not JSON serializable",
        ),
        (
            "nan",
            "the result cannot be written as JSON: Out of range float values are not JSON compliant",
        ),
        ("circle", "the result cannot be written as JSON: Circular reference detected"),
        ("deep", "the result cannot be written as JSON: it is nested too deeply"),
        ("surrogate", "the result cannot be written as JSON: a string in it is not Unicode text"),
        ("long", "the result has 68157442 bytes as JSON, but may have at most 67108864"),
    ] {
        let failure = fixture.failure(&revision, &format!("\"{payload}\"")).await;
        assert_eq!(failure.kind, ErrorType::FunctionError);
        assert!(failure.message.starts_with(reason), "{}", failure.message);
    }
}

#[tokio::test]
async fn input_that_cannot_be_read_is_the_callers_fault() {
    let fixture = fixture().await;
    let revision = fixture.deploy(Function::python(HELLO));
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let failure = fixture.failure(&revision, &deep).await;
    assert_eq!(failure.kind, ErrorType::InputError);
    assert_eq!(failure.message, "the payload is nested too deeply");
    let failure = fixture.failure(&revision, "{").await;
    assert_eq!(failure.kind, ErrorType::InputError);
    assert!(failure.message.starts_with("the payload is not JSON: "), "{}", failure.message);
}

#[tokio::test]
async fn coroutines_run_in_one_event_loop() {
    let fixture = fixture().await;
    let code = "
import asyncio
loops = set()
async def handle(context, payload):
    await asyncio.sleep(0)
    loops.add(id(asyncio.get_running_loop()))
    if payload == 'fail': raise ValueError('async')
    return len(loops)
def plain(context, payload): return handle(context, payload)
";
    let revision = fixture.deploy(Function::python(code));
    for _ in 0..3 {
        assert_eq!(fixture.value(&revision, "0").await, 1);
    }
    assert_eq!(fixture.failure(&revision, "\"fail\"").await.message, "async");
    // A plain function that returns an awaitable.
    let files = &[("hello.py", code)];
    let revision = fixture.deploy(Function::new("python3", files, "hello.plain"));
    for _ in 0..3 {
        assert_eq!(fixture.value(&revision, "0").await, 1);
    }
}

#[tokio::test]
async fn a_layer_is_importable_with_its_path_files() {
    let fixture = fixture().await;
    let layer = fixture.path().join("layer");
    std::fs::create_dir_all(layer.join("extra")).unwrap();
    std::fs::write(layer.join("dependency.py"), "answer = 42").unwrap();
    std::fs::write(layer.join("more.pth"), "extra\n").unwrap();
    std::fs::write(layer.join("extra/inside.py"), "answer = 43").unwrap();
    let code = "
import dependency, inside
def handle(context, payload): return [dependency.answer, inside.answer, dependency.__file__]
";
    let revision = fixture.deploy(Function { layer: Some(&layer), ..Function::python(code) });
    let value = fixture.value(&revision, "0").await;
    assert_eq!(value, json!([42, 43, "/layer/dependency.py"]));
}

#[tokio::test]
async fn the_environment_is_what_was_given_and_nothing_else() {
    let fixture = fixture().await;
    let code = "
import os
def handle(context, payload):
    return [dict(os.environ), os.getcwd(), sorted(os.listdir('/function')),
            sorted(int(fd) for fd in os.listdir('/proc/self/fd'))[:3]]
";
    let environment =
        vec![("HOME".to_owned(), "/tmp/x".to_owned()), ("GREETING".into(), "hi".into())];
    let revision = fixture.deploy(Function::python(code).set(|s| s.environment = environment));
    let value = fixture.value(&revision, "0").await;
    assert_eq!(value[0]["HOME"], "/tmp/x");
    assert_eq!(value[0]["GREETING"], "hi");
    assert_eq!(value[0]["PATH"], "/usr/local/bin:/usr/bin:/bin");
    for name in value[0].as_object().unwrap().keys() {
        let known = ["GREETING", "HOME", "LANG", "LC_CTYPE", "PATH"].contains(&name.as_str());
        assert!(known || name.starts_with("PYTHON"), "{name}");
    }
    assert_eq!(value[1], "/function");
    assert_eq!(value[2], json!(["hello.py"]));

    let bad = vec![("A=B".to_owned(), "1".to_owned())];
    let refusal = fixture.refusal(Function::python(code).set(|s| s.environment = bad)).await;
    assert!(refusal.contains("\"A=B\" cannot be set"), "{refusal}");
}
