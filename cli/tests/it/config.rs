//! Flags, environment, configuration file, defaults: who wins, and what is sent because of it.

use serde_json::{Value, json};

use crate::support::Fake;

const TWO: &str = r#"{
    "current": "T",
    "contexts": {
        "t": {"host": "127.0.0.1", "port": 18088, "scheme": "http", "organization": "dispatch",
            "cookie": "secret-cookie", "insecure": true},
        "other": {"host": "example.com", "port": 1}
    }
}"#;

#[test]
fn contexts_are_shown_and_changed() {
    let fake = Fake::start();
    let path = fake.file(".dispatch/config.json", TWO);
    let wanted = "  CONTEXT |             CONFIG              \n\
                  -----------------------------------------\n  \
                  * t     | {                               \n          \
                  |   \"host\": \"127.0.0.1\",          \n          \
                  |   \"port\": 18088,                \n          \
                  |   \"scheme\": \"http\",             \n          \
                  |   \"organization\": \"dispatch\",   \n          \
                  |   \"cookie\": \"\",                 \n          \
                  |   \"insecure\": true              \n          \
                  | }                               \n";
    assert_eq!(fake.dispatch(&["context", "current"]).ok(), wanted);
    assert_eq!(fake.dispatch(&["manage", "context"]).ok(), fake.dispatch(&["context"]).ok());
    assert!(fake.dispatch(&["context"]).ok().contains("  other "));
    assert!(!fake.dispatch(&["context"]).ok().contains("secret-cookie"));
    let whole: Value =
        serde_json::from_str(&fake.dispatch(&["context", "-o", "json"]).ok()).unwrap();
    assert_eq!(whole["contexts"]["t"]["cookie"], "secret-cookie");
    assert_eq!(fake.dispatch(&["context", "set", "other"]).ok(), "Set context to other\n");
    assert_eq!(fake.dispatch(&["context", "-o", "name"]).ok(), "other\nt\n");
    let error = fake.dispatch(&["context", "set", "nope"]).fails();
    assert!(error.starts_with("No such context nope\n"), "{error}");
    assert_eq!(fake.dispatch(&["context", "delete", "other"]).ok(), "Deleted context other\n");
    let out = fake.dispatch(&["context", "current"]).ok();
    assert_eq!(out, "No such current context was found other\n");
    assert_eq!(fake.dispatch(&["manage", "context", "-s", "t"]).ok(), "Set context to t\n");
    let saved: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(
        (&saved["current"], &saved["contexts"]["t"]["cookie"]),
        (&json!("t"), &json!("secret-cookie"))
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn files_that_cannot_be_read() {
    let fake = Fake::start();
    let error = fake.dispatch(&["get", "images", "--config", "nope.json"]).fails();
    assert_eq!(
        error,
        "Error reading config file nope.json: open nope.json: no such file or directory\n"
    );
    fake.file("bad.json", "{");
    let error = fake.dispatch(&["get", "images", "--config", "bad.json"]).fails();
    assert!(error.starts_with("Error reading config file bad.json: "), "{error}");
    // The default one may be missing, and a directory for a new one is made.
    assert_eq!(fake.dispatch(&["context"]).ok().lines().count(), 2);
}

#[test]
fn flag_then_environment_then_context_then_default() {
    let fake = Fake::start();
    let port = fake.port;
    let text = json!({"current": "c", "contexts": {"c": {"host": "127.0.0.1", "port": port, "scheme": "http",
        "organization": "from-file", "cookie": "the cookie", "project": "p"}}});
    fake.file("c.json", &text.to_string());
    let ask = |args: &[&str], env: &[(&str, &str)]| {
        fake.expect("GET /v1/image", 200, &json!([]));
        let mut command = fake.command(&[&["get", "images"], args].concat());
        for name in ["HOST", "PORT", "SCHEME", "ORGANIZATION"] {
            command.env_remove(format!("DISPATCH_{name}"));
        }
        command.envs(env.iter().copied()).env("DISPATCH_CONFIG", "c.json");
        let done = crate::support::finish(command.spawn().unwrap());
        assert_eq!(done.code, 0, "{done:?}");
        let asked = fake.asked();
        let header = |name: &str| {
            asked[0]
                .headers
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
                .unwrap_or_default()
        };
        [
            header("x-dispatch-org"),
            header("x-dispatch-project"),
            header("cookie"),
            header("authorization"),
        ]
    };
    assert_eq!(ask(&[], &[]), ["from-file", "p", "the cookie", ""]);
    let env =
        [("DISPATCH_ORGANIZATION", "from-env"), ("DISPATCH_TOKEN", "tok"), ("DISPATCH_PORT", "")];
    assert_eq!(ask(&[], &env), ["from-env", "p", "", "Bearer tok"]);
    assert_eq!(
        ask(&["--organization", "flag", "--project=q"], &env),
        ["flag", "q", "", "Bearer tok"]
    );
    assert_eq!(ask(&["--organization", ""], &[]), ["from-file", "p", "the cookie", ""]);
    let done = fake.dispatch(&["get", "images", "--token", "a\nb"]);
    assert_eq!(done.fails(), "the token or cookie is malformed\n");
}

#[test]
fn without_a_cookie_it_is_said_so() {
    let fake = Fake::start();
    fake.expect("GET /v1/image", 200, &json!([]));
    fake.dispatch(&["get", "images"]).ok();
    assert_eq!(fake.asked()[0].headers["cookie"], "unset");
}

#[test]
fn a_service_account_signs_a_token() {
    let fake = Fake::start();
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
        .arg(fake.home().join("key.pem"))
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: openssl is not installed");
        return;
    }
    fake.expect("GET /v1/image", 200, &json!([]));
    let args = ["get", "images", "--service-account", "robot", "--jwt-private-key", "key.pem"];
    fake.dispatch(&args).ok();
    let asked = fake.asked();
    let token =
        asked[0].headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let token = jsonwebtoken::dangerous::insecure_decode::<Value>(token).unwrap();
    assert_eq!(token.claims["iss"], "dispatch/robot");
    let (iat, exp) = (token.claims["iat"].as_i64().unwrap(), token.claims["exp"].as_i64().unwrap());
    assert_eq!(exp - iat, 3660);
    let error = fake
        .dispatch(&["get", "images", "--service-account", "r", "--jwt-private-key", "no"])
        .fails();
    assert_eq!(error, "error reading key file: open no: no such file or directory\n");
}
