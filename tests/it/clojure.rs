//! Clojure, with dependencies that Maven brings or that lie on the machine: issue 4.

use serde_json::{Value, json};

use crate::support::{Server, root};

/// The operator's settings of Maven: the jars of this machine are its repository.
const SETTINGS: &str = "<settings><localRepository>/usr/share/maven-repo</localRepository>\
    <offline>true</offline></settings>";

/// Whether there is Clojure here.
fn present(s: &Server) -> bool {
    s.dispatch(&["create", "base-image", "clojure-base", "dispatchframework/clojure-base"]).ok();
    let base: Value = s.settled("base-image", "clojure-base");
    if base["status"] == "READY" {
        return true;
    }
    eprintln!("skipped: {}", base["reason"][0]);
    false
}

#[test]
fn the_example_greets_and_libraries_come_by_maven_or_as_jars() {
    let s = Server::start();
    s.file(".m2/settings.xml", SETTINGS);
    if !present(&s) {
        return;
    }
    let image = |name: &str, more: &[&str]| {
        let words = ["create", "image", name, "clojure-base", "--wait"];
        s.dispatch(&[&words[..], more].concat())
    };
    image("clojure", &[]).ok();
    let example = |file: &str| root().join("examples/clojure").join(file).display().to_string();
    let create = |image: &str, name: &str, path: &str| {
        s.dispatch(&["create", "function", "--image", image, name, path, "--wait"]).ok();
        s.ready("function", name);
    };
    create("clojure", "hello", &example("hello.clj"));
    let run = s.run("hello", r#"{"name": "Jon", "place": "Winterfell"}"#);
    assert_eq!(run["output"], json!({"myField": "Hello, Jon from Winterfell"}), "{run}");
    assert_eq!(run["logs"]["stdout"], json!(["greeting Jon"]));
    assert_eq!(s.run("hello", "{}")["output"], json!({"myField": "Hello, Noone from Nowhere"}));

    let deps = std::fs::read_to_string(example("deps.edn")).unwrap();
    // Whatever version this machine has.
    let debian = deps.replace("\"2.10.14\"", "\"debian\"");
    assert_ne!(deps, debian);
    let commented = format!("; libraries\n{debian}");
    let local = "{:deps {org.clojure/clojure {:mvn/version \"1.0\"}\n\
                 joda/time {:local/root \"/usr/share/java/joda-time.jar\"}}}";
    let list = "# one\n/usr/share/java/joda-time.jar # for time\n";
    for (name, manifest) in [("maven", commented.as_str()), ("local", local), ("list", list)] {
        let path = s.file("deps.edn", manifest);
        image(name, &["--runtime-deps", &path]).ok();
        create(name, name, &example("zone.clj"));
        assert_eq!(s.run(name, "{}")["output"], json!({"zone": "UTC"}), "{name}");
    }
    for (manifest, said) in [
        (deps.replace("2.10.14", "0.0.1"), "joda-time:joda-time:jar:0.0.1"),
        (
            "{:deps {a/b {:git/url \"x\"}}}".to_owned(),
            "a/b: only :mvn/version, and :local/root with a jar",
        ),
        (
            "{:deps {a/b {:local/root \"/etc/x.jar\"}}}".to_owned(),
            "a/b: /etc/x.jar is not a jar below /usr/share",
        ),
        ("{:deps".to_owned(), "deps.edn cannot be read"),
        ("{:deps [a]}".to_owned(), "deps.edn is to be"),
        ("/usr/share/../../etc/x.jar".to_owned(), "line 1: /usr/share/../../etc/x.jar is not"),
        ("\nhttps://127.0.0.1:1/a.jar".to_owned(), "line 2: write the path of a jar"),
    ] {
        let path = s.file("bad.edn", &manifest);
        let refused = image("bad", &["--runtime-deps", &path]).fails();
        assert!(refused.contains(said), "{refused}");
        s.dispatch(&["delete", "image", "bad"]).ok();
    }
    // Without the library.
    let path = example("zone.clj");
    let refused = s.dispatch(&["create", "function", "--image", "clojure", "no", &path, "--wait"]);
    assert!(refused.fails().contains("org.joda.time"), "it names what is missing");
}
