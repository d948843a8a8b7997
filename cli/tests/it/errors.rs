//! What is said about mistakes, where, and with which exit code.

use std::process::Stdio;

use serde_json::json;

use crate::support::{Fake, finish};

#[test]
fn unknown_words() {
    let fake = Fake::start();
    let error = fake.dispatch(&["frob"]).fails();
    let wanted =
        "Error: unknown command \"frob\" for \"dispatch\"\nRun 'dispatch --help' for usage.\n";
    assert_eq!(error, wanted);
    let error = fake.dispatch(&["get", "functoin"]).fails();
    let wanted = "Error: unknown command \"functoin\" for \"dispatch get\"\n\nDid you mean this?\n\
                  \tfunction\n\nRun 'dispatch get --help' for usage.\n";
    assert_eq!(error, wanted);
    for verb in ["create", "delete", "update", "apply", "edit", "manage", "rollback", "redrive"] {
        let error = fake.dispatch(&["--port", "1", verb, "frob"]).fails();
        let wanted = format!("Error: unknown command \"frob\" for \"dispatch {verb}\"\n");
        assert!(error.starts_with(&wanted), "{error}");
    }
}

#[test]
fn wrong_numbers_of_words() {
    let fake = Fake::start();
    for (args, wanted) in [
        (&["create", "function"][..], "accepts between 1 and 2 arg(s), received 0"),
        (&["create", "secret", "x"], "accepts 2 arg(s), received 1"),
        (&["create", "api", "a", "b", "c", "--path", "/x", "d"], "accepts 2 arg(s), received 4"),
        (&["delete", "image"], "accepts 1 arg(s), received 0"),
        (&["get", "function", "a", "b"], "accepts at most 1 arg(s), received 2"),
        (&["get", "runs", "a", "b", "c"], "accepts at most 2 arg(s), received 3"),
        (&["exec"], "accepts 1 arg(s), received 0"),
        (&["emit"], "accepts 1 arg(s), received 0"),
        (&["create", "subscription"], "accepts 1 arg(s), received 0"),
        (&["create", "subscription", "f", "g"], "accepts at most 1 arg(s), received 2"),
        (&["update", "function"], "accepts between 1 and 2 arg(s), received 0"),
        (&["version", "x"], "accepts 0 arg(s), received 1"),
        (&["context", "set"], "accepts 1 arg(s), received 0"),
        (&["completion", "bash", "zsh"], "accepts at most 1 arg(s), received 2"),
    ] {
        let done = fake.dispatch(args);
        assert_eq!(done.out, "", "{args:?}");
        let error = done.fails();
        assert!(
            error.starts_with(&format!("Error: {wanted}\nUsage: dispatch ")),
            "{args:?}: {error}"
        );
    }
}

#[test]
fn wrong_flags() {
    let fake = Fake::start();
    for (args, wanted) in [
        (&["create", "function", "--nope", "x", "y"][..], "Error: unknown flag: --nope\n"),
        (&["get", "images", "-x"], "Error: unknown shorthand flag: 'x' in -x\n"),
        (&["create", "function", "x", "y", "--image"], "Error: flag needs an argument: --image\n"),
        (&["get", "images", "--port", "abc"], "Error: invalid argument \"abc\" for \"--port\": "),
        (
            &["create", "function", "x", "y", "--egress", "all"],
            "Error: invalid argument \"all\" for \"--egress\": use one of none, proxy, learn, full\n",
        ),
        (&["get", "images", "-o", "xml"], "invalid format option [json|yaml|name|table]\n"),
        (
            &["get", "images", "--scheme", "ftp"],
            "invalid argument \"ftp\" for \"--scheme\": use http or https\n",
        ),
        (
            &["completion", "tcsh"],
            "Error: invalid argument \"tcsh\" for \"[SHELL]\": use one of bash, zsh, fish\n",
        ),
    ] {
        let error = fake.dispatch(args).fails();
        assert!(error.starts_with(wanted), "{args:?}: {error}");
    }
}

#[test]
fn help_is_no_mistake() {
    let fake = Fake::start();
    for args in [
        &[][..],
        &["--help"],
        &["-h"],
        &["help", "get"],
        &["get"],
        &["create"],
        &["delete"],
        &["update"],
        &["apply"],
        &["edit"],
        &["manage"],
        &["get", "runs", "--help"],
    ] {
        let out = fake.dispatch(args).ok();
        let words: Vec<_> =
            args.iter().filter(|word| !word.starts_with('-') && **word != "help").collect();
        let usage = words.iter().fold("Usage: dispatch".to_owned(), |text, word| {
            text + " " + word.trim_end_matches('s')
        });
        assert!(out.contains(&usage), "{args:?}: {out}");
    }
}

#[test]
fn servers_that_do_not_answer_as_they_should() {
    let fake = Fake::start();
    fake.expect_text("GET /v1/function", 502, "text/html", "<h1>Bad\u{1b}[2J Gateway</h1>");
    let error = fake.dispatch(&["get", "functions"]).fails();
    let url = format!("http://127.0.0.1:{}/v1/function", fake.port);
    let wanted = format!(
        "unexpected error received from server: Get {url}: HTTP 502 Bad Gateway: <h1>Bad\u{fffd}[2J Gateway</h1>\n"
    );
    assert_eq!(error, wanted);
    fake.expect_text("GET /v1/function", 200, "application/json", "{\"not\": \"a list\"");
    let error = fake.dispatch(&["get", "functions"]).fails();
    assert!(
        error.starts_with(&format!("unexpected error received from server: {url}: ")),
        "{error}"
    );
    fake.expect("GET /v1/function", 401, &json!({"code": 401, "message": "who are you"}));
    let error = fake.dispatch(&["get", "functions"]).fails();
    assert!(error.starts_with("[Code: 401] who are you\n") && error.contains("--token"), "{error}");
    // A port that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.to_string();
    let error = fake.dispatch(&["get", "functions", "--port", &port]).fails();
    let wanted =
        format!("unexpected error received from server: Get http://127.0.0.1:{port}/v1/function: ");
    assert!(error.starts_with(&wanted), "{error}");
    assert!(error.ends_with("Is the server running? Start it with: dispatch up\n"), "{error}");
    // Names are checked before they become a part of a URL.
    for name in ["..", "a/b", "", "a b"] {
        let error = fake.dispatch(&["get", "function", name]).fails();
        assert_eq!(error, "[Code: 605] functionName in path should match '^[\\w\\d\\-]+$'\n");
    }
}

#[test]
fn a_redirect_does_not_take_credentials_elsewhere() {
    let fake = Fake::start();
    fake.expect("POST /v1/secret", 308, &json!("moved"));
    fake.file("s.json", "{}");
    let error = fake.dispatch(&["create", "secret", "s", "s.json"]).fails();
    assert!(error.contains("HTTP 308 Permanent Redirect"), "{error}");
}

#[test]
fn output_that_nobody_reads_is_no_failure() {
    let fake = Fake::start();
    let long: Vec<_> = (0..2000).map(|n| json!({"name": format!("function-{n}")})).collect();
    for args in [&["get", "functions"][..], &["get", "functions", "-o", "json"]] {
        fake.expect("GET /v1/function", 200, &json!(long));
        let mut child = fake.command(args).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let done = finish(child);
        assert_eq!((done.code, done.err.as_str()), (0, ""));
    }
    let mut child = fake.command(&["--help"]).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(finish(child).err, "");
}

#[test]
fn completion_scripts_are_scripts() {
    let fake = Fake::start();
    for shell in ["bash", "zsh", "fish"] {
        let script = fake.dispatch(&["completion", shell]).ok();
        assert!(script.contains("seed-images"), "{shell}");
        let path = fake.file(&format!("completion.{shell}"), &script);
        match std::process::Command::new(shell).arg("-n").arg(&path).output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            // Bash is everywhere; of the others the script is checked where they are installed.
            Err(error) => assert_ne!(shell, "bash", "{error}"),
        }
    }
    assert_eq!(fake.dispatch(&["completion"]).ok(), fake.dispatch(&["completion", "bash"]).ok());
}
