#![allow(clippy::unwrap_used)]
use std::time::Duration;

use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::json;

use super::*;

async fn text(answer: Answer) -> String {
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn of(value: &Value) -> Answer {
    success(&Bytes::from(value.to_string())).unwrap_or_else(|error| refusal(error, "id"))
}

#[tokio::test]
async fn plain_results_are_json_and_nothing_is_nothing() {
    let answer = of(&json!({"a": 1}));
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(text(answer).await, "{\"a\":1}\n");
    for nothing in [json!(null), json!("")] {
        let answer = of(&nothing);
        assert_eq!((answer.status(), text(answer).await.as_str()), (StatusCode::OK, ""));
    }
}

#[tokio::test]
async fn only_what_is_an_envelope_to_the_letter_is_one() {
    for plain in [
        json!({"statusCode": 201, "body": "x", "more": 1}),
        json!({"statusCode": "201", "body": "x"}),
        json!({"statusCode": 201.5}),
        json!({"statusCode": null}),
        json!({"body": "x", "headers": {}}),
        json!([{"statusCode": 201}]),
        json!("{\"statusCode\": 201}"),
    ] {
        let answer = of(&plain);
        assert_eq!(answer.status(), StatusCode::OK, "{plain}");
        assert_eq!(text(answer).await, format!("{plain}\n"));
    }
}

#[tokio::test]
async fn an_envelope_decides_everything_about_the_answer() {
    let answer = of(&json!({"statusCode": 201, "headers": {"X-A": "1", "x-b": ["1", "2"]},
        "multiValueHeaders": {"x-b": [3]}, "cookies": ["a=b", "c=d"], "body": {"k": 1}}));
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers().get_all("x-b").iter().count(), 3);
    assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 2);
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(text(answer).await, "{\"k\":1}");
    let answer = of(&json!({"statusCode": 200, "isBase64Encoded": true, "body": "aGk=",
        "headers": {"content-type": "image/png"}}));
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert_eq!(text(answer).await, "hi");
    let answer = of(&json!({"statusCode": 200, "body": "ä \"b\"\n", "headers": {"x": "ä"}}));
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(answer.headers()["x"].as_bytes(), "ä".as_bytes());
    assert_eq!(text(answer).await, "ä \"b\"\n");
    for (status, body) in [(204, json!("x")), (304, json!("x")), (404, json!(null))] {
        let answer = of(&json!({"statusCode": status, "body": body, "headers": null}));
        assert_eq!(answer.status().as_u16(), status);
        assert!(!answer.headers().contains_key("content-type"));
        assert_eq!(text(answer).await, "", "{status}");
    }
}

#[tokio::test]
async fn an_envelope_cannot_forge_the_connection() {
    let many: Map<String, Value> = (0..200).map(|n| (format!("x-{n}"), json!("1"))).collect();
    for bad in [
        json!({"statusCode": 200, "headers": {"x": "a\r\nset-cookie: b"}}),
        json!({"statusCode": 200, "headers": {"x\r\ny": "a"}}),
        json!({"statusCode": 200, "headers": {"": "a"}}),
        json!({"statusCode": 200, "headers": {"x": "\u{0}"}}),
        json!({"statusCode": 200, "headers": {"x": {"y": 1}}}),
        json!({"statusCode": 200, "headers": ["x"]}),
        json!({"statusCode": 200, "headers": many}),
        json!({"statusCode": 200, "headers": {"x": "a".repeat(40_000)}}),
        json!({"statusCode": 200, "headers": {"Transfer-Encoding": "chunked"}}),
        json!({"statusCode": 200, "multiValueHeaders": {"Content-Length": ["0"]}}),
        json!({"statusCode": 200, "headers": {"Connection": "close"}}),
        json!({"statusCode": 200, "cookies": ["a\nb"]}),
        json!({"statusCode": 200, "cookies": "a=b"}),
        json!({"statusCode": -1}),
        json!({"statusCode": 99}),
        json!({"statusCode": 101}),
        json!({"statusCode": 600}),
        json!({"statusCode": 65_736}),
        json!({"statusCode": 200, "isBase64Encoded": "yes", "body": "aGk="}),
        json!({"statusCode": 200, "isBase64Encoded": true, "body": "%"}),
        json!({"statusCode": 200, "isBase64Encoded": true, "body": {}}),
    ] {
        let answer = of(&bad);
        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY, "{bad}");
        let body: Value = serde_json::from_str(&text(answer).await).unwrap();
        assert_eq!((&body["error"], &body["requestId"]), (&json!("function-error"), &json!("id")));
    }
    let surrogate = Bytes::from_static(br#"{"statusCode": 200, "body": "\ud800"}"#);
    assert_eq!(success(&surrogate).unwrap_err().status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn failures_keep_the_insides_of_functions_to_themselves() {
    let with = |kind, cause| Failure {
        kind,
        cause,
        message: "an inner detail".to_owned(),
        stacktrace: vec!["line".to_owned()],
    };
    let overload = Cause::Overload { retry_after: Duration::from_millis(2500) };
    use ErrorType::{FunctionError, InputError, SystemError};
    for (kind, cause, status, page) in [
        (InputError, Cause::Handler, 400, "input-error"),
        (FunctionError, Cause::Handler, 502, "function-error"),
        (FunctionError, Cause::Timeout, 504, "timeout"),
        (FunctionError, Cause::OutOfMemory, 502, "out-of-memory"),
        (FunctionError, Cause::ForbiddenCall, 502, "forbidden-call"),
        (FunctionError, Cause::Signal(11), 502, "worker-crashed"),
        (FunctionError, Cause::Exit(1), 502, "worker-crashed"),
        (FunctionError, Cause::ProcessLimit, 502, "process-limit"),
        (FunctionError, Cause::Protocol, 502, "protocol-violation"),
        (SystemError, Cause::Lost, 500, "worker-lost"),
        (FunctionError, Cause::Load, 502, "handler-not-loaded"),
        (InputError, Cause::Load, 502, "handler-not-loaded"),
        (InputError, Cause::System, 500, "secret-missing"),
        (SystemError, overload, 429, "overloaded"),
        (SystemError, Cause::Cancelled, 503, "stopping"),
        (SystemError, Cause::System, 500, "system-error"),
        (SystemError, Cause::Handler, 500, "system-error"),
    ] {
        let answer = refusal(failure(&with(kind, cause.clone()), "run-1"), "request-1");
        assert_eq!(answer.status().as_u16(), status, "{cause:?}");
        let after = answer.headers().get("retry-after").map(|after| after.to_str().unwrap());
        assert_eq!(after, (status == 429).then_some("2"));
        let shown = text(answer).await;
        assert_eq!(shown.contains("an inner detail"), status == 400, "{shown}");
        assert!(!shown.contains("line"));
        let body: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!((&body["code"], &body["error"]), (&json!(status), &json!(page)));
        assert_eq!(body["requestId"], "request-1");
    }
}

proptest! {
    #[test]
    fn headers_of_functions_never_hold_line_ends(
        name in "[\\x00-\\x7f]{0,10}|[a-z-]{1,8}",
        value in "[\\x00-\\xff]{0,20}|[ -~]{0,20}",
        cookie in ".{0,10}",
    ) {
        let answer = of(&json!({"statusCode": 200, "headers": {name.clone(): value}, "cookies": [cookie]}));
        for (name, value) in answer.headers() {
            prop_assert!(!OURS.contains(&name.as_str()));
            prop_assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        }
    }

    /// Whatever a function gives back, the answer is a valid response.
    #[test]
    fn strange_results_have_an_answer(
        status in "-?[0-9]{1,5}|null|\"[0-9]{3}\"|[0-9]e[0-9]",
        rest in "(,\"(headers|cookies|body|isBase64Encoded|other)\":(1|null|\"[a-z=]{0,6}\"|\\[\"a\"\\]|\\{\"a\":\"b\"\\}|true)){0,3}",
    ) {
        let text = format!("{{\"statusCode\":{status}{rest}}}");
        let answer = success(&Bytes::from(text)).unwrap_or_else(|error| refusal(error, "id"));
        prop_assert!((200..600).contains(&answer.status().as_u16()));
    }
}
