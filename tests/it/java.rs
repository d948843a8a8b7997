//! Java, from source to answers, with dependencies that Maven brings: issue 4.

use serde_json::json;

use crate::support::{Server, root};

const EXAMPLES: &str = "examples/java/hello-with-deps";

fn create(s: &Server, name: &str, image: &str, class: &str) {
    let handler = format!("io.dispatchframework.examples.{class}");
    let flags = ["create", "function", "--image", image, name, EXAMPLES, "--handler", &handler];
    s.dispatch(&[&flags[..], &["--wait"]].concat()).ok();
    s.ready("function", name);
}

#[test]
fn the_examples_lie_in_one_tree_and_need_not_all_compile() {
    let s = Server::start();
    s.image("java");
    create(&s, "hello", "java", "Hello");
    create(&s, "classes", "java", "HelloWithClasses");
    assert_eq!(s.run("hello", "{}")["output"], "Hello, Someone from Somewhere");
    let input = r#"{"name": "Jon", "place": "Winterfell"}"#;
    assert_eq!(s.run("hello", input)["output"], "Hello, Jon from Winterfell");
    assert_eq!(s.run("classes", input)["output"], json!({"myField": "Hello, Jon from Winterfell"}));
    // What is not there is named; so is what to do.
    let handler = "io.dispatchframework.examples.HelloWithDeps";
    let flags = ["create", "function", "--image", "java", "deps", EXAMPLES, "--handler", handler];
    let refused = s.dispatch(&[&flags[..], &["--wait"]].concat()).fails();
    assert!(
        refused.contains("HelloWithDeps.java:5: package org.joda.time does not exist"),
        "{refused}"
    );
    // A single file names its class itself.
    let file = format!("{EXAMPLES}/src/main/java/io/dispatchframework/examples/Hello.java");
    s.dispatch(&["create", "function", "--image", "java", "single", &file, "--wait"]).ok();
    // After a restart the built source is found again.
    let s = s.crash_and_restart(&[]);
    assert_eq!(s.run("single", "{}")["output"], "Hello, Someone from Somewhere");
}

/// The operator's settings of Maven: the jars of this machine are its repository.
const SETTINGS: &str = "<settings><localRepository>/usr/share/maven-repo</localRepository>\
    <offline>true</offline></settings>";

#[test]
fn dependencies_come_by_maven_or_as_jars() {
    let s = Server::start();
    s.file(".m2/settings.xml", SETTINGS);
    s.image("java");
    let with = |name: &str, manifest: &str| {
        s.dispatch(&["create", "image", name, "java-base", "--runtime-deps", manifest, "--wait"])
    };
    let pom = std::fs::read_to_string(root().join(EXAMPLES).join("pom.xml")).unwrap();
    // Whatever version this machine has.
    let pom = pom.replace("<version>2.10.14<", "<version>debian<");
    with("maven", &s.file("pom.xml", &pom)).ok();
    create(&s, "joda", "maven", "HelloWithDeps");
    assert_eq!(s.run("joda", "{}")["output"], "Hello, Someone from timezone UTC");
    with("jars", &s.file("jars.txt", "# one\n/usr/share/java/joda-time.jar # for time\n")).ok();
    create(&s, "by-jar", "jars", "HelloWithDeps");
    assert_eq!(s.run("by-jar", "{}")["output"], "Hello, Someone from timezone UTC");
    for (manifest, said) in [
        (pom.replace("<version>debian<", "<version>0.0.1<"), "joda-time:joda-time:jar:0.0.1"),
        ("/etc/passwd".to_owned(), "line 1: /etc/passwd is not a jar below /usr/share"),
        ("\n/usr/share/../../etc/x.jar".to_owned(), "line 2: /usr/share/../../etc/x.jar is not"),
        ("https://127.0.0.1:1/a.jar".to_owned(), "its address and sha256:"),
    ] {
        let refused = with("bad", &s.file("bad.txt", &manifest)).fails();
        assert!(refused.contains(said), "{refused}");
        s.dispatch(&["delete", "image", "bad"]).ok();
    }
    // A configuration whose bean is the function. Debian's Spring cannot subclass configurations, so
    // this one says of itself that it need not.
    let spring = std::fs::read_to_string(root().join("examples/java/spring-pom.xml")).unwrap();
    let (version, rest) = spring.split_once("<version>5").unwrap();
    let rest = rest.split_once("</version>").unwrap().1;
    let spring = format!("{version}<version>debian</version>{rest}");
    with("spring", &s.file("spring-pom.xml", &spring)).ok();
    let code = std::fs::read_to_string(
        root().join(EXAMPLES).join("src/main/java/io/dispatchframework/examples/HelloSpring.java"),
    );
    let code = code.unwrap().replace("@Configuration\n", "");
    let path = s.file("HelloSpring.java", &code);
    s.dispatch(&["create", "function", "--image", "spring", "bean", &path, "--wait"]).ok();
    s.ready("function", "bean");
    let said = &s.run("bean", r#"{"name": "Jon"}"#)["output"];
    assert_eq!(*said, json!({"myField": "Hello, Jon from Nowhere"}));
}
