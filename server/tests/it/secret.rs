use serde_json::json;

use crate::support::{NO_CONTENT, start};

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_secret() {
    let mut t = start().await;
    let body = json!({ "meta": { "name": "s" }, "secrets": { "password": "OpenSesame" } });
    let made = t.post("/v1/secret", body.clone()).await.is(201);
    assert_eq!(
        (&made["name"], &made["meta"]["name"], &made["kind"]),
        (&json!("s"), &json!("s"), &json!("Secret"))
    );
    t.post("/v1/secret", body).await.is(409);
    assert_eq!(t.get("/v1/secret/s").await.is(200)["secrets"]["password"], "OpenSesame");
    let update = json!({ "name": "s", "secrets": { "password": "OpenSesameStreet" } });
    t.put("/v1/secret/s", update.clone()).await.is(201);
    assert_eq!(t.get("/v1/secret").await.is(200)[0]["secrets"]["password"], "OpenSesameStreet");
    t.put("/v1/secret/none", json!({ "name": "none" })).await.is(404);
    t.post("/v1/secret", json!({ "name": "n", "secrets": { "k": 7 } })).await.is(422);
    t.org("other");
    t.get("/v1/secret/s").await.is(404);
    t.put("/v1/secret/s", update).await.is(404);
    t.delete("/v1/secret/s").await.is(404);
    t.org("default");
    let gone = t.delete("/v1/secret/s").await;
    assert_eq!((gone.status, gone.text.as_str()), (NO_CONTENT, ""));
    t.get("/v1/secret/s").await.is(404);
    t.stop().await;
}
