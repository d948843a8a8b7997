//! Schedules.

use serde_json::{Value, json};

use crate::golden::lines;
use crate::support::Fake;

fn nightly() -> Value {
    json!({
        "name": "nightly", "function": "report", "cron": "30 2 * * *", "timezone": "Europe/Berlin",
        "missed": "once", "nextTick": "2026-11-28T01:30:00Z", "lastTick": "2026-11-27T01:30:00Z",
        "status": "READY", "kind": "Schedule", "revision": "1", "secrets": null, "tags": null,
    })
}

#[test]
fn they_are_created_from_flags() {
    let fake = Fake::start();
    let create = |args: &[&str]| {
        fake.expect("POST /v1/schedule", 201, &nightly());
        let whole = [&["create", "schedule", "nightly", "report"], args].concat();
        assert_eq!(fake.dispatch(&whole).ok(), "Created schedule: nightly\n");
        fake.body()
    };
    let body = create(&["--cron", "*/5 * * * *", "--tz", "Europe/Berlin", "--input", "{\"n\": 1}"]);
    assert_eq!(
        (&body["cron"], &body["timezone"]),
        (&json!("*/5 * * * *"), &json!("Europe/Berlin"))
    );
    assert_eq!((&body["input"], &body["function"]), (&json!({ "n": 1 }), &json!("report")));
    assert_eq!((body.get("at"), body.get("paused")), (None, None));
    fake.file("in.json", "[1, 2]");
    let at = ["--at", "2026-12-24T18:00", "--input", "@in.json", "--missed", "skip", "--paused"];
    let body = create(&[&at[..], &["--secret", "a,b", "-a", "app"]].concat());
    assert_eq!((&body["at"], body.get("cron")), (&json!("2026-12-24T18:00"), None));
    assert_eq!((&body["input"], &body["secrets"]), (&json!([1, 2]), &json!(["a", "b"])));
    assert_eq!((&body["missed"], &body["paused"]), (&json!("skip"), &json!(true)));
    assert_eq!(body["tags"], json!([{ "key": "Application", "value": "app" }]));
    let both = ["create", "schedule", "s", "f", "--cron", "@daily", "--at", "2026-12-24T18:00"];
    assert!(fake.dispatch(&both).fails().contains("cannot be used with"));
    let wrong = ["create", "schedule", "s", "f", "--cron", "@daily", "--input", "{"];
    assert!(fake.dispatch(&wrong).fails().contains("--input"));
}

#[test]
fn an_update_changes_what_is_given() {
    let fake = Fake::start();
    let update = |args: &[&str]| {
        fake.expect("GET /v1/schedule/nightly", 200, &nightly());
        fake.expect("PUT /v1/schedule/nightly", 200, &nightly());
        let whole = [&["update", "schedule", "nightly"], args].concat();
        assert_eq!(fake.dispatch(&whole).ok(), "Updated schedule: nightly\n");
        fake.asked().pop().unwrap().body
    };
    let body = update(&["--paused"]);
    assert_eq!((&body["paused"], &body["cron"]), (&json!(true), &json!("30 2 * * *")));
    assert_eq!(body["revision"], "1", "a lost update is refused");
    let body = update(&["other", "--resume", "--at", "2026-12-24T18:00Z", "--tz", "UTC"]);
    assert_eq!((&body["function"], body.get("paused")), (&json!("other"), None));
    assert_eq!((&body["at"], body.get("cron")), (&json!("2026-12-24T18:00Z"), None));
}

#[test]
fn they_are_shown_and_read_from_files() {
    let fake = Fake::start();
    let mut paused = nightly();
    (paused["name"], paused["paused"]) = (json!("paused"), json!(true));
    let over = json!({ "name": "over", "function": "hello", "at": "2026-11-26T18:00",
        "timezone": "UTC", "lastTick": "2026-11-26T18:00:00Z", "status": "READY" });
    let mut waits = nightly();
    (waits["name"], waits["status"]) = (json!("waits"), json!("ERROR"));
    fake.expect("GET /v1/schedule", 200, &json!([nightly(), paused, over, waits]));
    let wanted = "
        |    NAME   | FUNCTION |    CRON / AT     |   TIME ZONE   |         NEXT         |         LAST         | STATUS  
        | --------------------------------------------------------------------------------------------------------
        |   nightly | report   | 30 2 * * *       | Europe/Berlin | 2026-11-28T01:30:00Z | 2026-11-27T01:30:00Z | READY   
        |   paused  | report   | 30 2 * * *       | Europe/Berlin | 2026-11-28T01:30:00Z | 2026-11-27T01:30:00Z | PAUSED  
        |   over    | hello    | 2026-11-26T18:00 | UTC           |                      | 2026-11-26T18:00:00Z | OVER    
        |   waits   | report   | 30 2 * * *       | Europe/Berlin | 2026-11-28T01:30:00Z | 2026-11-27T01:30:00Z | ERROR   
    ";
    assert_eq!(fake.dispatch(&["get", "schedules"]).ok(), lines(wanted));
    let text = "kind: Schedule\nname: nightly\nfunction: report\ncron: '30 2 * * *'\n\
                at: \ntimezone: Europe/Berlin\ninput: {days: 1}\nnexttick: x\n";
    fake.file("s.yaml", text);
    fake.expect("PUT /v1/schedule/nightly", 404, &json!({"code": 404, "message": "no"}));
    fake.expect("POST /v1/schedule", 201, &nightly());
    assert_eq!(fake.dispatch(&["apply", "-f", "s.yaml"]).ok(), "Applied Schedule: nightly\n");
    let body = fake.asked().pop().unwrap().body;
    assert_eq!((&body["input"], body.get("nextTick")), (&json!({ "days": 1 }), None));
    fake.file("bad.yaml", &text.replace("Berlin", "Bärlin"));
    let error = fake.dispatch(&["apply", "-f", "bad.yaml"]).fails();
    assert!(error.contains("timezone in body: \"Europe/Bärlin\""), "{error}");
    fake.expect("GET /v1/schedule/nightly", 200, &nightly());
    let yaml = fake.dispatch(&["get", "schedule", "nightly", "-o", "yaml"]).ok();
    assert!(yaml.starts_with("name: nightly\nfunction: report\ncron: 30 2 * * *\n"), "{yaml}");
    fake.expect("DELETE /v1/schedule/nightly", 200, &nightly());
    let deleted = fake.dispatch(&["delete", "schedule", "nightly"]).ok();
    assert_eq!(deleted, "Deleted schedule: nightly\n");
}
