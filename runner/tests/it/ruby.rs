//! The language ruby: issue 4.

use dispatch_api::ErrorType;
use dispatch_runner::Runner as _;
use dispatch_runner::frame::MAX_BODY;
use futures_util::future::join_all;
use serde_json::json;

use crate::fixture::{Fixture, Function, fixture};

const HELLO: &str = "def handle(context, payload)\n  { hello: payload }\nend\n";

fn ruby<'a>(files: &'a [(&'a str, &'a str)], handler: &'a str) -> Function<'a> {
    Function::new("ruby", files, handler)
}

async fn with_ruby() -> Fixture {
    let fixture = fixture().await;
    fixture.runner.expect("ruby");
    fixture.until_waiting("ruby", 2).await;
    fixture
}

#[tokio::test]
async fn every_form_of_a_handler() {
    let fixture = with_ruby().await;
    let shop = "module Shop\n  def self.create(context, payload) = { hello: payload }\nend\n";
    for (files, handler, full) in [
        (&[("hello.rb", HELLO), ("data.json", "{}")][..], "", "hello.handle"),
        (&[("hello.rb", HELLO)], "hello.handle", "hello.handle"),
        (&[("hello.rb", HELLO)], "./hello.rb", "hello.handle"),
        (&[("lib/hello.rb", HELLO), ("a.rb", "")], "lib/hello.handle", "lib/hello.handle"),
        (&[("shop.rb", shop)], "shop::Shop.create", "shop::Shop.create"),
        (
            &[
                ("a.rb", "require 'b'\ndef run(c, p) = B.go(p)"),
                ("b.rb", "module B\n  def self.go(p) = { hello: p }\nend"),
            ],
            "a.run",
            "a.run",
        ),
    ] {
        let revision = fixture.deploy(ruby(files, handler));
        let found = fixture.runner.prepare(&revision).await;
        assert_eq!(found.as_deref(), Ok(full), "{handler}");
        assert_eq!(
            fixture.value(&revision, "[7, null, \"ü\"]").await,
            json!({"hello": [7, null, "ü"]})
        );
    }
}

#[tokio::test]
async fn what_can_be_wrong_with_a_handler() {
    let fixture = with_ruby().await;
    for (files, handler, message) in [
        (&[("hello.rb", HELLO)][..], "nope.handle", "there is no file nope.rb in the source"),
        (&[("hello.rb", HELLO)], "hello.nope", "hello.rb has no method nope"),
        (&[("hello.rb", HELLO)], "hello::Shop.create", "there is no Shop in the source"),
        (&[("hello.rb", "def handle(one) = 1")], "", "must take two arguments"),
        (&[("a.rb", ""), ("b.rb", "")], "", "there are 2: a.rb, b.rb"),
        (&[("hello.rb", "def handle(")], "", "hello.rb:1: syntax error"),
        (&[("hello.rb", "\nraise 'no'")], "", "RuntimeError: no (hello.rb:2)"),
        (&[("hello.rb", "require 'missing_gem'")], "", "missing_gem"),
        (&[("hello.rb", "exit 3")], "", "exit"),
        (&[("hello.rb", HELLO)], "../hello.handle", "is not the name of a method"),
    ] {
        let said = fixture.refusal(ruby(files, handler)).await;
        assert!(said.contains(message), "{said}");
    }
}

#[tokio::test]
async fn errors_say_whose_fault_they_are_and_show_the_functions_lines_only() {
    let fixture = with_ruby().await;
    let code = "def handle(context, payload)\n  case payload\n  when 1 then raise ArgumentError, 'bad'\n  \
                when 2 then raise 'broken'\n  when 3 then exit 4\n  when 4 then Float::NAN\n  \
                when 5 then raise \"\\xff\"\n  else 'well' end\nend\n";
    let revision = fixture.deploy(ruby(Box::leak(Box::new([("hello.rb", code)])), ""));
    for (payload, kind, message) in [
        ("1", ErrorType::InputError, "bad"),
        ("2", ErrorType::FunctionError, "broken"),
        ("3", ErrorType::FunctionError, "the handler called exit(4)"),
        ("4", ErrorType::FunctionError, "the result cannot be written as JSON"),
        ("5", ErrorType::FunctionError, "\u{fffd}"),
    ] {
        let failed = fixture.failure(&revision, payload).await;
        assert_eq!(failed.kind, kind, "{failed:?}");
        assert!(failed.message.contains(message), "{failed:?}");
        let own = |line: &String| !line.contains("/dispatch/");
        assert!(failed.stacktrace.iter().all(own), "{failed:?}");
    }
    let trace = fixture.failure(&revision, "2").await.stacktrace;
    assert!(trace[0] == "broken (RuntimeError)" && trace[1].contains("hello.rb:4"), "{trace:?}");
    assert_eq!(fixture.value(&revision, "9").await, "well", "the worker goes on");
    assert_eq!(fixture.runner.pools().len(), 1);
}

#[tokio::test]
async fn what_a_call_writes_is_its_log_also_where_calls_overlap() {
    let fixture = with_ruby().await;
    let code = "def handle(c, p)\n  puts \"out #{p}\"\n  warn \"err #{p}\"\n  sleep 0.05\n  \
                $stdout.print 'rest ', p\n  p\nend\n";
    for concurrency in [1, 4] {
        let function = ruby(Box::leak(Box::new([("hello.rb", code)])), "")
            .set(|settings| settings.concurrency = concurrency);
        let revision = fixture.deploy(function);
        let payloads: Vec<String> = (0..4).map(|n| n.to_string()).collect();
        let calls = payloads.iter().map(|payload| fixture.call(&revision, payload));
        for (payload, outcome) in payloads.iter().zip(join_all(calls).await) {
            assert_eq!(outcome.result.unwrap(), payload.as_bytes());
            let (out, rest) = (format!("out {payload}"), format!("rest {payload}"));
            assert_eq!(outcome.logs.stdout, [out, rest], "{concurrency}");
            assert_eq!(outcome.logs.stderr, [format!("err {payload}")], "{concurrency}");
        }
    }
}

#[tokio::test]
async fn large_values_travel_in_pieces_and_the_environment_is_there() {
    let fixture = with_ruby().await;
    let code = "def handle(c, p) = p == 1 ? [ENV['OWN'], Dir.pwd] : p\n";
    let function = ruby(Box::leak(Box::new([("hello.rb", code)])), "").set(|settings| {
        settings.environment = vec![("OWN".to_owned(), "value".to_owned())];
    });
    let revision = fixture.deploy(function);
    assert_eq!(fixture.value(&revision, "1").await, json!(["value", "/function"]));
    let large = json!("x".repeat(5 * MAX_BODY / 2));
    assert_eq!(fixture.value(&revision, &large.to_string()).await, large);
}
