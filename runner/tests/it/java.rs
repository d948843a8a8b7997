//! The language java, which is built before it runs: issue 4.

use std::sync::Arc;

use dispatch_api::ErrorType;
use dispatch_runner::frame::MAX_BODY;
use dispatch_runner::{BuildError, Revision, Runner as _, SourceRequest};
use futures_util::future::join_all;
use serde_json::json;

use crate::fixture::{Fixture, Function, fixture};

/// Builds the source of a function, as the server does.
async fn build(fixture: &Fixture, function: Function<'_>) -> Result<Arc<Revision>, BuildError> {
    let deployed = Arc::unwrap_or_clone(fixture.deploy(function));
    let sources = fixture.path().join("sources");
    // The digest that it would have.
    let digest = format!("{:064x}", deployed.faas_id[9..].parse::<u64>().unwrap());
    std::fs::rename(&deployed.source, sources.join(&digest)).unwrap();
    let request = SourceRequest {
        organization: deployed.organization.clone(),
        function: deployed.function.clone(),
        language: deployed.language.clone(),
        digest: format!("sha256:{digest}"),
        layer: deployed.layer.clone(),
        handler: deployed.handler.clone(),
    };
    let built = fixture.runner.build_source(&request).await?.unwrap();
    assert_eq!(fixture.runner.build_source(&request).await?, Some(built.clone()), "it is found");
    Ok(Arc::new(Revision { source: sources.join(built), ..deployed }))
}

fn java<'a>(files: &'a [(&'a str, &'a str)], handler: &'a str) -> Function<'a> {
    Function::new("java", files, handler)
}

fn one(code: &str) -> Function<'_> {
    java(Box::leak(Box::new([("Hello.java", code)])), "")
}

const HELLO: &str = "package a.b; /* package none; */\n\
    public class Hello implements java.util.function.BiFunction<Object, Object, Object> {\n\
    public Object apply(Object context, Object payload) {\n\
    return java.util.Collections.singletonMap(\"hello\", payload); } }\n";

#[tokio::test]
async fn every_form_of_a_handler_and_what_can_be_wrong_with_it() {
    let fixture = fixture().await;
    let lambda = "public class Lambda { public static class Inner \
        implements java.util.function.Function<java.util.List<Object>, Object> {\n\
        public Object apply(java.util.List<Object> p) { return new Other().of((Double) p.get(0)); } } }\n";
    let other = "class Other { Object of(Double i) { return \
        new java.util.TreeMap<>(java.util.Map.of(\"hello\", java.util.Arrays.asList(i, null, \"ü\"))); } }";
    let missing = "class Missing { org.nowhere.Thing thing; }";
    for (files, handler, full) in [
        (&[("Hello.java", HELLO), ("data.json", "{}")][..], "", "a.b.Hello"),
        (&[("src/main/java/a/b/Hello.java", HELLO), ("M.java", missing)], "a.b.Hello", "a.b.Hello"),
        (
            &[("Lambda.java", lambda), ("deep/Other.java", other), ("M.java", missing)],
            "Lambda$Inner",
            "Lambda$Inner",
        ),
    ] {
        let revision = build(&fixture, java(files, handler)).await.unwrap();
        let found = fixture.runner.prepare(&revision).await;
        assert_eq!(found.as_deref(), Ok(full), "{handler}");
        let said = fixture.value(&revision, "[7, null, \"ü\"]").await;
        assert_eq!(said, json!({"hello": [7, null, "ü"]}));
    }
    for (files, handler, message) in [
        (&[("Hello.java", "class Hello {\n int x = }\n")][..], "", "Hello.java:2: illegal start"),
        (&[("M.java", missing)], "", "M.java:1: package org.nowhere does not exist"),
        (&[("A.java", "class A {}"), ("B.java", "class B {}")], "", "but there are 2"),
        (&[("A.java", "class A {}")], "a.Nope", "there is no class a.Nope in the source"),
        (&[("A.java", "public class A {}")], "", "implements neither"),
        (
            &[(
                "A.java",
                "public class A implements java.util.function.Function<Object, Object> {\n\
                public A(int x) {} public Object apply(Object x) { return x; } }",
            )],
            "",
            "a constructor without parameters",
        ),
        (
            &[(
                "A.java",
                "public class A implements java.util.function.Function<Object, Object> {\n\
                static { if (true) throw new RuntimeException(\"no\"); }\n\
                public Object apply(Object x) { return x; } }",
            )],
            "",
            "java.lang.RuntimeException: no",
        ),
    ] {
        let refused = match build(&fixture, java(files, handler)).await {
            Ok(revision) => fixture.runner.prepare(&revision).await.map(|_| ()),
            Err(error) => Err(error),
        };
        let Err(BuildError::Rejected(said)) = refused else { panic!("{refused:?}") };
        assert!(said.contains(message), "{said}");
    }
    let left = std::fs::read_dir(fixture.path().join("sources")).unwrap().flatten();
    let partial = |name: &std::fs::DirEntry| name.file_name().to_string_lossy().starts_with('.');
    assert_eq!(left.filter(partial).count(), 0, "nothing half-built is left");
}

const TYPES: &str = r#"
import java.math.*; import java.time.*; import java.util.*;
public class Hello implements java.util.function.BiFunction<Map<String, Object>, Hello.In, Object> {
    enum Color { RED, BLUE }
    public record Point(int x, long y, Optional<String> name) { }
    public static class Box<T> { T item; List<? extends T> more; }
    public class In {
        private String text = "kept"; int number; double real; Boolean flag; Color color; char letter;
        List<Point> points; Map<Color, int[]> counts; Box<Point> box; Set<String> names; BigInteger large;
        LocalDate day; UUID id; Object any; transient int hidden = 3; In inner; byte[] bytes; Duration time;
    }
    public Object apply(Map<String, Object> context, In in) {
        if (in.points != null && in.points.get(0).x() == 13) throw new IllegalStateException("bad luck", new Error("why"));
        return in;
    }
}"#;

#[tokio::test]
async fn payloads_become_what_the_function_declares_and_results_their_fields() {
    let fixture = fixture().await;
    let revision = build(&fixture, one(TYPES)).await.unwrap();
    let given = json!({
        "text": "ä\u{1f600}\"\\\n", "number": 7, "real": 2.5, "flag": true, "color": "BLUE", "letter": "c",
        "points": [{"x": 1, "y": 9_007_199_254_740_993_i64, "name": "p"}, {"x": 2, "y": 3}],
        "counts": {"RED": [1, 2]}, "box": {"item": {"x": 5, "y": 6}, "more": [{"x": 7, "y": 8, "name": null}]},
        "names": ["b", "a"], "large": 123_456_789_012_345_678_i64, "day": "2026-02-03",
        "id": "01a20b6a-3ec5-730f-81de-af58e5bb0855", "any": {"n": [1, 1.5, null, "t"]}, "hidden": 9,
        "inner": {"text": null, "number": "12"}, "bytes": [1, -1], "time": "PT1S", "unknown": 1,
    });
    let said = fixture.value(&revision, &given.to_string()).await;
    let mut wanted = given.clone();
    let fields = wanted.as_object_mut().unwrap();
    fields.remove("hidden");
    fields.remove("unknown");
    wanted["points"][1]["name"] = json!(null);
    wanted["box"]["item"]["name"] = json!(null);
    for (name, value) in said["inner"].as_object().unwrap() {
        let kept = match name.as_str() {
            "number" => json!(12),
            "real" => json!(0),
            "letter" => json!("\0"),
            _ => json!(null),
        };
        assert_eq!(*value, kept, "{name}");
    }
    wanted["inner"] = said["inner"].clone();
    assert_eq!(said, wanted);
    for (payload, message) in [
        (json!({"number": "x"}), "payload.number: x is no Integer"),
        (json!({"number": 1.5}), "payload.number: 1.5 is no Integer"),
        (
            json!({"points": [{"x": []}]}),
            "payload.points[0].x is to be a number (Integer), and is a list",
        ),
        (json!({"color": "PINK"}), "payload.color is to be one of [RED, BLUE], and is a text"),
        (json!({"flag": {}}), "payload.flag is to be true or false, and is an object"),
        (json!([]), "payload is to be an object (In), and is a list"),
        (json!({"day": "soon"}), "payload.day"),
    ] {
        let failed = fixture.failure(&revision, &payload.to_string()).await;
        assert_eq!(failed.kind, ErrorType::InputError, "{failed:?}");
        assert!(failed.message.contains(message), "{failed:?}");
    }
    let failed = fixture.failure(&revision, &json!({"points": [{"x": 13}]}).to_string()).await;
    assert_eq!((failed.kind, failed.message.as_str()), (ErrorType::FunctionError, "bad luck"));
    let trace = failed.stacktrace.join("\n");
    assert!(trace.contains("at Hello.apply(Hello.java:") && trace.contains("Caused by"), "{trace}");
    assert!(!trace.contains("dispatch."), "{trace}");
}

#[tokio::test]
async fn what_a_call_writes_is_its_log_also_where_calls_overlap() {
    let fixture = fixture().await;
    let code = "public class Hello implements java.util.function.Function<Integer, Object> {\n\
        public Object apply(Integer p) { System.out.println(\"out \" + p); System.err.println(\"err \" + p);\n\
        try { Thread.sleep(50); } catch (InterruptedException e) { }\n\
        System.out.print(\"rest \" + p); return p; } }";
    for concurrency in [1, 4] {
        let function = one(code).set(|settings| settings.concurrency = concurrency);
        let revision = build(&fixture, function).await.unwrap();
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
async fn large_values_the_environment_and_ends() {
    let fixture = fixture().await;
    let code = "import java.util.*; public class Hello implements java.util.function.Function<Object, Object> {\n\
        public Object apply(Object p) { if (\"env\".equals(p)) return List.of(System.getenv(\"OWN\"), \
        System.getenv().get(\"OWN\"), System.getProperty(\"user.dir\"), new java.io.File(\"data.txt\").exists());\n\
        if (\"deep\".equals(p)) return apply(p);\n\
        if (\"nan\".equals(p)) return Double.NaN;\n\
        if (\"class\".equals(p)) return Thread.currentThread();\n\
        if (\"self\".equals(p)) { var l = new ArrayList<Object>(); l.add(l); return l; }\n\
        if (\"exit\".equals(p)) System.exit(3);\n return p; } }";
    let files = Box::leak(Box::new([("Hello.java", code), ("data.txt", "x")]));
    let function = java(files, "").set(|settings| {
        settings.environment = vec![("OWN".to_owned(), "välue".to_owned())];
    });
    let revision = build(&fixture, function).await.unwrap();
    let said = fixture.value(&revision, "\"env\"").await;
    assert_eq!(said, json!(["välue", "välue", "/function", true]));
    let large = json!("x".repeat(5 * MAX_BODY / 2));
    assert_eq!(fixture.value(&revision, &large.to_string()).await, large);
    for (payload, message) in [
        ("\"deep\"", "java.lang.StackOverflowError"),
        ("\"nan\"", "NaN is no number in JSON"),
        ("\"class\"", "cannot be written as JSON"),
        ("\"self\"", "nested too deeply, or holds itself"),
        ("\"exit\"", "ended with exit code 3"),
    ] {
        let failed = fixture.failure(&revision, payload).await;
        assert_eq!(failed.kind, ErrorType::FunctionError, "{failed:?}");
        assert!(failed.message.contains(message), "{failed:?}");
    }
    assert_eq!(fixture.value(&revision, "1").await, 1);
}

#[tokio::test]
async fn classes_are_shared_and_threads_are_virtual_where_the_jdk_has_them() {
    let fixture = fixture().await;
    let code = "import java.nio.file.*; public class Hello implements java.util.function.Function<Object, Object> {\n\
        public Object apply(Object p) { try { boolean virtual = false;\n\
        try { virtual = (Boolean) Thread.class.getMethod(\"isVirtual\").invoke(Thread.currentThread()); }\n\
        catch (NoSuchMethodException none) { }\n\
        try (var maps = Files.lines(Path.of(\"/proc/self/maps\"))) {\n\
        return java.util.List.of(maps.anyMatch(line -> line.endsWith(\"/worker.jsa\")), virtual); } }\n\
        catch (Exception e) { throw new RuntimeException(e); } } }";
    let all = fixture.runner.runtimes();
    let versions = all.iter().filter(|it| {
        it.language == "java" || it.version_of.as_deref().is_some_and(|of| of == "java")
    });
    for runtime in versions {
        let major: u32 = runtime.version.split('.').next().unwrap().parse().unwrap();
        for concurrency in [1, 2] {
            let mut function = one(code).set(|settings| settings.concurrency = concurrency);
            function.language = &runtime.language;
            let revision = build(&fixture, function).await.unwrap();
            let said = fixture.value(&revision, "1").await;
            let virtual_ones = major >= 21 && concurrency > 1;
            assert_eq!(said, json!([true, virtual_ones]), "{runtime:?} {concurrency}");
        }
    }
}
