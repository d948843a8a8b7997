//! Drivers that answer HTTP: webhook, cloudevents, and sinks that need no broker.

use aws_lc_rs::hmac;
use dispatch_api::cloud_event::{Data, STRUCTURED};
use reqwest::{Client, StatusCode};

use crate::support::{Driver, Ingest, Start};

fn sign(secret: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::sign(&key, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn webhook(ingest: &Ingest, scheme: &str) -> Driver {
    let state = tempfile::tempdir().unwrap();
    let driver = Start::new("webhook")
        .arg("signature", scheme)
        .env("SECRET", "s3cret")
        .to(ingest, state.path())
        .run();
    driver.listening().await
}

#[tokio::test]
async fn github_is_answered_when_the_server_has_the_event() {
    let ingest = Ingest::start().await;
    let driver = webhook(&ingest, "github").await;
    let body = r#"{"action":"opened"}"#;
    let post = |signature: String| {
        let request = Client::new().post(driver.url()).body(body);
        request
            .header("content-type", "application/json")
            .header("x-github-event", "issues")
            .header("x-hub-signature-256", signature)
            .send()
    };
    let wrong = post(format!("sha256={}", sign("other", body))).await.unwrap();
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(ingest.accepted().is_empty());

    ingest.answer(503);
    let sent = tokio::spawn(post(format!("sha256={}", sign("s3cret", body))));
    ingest.wait_for_refusals(2).await;
    assert!(!sent.is_finished(), "answered before the server had it");
    ingest.answer(0);
    assert_eq!(sent.await.unwrap().unwrap().status(), StatusCode::OK);

    // Somebody who overheard it sends it again: the same event.
    let again = post(format!("sha256={}", sign("s3cret", body))).await.unwrap();
    assert_eq!(again.status(), StatusCode::OK);
    let events = ingest.wait_for(1).await;
    assert_eq!((ingest.accepted().len(), events.len()), (2, 1));
    assert_eq!(events[0].event_type, "github.issues");
    let Some(Data::Json(data)) = &events[0].data else { panic!("no JSON") };
    assert_eq!(data.get(), body);
    driver.stop().await;
}

#[tokio::test]
async fn stripe_and_slack_sign_the_time() {
    let ingest = Ingest::start().await;
    let now = jiff::Timestamp::now().as_second();
    let (stripe, slack) = (webhook(&ingest, "stripe").await, webhook(&ingest, "slack").await);
    for (age, status) in [(0, StatusCode::OK), (1000, StatusCode::UNAUTHORIZED)] {
        let time = (now - age).to_string();
        let body = r#"{"id":"evt_1","type":"charge.succeeded"}"#;
        let signature = format!("t={time},v1={}", sign("s3cret", &format!("{time}.{body}")));
        let request = Client::new().post(stripe.url()).header("stripe-signature", signature);
        assert_eq!(request.body(body).send().await.unwrap().status(), status);

        let body = r#"{"event_id":"Ev1","event":{"type":"app_mention"}}"#;
        let signature = format!("v0={}", sign("s3cret", &format!("v0:{time}:{body}")));
        let request = Client::new()
            .post(slack.url())
            .header("x-slack-signature", signature)
            .header("x-slack-request-timestamp", time);
        assert_eq!(request.body(body).send().await.unwrap().status(), status);
    }
    let events = ingest.wait_for(2).await;
    let mut found: Vec<_> = events.iter().map(|e| (e.event_type.as_str(), e.id.as_str())).collect();
    found.sort_unstable();
    assert_eq!(found, [("slack.app_mention", "Ev1"), ("stripe.charge.succeeded", "evt_1")]);

    // What Slack asks when a URL is entered.
    let (time, body) = (now.to_string(), r#"{"type":"url_verification","challenge":"abc"}"#);
    let answer = Client::new()
        .post(slack.url())
        .header("x-slack-signature", format!("v0={}", sign("s3cret", &format!("v0:{time}:{body}"))))
        .header("x-slack-request-timestamp", time)
        .body(body);
    assert_eq!(answer.send().await.unwrap().text().await.unwrap().trim(), "abc");
    stripe.stop().await;
    slack.stop().await;
}

#[tokio::test]
async fn requests_are_bounded() {
    let ingest = Ingest::start().await;
    let driver = webhook(&ingest, "github").await;
    let post = Client::new().post(driver.url()).body(vec![b'a'; (1 << 20) + 1]);
    assert_eq!(post.send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    let put = Client::new().put(driver.url());
    assert_eq!(put.send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    let sign_of_life = Client::new().get(driver.url());
    assert_eq!(sign_of_life.send().await.unwrap().status(), StatusCode::OK);
    driver.stop().await;
}

#[tokio::test]
async fn events_go_round_through_receiver_and_poster() {
    let state = tempfile::tempdir().unwrap();
    let ingest = Ingest::start().await;
    let receiver = Start::new("cloudevents")
        .env("TOKEN", "t0ken")
        .to(&ingest, state.path())
        .run()
        .listening()
        .await;
    for mode in ["binary", "structured"] {
        let sink = Start::new("cloudevents-sink")
            .arg("url", receiver.url())
            .arg("mode", mode)
            .env("AUTHORIZATION", "Bearer t0ken")
            .run()
            .listening()
            .await;
        let event = serde_json::json!({
            "specversion": "1.0", "id": mode, "source": "/a", "type": "a.b", "subject": "ü",
            "ext": "x", "datacontenttype": "text/plain", "data": "hello",
        });
        let post = Client::new()
            .post(sink.url())
            .header("content-type", STRUCTURED)
            .body(event.to_string())
            .send();
        assert_eq!(post.await.unwrap().status(), StatusCode::ACCEPTED);
        sink.stop().await;
    }
    for event in ingest.wait_for(2).await {
        assert_eq!((event.source.as_str(), event.subject.as_deref()), ("/a", Some("ü")));
        assert_eq!(event.data, Some(Data::Text("hello".into())));
        assert_eq!(event.extensions["ext"].to_string(), "x");
    }
    // Without the token nothing comes in.
    let post = Client::new().post(receiver.url()).header("content-type", STRUCTURED).body("{}");
    assert_eq!(post.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    receiver.stop().await;
}

#[tokio::test]
async fn files_are_written_for_events() {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("out");
    let lines = directory.path().join("lines");
    let sinks = [
        Start::new("file-sink").arg("path", files.display()),
        Start::new("file-sink")
            .arg("path", lines.display())
            .arg("as", "lines")
            .arg("format", "data"),
    ];
    for start in sinks {
        let sink = start.env("TOKEN", "t").run().listening().await;
        for id in ["1", "../../2", "1"] {
            let event = serde_json::json!({
                "specversion": "1.0", "id": id, "source": "/a", "type": "a.b", "data": {"n": id},
            });
            let post = Client::new()
                .post(format!("{}?authToken=t", sink.url()))
                .header("content-type", STRUCTURED)
                .body(event.to_string());
            assert_eq!(post.send().await.unwrap().status(), StatusCode::ACCEPTED);
        }
        sink.stop().await;
    }
    let mut names: Vec<_> =
        files.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("1-")), "{names:?}");
    let lines = std::fs::read_to_string(lines).unwrap();
    assert_eq!(lines, "{\"n\":\"1\"}\n{\"n\":\"../../2\"}\n{\"n\":\"1\"}\n");
}
