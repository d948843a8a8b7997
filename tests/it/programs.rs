//! Functions that are programs of any kind: issue 4.

use std::process::Command;

use serde_json::json;

use crate::support::Server;

/// Answers each call with its number and what the call held; with `FRAMES` by lengths, else by lines.
const COUNT: &str = r#"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>

static char call[4 << 20], answer[5 << 20];

static int next(void) {
#ifdef FRAMES
    uint32_t length;
    if (fread(&length, 4, 1, stdin) != 1) return 0;
    length = ntohl(length);
    if (length >= sizeof call || fread(call, 1, length, stdin) != length) exit(1);
    call[length] = 0;
    return 1;
#else
    return fgets(call, sizeof call, stdin) != NULL;
#endif
}

int main(void) {
    for (int n = 1; next(); n++) {
        char *payload = strstr(call, "\"payload\":") + 10;
        payload[strcspn(payload, "\n")] = 0;
        payload[strlen(payload) - 1] = 0;
        if (!strcmp(payload, "\"input\"")) {
            fputs("not that\n", stderr);
            return 65;
        }
        if (!strcmp(payload, "\"crash\"")) abort();
        fprintf(stderr, "call %d\n", n);
        sprintf(answer, "{\"n\": %d, \"payload\": %s}", n, payload);
        uint32_t length = htonl(strlen(answer));
#ifdef FRAMES
        fwrite(&length, 4, 1, stdout);
        fputs(answer, stdout);
#else
        (void)length;
        puts(answer);
#endif
        fflush(stdout);
    }
    return 0;
}
"#;

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

#[test]
fn a_compiled_program_is_a_function_by_lines_and_by_frames() {
    let s = Server::start();
    s.image("exec");
    let code = s.file("count.c", COUNT);
    // Linked on its own, and with the libraries of the machine.
    for (name, handler, flags) in [
        ("lines", "lines", &["-static"][..]),
        ("frames", "frames:frames", &["-static", "-DFRAMES"]),
        ("linked", "lines:linked", &[]),
    ] {
        let program = s.home().join(name).join(name);
        std::fs::create_dir(program.parent().unwrap()).unwrap();
        let cc = Command::new("cc").args(flags).arg("-o").arg(&program).arg(&code).output();
        let cc = cc.unwrap();
        assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
        let source = program.to_str().unwrap();
        let create = ["create", "function", "--image", "exec", name, source, "--handler", handler];
        s.dispatch(&[&create[..], &["--wait"]].concat()).ok();
        s.ready("function", name);
        for n in 1..4 {
            let run = s.run(name, r#"{"a": ["\u00fc"]}"#);
            assert_eq!(run["output"], json!({"n": n, "payload": {"a": ["ü"]}}), "{run}");
            assert_eq!(run["logs"]["stderr"], json!([format!("call {n}")]));
        }
        let large = "x".repeat(3 << 20);
        let input = s.file("large.json", &json!(large).to_string());
        let input = format!("@{input}");
        let run = s.dispatch(&["exec", name, "--wait", "--input", &input, "-o", "json"]);
        assert_eq!(run.json()["output"]["payload"], large, "{name}");
        let refused = s.run(name, "\"input\"");
        assert_eq!(refused["error"]["type"], "InputError", "{refused}");
        let crashed = s.run(name, "\"crash\"");
        assert_eq!(crashed["error"]["type"], "FunctionError", "{crashed}");
        assert_eq!(s.run(name, "1")["output"]["n"], 1, "another one goes on");
    }
}
