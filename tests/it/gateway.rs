//! Endpoints, as HTTP clients see them.

use serde_json::{Value, json};

use crate::support::Server;

const ECHO: &str = r#"
def handle(ctx, payload):
    if isinstance(payload, dict) and payload.get("envelope"):
        return payload["envelope"]
    if payload == "fail":
        raise RuntimeError("an inner detail")
    if payload == "refuse":
        raise ValueError("name is not a name")
    if payload == "hang":
        import time; time.sleep(600)
    return {"payload": payload, "http": ctx.get("httpContext")}
"#;

async fn story() -> (Server, reqwest::Client) {
    let s = tokio::task::spawn_blocking(|| {
        let s = Server::start();
        s.image("python3");
        s.python("echo", ECHO, &["--timeout", "1000"]);
        let create = ["create", "endpoint", "echo", "echo", "--path", "/echo/{word}", "--cors"];
        let methods = ["-m", "GET", "-m", "POST", "-m", "PUT"];
        s.dispatch(&[&create[..], &methods[..]].concat()).ok();
        s.dispatch(&["create", "endpoint", "all", "echo", "-p", "/files/*", "-m", "POST"]).ok();
        s
    });
    (s.await.unwrap(), reqwest::Client::new())
}

#[tokio::test]
async fn bodies_become_payloads() {
    let (s, http) = story().await;
    let post = |kind: &'static str, body: Vec<u8>| {
        let request = http.post(s.url("/files/a/b")).header("content-type", kind).body(body);
        async move {
            let answer: Value = request.send().await.unwrap().json().await.unwrap();
            answer["payload"].clone()
        }
    };
    assert_eq!(post("application/json; charset=utf-8", b"[1]".to_vec()).await, json!([1]));
    assert_eq!(post("application/vnd.x+json", b"{}".to_vec()).await, json!({}));
    assert_eq!(
        post("application/x-www-form-urlencoded", b"name=VMware&place=Palo+Alto".to_vec()).await,
        json!({"name": "VMware", "place": "Palo Alto"})
    );
    assert_eq!(post("text/plain", b"hi".to_vec()).await, json!("hi"));
    let answer: Value =
        http.get(s.url("/echo/x?a=1&a=2&b=3")).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["payload"], json!({"a": ["1", "2"], "b": "3"}));
    assert_eq!(answer["http"]["method"], "GET");
    assert_eq!(answer["http"]["params"]["word"], "x");
    let refused = http
        .post(s.url("/files/x"))
        .header("content-type", "unsupported-content-type")
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 400);
    let body: Value = refused.json().await.unwrap();
    let text = "request body type is not supported: unsupported-content-type";
    assert_eq!(body["message"], text);
}

#[tokio::test]
async fn outcomes_become_statuses_and_tell_no_secrets() {
    let (s, http) = story().await;
    for (payload, status) in [("fail", 502), ("refuse", 400), ("hang", 504)] {
        let answer = http.post(s.url("/files/x")).json(payload).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{payload}");
        let text = answer.text().await.unwrap();
        assert!(!text.contains("Traceback") && !text.contains("inner detail"), "{text}");
    }
    let nothing = http.get(s.url("/nowhere")).send().await.unwrap();
    assert_eq!(nothing.status(), 404);
    let body: Value = nothing.json().await.unwrap();
    assert_eq!(body["message"], "no API found with those values");
    let envelope = json!({"envelope": {"statusCode": 201, "headers": {"x-made": "yes"},
        "body": "made", "cookies": ["a=b"]}});
    let answer = http.post(s.url("/files/x")).json(&envelope).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["x-made"], "yes");
    assert_eq!(answer.headers()["set-cookie"], "a=b");
    assert!(answer.headers().contains_key("server-timing"));
    assert_eq!(answer.text().await.unwrap(), "made");
}

#[tokio::test]
async fn preflights_and_unwaited_calls() {
    let (s, http) = story().await;
    let preflight = http.request(reqwest::Method::OPTIONS, s.url("/echo/x")).send().await.unwrap();
    assert_eq!(preflight.status(), 200);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "*");
    assert_eq!(preflight.text().await.unwrap(), "");
    let accepted = http
        .put(s.url("/echo/x"))
        .header("x-dispatch-blocking", "false")
        .json(&json!({"name": "later"}))
        .send()
        .await
        .unwrap();
    assert_eq!(accepted.status(), 202);
    let id = accepted.headers()["x-dispatch-run-id"].to_str().unwrap().to_owned();
    let url = s.api(&format!("/v1/runs/{id}"));
    let end = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let run: Value = http.get(&url).send().await.unwrap().json().await.unwrap();
        if run["status"] == "READY" {
            assert_eq!(run["output"]["payload"]["name"], "later");
            break;
        }
        assert!(std::time::Instant::now() < end, "{run}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let head = http.head(s.url("/echo/x")).send().await.unwrap();
    assert_eq!(head.status(), 200);
}

#[tokio::test]
async fn a_route_is_gone_with_its_endpoint_and_https_only_runs_nothing() {
    let (s, http) = story().await;
    let s = tokio::task::spawn_blocking(move || {
        let create = ["create", "api", "secure", "echo", "-m", "POST", "-p", "/s", "--https-only"];
        s.dispatch(&create).ok();
        s
    })
    .await
    .unwrap();
    let answer = http.post(s.url("/default/s")).json("x").send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["message"], "Please use HTTPS protocol");
    let s = tokio::task::spawn_blocking(move || {
        s.dispatch(&["delete", "endpoint", "all"]).ok();
        s
    })
    .await
    .unwrap();
    let answer = http.post(s.url("/files/x")).json("x").send().await.unwrap();
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn beyond_its_scale_and_its_queue_a_function_says_when_to_come_back() {
    let s = tokio::task::spawn_blocking(|| {
        let s = Server::with(&["--max-waiting", "1"]);
        s.image("python3");
        let source = "import time\ndef handle(ctx, payload):\n    time.sleep(1)\n    return 1\n";
        s.python("slow", source, &["--max-scale", "1"]);
        s.dispatch(&["create", "endpoint", "slow", "slow", "-p", "/slow"]).ok();
        s
    });
    let s = s.await.unwrap();
    let http = reqwest::Client::new();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..6 {
        calls.spawn(http.get(s.url("/slow")).send());
    }
    let (mut served, mut refused) = (0, 0);
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap().unwrap();
        match answer.status().as_u16() {
            200 => served += 1,
            429 => {
                assert!(answer.headers().contains_key("retry-after"));
                refused += 1;
            }
            other => panic!("{other}: {}", answer.text().await.unwrap()),
        }
    }
    assert!(served >= 1 && refused >= 1, "{served} served, {refused} refused");
}
