use dispatch_server::ServerArgs;
use serde_json::{Value, json};

use crate::support::{Test, archive, start_with};

const SLEEPER: &str = "
import time
def handle(ctx, payload):
    time.sleep(payload)
    return payload
";

async fn deploy(t: &Test, name: &str, extra: Value) {
    let mut body = json!({ "name": name, "image": "python3", "source": archive(SLEEPER) });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    t.post("/v1/function", body).await.is(201);
    let path = format!("/v1/function/{name}");
    assert_eq!(t.settled(&path).await["status"], "READY");
}

async fn until(t: &Test, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/v1/function/{name}/scale");
    for _ in 0..600 {
        let scale = t.get(&path).await.is(200);
        if wanted(&scale) {
            return scale;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("in vain: {}", t.get(&path).await.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_comes_with_its_reason() {
    let args =
        ServerArgs { max_workers: Some(6), organization_workers: Some(3), ..ServerArgs::default() };
    let t = start_with(args).await;
    t.image("python3").await;
    deploy(&t, "kept", json!({ "minScale": 1, "maxScale": 1 })).await;
    deploy(&t, "timed", json!({ "schedules": ["1 * 00:00-24:00 Asia/Tokyo"], "maxScale": 4 }))
        .await;
    let kept = until(&t, "kept", |scale| scale["workers"]["idle"] == 1).await;
    assert_eq!(
        (&kept["reason"], &kept["least"], &kept["most"]),
        (&json!("minimum"), &json!(1), &json!(1))
    );
    assert_eq!(kept["explanation"], "minScale keeps 1 worker ready");
    let timed = until(&t, "timed", |scale| scale["reason"] == "schedule").await;
    let said = timed["explanation"].as_str().unwrap();
    assert_eq!(said, "the schedule \"1 * 00:00-24:00 Asia/Tokyo\" keeps 1 worker ready now");

    for _ in 0..3 {
        for name in ["kept", "timed"] {
            let path = format!("/v1/runs?functionName={name}");
            t.post(&path, json!({ "blocking": false, "input": 3 })).await.is(202);
        }
    }
    let full = until(&t, "kept", |scale| scale["queued"] == 2).await;
    assert_eq!((&full["reason"], &full["wanted"]), (&json!("maximum"), &json!(1)));
    assert_eq!(
        full["explanation"],
        "2 calls wait, and the function may have no more than 1 worker; raise --max-scale, or \
         --concurrency if its calls mostly wait themselves"
    );
    let shared = until(&t, "timed", |scale| scale["reason"] == "share").await;
    assert_eq!((&shared["wanted"], &shared["workers"]["waiting"]), (&json!(3), &json!(1)));
    let room = json!({ "used": 3, "most": 6, "organizationUsed": 3, "organizationMost": 3 });
    assert_eq!(shared["room"], room);
    let newest = &shared["changes"][0];
    assert_eq!(newest["reason"], "demand");
    assert!(newest["change"].as_i64() > Some(0) && newest["time"].as_i64() > Some(1_600_000_000));
    let function = t.get("/v1/function/timed").await.is(200);
    assert_eq!(function["schedules"], json!(["1 * 00:00-24:00 Asia/Tokyo"]));

    t.get("/v1/function/nobody/scale").await.is(404);
    let broken = json!({ "name": "broken", "image": "python3", "source": archive("x = ") });
    t.post("/v1/function", broken).await.is(201);
    t.settled("/v1/function/broken").await;
    let none = t.get("/v1/function/broken/scale").await.is(200);
    assert_eq!((&none["reason"], &none["most"]), (&json!("zero"), &json!(0)));
    assert!(none["explanation"].as_str().unwrap().contains("--revisions"));
    t.stop().await;
}
