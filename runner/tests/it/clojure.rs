//! The language clojure, whose worker is compiled once for each machine: issue 4.

use dispatch_api::ErrorType;
use dispatch_runner::Runner as _;
use dispatch_runner::frame::MAX_BODY;
use futures_util::future::join_all;
use serde_json::json;

use crate::fixture::{Fixture, Function, fixture};

const HELLO: &str = "(ns hello)\n(defn handle [context payload] {:hello payload})\n";

fn clojure<'a>(files: &'a [(&'a str, &'a str)], handler: &'a str) -> Function<'a> {
    Function::new("clojure", files, handler)
}

/// A function of one file.
fn one(code: &str) -> Function<'_> {
    clojure(Box::leak(Box::new([("hello.clj", code)])), "")
}

/// None, with the reason, where there is no Clojure.
async fn with_clojure() -> Option<Fixture> {
    let fixture = fixture().await;
    if fixture.runner.runtimes().iter().all(|runtime| runtime.language != "clojure") {
        eprintln!("skipped: there is no Clojure on this machine");
        return None;
    }
    Some(fixture)
}

#[tokio::test]
async fn every_form_of_a_handler() {
    let Some(fixture) = with_clojure().await else { return };
    let nested = "(ns shop.open-orders (:require [shop.price :as price]))\n\
                  (defn total \"adds\" [_ payload & more] {:hello (price/same payload)})";
    let price = "(ns shop.price) (defn same [x] x)";
    for (files, handler, full) in [
        (&[("hello.clj", HELLO), ("data.json", "{}")][..], "", "hello/handle"),
        (&[("hello.clj", HELLO)], "hello/handle", "hello/handle"),
        (&[("hello.clj", HELLO)], "hello", "hello/handle"),
        // The file's name need not be that of its namespace.
        (&[("main.clj", HELLO), ("other.clj", "(ns other)")], "hello/handle", "hello/handle"),
        (&[("main.clj", "(defn handle [c p] {:hello p})")], "", "user/handle"),
        (
            &[("src/shop/open_orders.clj", nested), ("src/shop/price.cljc", price)],
            "shop.open-orders/total",
            "shop.open-orders/total",
        ),
    ] {
        let revision = fixture.deploy(clojure(files, handler));
        let found = fixture.runner.prepare(&revision).await;
        assert_eq!(found.as_deref(), Ok(full), "{handler}");
        let said = fixture.value(&revision, "[7, null, \"ü\"]").await;
        assert_eq!(said, json!({"hello": [7, null, "ü"]}));
    }
}

#[tokio::test]
async fn what_can_be_wrong_with_a_handler() {
    let Some(fixture) = with_clojure().await else { return };
    for (files, handler, message) in [
        (
            &[("hello.clj", HELLO)][..],
            "nope/handle",
            "there is no namespace nope in the source; it has hello",
        ),
        (&[("hello.clj", HELLO)], "hello/nope", "hello has no function nope; it has handle"),
        (&[("hello.clj", "(ns hello) (def handle 3)")], "", "hello has no function handle"),
        (&[("hello.clj", "(ns hello) (defn handle [one])")], "", "must take two arguments"),
        (&[("a.clj", ""), ("b.clj", "")], "", "there are 2: a.clj, b.clj"),
        (&[("hello.clj", "(ns hello)\n(defn handle [a b] (missing a))")], "", "hello.clj:2:20"),
        (&[("hello.clj", "(ns hello)\n(defn handle [a b]")], "hello/handle", "EOF while reading"),
        (&[("hello.clj", "(ns hello)\n(throw (Exception. \"no\"))")], "", "no"),
        (
            &[("hello.clj", "(ns hello (:require [not.there]))")],
            "",
            "Is a dependency missing in the image?",
        ),
        (&[("hello.clj", HELLO)], "a b", "is not the name of a function"),
    ] {
        let said = fixture.refusal(clojure(files, handler)).await;
        assert!(said.contains(message), "{said}");
    }
}

#[tokio::test]
async fn data_has_the_forms_of_the_language() {
    let Some(fixture) = with_clojure().await else { return };
    let code = "(ns hello)\n(defrecord Point [x y])\n(defn handle [c {:keys [text] :as p}]\n\
        (case text\n  nil p\n  \"kinds\" [:a/b 'c 1/2 2.0 3N 4M #{5} (map inc [5]) (->Point 1 nil) {\"k\" {:n/s 1 2 3}}\n\
        (int-array [1 2]) #inst \"2026-01-02T03:04:05.006Z\" #uuid \"01a20b6a-3ec5-730f-81de-af58e5bb0855\" \\c]\n\
        \"types\" (mapv #(.getName (class %)) (vals (:values p)))\n\
        \"nan\" ##NaN\n  \"function\" inc\n  \"thread\" (Thread/currentThread)\n  \"endless\" (repeat 1)\n\
        \"self\" (let [l (java.util.ArrayList.)] (.add l l) l)\n\
        \"input\" (throw (IllegalArgumentException. \"bad\"))\n  \"arity\" ((fn [a] a))\n\
        \"fail\" (throw (ex-info \"broken\" {:a 1} (Error. \"why\")))\n  \"deep\" (handle c p)\n  \"exit\" (System/exit 3)))";
    let revision = fixture.deploy(one(code));
    let given = json!({"a b/c": "\u{1}ä\u{1f600}\"\\\n", "n": [0, -1, 2.5, 1e-3, 9_223_372_036_854_775_807_i64, true, false, null, {}, []]});
    assert_eq!(fixture.value(&revision, &given.to_string()).await, given);
    let kinds = fixture.value(&revision, r#"{"text": "kinds"}"#).await;
    let wanted = json!([
        "a/b", "c", 0.5, 2.0, 3, 4, [5], [6], {"x": 1, "y": null}, {"k": {"n/s": 1, "2": 3}}, [1, 2],
        "2026-01-02T03:04:05.006Z", "01a20b6a-3ec5-730f-81de-af58e5bb0855", "c"
    ]);
    assert_eq!(kinds, wanted);
    let types = r#"{"text": "types", "values": {"a": 1, "b": 12345678901234567890, "c": 1.0, "d": "\u0041\n"}}"#;
    let names = ["java.lang.Long", "clojure.lang.BigInt", "java.lang.Double", "java.lang.String"];
    assert_eq!(fixture.value(&revision, types).await, json!(names));
    for (text, kind, message) in [
        ("nan", ErrorType::FunctionError, "NaN is no number in JSON"),
        ("function", ErrorType::FunctionError, "it is a function"),
        ("thread", ErrorType::FunctionError, "a java.lang.Thread is no data"),
        ("endless", ErrorType::FunctionError, "the result has more bytes"),
        ("self", ErrorType::FunctionError, "nested too deeply, or holds itself"),
        ("input", ErrorType::InputError, "bad"),
        ("arity", ErrorType::FunctionError, "Wrong number of args"),
        ("fail", ErrorType::FunctionError, "broken"),
        ("deep", ErrorType::FunctionError, "java.lang.StackOverflowError"),
    ] {
        let failed = fixture.failure(&revision, &json!({ "text": text }).to_string()).await;
        assert_eq!(failed.kind, kind, "{failed:?}");
        assert!(failed.message.contains(message), "{text}: {failed:?}");
        let trace = failed.stacktrace.join("\n");
        assert!(!trace.contains("dispatch."), "{trace}");
        if text == "fail" {
            assert!(
                trace.contains("hello.clj:") && trace.contains("Caused by: java.lang.Error: why"),
                "{trace}"
            );
        }
    }
    let failed = fixture.failure(&revision, r#"{"text": "exit"}"#).await;
    assert!(failed.message.contains("ended with exit code 3"), "{failed:?}");
    assert_eq!(fixture.value(&revision, "{}").await, json!({}), "another worker goes on");
}

#[tokio::test]
async fn what_a_call_writes_is_its_log_also_where_calls_overlap() {
    let Some(fixture) = with_clojure().await else { return };
    let code = "(ns hello)\n(defn handle [c p] (println \"out\" p)\n(binding [*out* *err*] (println \"err\" p))\n\
                (Thread/sleep 50) @(future (print \"rest\" p)) p)";
    for concurrency in [1, 4] {
        let function = one(code).set(|settings| settings.concurrency = concurrency);
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
async fn large_values_the_environment_and_files_beside() {
    let Some(fixture) = with_clojure().await else { return };
    let code = "(ns hello (:require [clojure.java.io :as io])\n\
        (:import (java.nio.file Files Path)))\n(defn handle [c p]\n(if (= p 1) [(System/getenv \"OWN\") (System/getProperty \"user.dir\") (slurp (io/resource \"data.txt\")) c\n\
        (boolean (some #(re-find #\"/worker.jsa$\" %)\n\
        (Files/readAllLines (Path/of \"/proc/self/maps\" (into-array String [])))))] p))";
    let files = Box::leak(Box::new([("hello.clj", code), ("data.txt", "x")]));
    let function = clojure(files, "").set(|settings| {
        settings.environment = vec![("OWN".to_owned(), "välue".to_owned())];
    });
    let revision = fixture.deploy(function);
    let said = fixture.value(&revision, "1").await;
    assert_eq!(said, json!(["välue", "/function", "x", {}, true]), "its classes are shared");
    let large = json!("x".repeat(5 * MAX_BODY / 2));
    assert_eq!(fixture.value(&revision, &large.to_string()).await, large);
    for malformed in ["[1", "[1,]", "{\"a\" 1}", "\"\u{1}\"", "01", "nul", "\"\\x\"", ""] {
        let failed = fixture.failure(&revision, malformed).await;
        assert_eq!(failed.kind, ErrorType::InputError, "{failed:?}");
        assert!(failed.message.starts_with("the input is not JSON"), "{failed:?}");
    }
}
