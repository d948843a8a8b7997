use std::time::{Duration, Instant};

use dispatch_api::Kind;
use dispatch_server::store::{Entity, NewJob, Store};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Value, json};

use crate::support::{Test, start};

const ECHO: &str = "def handle(ctx, payload):\n    return {'event': ctx['event'], 'secrets': ctx['secrets'], 'payload': payload}\n";

fn nightly() -> Value {
    json!({ "name": "nightly", "function": "f", "cron": "30 2 * * *", "timezone": "Europe/Berlin" })
}

/// Waits until something holds of a schedule.
async fn until(t: &Test, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let schedule = t.get(&format!("/v1/schedule/{name}")).await.is(200);
        if wanted(&schedule) {
            return schedule;
        }
        assert!(Instant::now() < end, "in vain: {schedule}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// The runs of a function, the oldest first, when all have ended.
async fn runs(t: &Test, function: &str) -> Vec<Value> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let list = t.get(&format!("/v1/runs?functionName={function}")).await.is(200);
        let mut list = list.as_array().unwrap().clone();
        if list.iter().all(|run| run["status"] != "INITIALIZED") {
            list.reverse();
            return list;
        }
        assert!(Instant::now() < end, "in vain: {list:?}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Makes a schedule believe that its next tick was to be at that time.
async fn set_back(store: &Store, name: &str, next: Timestamp) {
    let key = name.to_owned();
    let change = move |entity: &mut Entity| {
        entity.body["nextTick"] = json!(next.to_string());
        let (org, run_at) = (entity.org.clone(), next.as_microsecond());
        Ok(vec![NewJob { kind: "schedule", key, org, payload: Value::Null, run_at }])
    };
    store.mutate(Kind::Schedule, "default", name, None, change).await.unwrap();
}

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_made_read_changed_and_removed() {
    let mut t = start().await;
    let made = t.post("/v1/schedule", nightly()).await.is(201);
    assert_eq!((&made["kind"], &made["missed"]), (&json!("Schedule"), &json!("once")));
    let next: Timestamp = made["nextTick"].as_str().unwrap().parse().unwrap();
    let local = next.to_zoned(TimeZone::get("Europe/Berlin").unwrap());
    assert_eq!((local.hour(), local.minute(), local.second()), (2, 30, 0));
    assert_eq!((made.get("lastTick"), made.get("lastRun")), (None, None));
    assert_eq!(made["status"], "ERROR");
    let why = made["reason"][0].as_str().unwrap();
    assert!(why.starts_with("function f does not exist: "), "{why}");
    assert_eq!(t.get("/v1/schedule?status=ERROR").await.is(200).as_array().unwrap().len(), 1);
    assert_eq!(t.get("/v1/schedule?status=READY").await.is(200), json!([]));
    let again = t.post("/v1/schedule", nightly()).await.is(409);
    assert_eq!(again["message"], "schedule nightly already exists");
    t.org("other");
    t.get("/v1/schedule/nightly").await.is(404);
    assert_eq!(t.get("/v1/schedule").await.is(200), json!([]));
    t.delete("/v1/schedule/nightly").await.is(404);
    t.org("default");
    let mut changed = made.clone();
    changed["input"] = json!({ "deep": [1, 2] });
    let changed = t.put("/v1/schedule/nightly", changed).await.is(200);
    assert_eq!(changed["nextTick"], made["nextTick"], "its times are as they were");
    assert_eq!(
        t.put("/v1/schedule/nightly", made.clone()).await.is(409)["error"],
        "revision-conflict"
    );
    let mut paused = changed.clone();
    paused["paused"] = json!(true);
    let paused = t.put("/v1/schedule/nightly", paused).await.is(200);
    assert_eq!((paused.get("nextTick"), &paused["status"]), (None, &json!("READY")));
    let mut hourly = paused.clone();
    (hourly["paused"], hourly["cron"]) = (json!(false), json!("0 * * * *"));
    let hourly = t.put("/v1/schedule/nightly", hourly).await.is(200);
    assert!(hourly["nextTick"].as_str().unwrap().ends_with(":00:00Z"), "{hourly}");
    let mut renamed = hourly.clone();
    renamed["name"] = json!("other");
    t.put("/v1/schedule/nightly", renamed).await.is(400);
    t.delete("/v1/schedule/nightly").await.is(200);
    t.get("/v1/schedule/nightly").await.is(404);
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_come_to_pass_is_refused() {
    let t = start().await;
    let refused = async |fields: Value, code: i64, what: &str| {
        let mut body = json!({ "name": "s", "function": "f" });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = t.post("/v1/schedule", body).await.is(422);
        let message = answer["message"].as_str().unwrap();
        assert!(answer["code"] == code && message.contains(what), "{answer}");
    };
    refused(json!({ "cron": "0 0 30 2 *" }), 605, "\"0 0 30 2 *\" has no tick after now").await;
    refused(json!({ "cron": "every day" }), 605, "cron in body: \"every day\"").await;
    refused(json!({ "at": "2020-01-01T00:00:00Z" }), 605, "2020-01-01T00:00:00Z has passed").await;
    refused(json!({ "cron": "@daily", "timezone": "Mars/Base" }), 605, "timezone in body").await;
    refused(json!({ "cron": "@daily", "missed": "never" }), 606, "missed in body").await;
    refused(json!({}), 602, "cron in body is required").await;
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_calls_the_function_with_its_input_and_secrets() {
    let t = start().await;
    t.image("python3").await;
    t.python("f", ECHO).await;
    t.post("/v1/secret", json!({ "name": "key", "secrets": { "a": "b" } })).await.is(201);
    let body = json!({ "name": "s", "function": "f", "cron": "* * * * * *", "input": { "n": 1 },
        "secrets": ["key"], "tags": [{ "key": "team", "value": "x" }] });
    let made = t.post("/v1/schedule", body).await.is(201);
    assert_eq!(made["status"], "READY", "{made}");
    let ticked = until(&t, "s", |schedule| schedule["lastTick"].is_string()).await;
    assert_eq!(ticked["revision"], made["revision"], "whoever edits it is not in the way");
    let mut paused = ticked.clone();
    paused["paused"] = json!(true);
    t.put("/v1/schedule/s", paused).await.is(200);
    let run = &runs(&t, "f").await[0];
    assert_eq!(run["status"], "READY", "{run}");
    let output = &run["output"];
    assert_eq!(
        (&output["payload"], &output["secrets"]),
        (&json!({ "n": 1 }), &json!({ "a": "b" }))
    );
    let event = &output["event"];
    let names = [&event["specversion"], &event["type"], &event["source"]];
    assert_eq!(names, ["1.0", "dispatch.schedule.tick", "/default/schedule/s"]);
    assert_eq!(event["time"], event["id"]);
    let tags = json!([{ "key": "team", "value": "x" }, { "key": "Schedule", "value": "s" }]);
    assert_eq!(run["tags"], tags);
    // A second later it stands still.
    let count = runs(&t, "f").await.len();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(runs(&t, "f").await.len(), count);
    t.delete("/v1/schedule/s").await.is(200);
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_standstill_missed_ticks_are_made_up_for_as_the_policy_says() {
    let mut t = start().await;
    t.image("python3").await;
    // The last of three daily ticks was half an hour ago.
    let last = Timestamp::now().checked_sub(SignedDuration::from_mins(30)).unwrap();
    let last = last.round(Unit::Minute).unwrap();
    let first = last.checked_sub(days(2)).unwrap();
    let between = last.checked_sub(days(1)).unwrap();
    let time = last.to_zoned(TimeZone::UTC);
    let cron = format!("{} {} * * *", time.minute(), time.hour());
    let policies = [("skip", vec![]), ("once", vec![last]), ("all", vec![first, between, last])];
    let mut next = Value::Null;
    for (missed, _) in &policies {
        t.python(missed, ECHO).await;
        let body = json!({ "name": missed, "function": missed, "cron": cron, "missed": missed });
        next = t.post("/v1/schedule", body).await.is(201)["nextTick"].clone();
    }
    for back in [true, false] {
        t.restart(async |store| {
            for (missed, _) in policies.iter().filter(|_| back) {
                set_back(store, missed, first).await;
            }
        })
        .await;
        for (missed, wanted) in &policies {
            let schedule = until(&t, missed, |schedule| schedule["nextTick"] == next).await;
            let runs = runs(&t, missed).await;
            let mut ticks: Vec<_> =
                runs.iter().map(|run| run["output"]["event"]["time"].as_str().unwrap()).collect();
            ticks.sort_unstable();
            let wanted: Vec<String> = wanted.iter().map(Timestamp::to_string).collect();
            assert_eq!(ticks, wanted, "{missed}");
            let last_tick = schedule.get("lastTick").and_then(Value::as_str);
            assert_eq!(last_tick, wanted.last().map(String::as_str), "{schedule}");
            let said = schedule["reason"][0].as_str().unwrap_or_default();
            assert_eq!(said.contains("were missed and left out"), *missed != "all", "{schedule}");
            assert_eq!(schedule["status"], "READY");
        }
    }
    for (missed, _) in policies {
        t.delete(&format!("/v1/schedule/{missed}")).await.is(200);
    }
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_time_waits_for_its_function_and_comes_once() {
    let t = start().await;
    t.image("python3").await;
    let at = Timestamp::now().checked_add(SignedDuration::from_hours(1)).unwrap();
    let body = json!({ "name": "once", "function": "f", "at": at.to_string() });
    t.post("/v1/schedule", body).await.is(201);
    let past = at.checked_sub(days(1)).unwrap();
    let store = &t.server().app().store;
    let change = move |entity: &mut Entity| {
        entity.body["at"] = json!(past.to_string());
        Ok(Vec::new())
    };
    store.mutate(Kind::Schedule, "default", "once", None, change).await.unwrap();
    set_back(store, "once", past).await;
    let waiting = until(&t, "once", |schedule| schedule["nextTick"] == past.to_string()).await;
    assert_eq!((&waiting["status"], waiting.get("lastTick")), (&json!("ERROR"), None));
    t.python("f", ECHO).await;
    let over = until(&t, "once", |schedule| schedule.get("nextTick").is_none()).await;
    assert_eq!((&over["status"], &over["reason"]), (&json!("READY"), &json!(null)));
    assert_eq!(over["lastTick"], past.to_string());
    let first = runs(&t, "f").await;
    assert_eq!((first.len(), &first[0]["name"]), (1, &over["lastRun"]));
    // A clock that was set back asks for the same tick again.
    set_back(store, "once", past).await;
    until(&t, "once", |schedule| schedule.get("nextTick").is_none()).await;
    assert_eq!(runs(&t, "f").await, first);
    // What is over can be labelled still, but not begun again.
    let mut over = t.get("/v1/schedule/once").await.is(200);
    over["tags"] = json!([{ "key": "a", "value": "b" }]);
    let mut over = t.put("/v1/schedule/once", over).await.is(200);
    assert_eq!((over.get("nextTick"), &over["status"]), (None, &json!("READY")));
    over["at"] = json!(at.checked_sub(days(2)).unwrap().to_string());
    t.put("/v1/schedule/once", over).await.is(422);
    t.delete("/v1/schedule/once").await.is(200);
    t.stop().await;
}
