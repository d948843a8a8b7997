use serde_json::json;

use crate::support::start;

#[tokio::test(flavor = "multi_thread")]
async fn two_views_of_one_store() {
    let t = start().await;
    let api = json!({ "name": "a", "function": "f", "enabled": true, "methods": ["post"], "uris": ["hello"] });
    let made = t.post("/v1/api", api.clone()).await.is(200);
    assert_eq!((&made["status"], &made["kind"]), (&json!("CREATING"), &json!("API")));
    assert_eq!((&made["uris"], &made["methods"]), (&json!(["/default/hello"]), &json!(["POST"])));
    assert_eq!(t.get("/v1/api/a").await.is(200)["status"], "READY");
    assert_eq!(t.get("/v1/endpoint/a").await.is(200)["kind"], "Endpoint");
    t.post("/v1/endpoint", api).await.is(409);
    // What is read can be written back: the prefix is not doubled.
    let read = t.get("/v1/api/a").await.is(200);
    let back = t.put("/v1/api/a", read).await.is(200);
    assert_eq!((&back["uris"], &back["status"]), (&json!(["/default/hello"]), &json!("UPDATING")));
    let endpoint = json!({ "name": "e", "function": "f", "enabled": true, "uris": ["/hello"] });
    assert_eq!(t.post("/v1/endpoint", endpoint).await.is(200)["uris"], json!(["/hello"]));
    let hosted =
        json!({ "name": "h", "function": "f", "hosts": ["Example.com"], "uris": ["/hello"] });
    let made = t.post("/v1/api", hosted).await.is(200);
    assert_eq!((&made["uris"], &made["hosts"]), (&json!(["/hello"]), &json!(["example.com"])));
    assert_eq!(t.get("/v1/endpoint").await.is(200).as_array().unwrap().len(), 3);
    assert_eq!(t.delete("/v1/api/h").await.is(200)["status"], "DELETING");
    assert_eq!(t.get("/v1/api/h").await.is(404)["message"], "API h not found");
    assert_eq!(t.get("/v1/endpoint/h").await.is(404)["message"], "endpoint h not found");
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_could_mislead_is_refused() {
    let t = start().await;
    let post = |extra: serde_json::Value| {
        let mut body = json!({ "name": "e", "function": "f", "enabled": true, "uris": ["/x"] });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        t.post("/v1/endpoint", body)
    };
    for extra in [
        json!({ "uris": [] }),
        json!({ "uris": ["/a/../b"] }),
        json!({ "uris": ["/a b"] }),
        json!({ "hosts": ["http://x"] }),
        json!({ "protocols": ["ftp"] }),
        json!({ "methods": ["GET /"] }),
        json!({ "authentication": "basic" }),
        json!({ "function": "" }),
    ] {
        assert_eq!(post(extra.clone()).await.status, 422, "{extra}");
    }
    t.stop().await;
}
