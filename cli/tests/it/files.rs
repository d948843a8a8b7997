//! Files of resources.

use serde_json::{Value, json};

use crate::support::Fake;

const FILE: &str = "\
kind: Secret
name: y1
secrets:
  password: 123
---
kind: Function
name: yfn
image: python3
sourcePath: fn/hello.py
tags:
- key: text
  value: |
    a
    ---
    b
---
kind: API
name: yapi
function: yfn
enabled: true
uris: [/y]
---
";

const PATHS: [&str; 3] = ["/v1/secret", "/v1/function", "/v1/api"];
const NAMES: [&str; 3] = ["y1", "yfn", "yapi"];

fn fake() -> Fake {
    let fake = Fake::start();
    fake.file("work/fn/hello.py", "def handle(a, b): pass\n");
    fake.file("work/f.yaml", FILE);
    fake
}

fn lines(verb: &str) -> String {
    format!("{verb} Secret: y1\n{verb} Function: yfn\n{verb} API: yapi\n")
}

#[test]
fn create_update_apply_delete() {
    let fake = fake();
    let with = |verb: &str| fake.dispatch(&[verb, "-f", "f.yaml", "-w", "work"]);
    for path in PATHS {
        fake.expect(&format!("POST {path}"), 201, &json!({"name": "x"}));
    }
    assert_eq!(with("create").ok(), lines("Created"));
    let asked = fake.asked();
    assert_eq!(asked[0].body["secrets"], json!({"password": "123"}));
    assert_eq!(asked[1].body["tags"][0]["value"], "a\n---\nb\n");
    assert!(asked[1].body["source"].as_str().unwrap().starts_with("H4sI"), "a gzip archive");
    assert_eq!(asked[1].body.get("sourcePath"), None);
    assert_eq!(asked[2].body["enabled"], true);
    let put = |status: u16| {
        for (path, name) in PATHS.iter().zip(NAMES) {
            let answer = json!({"code": status, "message": "m", "name": name});
            fake.expect(&format!("PUT {path}/{name}"), status, &answer);
            if status == 404 {
                fake.expect(&format!("POST {path}"), 201, &answer);
            }
        }
    };
    put(200);
    assert_eq!(with("update").ok(), lines("Updated"));
    put(404);
    assert_eq!(with("apply").ok(), lines("Applied"));
    put(200);
    assert_eq!(with("apply").ok(), lines("Applied"));
    std::fs::remove_file(fake.home().join("work/fn/hello.py")).unwrap();
    fake.expect_text("DELETE /v1/secret/y1", 204, "application/json", "");
    fake.expect("DELETE /v1/function/yfn", 200, &json!({"name": "yfn"}));
    fake.expect("DELETE /v1/api/yapi", 200, &json!({"name": "yapi"}));
    assert_eq!(with("delete").ok(), lines("Deleted"), "the source is not needed");
}

#[test]
fn the_first_error_stops() {
    let fake = fake();
    let exists = json!({"code": 409, "message": "function yfn already exists"});
    fake.expect("POST /v1/secret", 201, &json!({"name": "y1"}));
    fake.expect("POST /v1/function", 409, &exists);
    let done = fake.dispatch(&["create", "--file", "f.yaml", "--work-dir", "work/"]);
    assert_eq!(done.out, "Created Secret: y1\n");
    assert_eq!(done.fails(), "[Code: 409] function yfn already exists\n");
    let error = fake.dispatch(&["create", "-f", "nope.yaml"]).fails();
    assert_eq!(error, "Error reading file nope.yaml: open nope.yaml: no such file or directory\n");
    // Nothing is done when a later document cannot be understood.
    fake.file("bad.yaml", "kind: Image\nname: i\nbaseImageName: b\n---\nkind: Policy\nname: d\n");
    let done = fake.dispatch(&["create", "-f", "bad.yaml"]);
    assert_eq!(done.out, "");
    let wanted = "document 2 of bad.yaml has the unknown kind Policy: it must be API, BaseImage, Driver, \
                  DriverType, Endpoint, Function, Image, Schedule, Secret or Subscription\n";
    assert_eq!(done.fails(), wanted);
}

#[test]
fn the_summary_of_the_old_flag() {
    let fake = Fake::start();
    fake.file("f.yaml", "kind: Secret\nname: s\n---\nkind: Endpoint\nname: e\nfunction: f\n");
    let expect = || {
        fake.expect("POST /v1/secret", 201, &json!({"name": "s", "id": "1"}));
        fake.expect("POST /v1/endpoint", 200, &json!({"name": "e", "function": "f"}));
    };
    let lines = "Created Secret: s\nCreated Endpoint: e\n";
    expect();
    let out = fake.dispatch(&["create", "-f", "f.yaml", "--json"]).ok();
    let summary: Value = serde_json::from_str(out.strip_prefix(lines).unwrap()).unwrap();
    assert_eq!(summary["secrets"][0]["id"], "1");
    assert_eq!(summary["endpoints"][0]["function"], "f");
    assert_eq!((&summary["api"], &summary["organizations"]), (&Value::Null, &Value::Null));
    assert_eq!(summary.as_object().unwrap().len(), 13);
    expect();
    assert_eq!(fake.dispatch(&["create", "-f", "f.yaml", "-o", "json"]).ok(), lines);
}

#[test]
fn files_beside_the_file() {
    let fake = Fake::start();
    fake.file("work/req.txt", "requests\n");
    let image = "kind: Image\nname: i\nbaseImageName: b\nruntimeDependencies:\n  manifest: '@";
    fake.file("i.yaml", &format!("{image}req.txt'\n"));
    fake.file("work/i.yaml", &format!("{image}req.txt'\n"));
    fake.expect("POST /v1/image", 201, &json!({"name": "i"}));
    fake.dispatch(&["create", "-f", "i.yaml", "-w", "work"]).ok();
    assert_eq!(fake.body()["runtimeDependencies"]["manifest"], "requests\n");
    let error = fake.dispatch(&["create", "-f", "i.yaml"]).fails();
    assert_eq!(
        error,
        "Error when reading content of req.txt: open req.txt: no such file or directory\n"
    );
    fake.file("f.yaml", "kind: Function\nname: f\nimage: i\nsourcePath: work\n");
    let error = fake.dispatch(&["create", "-f", "f.yaml"]).fails();
    let wanted =
        "error creating function f: handler is required, source path work is a directory\n";
    assert_eq!(error, wanted);
}

#[test]
fn a_file_from_elsewhere() {
    let fake = Fake::start();
    let site = Site::start(&[
        ("/a/seed.yaml", "kind: Function\nname: f\nimage: i\nsourcePath: fn/x.py\n"),
        ("/a/fn/x.py", "def handle(a, b): pass\n"),
        ("/evil.yaml", "kind: Function\nname: f\nimage: i\nsourcePath: ../../secret.txt\n"),
    ]);
    fake.expect("POST /v1/function", 201, &json!({"name": "f"}));
    let url = format!("{}/a/seed.yaml", site.0);
    let out = fake.dispatch(&["create", "-f", &url, "-w", "new"]).ok();
    assert_eq!(out, "Created Function: f\n");
    let fetched = std::fs::read_to_string(fake.home().join("new/fn/x.py")).unwrap();
    assert_eq!(fetched, "def handle(a, b): pass\n");
    let error = fake.dispatch(&["apply", "-f", &format!("{}/evil.yaml", site.0)]).fails();
    assert!(error.contains("../../secret.txt leads out of the directory"), "{error}");
    let error = fake.dispatch(&["create", "-f", &format!("{}/none.yaml", site.0)]).fails();
    assert!(error.contains("HTTP 404"), "{error}");
    assert!(fake.dispatch(&["update", "-f", &url]).fails().contains("not a URL"));
}

/// A web site.
struct Site(String);

impl Site {
    fn start(pages: &'static [(&'static str, &'static str)]) -> Site {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let mut app = axum::Router::new();
                for (path, text) in pages {
                    app = app.route(path, axum::routing::get(move || async move { *text }));
                }
                axum::serve(listener, app).await.unwrap();
            });
        });
        Site(format!("http://127.0.0.1:{port}"))
    }
}

#[test]
fn the_images_to_start_with() {
    let fake = Fake::start();
    fake.dispatch(&["create", "seed-images", "-O", "seed.yaml"]).ok();
    let seed = std::fs::read_to_string(fake.home().join("seed.yaml")).unwrap();
    assert_eq!(seed.matches("kind: BaseImage").count(), 4);
    let languages = ["nodejs", "python3", "powershell", "java"];
    for language in languages {
        let name = format!("{language}-base");
        fake.expect("POST /v1/baseimage", 201, &json!({ "name": name }));
    }
    for language in languages {
        fake.expect("POST /v1/image", 201, &json!({ "name": language }));
    }
    let out = fake.dispatch(&["create", "seed"]).ok();
    assert!(out.starts_with("Created BaseImage: nodejs-base\n"), "{out}");
    assert!(out.ends_with("Created Image: powershell\nCreated Image: java\n"), "{out}");
    let asked = fake.asked();
    assert_eq!(asked[1].body["dockerUrl"], "dispatchframework/python3-base:0.0.13");
    assert_eq!(asked[5].body["runtimeDependencies"]["manifest"], "requests\n");
    for language in languages {
        let path = format!("DELETE /v1/baseimage/{language}-base");
        fake.expect(&path, 200, &json!({"name": "x"}));
    }
    for language in languages {
        fake.expect(&format!("DELETE /v1/image/{language}"), 200, &json!({"name": "x"}));
    }
    let out = fake.dispatch(&["delete", "seed-images"]).ok();
    assert!(out.ends_with("Deleted Image: java\n"), "{out}");
}
