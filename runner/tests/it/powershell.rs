//! The language powershell, where `pwsh` is installed: issue 4.

use dispatch_api::ErrorType;
use dispatch_runner::Runner as _;
use dispatch_runner::frame::MAX_BODY;
use serde_json::json;

use crate::fixture::{Fixture, Function, fixture};

const HELLO: &str =
    "function handle($context, $payload) {\n  @{ hello = $payload }\n}\nfunction other { }\n";

fn powershell<'a>(files: &'a [(&'a str, &'a str)], handler: &'a str) -> Function<'a> {
    Function::new("powershell", files, handler).set(|settings| settings.memory_bytes = 512 << 20)
}

/// None, with the reason, where there is no PowerShell.
async fn with_powershell() -> Option<Fixture> {
    let fixture = fixture().await;
    if fixture.runner.runtimes().iter().all(|runtime| runtime.language != "powershell") {
        eprintln!("skipped: there is no PowerShell (pwsh) on this machine");
        return None;
    }
    Some(fixture)
}

#[tokio::test]
async fn every_form_of_a_handler_and_what_can_be_wrong_with_it() {
    let Some(fixture) = with_powershell().await else { return };
    for (files, handler, full) in [
        (&[("hello.ps1", HELLO), ("data.json", "{}")][..], "", "hello.ps1::handle"),
        (&[("hello.ps1", HELLO)], "hello.ps1::handle", "hello.ps1::handle"),
        (&[("hello.ps1", HELLO)], "./hello.ps1", "hello.ps1::handle"),
        (
            &[("lib/hello.ps1", HELLO), ("a.ps1", "")],
            "lib/hello.ps1::handle",
            "lib/hello.ps1::handle",
        ),
        (
            &[
                ("a.ps1", ". $PSScriptRoot/b.ps1\nfunction Get-It($c, $p) { Same $p }"),
                ("b.ps1", "function Same($p) { @{ hello = $p } }"),
            ],
            "a.ps1::Get-It",
            "a.ps1::Get-It",
        ),
    ] {
        let revision = fixture.deploy(powershell(files, handler));
        let found = fixture.runner.prepare(&revision).await;
        assert_eq!(found.as_deref(), Ok(full), "{handler}");
        let said = fixture.value(&revision, "[7, null, \"ü\"]").await;
        assert_eq!(said, json!({"hello": [7, null, "ü"]}));
    }
    for (files, handler, message) in [
        (
            &[("hello.ps1", HELLO)][..],
            "nope.ps1::handle",
            "there is no file nope.ps1 in the source",
        ),
        (
            &[("hello.ps1", HELLO)],
            "hello.ps1::nope",
            "hello.ps1 has no function nope; it has handle, other",
        ),
        (&[("hello.ps1", HELLO)], "../hello.ps1::handle", "is not the name of a function"),
        (&[("a.ps1", ""), ("b.ps1", "")], "", "there are 2: a.ps1, b.ps1"),
        (&[("hello.ps1", "\nfunction handle {")], "", "hello.ps1:2: "),
        (&[("hello.ps1", "\nthrow 'no'")], "", "no (hello.ps1, line 2)"),
    ] {
        let said = fixture.refusal(powershell(files, handler)).await;
        assert!(said.contains(message), "{said}");
    }
}

#[tokio::test]
async fn results_errors_and_logs() {
    let Some(fixture) = with_powershell().await else { return };
    let code = "function handle($context, $payload) {\n  Write-Host 'host'\n  Write-Verbose 'more'\n  \
        Write-Error 'minor' -ErrorAction Continue\n  [Console]::Error.WriteLine('direct')\n  switch ($payload) {\n    \
        'input' { throw [ArgumentException]::new('bad') }\n    'fail' { throw 'broken' }\n    'none' { return }\n    \
        'many' { 1; 2; return }\n    'deep' { $l = @(); foreach ($i in 1..200) { $l = , $l }; return @{ l = $l } }\n    \
        'exit' { exit 3 }\n  }\n  if ($payload -isnot [string]) { return $payload }\n}";
    let revision = fixture.deploy(powershell(Box::leak(Box::new([("hello.ps1", code)])), ""));
    let given =
        json!({"a": [1, 2.5, true, null, {"B": "2026-01-02T03:04:05Z x"}], "ü": "\u{1f600}\"\\\n"});
    assert_eq!(fixture.value(&revision, &given.to_string()).await, given);
    assert_eq!(fixture.value(&revision, "\"none\"").await, json!(null));
    assert_eq!(fixture.value(&revision, "\"many\"").await, json!([1, 2]));
    assert_eq!(fixture.value(&revision, r#"{"a": 1, "A": 2}"#).await, json!({"a": 1, "A": 2}));
    for (payload, kind, message) in [
        ("input", ErrorType::InputError, "bad"),
        ("fail", ErrorType::FunctionError, "broken"),
        ("deep", ErrorType::FunctionError, "nested too deeply"),
    ] {
        let failed = fixture.failure(&revision, &format!("\"{payload}\"")).await;
        assert_eq!(failed.kind, kind, "{failed:?}");
        assert!(failed.message.contains(message), "{failed:?}");
        assert!(!failed.stacktrace.join("\n").contains("/dispatch/"), "{failed:?}");
    }
    let failed = fixture.failure(&revision, "\"exit\"").await;
    assert!(failed.message.contains("ended with exit code 3"), "{failed:?}");
    let logs = fixture.call(&revision, "1").await.logs;
    assert_eq!(logs.stdout, ["host", "VERBOSE: more"]);
    assert_eq!(logs.stderr, ["minor", "direct"]);
}

#[tokio::test]
async fn large_values_the_environment_and_logs_of_calls_that_share_a_worker() {
    let Some(fixture) = with_powershell().await else { return };
    let code = "function handle($context, $payload) {\n  Write-Host (\"out $payload\".Substring(0, 5))\n  \
        if ($payload -eq 1) { return @($env:OWN, \"$PWD\") }\n  $payload\n}";
    for concurrency in [1, 4] {
        let files = Box::leak(Box::new([("hello.ps1", code)]));
        let function = powershell(files, "").set(|settings| {
            settings.environment = vec![("OWN".to_owned(), "välue".to_owned())];
            settings.concurrency = concurrency;
        });
        let revision = fixture.deploy(function);
        let outcome = fixture.call(&revision, "1").await;
        assert_eq!(outcome.logs.stdout, ["out 1"]);
        let said: serde_json::Value = serde_json::from_slice(&outcome.result.unwrap()).unwrap();
        assert_eq!(said, json!(["välue", "/function"]));
        let large = json!("x".repeat(5 * MAX_BODY / 2));
        assert_eq!(fixture.value(&revision, &large.to_string()).await, large);
    }
}
