use serde_json::{Value, json};

use crate::support::start;

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_base_image() {
    let t = start().await;
    let url = "dispatchframework/python3-base:0.0.13-knative";
    let made = t.post("/v1/baseimage", json!({ "name": "b", "dockerUrl": url })).await.is(201);
    assert_eq!(made["status"], "INITIALIZED");
    assert_eq!(made["kind"], "BaseImage");
    assert_eq!((&made["dockerUrl"], &made["imageURL"]), (&json!(url), &json!(url)));
    assert_eq!(t.get("/v1/baseimage/b").await.is(200)["status"], "INITIALIZED");
    let ready = t.settled("/v1/baseimage/b").await;
    assert_eq!((&ready["status"], &ready["language"]), (&json!("READY"), &json!("python3")));
    let again = t.post("/v1/baseimage", json!({ "name": "b", "imageURL": url })).await.is(409);
    assert_eq!(again, json!({ "code": 409, "message": "base image b already exists" }));
    let body = json!({ "name": "b", "dockerUrl": url, "language": "nodejs" });
    assert_eq!(t.put("/v1/baseimage/b", body.clone()).await.is(200)["status"], "UPDATING");
    assert_eq!(t.get("/v1/baseimage/b").await.is(200)["language"], "nodejs");
    let mut other = body.clone();
    other["name"] = json!("c");
    assert_eq!(t.put("/v1/baseimage/c", other.clone()).await.is(404)["code"], 404);
    t.put("/v1/baseimage/b", other).await.is(400);
    t.settled("/v1/baseimage/b").await;
    assert_eq!(t.delete("/v1/baseimage/b").await.is(200)["name"], "b");
    let gone = t.get("/v1/baseimage/b").await.is(404);
    assert_eq!(gone["message"], "base image b not found");
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_reference_ends_in_one_reason_that_helps() {
    let t = start().await;
    // No name is looked up, and nothing listens there.
    for (url, wanted) in
        [("127.0.0.1:1/missing/image:latest", "cannot reach 127.0.0.1:1"), ("Python", "python3")]
    {
        let body = json!({ "name": "missing", "dockerUrl": url });
        t.post("/v1/baseimage", body).await.is(201);
        let image = t.settled("/v1/baseimage/missing").await;
        assert_eq!(image["status"], "ERROR");
        let reason = image["reason"].as_array().unwrap();
        assert_eq!(reason.len(), 1);
        assert!(reason[0].as_str().unwrap().contains(wanted), "{image}");
        t.delete("/v1/baseimage/missing").await.is(200);
    }
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_in_name_order_paged_filtered_and_inside_the_organization() {
    let mut t = start().await;
    assert_eq!(t.get("/v1/baseimage").await.is(200), json!([]));
    for name in ["c", "a", "b", "e", "d"] {
        let tags = json!([{ "key": "Application", "value": if name < "c" { "x" } else { "y" } }]);
        let body = json!({ "name": name, "dockerUrl": "python3", "tags": tags });
        t.post("/v1/baseimage", body).await.is(201);
    }
    let names = |body: Value| -> Vec<String> {
        let names = body.as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap().to_owned());
        names.collect()
    };
    assert_eq!(names(t.get("/v1/baseimage").await.is(200)), ["a", "b", "c", "d", "e"]);
    let first = t.get("/v1/baseimage?limit=2").await;
    let next = first.headers["x-dispatch-continue"].to_str().unwrap().to_owned();
    assert_eq!(names(first.is(200)), ["a", "b"]);
    let second = t.get(&format!("/v1/baseimage?limit=3&continue={next}")).await;
    assert_eq!(names(second.is(200)), ["c", "d", "e"]);
    assert_eq!(names(t.get("/v1/baseimage?tags=app=x").await.is(200)), ["a", "b"]);
    assert_eq!(t.get("/v1/baseimage?limit=0").await.is(422)["code"], 603);
    for name in ["a", "b", "c", "d", "e"] {
        t.settled(&format!("/v1/baseimage/{name}")).await;
    }
    t.org("other");
    assert_eq!(t.get("/v1/baseimage").await.is(200), json!([]));
    t.get("/v1/baseimage/a").await.is(404);
    t.delete("/v1/baseimage/a").await.is(404);
    t.stop().await;
}
