//! Endpoints, runs and versions: outputs that scripts know, byte for byte.

use serde_json::{Value, json};

use crate::golden::{begins, lines};
use crate::support::Fake;

fn api() -> Value {
    json!({
        "authentication": "public", "enabled": true, "function": "hello", "hosts": null,
        "id": "02dfe564-a96e-4c81-aab9-6a25dc5a7cfd", "kind": "API", "methods": ["POST"],
        "name": "post-hello", "protocols": ["http", "https"], "status": "READY", "tags": null,
        "uris": ["/dispatch/hello"],
    })
}

#[test]
fn apis() {
    let fake = Fake::start();
    fake.expect("POST /v1/api", 200, &api());
    let args = [
        "create",
        "api",
        "post-hello",
        "hello",
        "--method",
        "POST,PUT",
        "--path",
        "/hello",
        "-m",
        "GET",
    ];
    assert_eq!(fake.dispatch(&args).ok(), "Created api: post-hello\n");
    let body = fake.body();
    assert_eq!(body["methods"], json!(["POST", "PUT", "GET"]));
    assert_eq!(body["protocols"], json!(["http", "https"]));
    assert_eq!((&body["uris"], &body["enabled"]), (&json!(["/hello"]), &json!(true)));
    assert_eq!(body["authentication"], "public");
    let wanted = "
        |      NAME    | FUNCTION | PROTOCOL  | METHOD | DOMAIN |                 PATH                  |  AUTH  | STATUS | ENABLED  
        | ---------------------------------------------------------------------------------------------------------------------------
        |   post-hello | hello    | http      | POST   |        | http://127.0.0.1:8081/dispatch/hello  | public | READY  | true     
        |              |          | https     |        |        | https://127.0.0.1:8444/dispatch/hello |        |        |          
        | ---------------------------------------------------------------------------------------------------------------------------
    ";
    fake.expect("GET /v1/api", 200, &json!([api()]));
    assert_eq!(fake.dispatch(&["get", "api"]).ok(), lines(wanted));
    fake.expect("GET /v1/api/post-hello", 200, &api());
    assert_eq!(fake.dispatch(&["get", "api", "post-hello"]).ok(), lines(wanted));
    let wanted = r#"
        | {
        |     "authentication": "public",
        |     "enabled": true,
        |     "function": "hello",
        |     "hosts": null,
        |     "id": "02dfe564-a96e-4c81-aab9-6a25dc5a7cfd",
        |     "kind": "API",
        |     "methods": [
        |         "POST"
        |     ],
        |     "name": "post-hello",
        |     "protocols": [
        |         "http",
        |         "https"
        |     ],
        |     "status": "READY",
        |     "tags": null,
        |     "uris": [
        |         "/dispatch/hello"
        |     ]
        | }
    "#;
    fake.expect("GET /v1/api/post-hello", 200, &api());
    begins(&fake.dispatch(&["get", "api", "post-hello", "-o", "json"]).ok(), wanted);
    fake.expect("DELETE /v1/api/post-hello", 200, &api());
    assert_eq!(fake.dispatch(&["delete", "api", "post-hello"]).ok(), "Deleted api: post-hello\n");
    fake.expect("POST /v1/endpoint", 200, &api());
    let args = ["create", "endpoint", "post-hello", "hello", "--https-only", "--disable", "--cors"];
    assert_eq!(fake.dispatch(&args).ok(), "Created endpoint: post-hello\n");
    let asked = fake.asked();
    let body = &asked.last().unwrap().body;
    assert_eq!((&body["protocols"], &body["cors"]), (&json!(["https"]), &json!(true)));
    assert_eq!((&body["uris"], &body["methods"]), (&json!(["/"]), &json!(["GET"])));
    assert_eq!(body["enabled"], Value::Null);
    let wanted = "
        |      NAME    | FUNCTION | PROTOCOL  | METHOD | DOMAIN |                 PATH                  | ENABLED  
        | ---------------------------------------------------------------------------------------------------------
        |   post-hello | hello    | http      | POST   |        | http://127.0.0.1:8081/dispatch/hello  | true     
        |              |          | https     |        |        | https://127.0.0.1:8444/dispatch/hello |          
        | ---------------------------------------------------------------------------------------------------------
    ";
    fake.expect("GET /v1/endpoint", 200, &json!([api(), {"name": "x", "function": "other"}]));
    assert_eq!(fake.dispatch(&["get", "endpoint", "-f", "hello"]).ok(), lines(wanted));
}

#[test]
fn runs() {
    let run = |id: &str, function: &str, status: &str, started: &str, finished: &str| {
        json!({
            "name": format!("{id}-8bce-4932-891b-13caa31c998d"), "functionName": function,
            "status": status, "executedAt": started, "finishedAt": finished,
            "executedTime": 1795358350, "finishedTime": 1795358350, "secrets": [], "tags": [],
        })
    };
    let older = run(
        "00000001",
        "hello",
        "READY",
        "2026-11-22T14:39:10.443563104Z",
        "2026-11-22T14:39:10.44641841Z",
    );
    let newer = run("00000002", "hello", "ERROR", "2026-11-22T14:39:11Z", "");
    let other = run("00000003", "a", "READY", "2026-11-22T14:39:10.5Z", "2026-11-22T14:39:12.5Z");
    let all = json!([older, newer, other]);
    let fake = Fake::start();
    fake.expect("GET /v1/runs", 200, &all);
    let wanted = "
        |                    ID                  | FUNCTION | STATUS |            STARTED             |           FINISHED             
        | -----------------------------------------------------------------------------------------------------------------------
        |   00000002-8bce-4932-891b-13caa31c998d | hello    | ERROR  | 2026-11-22T14:39:11Z           | 2026-11-22T14:39:10Z           
        |   00000003-8bce-4932-891b-13caa31c998d | a        | READY  | 2026-11-22T14:39:10.5Z         | 2026-11-22T14:39:12.5Z         
        |   00000001-8bce-4932-891b-13caa31c998d | hello    | READY  | 2026-11-22T14:39:10.443563104Z | 2026-11-22T14:39:10.44641841Z  
    ";
    assert_eq!(fake.dispatch(&["get", "runs"]).ok(), lines(wanted));
    let order = |by: &str| {
        fake.expect("GET /v1/runs?functionName=hello", 200, &all);
        let out = fake.dispatch(&["get", "runs", "hello", "--by", by, "-o", "name"]).ok();
        out.lines().map(|line| line[7..8].to_owned()).collect::<String>()
    };
    assert_eq!(order("started"), "231");
    assert_eq!(order("finished"), "312");
    assert_eq!(order("function"), "312");
    assert_eq!(order("status"), "213");
    fake.expect("GET /v1/runs?status=ERROR&dead=true&limit=5", 200, &json!([]));
    let args = ["get", "runs", "--dead", "--status", "error", "--limit", "5", "-o", "json"];
    assert_eq!(fake.dispatch(&args).ok(), "[]\n");
    fake.expect("GET /v1/runs", 200, &all);
    let out = fake.dispatch(&["get", "runs", "--last", "-o", "name"]).ok();
    assert_eq!(out, "00000002-8bce-4932-891b-13caa31c998d\n");
    let id = "00000001-8bce-4932-891b-13caa31c998d";
    fake.expect(&format!("GET /v1/runs/{id}?functionName=hello"), 200, &older);
    let out = fake.dispatch(&["get", "run", "hello", id, "--json"]).ok();
    assert!(out.contains("\"functionName\": \"hello\""), "{out}");
    let error = fake.dispatch(&["get", "run", "hello", "nope"]).fails();
    assert_eq!(error, "[Code: 601] runName in path must be of type uuid: \"nope\"\n");
    fake.expect(&format!("POST /v1/runs/{id}/redrive"), 202, &older);
    assert_eq!(fake.dispatch(&["redrive", "run", id]).ok(), format!("Redriven run: {id}\n"));
}

#[test]
fn versions() {
    let fake = Fake::start();
    let server = json!({"version": "v9", "commit": "c", "buildDate": "", "goVersion": "",
        "compiler": "x", "platform": "p"});
    fake.expect("GET /v1/version", 200, &server);
    let client = concat!("Client: v", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(fake.dispatch(&["version"]).ok(), format!("{client}Server: v9\n"));
    let problem = json!({"code": 404, "message": "resource does not exist"});
    fake.expect("GET /v1/version", 404, &problem);
    let done = fake.dispatch(&["version"]);
    assert_eq!(done.out, client);
    assert_eq!(done.fails(), "[Code: 404] resource does not exist\n");
    fake.expect("GET /v1/version", 200, &server);
    let out = fake.dispatch(&["version", "--json"]).ok();
    assert!(out.starts_with("{\n  \"client\": {\n    \"version\": \"v"), "{out}");
    let both: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(both["server"]["version"], "v9");
    fake.expect("GET /v1/version", 404, &problem);
    assert_eq!(fake.dispatch(&["version", "-o", "json"]).out, "");
}
