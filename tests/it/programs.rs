//! Functions that are programs of any kind: issue 4.

use serde_json::json;

use crate::support::Server;

#[test]
fn a_shell_script_is_a_function() {
    let s = Server::start();
    s.image("bash");
    let script = "name=$(sed 's/.*\"name\": *\"\\([^\"]*\\)\".*/\\1/')\n\
                  [ \"$name\" != nobody ] || { echo 'who is that?' >&2; exit 65; }\n\
                  echo \"greeting $name\" >&2\n\
                  printf '{\"myField\": \"Hello, %s\"}' \"$name\"\n";
    let path = s.file("hello.sh", script);
    s.dispatch(&["create", "function", "--image", "bash", "hello", &path, "--wait"]).ok();
    s.ready("function", "hello");
    for _ in 0..3 {
        let run = s.run("hello", r#"{"name": "Jon"}"#);
        assert_eq!(run["output"], json!({"myField": "Hello, Jon"}), "{run}");
        assert_eq!(run["logs"]["stderr"], json!(["greeting Jon"]));
    }
    let run = s.run("hello", r#"{"name": "nobody"}"#);
    assert_eq!(run["error"]["type"], "InputError", "{run}");
    let message = run["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("who is that?"), "{message}");
}

#[test]
fn any_program_is_a_function_and_stays_for_the_next_call() {
    let s = Server::start();
    s.image("exec");
    let script =
        "#!/bin/sh\nn=0\nwhile read -r line; do n=$((n+1)); echo \"{\\\"n\\\": $n}\"; done\n";
    let path = s.file("src/count", script);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let source = std::path::Path::new(&path).parent().unwrap().display().to_string();
    let flags = ["create", "function", "--image", "exec", "count", &source];
    s.dispatch(&[&flags[..], &["--handler", "count", "--wait"]].concat()).ok();
    s.ready("function", "count");
    for n in 1..4 {
        assert_eq!(s.run("count", "{}")["output"], json!({ "n": n }));
    }
    let reason = |handler: &str| {
        let name = "other";
        let flags = ["create", "function", "--image", "exec", name, &source, "--handler", handler];
        s.dispatch(&flags).ok();
        let function = s.settled("function", name);
        s.dispatch(&["delete", "function", name]).ok();
        assert_eq!(function["status"], "ERROR", "{function}");
        function["reason"][0].as_str().unwrap().to_owned()
    };
    assert!(reason("missing").contains("missing"), "{}", reason("missing"));
    assert!(reason("sometimes:count").contains("once, lines or frames"));
}
