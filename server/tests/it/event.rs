use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use dispatch_server::ServerArgs;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Test, start, start_with};

const ECHO: &str = "def handle(ctx, payload):\n    return {'event': ctx['event'], 'payload': payload, 'secrets': ctx['secrets']}\n";
const FAIL: &str = "def handle(ctx, payload):\n    raise RuntimeError('no')\n";

fn old(id: &str, event_type: &str, data: impl Into<Value>) -> Value {
    json!({ "cloudEventsVersion": "0.1", "eventID": id, "eventType": event_type, "source": "/s",
        "data": data.into() })
}

fn modern(id: &str, event_type: &str, data: impl Into<Value>) -> Value {
    json!({ "specversion": "1.0", "id": id, "type": event_type, "source": "/s", "data": data.into() })
}

async fn batch(t: &Test, events: &[Value]) -> Answer {
    let request = t.request(Method::POST, "/v1/event").body(json!(events).to_string());
    t.send(request.header("content-type", "application/cloudevents-batch+json")).await
}

fn count(answer: &Answer, name: &str) -> u64 {
    answer.headers[name].to_str().unwrap().parse().unwrap()
}

async fn subscribe(t: &Test, body: Value) {
    t.post("/v1/event/subscriptions", body).await.is(201);
}

/// Waits until a list has so many deliveries in a state.
async fn deliveries(t: &Test, query: &str, wanted: usize) -> Vec<Value> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let list = t.get(&format!("/v1/event/deliveries?{query}")).await.is(200);
        let list = list.as_array().unwrap().clone();
        if list.len() == wanted {
            return list;
        }
        assert!(Instant::now() < end, "{query}: {} and not {wanted}: {list:?}", list.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn runs(t: &Test, function: &str) -> Vec<Value> {
    let runs = t.get(&format!("/v1/runs?functionName={function}")).await.is(200);
    runs.as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_event_is_echoed_and_reaches_every_subscription() {
    let mut t = start().await;
    t.image("python3").await;
    t.python("f", ECHO).await;
    let secret = json!({ "name": "s", "secrets": { "key": "value" } });
    t.post("/v1/secret", secret).await.is(201);
    let body = json!({ "name": "a", "eventType": "order.made", "function": "f", "secrets": ["s"] });
    let made = t.post("/v1/event/subscriptions", body.clone()).await.is(201);
    assert_eq!((&made["status"], &made["kind"]), (&json!("CREATING"), &json!("Subscription")));
    assert!(made.get("id").is_none());
    t.post("/v1/event/subscriptions", body).await.is(409);
    subscribe(&t, json!({ "name": "b", "eventType": "order.*", "function": "f" })).await;
    let event = old("1", "order.made", json!({ "n": 1 }));
    let answer = t.post("/v1/event", event.clone()).await;
    assert_eq!(
        (count(&answer, "x-dispatch-events"), count(&answer, "x-dispatch-deliveries")),
        (1, 2)
    );
    assert_eq!(answer.is(200), event);
    deliveries(&t, "state=delivered", 2).await;
    let of_a = deliveries(&t, "subscription=a", 1).await.remove(0);
    assert_eq!((&of_a["eventId"], &of_a["attempts"]), (&json!("1"), &json!(1)));
    let run = t.get(&format!("/v1/runs/{}", of_a["run"].as_str().unwrap())).await.is(200);
    assert_eq!(run["output"]["payload"], json!({ "n": 1 }));
    let context = json!({ "cloudEventsVersion": "0.1", "eventID": "1", "eventType": "order.made",
        "source": "/s", "data": null });
    assert_eq!(run["output"]["event"], context);
    assert_eq!(run["output"]["secrets"], json!({ "key": "value" }));
    assert_eq!(run["tags"], json!([{ "key": "Subscription", "value": "a" }]));
    let again = t.post("/v1/event", event).await;
    assert_eq!(
        (count(&again, "x-dispatch-duplicates"), count(&again, "x-dispatch-deliveries")),
        (1, 0)
    );
    let progress = t.get("/v1/event/subscriptions/a").await.is(200)["progress"].clone();
    assert_eq!((&progress["delivered"], &progress["lag"]), (&json!(1), &json!(0)));
    // Another organization sees nothing of it, and its events do not come here.
    t.org("other");
    t.get("/v1/event/subscriptions/a").await.is(404);
    let id = of_a["id"].as_str().unwrap();
    t.get(&format!("/v1/event/deliveries/{id}")).await.is(404);
    t.post(&format!("/v1/event/deliveries/{id}/redrive"), json!({})).await.is(404);
    assert_eq!(t.get("/v1/event/log").await.is(200), json!([]));
    assert_eq!(t.get("/v1/event/deliveries").await.is(200), json!([]));
    let answer = t.post("/v1/event", old("1", "order.made", json!(null))).await;
    assert_eq!(
        (count(&answer, "x-dispatch-events"), count(&answer, "x-dispatch-deliveries")),
        (1, 0)
    );
    t.org("default");
    assert_eq!(t.get("/v1/event/log?type=order.made").await.is(200).as_array().unwrap().len(), 1);
    let gone = t.delete("/v1/event/subscriptions/a").await.is(200);
    assert_eq!(gone["status"], "DELETING");
    t.get("/v1/event/deliveries?subscription=a").await.is(404);
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_and_subscriptions_are_refused_whole() {
    let t = start_with(ServerArgs { event_hops: Some(2), ..ServerArgs::default() }).await;
    let wrong = t.post("/v1/event", json!({ "eventType": "t" })).await.is(400);
    let text = wrong["message"].as_str().unwrap();
    assert!(text.starts_with("Error validating event: "), "{text}");
    let mixed = [modern("1", "t", json!(1)), json!({ "id": "2" })];
    assert_eq!(batch(&t, &mixed).await.status, 400);
    let circle = json!({ "specversion": "1.0", "id": "3", "type": "t", "source": "/s",
        "dispatchhops": "3" });
    let circle = batch(&t, &[circle]).await.is(400);
    assert!(circle["message"].as_str().unwrap().contains("circles"), "{circle}");
    let long = "x".repeat(2 << 20);
    assert_eq!(batch(&t, &[modern("4", "t", json!(long))]).await.status, 413);
    assert_eq!(t.get("/v1/event/log").await.is(200), json!([]));
    let request = t.request(Method::POST, "/v1/event").header("content-type", "image/png");
    assert_eq!(t.send(request.body("x")).await.status, 415);
    let subscription = json!({ "name": "a", "function": "f", "filters": [{ "exact": {} }] });
    let refused = t.post("/v1/event/subscriptions", subscription).await.is(422);
    assert!(refused["message"].as_str().unwrap().contains("filters[0].exact"), "{refused}");
    for (query, status) in [("state=lost", 422), ("limit=0", 422), ("subscription=none", 404)] {
        assert_eq!(t.get(&format!("/v1/event/deliveries?{query}")).await.status, status, "{query}");
    }
    assert_eq!(t.get("/v1/event/deliveries/x").await.status, 422);
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_dies_and_comes_back() {
    let t = start().await;
    t.image("python3").await;
    t.python("f", FAIL).await;
    t.python("undertaker", ECHO).await;
    let retry = json!({ "attempts": 3, "backoff": 10, "maxBackoff": 20 });
    let body = json!({ "name": "a", "eventType": "t", "function": "f", "retry": retry });
    subscribe(&t, body).await;
    let body = json!({ "name": "b", "eventType": "t", "function": "f", "retry": retry,
        "deadLetter": { "function": "undertaker" } });
    subscribe(&t, body).await;
    assert_eq!(batch(&t, &[modern("1", "t", json!(7))]).await.status, 202);
    let dead = deliveries(&t, "state=dead&subscription=a", 1).await.remove(0);
    assert_eq!((&dead["attempts"], &dead["error"]), (&json!(3), &json!("no")));
    let buried = deliveries(&t, "state=dead&subscription=b", 1).await.remove(0);
    assert_eq!((&buried["deadLettered"], &buried["error"]), (&json!(true), &json!("no")));
    assert_eq!(runs(&t, "f").await.len(), 6);
    let run = runs(&t, "undertaker").await.remove(0);
    assert_eq!(run["output"]["payload"], 7);
    // The function is mended, and what is dead comes back.
    let source = crate::support::archive(ECHO);
    let mended = json!({ "name": "f", "image": "python3", "source": source });
    t.put("/v1/function/f", mended).await.is(200);
    t.settled("/v1/function/f").await;
    let id = dead["id"].as_str().unwrap();
    t.post(&format!("/v1/event/deliveries/{id}/redrive"), json!({})).await.is(202);
    deliveries(&t, "state=delivered&subscription=a", 1).await;
    t.post(&format!("/v1/event/deliveries/{id}/redrive"), json!({})).await.is(400);
    let all = t.post("/v1/event/redrive?subscription=b", json!({})).await.is(202);
    assert_eq!(all["deliveries"], 1);
    deliveries(&t, "state=delivered&subscription=b", 1).await;
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_not_ready_delays_and_drops_nothing() {
    let t = start().await;
    subscribe(&t, json!({ "name": "a", "eventType": "t", "function": "later" })).await;
    batch(&t, &[modern("1", "t", json!(1)), modern("2", "t", json!(2))]).await;
    let waiting = t.get("/v1/event/subscriptions/a").await.is(200)["progress"].clone();
    assert_eq!(waiting["lag"], 2);
    assert_eq!(waiting["waitingFor"], "function later does not exist");
    t.image("python3").await;
    t.python("later", ECHO).await;
    let delivered = deliveries(&t, "state=delivered", 2).await;
    assert!(delivered.iter().all(|delivery| delivery["attempts"] == 1), "{delivered:?}");
    // Paused ones wait too.
    let paused = json!({ "name": "a", "eventType": "t", "function": "later", "paused": true });
    t.put("/v1/event/subscriptions/a", paused).await.is(200);
    batch(&t, &[modern("3", "t", json!(3))]).await;
    let progress = t.get("/v1/event/subscriptions/a").await.is(200)["progress"].clone();
    assert_eq!((&progress["lag"], &progress["waitingFor"]), (&json!(1), &json!("it is paused")));
    let on = json!({ "name": "a", "eventType": "t", "function": "later" });
    t.put("/v1/event/subscriptions/a", on).await.is(200);
    deliveries(&t, "state=delivered", 3).await;
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_come_as_lists_and_one_bad_event_does_not_spoil_them() {
    let t = start().await;
    t.image("python3").await;
    let source = "def handle(ctx, payload):\n    assert [e['id'] for e in ctx['event']] == [str(p) for p in payload]\n    if 3 in payload:\n        raise RuntimeError('three')\n    return payload\n";
    t.python("f", source).await;
    // Nothing is delivered until all of them are there.
    let mut body = json!({ "name": "a", "eventType": "t", "function": "f", "batch": 10,
        "retry": { "attempts": 2, "backoff": 1, "maxBackoff": 1 }, "paused": true });
    subscribe(&t, body.clone()).await;
    let events: Vec<_> = (0..10).map(|n| modern(&n.to_string(), "t", json!(n))).collect();
    assert_eq!(count(&batch(&t, &events).await, "x-dispatch-deliveries"), 10);
    body["paused"] = json!(false);
    t.put("/v1/event/subscriptions/a", body).await.is(200);
    let dead = deliveries(&t, "state=dead", 1).await.remove(0);
    assert_eq!(dead["eventId"], "3");
    deliveries(&t, "state=delivered", 9).await;
    let first = runs(&t, "f").await.pop().unwrap();
    assert_eq!(first["input"], json!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flooded_subscription_leaves_room_for_others() {
    let t = start_with(ServerArgs { event_concurrency: Some(4), ..ServerArgs::default() }).await;
    t.image("python3").await;
    t.python("slow", "import time\ndef handle(ctx, payload):\n    time.sleep(0.1)\n").await;
    t.python("quick", ECHO).await;
    subscribe(&t, json!({ "name": "flood", "eventType": "flood", "function": "slow" })).await;
    subscribe(&t, json!({ "name": "quick", "eventType": "drop", "function": "quick" })).await;
    let flood: Vec<_> = (0..200).map(|n| modern(&format!("f{n}"), "flood", n)).collect();
    batch(&t, &flood).await;
    deliveries(&t, "subscription=flood&state=delivered&limit=1", 1).await;
    let drops: Vec<_> = (0..5).map(|n| modern(&format!("d{n}"), "drop", n)).collect();
    batch(&t, &drops).await;
    deliveries(&t, "subscription=quick&state=delivered", 5).await;
    let flood = t.get("/v1/event/subscriptions/flood").await.is(200)["progress"].clone();
    assert!(flood["lag"].as_i64() > Some(0), "the flood was over already: {flood}");
    t.delete("/v1/event/subscriptions/flood").await.is(200);
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_with_one_key_come_in_order() {
    let t = start().await;
    t.image("python3").await;
    t.python("f", "import time\ndef handle(ctx, payload):\n    time.sleep(0.02 if payload % 2 else 0)\n    return payload\n").await;
    let body = json!({ "name": "a", "eventType": "t", "function": "f", "orderingKey": "subject" });
    subscribe(&t, body).await;
    let event = |n: i64| {
        let mut event = modern(&n.to_string(), "t", json!(n));
        event["subject"] = json!((n % 3).to_string());
        event
    };
    let events: Vec<_> = (0..18).map(event).collect();
    batch(&t, &events).await;
    deliveries(&t, "state=delivered", 18).await;
    let mut runs = runs(&t, "f").await;
    runs.sort_by_key(|run| run["finishedAt"].as_str().unwrap().to_owned());
    for key in 0..3 {
        let outputs = runs.iter().filter_map(|run| run["output"].as_i64());
        let outputs: Vec<_> = outputs.filter(|n| n % 3 == key).collect();
        assert!(outputs.is_sorted() && outputs.len() == 6, "{key}: {outputs:?}");
    }
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_become_events_until_they_go_round_too_often() {
    let t = start_with(ServerArgs { event_hops: Some(3), ..ServerArgs::default() }).await;
    t.image("python3").await;
    t.python("f", "def handle(ctx, payload):\n    return payload + 1\n").await;
    let body =
        json!({ "name": "loop", "eventType": "t", "function": "f", "reply": { "type": "t" } });
    subscribe(&t, body).await;
    batch(&t, &[modern("1", "t", json!(1))]).await;
    let all = deliveries(&t, "state=delivered", 4).await;
    let error = all[0]["error"].as_str().unwrap();
    assert!(error.contains("reply was dropped") && error.contains("3"), "{error}");
    let log = t.get("/v1/event/log").await.is(200);
    let data: Vec<_> = log.as_array().unwrap().iter().map(|e| e["event"]["data"].clone()).collect();
    assert_eq!(data, [4, 3, 2, 1]);
    assert_eq!(log[0]["event"]["source"], "/default/subscription/loop");
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_replayed_for_one_subscription() {
    let t = start().await;
    t.image("python3").await;
    t.python("f", ECHO).await;
    let events: Vec<_> = (0..5).map(|n| modern(&n.to_string(), "t", json!(n))).collect();
    assert_eq!(count(&batch(&t, &events).await, "x-dispatch-deliveries"), 0);
    subscribe(&t, json!({ "name": "late", "eventType": "t", "function": "f" })).await;
    let mut body = json!({ "subscription": "late", "since": "2020-01-01T00:00:00Z", "dryRun": true,
        "filters": [{ "any": [{ "exact": { "id": "1" } }, { "exact": { "id": "3" } }] }] });
    let counted = t.post("/v1/event/replay", body.clone()).await.is(202);
    assert_eq!(counted, json!({ "events": 5, "deliveries": 2 }));
    assert_eq!(t.get("/v1/event/deliveries").await.is(200), json!([]));
    body["dryRun"] = json!(false);
    assert_eq!(t.post("/v1/event/replay", body.clone()).await.is(202)["deliveries"], 2);
    deliveries(&t, "state=delivered", 2).await;
    body["since"] = json!("yesterday");
    assert_eq!(t.post("/v1/event/replay", body.clone()).await.is(422)["code"], 605);
    body["subscription"] = json!("none");
    t.post("/v1/event/replay", body).await.is(404);
    t.stop().await;
}

/// A place outside that notes what it is sent and answers what it is told to.
#[derive(Clone, Default)]
struct Place {
    seen: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    answers: Arc<Mutex<Vec<(u16, Value)>>>,
}

async fn take(
    State(place): State<Place>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    place.seen.lock().unwrap().push((headers, body));
    let next = place.answers.lock().unwrap().pop();
    let (status, body) = next.unwrap_or((202, Value::Null));
    let kind = if body.is_object() { "application/cloudevents+json" } else { "text/plain" };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    (StatusCode::from_u16(status).unwrap(), [("content-type", kind)], body)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_posted_to_places_the_operator_permits() {
    let place = Place::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/in", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/in", post(take)).with_state(place.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let closed = start().await;
    let retry = json!({ "attempts": 2, "backoff": 1, "maxBackoff": 1 });
    let body = json!({ "name": "out", "eventType": "t", "uri": uri, "retry": retry });
    subscribe(&closed, body.clone()).await;
    batch(&closed, &[modern("1", "t", json!(1))]).await;
    let refused = deliveries(&closed, "state=dead", 1).await.remove(0);
    assert!(refused["error"].as_str().unwrap().contains("loopback"), "{refused}");
    assert!(place.seen.lock().unwrap().is_empty());
    closed.stop().await;

    let permit = "127.0.0.1/32".parse().unwrap();
    let args = ServerArgs { egress_allow_private: Some(permit), ..ServerArgs::default() };
    let open = start_with(args).await;
    subscribe(&open, body).await;
    subscribe(&open, json!({ "name": "reply", "eventType": "done", "uri": uri })).await;
    let reply = modern("r", "done", json!("thanks"));
    // The last is the first: busy, then an event in reply; then one that is final.
    *place.answers.lock().unwrap() = vec![(202, Value::Null), (200, reply), (503, Value::Null)];
    batch(&open, &[modern("2", "t", json!({ "n": 2 }))]).await;
    deliveries(&open, "state=delivered", 2).await;
    place.answers.lock().unwrap().push((400, json!("no")));
    batch(&open, &[modern("3", "t", json!(3))]).await;
    let dead = deliveries(&open, "state=dead", 1).await.remove(0);
    assert_eq!((&dead["attempts"], &dead["eventId"]), (&json!(1), &json!("3")));
    let seen = place.seen.lock().unwrap().clone();
    let ids: Vec<_> = seen.iter().map(|(headers, _)| headers["ce-id"].to_str().unwrap()).collect();
    assert_eq!(ids, ["2", "2", "r", "3"]);
    assert_eq!(seen[0].1, r#"{"n":2}"#);
    assert_eq!(seen[0].0["ce-dispatchhops"], "1");
    assert_eq!(seen[2].0["ce-dispatchhops"], "2");
    open.stop().await;
}
