use serde_json::{Value, json};

use crate::support::{archive, base64, start};

const ONE: &str = "def handle(ctx, payload):\n    return 1\n";
const TWO: &str = "def handle(ctx, payload):\n    return 2\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_function() {
    let t = start().await;
    t.image("python3").await;
    let none = t.post("/v1/function", json!({ "name": "f", "image": "python3" })).await.is(400);
    assert_eq!(none["message"], "either source or sourceURL must be specified");
    let body = json!({ "name": "f", "image": "python3", "source": archive(ONE), "timeout": 5000,
        "tags": [{ "key": "a", "value": "b" }], "handler": "handler.handle" });
    let made = t.post("/v1/function", body.clone()).await.is(201);
    assert_eq!((&made["status"], &made["kind"]), (&json!("INITIALIZED"), &json!("Function")));
    assert!(made.get("source").is_none(), "the source is never answered");
    t.post("/v1/function", body).await.is(409);
    let ready = t.settled("/v1/function/f").await;
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("READY"), &Value::Null), "{ready}");
    assert_eq!((&ready["timeout"], &ready["servingRevision"]), (&json!(5000), &json!(1)));
    let run =
        |t: &crate::support::Test| t.request(reqwest::Method::POST, "/v1/runs?functionName=f");
    let call = t.send(run(&t).json(&json!({ "blocking": true }))).await.is(200);
    assert_eq!(call["output"], 1);

    // Without a source the source stays; the settings are replaced.
    let update = json!({ "name": "f", "image": "python3", "timeout": 6000 });
    let updated = t.put("/v1/function/f", update).await.is(200);
    assert_eq!(updated["status"], "UPDATING");
    assert_ne!(updated["faasId"], ready["faasId"]);
    assert_eq!((&updated["id"], &updated["createdTime"]), (&ready["id"], &ready["createdTime"]));
    let ready = t.settled("/v1/function/f").await;
    assert_eq!((&ready["servingRevision"], &ready["timeout"]), (&json!(2), &json!(6000)));
    let two = json!({ "name": "f", "image": "python3", "source": archive(TWO) });
    t.put("/v1/function/f", two.clone()).await.is(200);
    assert_eq!(t.settled("/v1/function/f").await["servingRevision"], 3);
    assert_eq!(t.send(run(&t).json(&json!({ "blocking": true }))).await.is(200)["output"], 2);
    let back = t.post("/v1/function/f/rollback", json!({})).await.is(200);
    assert_eq!(back["servingRevision"], 2);
    assert_eq!(t.send(run(&t).json(&json!({ "blocking": true }))).await.is(200)["output"], 1);
    let revisions = t.get("/v1/function/f/revisions").await.is(200);
    let numbers: Vec<_> = revisions.as_array().unwrap().iter().map(|r| &r["number"]).collect();
    assert_eq!(numbers, [3, 2, 1]);

    let mut stale = two;
    stale["revision"] = json!("1");
    let conflict = t.put("/v1/function/f", stale).await.is(409);
    assert_eq!(conflict["error"], "revision-conflict");

    assert_eq!(t.delete("/v1/function/f").await.is(200)["status"], "DELETING");
    t.get("/v1/function/f").await.is(404);
    assert_eq!(t.get("/v1/runs?functionName=f").await.is(200), json!([]));
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_or_ends_in_error_with_one_reason() {
    let t = start().await;
    t.image("python3").await;
    let post = |extra: Value| {
        let mut body = json!({ "name": "f", "image": "python3", "source": archive(ONE) });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        t.post("/v1/function", body)
    };
    for (extra, status, code) in [
        (json!({ "name": "" }), 422, 602),
        (json!({ "name": "a b" }), 422, 605),
        (json!({ "name": "../x" }), 422, 605),
        (json!({ "timeout": -1 }), 422, 604),
        (json!({ "timeout": "soon" }), 422, 601),
        (json!({ "egress": "everywhere" }), 422, 606),
        (json!({ "minScale": 3, "maxScale": 2 }), 422, 603),
        (json!({ "schedules": ["5 mon-fri 08:00-18:00 Mars/Base"] }), 422, 605),
        (json!({ "schedules": ["3 * 00:00-24:00"], "maxScale": 2 }), 422, 603),
        (json!({ "schedules": vec!["1 * 00:00-24:00"; 17] }), 422, 603),
        (json!({ "environment": { "A=B": "x" } }), 422, 605),
        (json!({ "schema": { "in": { "type": 7 } } }), 400, 400),
        (json!({ "source": "%%%" }), 400, 400),
    ] {
        let answer = post(extra.clone()).await;
        assert_eq!(answer.status, status, "{extra}: {}", answer.text);
        assert_eq!(answer.body["code"], code, "{extra}: {}", answer.text);
    }
    for (name, extra, word) in [
        ("noimage", json!({ "image": "nope" }), "image nope not found"),
        ("notar", json!({ "source": base64(b"hello") }), "gzip"),
        ("handler", json!({ "handler": "handler.nope" }), "nope"),
        ("syntax", json!({ "source": archive("def handle(") }), "SyntaxError"),
        ("url", json!({ "source": null, "sourceURL": "s3://x/y" }), "non-supported source url"),
    ] {
        let mut extra = extra;
        extra["name"] = json!(name);
        post(extra).await.is(201);
        let function = t.settled(&format!("/v1/function/{name}")).await;
        assert_eq!(function["status"], "ERROR", "{function}");
        let reason = function["reason"].as_array().unwrap();
        assert_eq!(reason.len(), 1, "{function}");
        assert!(reason[0].as_str().unwrap().contains(word), "{function}");
        let refused =
            t.post(&format!("/v1/runs?functionName={name}"), json!({ "blocking": true })).await;
        assert_eq!(refused.is(404)["message"], format!("function {name} is not READY"));
    }
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_waits_for_its_image() {
    let t = start().await;
    let base = json!({ "name": "b", "dockerUrl": "python3" });
    t.post("/v1/baseimage", base).await.is(201);
    t.post("/v1/image", json!({ "name": "python3", "baseImageName": "b" })).await.is(201);
    t.python("f", ONE).await;
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_before_the_first_revision_serves_is_fine() {
    let t = start().await;
    t.image("python3").await;
    let body = |source: &str| json!({ "name": "f", "image": "python3", "source": archive(source) });
    t.post("/v1/function", body(ONE)).await.is(201);
    t.put("/v1/function/f", body(TWO)).await.is(200);
    let function = t.settled("/v1/function/f").await;
    assert_eq!(function["status"], "READY", "{function}");
    let run = t.post("/v1/runs?functionName=f", json!({ "blocking": true })).await.is(200);
    assert_eq!(run["output"], 2);
    t.stop().await;
}
