use serde_json::json;

use crate::support::start;

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_an_image() {
    let t = start().await;
    let missing = json!({ "name": "i", "baseImageName": "nope" });
    let refused = t.post("/v1/image", missing.clone()).await.is(400);
    assert_eq!(refused["message"], "Error fetching base image nope");
    // The base image is asked for before the image itself.
    t.put("/v1/image/i", missing).await.is(400);
    t.image("python3").await;
    let image = t.get("/v1/image/python3").await.is(200);
    assert_eq!(
        (&image["baseImageName"], &image["baseImage"]),
        (&json!("python3-base"), &json!("python3-base"))
    );
    assert_eq!(image["language"], "python3");
    assert_eq!(image["runtimeDependencies"], json!({}));
    assert_eq!(image["systemDependencies"], json!({ "packages": null }));
    let update =
        json!({ "name": "python3", "baseImage": "python3-base", "tags": [{ "key": "update" }] });
    t.put("/v1/image/python3", update).await.is(200);
    assert_eq!(t.get("/v1/image/python3").await.is(200)["tags"][0]["key"], "update");
    assert_eq!(t.settled("/v1/image/python3").await["status"], "READY");
    let log = t.get("/v1/image/python3/logs").await;
    assert!(log.text.contains("python3"), "{}", log.text);
    assert_eq!(t.delete("/v1/image/python3").await.is(200)["status"], "DELETED");
    t.get("/v1/image/python3").await.is(404);
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn system_packages_of_this_machine_are_its_administrators() {
    let t = start().await;
    t.image("python3").await;
    let body = json!({ "name": "i", "baseImageName": "python3-base",
        "systemDependencies": { "packages": [{ "name": "jq", "version": "1.6" }] } });
    t.post("/v1/image", body).await.is(201);
    let image = t.settled("/v1/image/i").await;
    assert_eq!(image["status"], "ERROR");
    assert!(image["reason"][0].as_str().unwrap().contains("--system-deps"), "{image}");
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dependencies_are_installed_once_and_a_failure_shows_the_installers_words() {
    let t = start().await;
    t.image("python3").await;
    let image = |name: &str, manifest: &str| {
        json!({ "name": name, "baseImageName": "python3-base",
            "runtimeDependencies": { "manifest": manifest } })
    };
    t.post("/v1/image", image("one", "six==1.16.0\n")).await.is(201);
    let one = t.settled("/v1/image/one").await;
    assert_eq!(one["status"], "READY", "{one}");
    t.post("/v1/image", image("two", "six==1.16.0\n")).await.is(201);
    assert_eq!(t.settled("/v1/image/two").await["status"], "READY");
    let log = t.get("/v1/image/two/logs").await.text;
    assert!(log.contains("found"), "the same layer serves both: {log}");
    let source = "import six\ndef handle(ctx, payload):\n    return six.__version__\n";
    let body = json!({ "name": "f", "image": "one", "source": crate::support::archive(source) });
    t.post("/v1/function", body).await.is(201);
    let function = t.settled("/v1/function/f").await;
    assert_eq!(function["status"], "READY", "{function}");
    let run = t.post("/v1/runs?functionName=f", json!({ "blocking": true })).await.is(200);
    assert_eq!(run["output"], "1.16.0");
    t.post("/v1/image", image("bad", "no-such-package-of-dispatch==0\n")).await.is(201);
    let bad = t.settled("/v1/image/bad").await;
    assert_eq!(bad["status"], "ERROR");
    assert!(bad["reason"][0].as_str().unwrap().contains("no-such-package-of-dispatch"), "{bad}");
    let body = json!({ "name": "g", "image": "bad", "source": crate::support::archive(source) });
    t.post("/v1/function", body).await.is(201);
    let function = t.settled("/v1/function/g").await;
    assert!(
        function["reason"][0].as_str().unwrap().starts_with("image in error status"),
        "{function}"
    );
    t.stop().await;
}
