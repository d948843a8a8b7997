//! Gems that a function needs, from a source of the test's own: issue 4.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::{FileServer, Server};

fn run(directory: &Path, program: &str, arguments: &[&str]) {
    let output =
        Command::new(program).args(arguments).current_dir(directory).output().expect(program);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A source of gems with `tiny` 1.2.3.
fn gems(directory: &Path) -> FileServer {
    std::fs::create_dir_all(directory.join("lib")).unwrap();
    std::fs::create_dir_all(directory.join("gems")).unwrap();
    std::fs::write(directory.join("lib/tiny.rb"), "module Tiny\n  VALUE = 42\nend\n").unwrap();
    let gemspec = "Gem::Specification.new do |s|\n  s.name = 'tiny'\n  s.version = '1.2.3'\n  \
                   s.summary = 'small'\n  s.authors = ['nobody']\n  s.files = ['lib/tiny.rb']\nend\n";
    std::fs::write(directory.join("tiny.gemspec"), gemspec).unwrap();
    run(directory, "gem", &["build", "--quiet", "--output", "gems/tiny-1.2.3.gem", "tiny.gemspec"]);
    run(directory, "gem", &["generate_index", "--quiet", "--directory", "."]);
    FileServer::start(directory)
}

#[test]
fn gems_are_installed_into_the_layer() {
    let s = Server::start();
    s.image("ruby");
    let files = gems(&s.home().join("gems"));
    let port = files.port;
    let manifest = |gem: &str| format!("source 'http://127.0.0.1:{port}'\ngem '{gem}'\n");
    let path = s.file("Gemfile", &manifest("tiny"));
    s.dispatch(&["create", "image", "tiny", "ruby-base", "--runtime-deps", &path]).ok();
    s.ready("image", "tiny");
    let source = "require 'tiny'\ndef handle(context, payload)\n  Tiny::VALUE + payload\nend\n";
    let path = s.file("src/answer.rb", source);
    s.dispatch(&["create", "function", "--image", "tiny", "answer", &path]).ok();
    s.ready("function", "answer");
    assert_eq!(s.run("answer", "1")["output"], json!(43));
    let layers = || std::fs::read_dir(s.data.join("layers")).unwrap().flatten();
    let aged = || {
        for layer in layers() {
            let then = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
            std::fs::File::open(layer.path()).unwrap().set_modified(then).unwrap();
        }
        s.dispatch(&["manage", "gc", "--older-than", "1"]).ok()
    };
    assert_eq!(aged(), "0 removed, 0 B\n");
    s.dispatch(&["delete", "image", "tiny"]).ok();
    assert_eq!(aged(), "0 removed, 0 B\n", "the function uses it");
    s.dispatch(&["delete", "function", "answer"]).ok();
    assert!(aged().contains("1 removed"));
    assert_eq!(layers().count(), 0);
    let path = s.file("Gemfile", &manifest("missing-gem"));
    s.dispatch(&["create", "image", "missing", "ruby-base", "--runtime-deps", &path]).ok();
    let image = s.settled("image", "missing");
    assert_eq!(image["status"], "ERROR");
    assert!(image["reason"][0].as_str().unwrap().contains("missing-gem"), "{image}");
}
