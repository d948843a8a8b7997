//! Names, organizations and variables that try to be more than that.

use serde_json::json;

use crate::http;
use crate::support::Server;

/// No name of anything: they become paths, labels and headers.
const BAD: &[&str] = &[
    "../x",
    "..",
    ".",
    "a/b",
    "a%2fb",
    "a\\b",
    "a b",
    "a\nb",
    "a\0b",
    "",
    "-",
    "а",
    "x\u{202e}y",
    "a'b",
    "a;b",
    "$(id)",
    "*",
];

#[test]
fn names_are_names_and_nothing_else() {
    let s = Server::start();
    let long = "n".repeat(129);
    for name in BAD.iter().copied().chain([long.as_str()]) {
        for (kind, body) in [
            ("function", json!({ "name": name, "image": "python3", "source": "" })),
            ("secret", json!({ "name": name, "secrets": { "a": "b" } })),
            ("image", json!({ "name": name, "baseImageName": "b", "language": "python3" })),
            ("baseimage", json!({ "name": name, "imageUrl": "b", "language": "python3" })),
            ("endpoint", json!({ "name": name, "function": "f", "uris": ["/x"] })),
            ("api", json!({ "name": name, "function": "f", "uris": ["/x"] })),
        ] {
            let path = format!("/v1/{kind}");
            let body = body.to_string();
            let reply = http::api(s.port, "default", "POST", &path, body.as_bytes());
            assert!([400, 422].contains(&reply.status), "{kind} {name:?}: {}", reply.text());
        }
        if name.bytes().any(|byte| byte < 32) || name.is_empty() {
            continue;
        }
        let reply = http::api(s.port, name, "GET", "/v1/function", b"");
        assert_eq!(reply.status, 422, "organization {name:?}: {}", reply.text());
    }
    for path in [
        "/v1/function/../../etc/passwd",
        "/v1/function/..%2f..%2fetc%2fpasswd",
        "/v1/function/%2e%2e",
        "/v1/secret/a%00b",
        "/v1/runs/../secret",
        "/v1/runs/%2e%2e%2fsecret",
        "/v1/image/x/../../secret",
    ] {
        let reply = http::api(s.port, "default", "GET", path, b"");
        assert!([400, 404, 405, 422].contains(&reply.status), "{path}: {}", reply.text());
    }
}

#[test]
fn variables_are_a_functions_own() {
    let s = Server::start();
    s.image("python3");
    let source = "import os\ndef handle(context, payload):\n    return dict(os.environ)\n";
    for (name, value) in
        [("A=B", "x"), ("", "x"), ("A B", "x"), ("1A", "x"), ("LD_PRELOAD\0", "x"), ("A", "x\0y")]
    {
        let mut variables = serde_json::Map::new();
        variables.insert(name.to_owned(), value.into());
        let body =
            json!({ "name": "f", "image": "python3", "source": "", "environment": variables });
        let body = body.to_string();
        let reply = http::api(s.port, "default", "POST", "/v1/function", body.as_bytes());
        assert_eq!(reply.status, 422, "{name:?}: {}", reply.text());
    }
    let hijack = [
        "LD_PRELOAD=/function/evil.so",
        "LD_LIBRARY_PATH=/function",
        "PYTHONSTARTUP=/function/evil.py",
        "PYTHONPATH=/function/evil",
        "PYTHONHOME=/function/evil",
        "NODE_OPTIONS=--require /function/evil.js",
        "PATH=/function",
        "DISPATCH_ADMIN_TOKEN_FILE=/tmp/x",
    ];
    let flags: Vec<&str> = hijack.iter().flat_map(|pair| ["--env", pair]).collect();
    s.python("hijacked", source, &flags);
    s.python("plain", source, &[]);
    let of = |name: &str| http::call(s.port, "default", name, &json!({}))["output"].clone();
    assert_eq!(of("hijacked")["LD_PRELOAD"], "/function/evil.so", "its own worker has them");
    let plain = of("plain");
    let names = plain.as_object().unwrap().keys();
    let names: Vec<&String> =
        names.filter(|name| !name.to_ascii_uppercase().ends_with("_PROXY")).collect();
    assert_eq!(names, ["HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE"], "no other has");
    assert_eq!(plain["PATH"], "/usr/local/bin:/usr/bin:/bin");
}
