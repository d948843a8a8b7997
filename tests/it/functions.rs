//! Functions: what is wrong with them, and how they change.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{Server, until};

#[track_caller]
fn reason(s: &Server, name: &str, source: &str, flags: &[&str]) -> String {
    let path = s.file(&format!("src/{name}/handler.py"), source);
    let mut args = vec!["create", "function", "--image", "python3", name, &path];
    args.extend(flags);
    s.dispatch(&args).ok();
    let function = s.settled("function", name);
    assert_eq!(function["status"], "ERROR", "{function}");
    let reasons = function["reason"].as_array().unwrap();
    assert_eq!(reasons.len(), 1, "{function}");
    reasons[0].as_str().unwrap().to_owned()
}

#[test]
fn a_function_that_cannot_be_loaded_says_why() {
    let s = Server::start();
    s.image("python3");
    let text = reason(&s, "syntax", "def handle(ctx, payload):\n    return (\n", &[]);
    assert!(text.contains("SyntaxError") && text.contains("handler.py"), "{text}");
    assert!(text.contains('2'), "the line: {text}");
    let text = reason(&s, "missing", "def other(a, b): pass\n", &["--handler", "handler.nope"]);
    assert!(text.contains("nope"), "{text}");
    let text = reason(&s, "module", "def handle(a, b): pass\n", &["--handler", "nowhere.handle"]);
    assert!(text.contains("nowhere"), "{text}");
    let text = reason(&s, "signature", "def handle(only_one): pass\n", &[]);
    assert!(text.contains('2') || text.contains("two"), "{text}");
    let text = reason(&s, "import", "import no_such_module\ndef handle(a, b): pass\n", &[]);
    assert!(text.contains("no_such_module"), "{text}");
    let error = s.dispatch(&["exec", "syntax", "--wait", "--input", "{}"]).fails();
    assert!(error.contains("[Code: 404] function syntax is not READY"), "{error}");
}

#[test]
fn an_update_never_leaves_a_gap_and_can_be_taken_back() {
    let s = Server::start();
    s.image("python3");
    let version = |n: usize| format!("def handle(ctx, payload):\n    return {n}\n");
    s.python("fn", &version(1), &[]);
    let path = s.file("src/fn/handler.py", &version(1));
    let stop = AtomicBool::new(false);
    let calls = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let run = s.run("fn", "{}");
                let answer = run["output"].as_i64().unwrap_or_else(|| panic!("{run}"));
                if seen.last() != Some(&answer) {
                    seen.push(answer);
                }
                calls.fetch_add(1, Ordering::Relaxed);
            }
            seen
        });
        for n in 2..=4 {
            std::fs::write(&path, version(n)).unwrap();
            s.dispatch(&["update", "function", "fn", &path]).ok();
            let function = s.ready("function", "fn");
            assert_eq!(function["servingRevision"], n);
            let before = calls.load(Ordering::Relaxed);
            until("calls go on", || calls.load(Ordering::Relaxed) > before + 1);
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(
            caller.join().unwrap(),
            [1, 2, 3, 4],
            "each version, in order, without an error"
        );
    });
    // A broken update leaves the last good revision in service.
    std::fs::write(&path, "def handle(:\n").unwrap();
    s.dispatch(&["update", "function", "fn", &path]).ok();
    assert_eq!(s.settled("function", "fn")["status"], "ERROR");
    assert_eq!(s.run("fn", "{}")["output"], 4);
    s.dispatch(&["rollback", "function", "fn", "--to", "2"]).ok();
    assert_eq!(s.run("fn", "{}")["output"], 2);
    let revisions = s.dispatch(&["get", "function", "fn", "--revisions", "-o", "json"]).json();
    let serving: Vec<_> = revisions
        .as_array()
        .unwrap()
        .iter()
        .filter(|revision| revision["serving"] == true)
        .map(|revision| revision["number"].as_i64().unwrap())
        .collect();
    assert_eq!(serving, [2]);
    let error = s.dispatch(&["rollback", "function", "fn", "--to", "5"]).fails();
    assert!(error.contains('5'), "{error}");
}

#[test]
fn an_archive_that_escapes_is_refused() {
    use std::process::Command;
    let s = Server::start();
    s.image("python3");
    let source = archive(&s, "def handle(a, b): return 1\n", "../../escaped.py");
    let body = format!(r#"{{"name":"evil","image":"python3","source":"{source}"}}"#);
    let posted = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--json", &body])
        .arg(s.api("/v1/function"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&posted.stdout), "201", "{posted:?}");
    let function = s.settled("function", "evil");
    assert_eq!(function["status"], "ERROR");
    assert!(function["reason"][0].as_str().unwrap().contains(".."), "{function}");
    assert!(!s.home().join("escaped.py").exists() && !s.data.join("escaped.py").exists());
}

/// A source archive in base64 that holds one file by this name, whatever it is.
pub fn archive(s: &Server, source: &str, name: &str) -> String {
    s.file("archive/handler.py", source);
    let (dir, archive) = (s.home().join("archive"), s.home().join("archive.tgz"));
    let made = std::process::Command::new("tar")
        .args(["-C", dir.to_str().unwrap(), "-czPf", archive.to_str().unwrap()])
        .args(["--transform", &format!("s,handler.py,{name},"), "handler.py"])
        .status();
    assert!(made.unwrap().success());
    base64(&std::fs::read(&archive).unwrap())
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let symbol = ALPHABET[(n >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= chunk.len() { symbol as char } else { '=' });
        }
    }
    text
}

#[test]
fn a_language_is_a_folder() {
    let languages = crate::support::root().join("examples/languages");
    let s = Server::with(&["--languages-dir", languages.to_str().unwrap()]);
    s.dispatch(&["create", "base-image", "template-base", "template"]).ok();
    s.dispatch(&["create", "image", "template", "template-base"]).ok();
    s.ready("image", "template");
    let text = s.file("greeting.txt", "Hello, $name\n");
    s.dispatch(&["create", "function", "--image", "template", "greeting", &text]).ok();
    assert_eq!(s.ready("function", "greeting")["status"], "READY");
    assert_eq!(s.run("greeting", r#"{"name":"Jon"}"#)["output"], "Hello, Jon\n");
    let run = s.run("greeting", "{}");
    assert_eq!(run["error"]["type"], "InputError", "{run}");
}
