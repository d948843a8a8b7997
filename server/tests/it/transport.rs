use dispatch_server::ServerArgs;
use reqwest::Method;
use serde_json::json;

use crate::support::{start, start_with};

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_transport() {
    let t = start().await;
    let nowhere = t.get("/v1/nowhere").await.is(404);
    assert_eq!(nowhere, json!({ "code": 404, "message": "resource does not exist" }));
    assert_eq!(t.get("/v1/iam/policy").await.is(501)["code"], 501);
    assert_eq!(t.get("/v1/event/nothing").await.is(404)["code"], 404);
    let wrong = t.send(t.request(Method::PATCH, "/v1/function")).await;
    assert_eq!(wrong.status, 405);
    assert!(wrong.headers.contains_key("allow"));
    let broken = t.request(Method::POST, "/v1/secret").header("content-type", "application/json");
    assert_eq!(t.send(broken.body("{")).await.is(400)["code"], 400);
    let text = t.request(Method::POST, "/v1/secret").header("content-type", "text/plain");
    assert_eq!(t.send(text.body("{}")).await.status, 415);
    let untyped = t.request(Method::POST, "/v1/secret").body(r#"{"NAME":"s","other":1}"#);
    t.send(untyped).await.is(201);
    assert_eq!(t.get("/v1/secret/").await.is(200).as_array().unwrap().len(), 1);
    assert_eq!(t.get("/v1/secret/s/").await.is(200)["name"], "s");
    let id = t.request(Method::GET, "/v1/secret").header("x-request-id", "abc-1");
    assert_eq!(t.send(id).await.headers["x-request-id"], "abc-1");
    assert_eq!(t.get("/").await.is(200)["message"], "Default Root Page");
    assert_eq!(t.get("/home").await.is(200)["message"], "Home Page, You have already logged in");
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_from_elsewhere_cannot_use_an_open_server() {
    let t = start().await;
    let body = r#"{"name":"s"}"#;
    let evil = t.request(Method::POST, "/v1/secret").header("origin", "https://evil.example");
    assert_eq!(t.send(evil.body(body)).await.status, 403);
    let rebound = t.request(Method::GET, "/v1/secret").header("host", "evil.example:8080");
    assert_eq!(t.send(rebound).await.status, 403);
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn organizations_by_header() {
    let t = start().await;
    async fn send(t: &crate::support::Test, org: &str) -> crate::support::Answer {
        t.send(reqwest::Client::new().get(t.url("/v1/secret")).header("X-Dispatch-Org", org)).await
    }
    t.post("/v1/secret", json!({ "name": "s" })).await.is(201);
    assert_eq!(send(&t, "").await.is(200).as_array().unwrap().len(), 1, "empty means the default");
    assert_eq!(send(&t, "../x").await.is(422)["code"], 605);
    t.stop().await;
    let strict = ServerArgs { strict_organization: Some(true), ..ServerArgs::default() };
    let t = start_with(strict).await;
    let refused = send(&t, "").await.is(422);
    assert_eq!(refused["code"], 602);
    assert_eq!(refused["message"], "X-Dispatch-Org in header is required");
    assert_eq!(
        t.get("/v1/version").await.is(200)["platform"],
        format!("linux/{}", std::env::consts::ARCH)
    );
    t.stop().await;
}
