//! Outputs that scripts know, byte for byte.

use serde_json::{Value, json};

use crate::support::Fake;

fn base_image(name: &str, url: &str, status: &str) -> Value {
    json!({
        "createdTime": 1795358312, "dockerUrl": url, "groups": null,
        "id": "39a0600e-7468-4af4-b893-861f22790433", "kind": "BaseImage", "language": "python3",
        "name": name, "reason": null, "status": status, "tags": null,
    })
}

fn image() -> Value {
    json!({
        "baseImageName": "python3-base", "createdTime": 1795358313,
        "dockerUrl": "127.0.0.1:5000/dispatch/7736cf52-fe92-4f51-bc8c-987360fd9ac7:latest",
        "groups": null, "id": "7736cf52-fe92-4f51-bc8c-987360fd9ac7", "kind": "Image",
        "language": "python3", "name": "python3", "reason": null, "runtimeDependencies": {},
        "status": "READY", "systemDependencies": {"packages": null}, "tags": null,
    })
}

pub fn function(status: &str) -> Value {
    let mut function = json!({
        "createdTime": 1795358314, "faasId": "37b11552-8bce-4932-891b-13caa31c998d",
        "id": "200c2c4e-eb73-4c95-9909-7bf3475f2ae2", "image": "python3", "kind": "Function",
        "handler": "hello.handle", "name": "hello", "reason": null, "schema": {},
        "secrets": ["open-sesame"], "services": null, "status": status, "tags": null,
    });
    if status == "READY" {
        function["functionImageURL"] =
            json!("127.0.0.1:5000/dispatch/func-37b11552-8bce-4932-891b-13caa31c998d:latest");
    }
    function
}

fn secret() -> Value {
    json!({
        "id": "f292d9ed-3820-4bb8-9454-27223ebd8593", "kind": "Secret", "name": "open-sesame",
        "secrets": {"password": "OpenSesame"}, "tags": null,
    })
}

/// `wanted` without the margin that keeps its blanks.
pub fn lines(wanted: &str) -> String {
    wanted
        .lines()
        .filter_map(|line| line.split_once("| "))
        .map(|(_, text)| format!("{text}\n"))
        .collect()
}

/// Members that newer servers add stand at the end.
#[track_caller]
pub fn begins(out: &str, wanted: &str) {
    let wanted = lines(wanted);
    let wanted = wanted.trim_end_matches("\n}\n");
    assert!(out.starts_with(wanted), "{out}\n--- wanted\n{wanted}");
}

#[test]
fn empty_lists() {
    let fake = Fake::start();
    fake.expect("GET /v1/image", 200, &json!([]));
    let wanted = "
        |   NAME | URL | BASEIMAGE | STATUS | CREATED DATE  
        | --------------------------------------------
    ";
    assert_eq!(fake.dispatch(&["get", "images"]).ok(), lines(wanted));
    fake.expect("GET /v1/function", 200, &json!([]));
    let wanted = "
        |   NAME | FUNCTIONIMAGE | STATUS | CREATED DATE  
        | -------------------------------------------
    ";
    assert_eq!(fake.dispatch(&["get", "functions"]).ok(), lines(wanted));
    fake.expect("GET /v1/function", 200, &json!([]));
    assert_eq!(fake.dispatch(&["get", "functions", "--json"]).ok(), "[]\n");
}

#[test]
fn base_images() {
    let fake = Fake::start();
    let url = "127.0.0.1:5000/python3-base:0.0.13";
    let python = base_image("python3-base", url, "READY");
    fake.expect("POST /v1/baseimage", 201, &python);
    let args = ["create", "base-image", "python3-base", url, "--language", "python3"];
    assert_eq!(fake.dispatch(&args).ok(), "Created base image: python3-base\n");
    let body = fake.body();
    assert_eq!(
        (&body["name"], &body["dockerUrl"], &body["language"]),
        (&json!("python3-base"), &json!(url), &json!("python3"))
    );
    let problem = json!({"code": 409, "message": "base image python3-base already exists"});
    fake.expect("POST /v1/baseimage", 409, &problem);
    let error = fake.dispatch(&args).fails();
    assert_eq!(error, "[Code: 409] base image python3-base already exists\n");
    let mut bad = base_image("bad-base", "127.0.0.1:5000/missing/image:latest", "ERROR");
    bad["reason"] = json!(["manifest <unknown> & more"]);
    fake.expect("GET /v1/baseimage", 200, &json!([bad, python]));
    let wanted = "
        |       NAME     |                 URL                 | STATUS |         CREATED DATE          
        | -----------------------------------------------------------------------------------------
        |   bad-base     | 127.0.0.1:5000/missing/image:latest | ERROR  | Sun Nov 22 14:38:32 UTC 2026  
        |   python3-base | 127.0.0.1:5000/python3-base:0.0.13  | READY  | Sun Nov 22 14:38:32 UTC 2026  
    ";
    assert_eq!(fake.dispatch(&["get", "base-image"]).ok(), lines(wanted));
    fake.expect("GET /v1/baseimage/bad-base", 200, &bad);
    let wanted = r#"
        | {
        |     "createdTime": 1795358312,
        |     "dockerUrl": "127.0.0.1:5000/missing/image:latest",
        |     "groups": null,
        |     "id": "39a0600e-7468-4af4-b893-861f22790433",
        |     "kind": "BaseImage",
        |     "language": "python3",
        |     "name": "bad-base",
        |     "reason": [
        |         "manifest \u003cunknown\u003e \u0026 more"
        |     ],
        |     "status": "ERROR",
        |     "tags": null
        | }
    "#;
    begins(&fake.dispatch(&["get", "base-image", "bad-base", "-o", "json"]).ok(), wanted);
    fake.expect("GET /v1/baseimage/python3-base", 200, &python);
    let wanted = r#"
        | createdtime: 1795358312
        | dockerurl: 127.0.0.1:5000/python3-base:0.0.13
        | groups: []
        | id: 39a0600e-7468-4af4-b893-861f22790433
        | kind: BaseImage
        | language: python3
        | name: python3-base
        | reason: []
        | spec: ""
        | status: READY
        | tags: []
    "#;
    begins(&fake.dispatch(&["get", "baseimages", "python3-base", "-o", "yaml"]).ok(), wanted);
    fake.expect("DELETE /v1/baseimage/python3-base", 200, &python);
    let out = fake.dispatch(&["delete", "base-image", "python3-base"]).ok();
    assert_eq!(out, "Deleted base image: python3-base\n");
}

#[test]
fn images() {
    let fake = Fake::start();
    fake.expect("POST /v1/image", 201, &image());
    let out = fake.dispatch(&["create", "image", "python3", "python3-base"]).ok();
    assert_eq!(out, "Created image: python3\n");
    assert_eq!(fake.body()["baseImageName"], "python3-base");
    let problem = json!({"code": 400, "message": "Error fetching base image nope"});
    fake.expect("POST /v1/image", 400, &problem);
    let error = fake.dispatch(&["create", "image", "x", "nope"]).fails();
    assert_eq!(error, "[Code: 400] Error fetching base image nope\n");
    fake.expect("GET /v1/image", 200, &json!([image()]));
    let wanted = "
        |    NAME   |                                 URL                                 |  BASEIMAGE   | STATUS |         CREATED DATE          
        | ----------------------------------------------------------------------------------------------------------------------------------
        |   python3 | 127.0.0.1:5000/dispatch/7736cf52-fe92-4f51-bc8c-987360fd9ac7:latest | python3-base | READY  | Sun Nov 22 14:38:33 UTC 2026  
    ";
    assert_eq!(fake.dispatch(&["get", "images"]).ok(), lines(wanted));
    fake.expect("GET /v1/image/python3", 200, &image());
    let wanted = r#"
        | {
        |     "baseImageName": "python3-base",
        |     "createdTime": 1795358313,
        |     "dockerUrl": "127.0.0.1:5000/dispatch/7736cf52-fe92-4f51-bc8c-987360fd9ac7:latest",
        |     "groups": null,
        |     "id": "7736cf52-fe92-4f51-bc8c-987360fd9ac7",
        |     "kind": "Image",
        |     "language": "python3",
        |     "name": "python3",
        |     "reason": null,
        |     "runtimeDependencies": {},
        |     "status": "READY",
        |     "systemDependencies": {
        |         "packages": null
        |     },
        |     "tags": null
        | }
    "#;
    begins(&fake.dispatch(&["get", "image", "python3", "-o", "json"]).ok(), wanted);
    fake.expect("DELETE /v1/image/python3", 200, &image());
    assert_eq!(fake.dispatch(&["delete", "image", "python3"]).ok(), "Deleted image: python3\n");
    fake.expect_text("GET /v1/image/python3/logs", 200, "text/plain", "Collecting requests\n");
    let out = fake.dispatch(&["get", "image", "python3", "--logs"]).ok();
    assert_eq!(out, "Collecting requests\n");
}

#[test]
fn secrets() {
    let fake = Fake::start();
    fake.file("s.json", r#"{"password": "OpenSesame"}"#);
    fake.expect("POST /v1/secret", 201, &secret());
    let out = fake.dispatch(&["create", "secret", "open-sesame", "s.json"]).ok();
    assert_eq!(out, "Created secret: open-sesame\n");
    assert_eq!(fake.body()["secrets"], json!({"password": "OpenSesame"}));
    let wanted = "
        | Note: secret values are hidden, please use --all flag to get them
        | 
        |                    ID                  |    NAME     | CONTENT   
        | -------------------------------------------------------------
        |   f292d9ed-3820-4bb8-9454-27223ebd8593 | open-sesame | <hidden>  
    ";
    fake.expect("GET /v1/secret", 200, &json!([secret()]));
    assert_eq!(fake.dispatch(&["get", "secret"]).ok(), lines(wanted));
    fake.expect("GET /v1/secret/open-sesame", 200, &secret());
    assert_eq!(fake.dispatch(&["get", "secret", "open-sesame"]).ok(), lines(wanted));
    let wanted = r#"
        | {
        |     "id": "f292d9ed-3820-4bb8-9454-27223ebd8593",
        |     "kind": "Secret",
        |     "name": "open-sesame",
        |     "secrets": {
        |         "password": "OpenSesame"
        |     },
        |     "tags": null
        | }
    "#;
    for flags in [&["--all"][..], &["-o", "json"]] {
        fake.expect("GET /v1/secret/open-sesame", 200, &secret());
        begins(&fake.dispatch(&[&["get", "secret", "open-sesame"], flags].concat()).ok(), wanted);
    }
    fake.expect_text("DELETE /v1/secret/open-sesame", 204, "application/json", "");
    let out = fake.dispatch(&["delete", "secret", "open-sesame"]).ok();
    assert_eq!(out, "Deleted secret: open-sesame\n");
    fake.expect_text("DELETE /v1/secret/open-sesame", 204, "application/json", "");
    let out = fake.dispatch(&["delete", "secret", "open-sesame", "--json"]).ok();
    assert_eq!(out, "{\n    \"name\": \"open-sesame\",\n    \"tags\": null\n}\n");
}

#[test]
fn functions() {
    let fake = Fake::start();
    fake.expect("GET /v1/function/hello", 200, &function("CREATING"));
    let wanted = "
        |   NAME  | FUNCTIONIMAGE |  STATUS  |         CREATED DATE          
        | --------------------------------------------------------------
        |   hello |               | CREATING | Sun Nov 22 14:38:34 UTC 2026  
    ";
    assert_eq!(fake.dispatch(&["get", "function", "hello"]).ok(), lines(wanted));
    fake.expect("GET /v1/function", 200, &json!([function("READY")]));
    let wanted = "
        |   NAME  |                              FUNCTIONIMAGE                               | STATUS |         CREATED DATE          
        | -----------------------------------------------------------------------------------------------------------------------
        |   hello | 127.0.0.1:5000/dispatch/func-37b11552-8bce-4932-891b-13caa31c998d:latest | READY  | Sun Nov 22 14:38:34 UTC 2026  
    ";
    assert_eq!(fake.dispatch(&["get", "functions"]).ok(), lines(wanted));
    fake.expect("GET /v1/function/hello", 200, &function("CREATING"));
    let wanted = r#"
        | {
        |     "createdTime": 1795358314,
        |     "faasId": "37b11552-8bce-4932-891b-13caa31c998d",
        |     "id": "200c2c4e-eb73-4c95-9909-7bf3475f2ae2",
        |     "image": "python3",
        |     "kind": "Function",
        |     "handler": "hello.handle",
        |     "modifiedTime": 0,
        |     "name": "hello",
        |     "reason": null,
        |     "schema": {},
        |     "secrets": [
        |         "open-sesame"
        |     ],
        |     "services": null,
        |     "status": "CREATING",
        |     "tags": null
        | }
    "#;
    begins(&fake.dispatch(&["get", "function", "hello", "-o", "json"]).ok(), wanted);
    fake.expect("GET /v1/function/hello", 200, &function("READY"));
    let wanted = r#"
        | source: ""
        | sourceurl: ""
        | sourcepath: ""
        | createdtime: 1795358314
        | faasid: 37b11552-8bce-4932-891b-13caa31c998d
        | id: 200c2c4e-eb73-4c95-9909-7bf3475f2ae2
        | image: python3
        | functionimageurl: 127.0.0.1:5000/dispatch/func-37b11552-8bce-4932-891b-13caa31c998d:latest
        | kind: Function
        | handler: hello.handle
        | modifiedtime: 0
        | name: hello
        | reason: []
        | schema:
        |   in: null
        |   out: null
        | secrets:
        | - open-sesame
        | services: []
        | status: READY
        | timeout: 0
        | tags: []
    "#;
    begins(&fake.dispatch(&["get", "function", "hello", "-o", "yaml"]).ok(), wanted);
    fake.expect("GET /v1/function", 200, &json!([function("READY")]));
    assert_eq!(fake.dispatch(&["get", "functions", "-o", "name"]).ok(), "hello\n");
    fake.expect("DELETE /v1/function/hello", 200, &function("READY"));
    assert_eq!(fake.dispatch(&["delete", "functions", "hello"]).ok(), "Deleted function: hello\n");
    let problem = json!({"code": 404, "message": "function nope not found"});
    fake.expect("DELETE /v1/function/nope", 404, &problem);
    let error = fake.dispatch(&["delete", "function", "nope"]).fails();
    assert_eq!(error, "[Code: 404] function nope not found\n");
}
