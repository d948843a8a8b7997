use dispatch_server::ServerArgs;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::support::{Test, archive, start, start_with};

/// Asks the proxy for a connection and returns its answer's status and text.
const ASK: &str = "
import socket
def handle(ctx, target):
    with socket.create_connection(('127.0.0.1', 3128), 20) as s:
        s.sendall(f'CONNECT {target} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'.encode())
        said = s.recv(9999).decode()
        return [int(said.split()[1]), said.split('\\r\\n\\r\\n', 1)[1]]
";

async fn deploy(t: &Test, extra: Value) {
    let mut body = json!({ "name": "f", "image": "python3", "source": archive(ASK) });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    t.post("/v1/function", body).await.is(201);
    let ready = t.settled("/v1/function/f").await;
    assert_eq!(ready["status"], "READY", "{ready}");
}

async fn update(t: &Test, extra: Value) {
    let mut body = json!({ "name": "f", "image": "python3" });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    t.put("/v1/function/f", body).await.is(200);
    assert_eq!(t.settled("/v1/function/f").await["status"], "READY");
}

async fn ask(t: &Test, target: &str) -> Value {
    let run = json!({ "blocking": true, "input": target });
    t.post("/v1/runs?functionName=f", run).await.is(200)["output"].clone()
}

/// Accepts connections, and says nothing.
async fn listener() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.shutdown().await;
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_function_reached_becomes_its_policy() {
    let args = ServerArgs {
        egress_allow_private: Some("127.0.0.1".parse().unwrap()),
        ..ServerArgs::default()
    };
    let t = start_with(args).await;
    t.image("python3").await;
    let (port, other) = (listener().await, listener().await);
    let (here, there) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{other}"));
    deploy(&t, json!({})).await;
    // The operator permits it, but the function does not say that it wants it.
    assert_eq!(ask(&t, &here).await[0], 403);
    let fresh = t.get("/v1/function/f/egress").await.is(200);
    assert_eq!(fresh["policy"], json!({ "egress": "proxy" }));
    assert_eq!(fresh["refused"][0]["reason"], "not-listed");
    assert_eq!((&fresh["reached"], fresh.get("suggested")), (&json!([]), None));

    update(&t, json!({ "egress": "learn" })).await;
    assert_eq!(ask(&t, &here).await[0], 200);
    assert_eq!(ask(&t, &here).await[0], 200);
    assert_eq!(ask(&t, "10.0.0.1:80").await[0], 403);
    let learnt = t.get("/v1/function/f/egress").await.is(200);
    let reached = &learnt["reached"][0];
    assert_eq!((&reached["host"], &reached["port"]), (&json!("127.0.0.1"), &json!(port)));
    assert_eq!(reached["count"], 2);
    assert!(reached["lastSeen"].as_i64() >= reached["firstSeen"].as_i64());
    let reasons: Vec<_> =
        learnt["refused"].as_array().unwrap().iter().map(|r| &r["reason"]).collect();
    assert_eq!(reasons, ["private", "not-listed"]);
    let suggested = &learnt["suggested"];
    assert_eq!(*suggested, json!({ "egress": "proxy", "egressAllow": [here] }));

    update(&t, suggested.clone()).await;
    assert_eq!(ask(&t, &here).await[0], 200);
    let refused = ask(&t, &there).await;
    assert_eq!(refused[0], 403);
    let text = refused[1].as_str().unwrap();
    assert!(text.contains(&there) && text.contains("--allow"), "{text}");

    let page = t.get("/metrics").await.text;
    for (series, count) in [
        (
            "dispatch_egress_connections_total{organization=\"default\",function=\"f\",outcome=\"connected\"}",
            3,
        ),
        (
            "dispatch_egress_connections_total{organization=\"default\",function=\"f\",outcome=\"private\"}",
            1,
        ),
    ] {
        let line = format!("{series} {count}");
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    t.get("/v1/function/g/egress").await.is(404);
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_has_the_last_word() {
    let args = ServerArgs {
        forbid_full_egress: Some(true),
        default_egress: Some(dispatch_server::config::EgressMode::None),
        ..ServerArgs::default()
    };
    let t = start_with(args).await;
    t.image("python3").await;
    let full = json!({ "name": "f", "image": "python3", "source": archive(ASK), "egress": "full" });
    let refused = t.post("/v1/function", full).await.is(403);
    assert_eq!(refused["error"], "egress");
    deploy(&t, json!({})).await;
    let none = t.get("/v1/function/f/egress").await.is(200);
    assert_eq!(none["policy"], json!({ "egress": "none" }));
    let run = t.post("/v1/runs?functionName=f", json!({ "blocking": true, "input": "a:1" })).await;
    assert!(run.text.contains("Connection refused"), "{}", run.text);
    // Who lists destinations means the proxy.
    update(&t, json!({ "egressAllow": ["127.0.0.1"] })).await;
    let refused = ask(&t, "127.0.0.1:1").await;
    assert!(refused[1].as_str().unwrap().contains("--egress-allow-private"), "{refused}");
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_make_no_sense_are_refused() {
    let t = start().await;
    for (extra, code) in [
        (json!({ "egressAllow": ["http://a.example"] }), 605),
        (json!({ "egressAllow": ["10.0.0.1/8"] }), 605),
        (json!({ "egressAllow": vec!["a.example"; 257] }), 603),
        (json!({ "egressAllow": ["a.example"], "egress": "none" }), 605),
        (json!({ "egressAllow": "a.example" }), 601),
        (json!({ "links": [{ "listen": 5432, "to": "a.example" }] }), 605),
        (json!({ "links": [{ "listen": 0, "to": "a.example:1" }] }), 605),
        (json!({ "links": [{ "listen": 3128, "to": "a.example:1" }] }), 605),
        (
            json!({ "links": [{ "listen": 1, "to": "a.example:1" }, { "listen": 1, "to": "b.example:1" }] }),
            605,
        ),
        (json!({ "links": [{ "listen": 70000, "to": "a.example:1" }] }), 601),
        (json!({ "links": [{ "listen": 1, "to": "a.example:1" }], "egress": "full" }), 605),
    ] {
        let mut body = json!({ "name": "f", "image": "python3", "source": archive(ASK) });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let answer = t.post("/v1/function", body).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (422, &json!(code)),
            "{extra} {}",
            answer.text
        );
    }
    t.stop().await;
}
