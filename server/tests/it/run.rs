use std::time::Duration;

use serde_json::json;

use crate::support::{base64, start};

const ECHO: &str = "def handle(ctx, payload):\n    return {'ctx': ctx, 'payload': payload}\n";

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_name_nothing_to_run() {
    let t = start().await;
    let none = t.post("/v1/runs", json!({})).await.is(400);
    assert_eq!(none["message"], "Bad Request: No function specified");
    let empty = t.request(reqwest::Method::POST, "/v1/runs?functionName=f");
    assert_eq!(t.send(empty).await.is(400)["message"], "Bad Request: Invalid Payload");
    let unknown = t.post("/v1/runs?functionName=f", json!({})).await.is(404);
    assert_eq!(unknown["message"], "function f not found");
    assert_eq!(t.post("/v1/runs?functionName=a%2Fb", json!({})).await.is(422)["code"], 605);
    assert_eq!(t.get("/v1/runs?functionName=f").await.is(200), json!([]));
    assert_eq!(t.get("/v1/runs/nope").await.is(422)["code"], 601);
    assert_eq!(t.get("/v1/runs?since=x").await.is(422)["code"], 601);
    let id = "4bf64461-48d5-41de-9c33-02160420b53c";
    t.get(&format!("/v1/runs/{id}")).await.is(404);
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_has_its_record_and_filters_find_it() {
    let mut t = start().await;
    t.image("python3").await;
    t.python("f", ECHO).await;
    t.python("g", "def handle(ctx, payload):\n    raise RuntimeError('no')\n").await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = t.request(reqwest::Method::POST, "/v1/runs?functionName=f");
    let body = json!({ "blocking": true, "input": 42, "httpContext": { "method": "PUT" },
        "tags": [{ "key": "k", "value": "v" }] });
    let run = t.send(request.header("traceparent", trace).json(&body)).await.is(200);
    assert_eq!(run["output"]["payload"], 42);
    assert_eq!(run["output"]["ctx"]["httpContext"]["method"], "PUT");
    assert_eq!(run["output"]["ctx"]["traceparent"], trace);
    assert_eq!(run["output"]["ctx"]["secrets"], json!({}));
    assert_eq!(run["output"]["ctx"]["runId"], run["name"]);
    assert_eq!((&run["status"], &run["reason"]), (&json!("READY"), &json!(null)));
    assert_eq!(run["secrets"], json!([]));
    let id = run["name"].as_str().unwrap();
    assert_eq!(
        t.get(&format!("/v1/runs/{id}?functionName=f&since=-62135596800")).await.is(200)["name"],
        run["name"]
    );
    t.get(&format!("/v1/runs/{id}?functionName=g")).await.is(404);
    let failed = t.post("/v1/runs?functionName=g", json!({ "blocking": true })).await.is(200);
    assert_eq!(
        (&failed["status"], &failed["error"]["type"]),
        (&json!("ERROR"), &json!("FunctionError"))
    );
    let count = async |query: &str| {
        t.get(&format!("/v1/runs{query}")).await.is(200).as_array().unwrap().len()
    };
    assert_eq!(count("").await, 2);
    assert_eq!(count("?functionName=f").await, 1);
    assert_eq!(count("?status=ERROR").await, 1);
    assert_eq!(count("?since=99999999999").await, 0);
    let page = t.get("/v1/runs?limit=1").await;
    let next = page.headers["x-dispatch-continue"].to_str().unwrap().to_owned();
    assert_eq!(page.body[0]["functionName"], "g", "the newest first");
    let page = t.get(&format!("/v1/runs?limit=1&continue={next}")).await.is(200);
    assert_eq!(page[0]["functionName"], "f");
    let id = id.to_owned();
    t.org("other");
    t.get(&format!("/v1/runs/{id}")).await.is(404);
    assert_eq!(t.get("/v1/runs").await.is(200), json!([]));
    t.org("default");
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_raw_form_of_the_second_generation() {
    let t = start().await;
    t.image("python3").await;
    t.python("f", "def handle(ctx, payload):\n    print('hi')\n    return payload['name']\n").await;
    let body = json!({ "httpContext": { "Content-Type": "application/json", "Accept": "application/json" },
        "inputBytes": base64(br#"{"name":"Jo"}"#) });
    let answer = t.post("/v1/runs?functionName=f", body).await.is(200);
    assert_eq!(answer["httpContext"]["Content-Type"], "application/json");
    let wanted =
        json!({ "context": { "logs": { "stdout": ["hi"], "stderr": null } }, "payload": "Jo" });
    let raw = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        answer["outputBytes"].as_str().unwrap(),
    )
    .unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&raw).unwrap(), wanted);
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unwaited_runs_are_made_and_a_full_queue_says_so() {
    let args = dispatch_server::ServerArgs { max_queued_runs: Some(3), ..Default::default() };
    let t = crate::support::start_with(args).await;
    t.image("python3").await;
    t.python(
        "f",
        "import time\ndef handle(ctx, payload):\n    time.sleep(0.3)\n    return payload\n",
    )
    .await;
    let mut ids = Vec::new();
    let mut refused = 0;
    for n in 0..60 {
        let answer = t.post("/v1/runs?functionName=f", json!({ "input": n })).await;
        match answer.status {
            202 => ids.push((answer.body["name"].as_str().unwrap().to_owned(), n)),
            429 => refused += 1,
            other => panic!("{other}: {}", answer.text),
        }
    }
    assert!(refused > 0 && !ids.is_empty(), "{refused} refused, {} accepted", ids.len());
    for (id, n) in ids {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let run = t.get(&format!("/v1/runs/{id}")).await.is(200);
            if run["status"] == "READY" {
                assert_eq!(run["output"], n);
                break;
            }
            assert!(std::time::Instant::now() < end, "{run}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    t.stop().await;
}
