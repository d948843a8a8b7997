//! Functions in Go.

use serde_json::json;

use crate::support::{FileServer, Server, root};

const HANDLERS: &str = r#"package function

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

type wrong struct{ text string }

func (w wrong) Error() string { return w.text }
func (w wrong) InputError()   {}

func Handle(ctx map[string]any, payload map[string]any) (any, error) {
	fmt.Println("out", payload["what"])
	fmt.Fprintln(os.Stderr, "err")
	switch payload["what"] {
	case "fail":
		return nil, errors.New("it broke")
	case "input":
		return nil, fmt.Errorf("refused: %w", wrong{"not that"})
	case "panic":
		var none []int
		return none[3], nil
	case "large":
		return strings.Repeat("x", 3<<20), nil
	case "exit":
		os.Exit(3)
	}
	return map[string]any{"secret": ctx["secrets"].(map[string]any)["key"], "env": os.Getenv("MINE")}, nil
}

func Typed(n []int) int { return len(n) }

func Slow(ctx context.Context, payload any) error {
	select {
	case <-ctx.Done():
		fmt.Println("stopped")
		return ctx.Err()
	case <-time.After(time.Minute):
		return nil
	}
}

func Wrong(a, b, c int) int { return a }
"#;

#[test]
fn a_function_is_compiled_and_called() {
    let s = Server::start();
    s.image("go");
    let hello = root().join("examples/go/hello.go");
    let hello = hello.to_str().unwrap();
    s.dispatch(&["create", "function", "--image", "go", "hello", hello, "--wait"]).ok();
    let run = s.run("hello", r#"{"name": "Jon", "place": "Winterfell"}"#);
    assert_eq!(run["output"], json!({"myField": "Hello, Jon from Winterfell"}), "{run}");
    let refused = s.run("hello", r#"{"name": 1}"#);
    assert_eq!(refused["error"]["type"], "InputError", "{refused}");

    let path = s.file("src/handlers.go", HANDLERS);
    let secret = s.file("secret.json", r#"{"key": "value"}"#);
    s.dispatch(&["create", "secret", "mine", &secret]).ok();
    let create = |name: &str, more: &[&str]| {
        let words = ["create", "function", "--image", "go", name, &path];
        s.dispatch(&[&words[..], more].concat()).ok();
    };
    create("all", &["--secret", "mine", "--env", "MINE=given"]);
    create("typed", &["--handler", "Typed"]);
    create("slow", &["--handler", "Slow", "--timeout", "300"]);
    create("wrong", &["--handler", "Wrong"]);
    create("missing", &["--handler", "Missing"]);
    s.ready("function", "all");
    let run = s.run("all", "{}");
    assert_eq!(run["output"], json!({"secret": "value", "env": "given"}), "{run}");
    assert_eq!(run["logs"], json!({"stdout": ["out <nil>"], "stderr": ["err"]}));
    let failed = |what: &str| s.run("all", &format!("{{\"what\": \"{what}\"}}"))["error"].clone();
    assert_eq!(failed("fail")["message"], "it broke");
    let input = failed("input");
    assert_eq!(
        (&input["type"], &input["message"]),
        (&json!("InputError"), &json!("refused: not that"))
    );
    let panic = failed("panic");
    assert!(panic["message"].as_str().unwrap().contains("index out of range"), "{panic}");
    assert!(panic["stacktrace"].to_string().contains("handlers.go:"), "{panic}");
    assert!(failed("exit")["message"].as_str().unwrap().contains("exit"), "the worker is gone");
    let large = s.run("all", r#"{"what": "large"}"#);
    assert_eq!(large["output"].as_str().unwrap().len(), 3 << 20);
    s.ready("function", "typed");
    assert_eq!(s.run("typed", "[1, 2, 3]")["output"], json!(3));
    s.ready("function", "slow");
    let slow = s.run("slow", "1");
    assert!(slow["error"]["message"].as_str().unwrap().contains("timeout"), "{slow}");
    let reason = |name: &str| {
        let function = s.settled("function", name);
        assert_eq!(function["status"], "ERROR", "{function}");
        function["reason"][0].as_str().unwrap().to_owned()
    };
    assert!(reason("wrong").contains("takes 3 arguments"), "{}", reason("wrong"));
    assert!(reason("missing").contains("Missing"), "{}", reason("missing"));
    for (source, wanted) in [
        ("package main\n\nfunc Handle(n int) int { return n }\n", "is of package main"),
        ("package function\n\nfunc Handle(n int) int { return m }\n", "undefined: m"),
    ] {
        let path = s.file("bad/handler.go", source);
        s.dispatch(&["create", "function", "--image", "go", "bad", &path]).ok();
        assert!(reason("bad").contains(wanted), "{}", reason("bad"));
        s.dispatch(&["delete", "function", "bad"]).ok();
    }
}

#[test]
fn modules_come_with_the_source() {
    let s = Server::start();
    s.image("go");
    s.file(
        "shop/go.mod",
        "module example.test/shop\n\ngo 1.18\n\nrequire example.test/tax v1.0.0\n",
    );
    s.file(
        "shop/vendor/modules.txt",
        "# example.test/tax v1.0.0\n## explicit; go 1.18\nexample.test/tax\n",
    );
    s.file(
        "shop/vendor/example.test/tax/tax.go",
        "package tax\n\nfunc Of(n int) int { return n / 5 }\n",
    );
    s.file(
        "shop/internal/price/price.go",
        "package price\n\nfunc Of(n int) int { return n * 100 }\n",
    );
    let handler = "package orders\n\nimport (\n\t\"example.test/shop/internal/price\"\n\
                   \t\"example.test/tax\"\n)\n\nfunc Total(n int) int { p := price.Of(n); return p + tax.Of(p) }\n";
    s.file("shop/orders/orders.go", handler);
    let shop = s.home().join("shop").display().to_string();
    let create = ["create", "function", "--image", "go", "total", &shop];
    s.dispatch(&[&create[..], &["--handler", "orders.Total", "--wait"]].concat()).ok();
    assert_eq!(s.run("total", "3")["output"], json!(360));
    let get = s.dispatch(&["get", "function", "total", "-o", "json"]).json();
    assert_eq!(get["handler"], "orders.Total");
}

/// What a proxy of modules has of one.
const PROXY: &str = "
import os, sys, zipfile
place = os.path.join(sys.argv[1], 'example.test/tax/@v')
os.makedirs(place)
module = 'module example.test/tax\\n\\ngo 1.18\\n'
files = {'list': 'v1.0.0\\n', 'v1.0.0.mod': module,
    'v1.0.0.info': '{\"Version\": \"v1.0.0\", \"Time\": \"2026-01-01T00:00:00Z\"}'}
for name, text in files.items():
    with open(os.path.join(place, name), 'w') as file:
        file.write(text)
with zipfile.ZipFile(os.path.join(place, 'v1.0.0.zip'), 'w') as archive:
    archive.writestr('example.test/tax@v1.0.0/go.mod', module)
    archive.writestr('example.test/tax@v1.0.0/tax.go', 'package tax\\n\\nfunc Of(n int) int { return n / 5 }\\n')
";

#[test]
fn modules_come_from_the_image() {
    let place = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("python3").args(["-c", PROXY]).arg(place.path()).output();
    assert!(made.as_ref().unwrap().status.success(), "{made:?}");
    let files = FileServer::start(place.path());
    let proxy = format!("http://127.0.0.1:{}", files.port);
    let s = Server::with_environment(&[("GOPROXY", &proxy), ("GOSUMDB", "off")]);
    s.image("go");
    let manifest = "module shop\n\ngo 1.18\n\nrequire example.test/tax v1.0.0\n";
    let manifest = s.file("go.mod", manifest);
    let create = ["create", "image", "with-tax", "go-base", "--runtime-deps", &manifest, "--wait"];
    s.dispatch(&create).ok();
    let handler = "package shop\n\nimport \"example.test/tax\"\n\nfunc Handle(n int) int { return n + tax.Of(n) }\n";
    let handler = s.file("src/shop.go", handler);
    s.dispatch(&["create", "function", "--image", "with-tax", "shop", &handler, "--wait"]).ok();
    assert_eq!(s.run("shop", "100")["output"], json!(120));
}
