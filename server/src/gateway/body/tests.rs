#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

async fn send(
    method: Method,
    query: &str,
    kind: Option<&str>,
    body: &[u8],
) -> Result<Value, Error> {
    let mut headers = HeaderMap::new();
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
    }
    let body = Bytes::copy_from_slice(body);
    let payload = payload(&method, fields(query.as_bytes())?, &headers, body).await?;
    Ok(serde_json::from_slice(&payload).unwrap())
}

async fn post(kind: Option<&str>, body: &[u8]) -> Result<Value, Error> {
    send(Method::POST, "q=1", kind, body).await
}

const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=X";

#[tokio::test]
async fn each_type_has_its_payload() {
    let parts = b"--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
        --X\r\nContent-Disposition: form-data; name=\"f\"; filename=\"n.txt\"\r\n\
        Content-Type: text/plain\r\n\r\nhi\r\n--X--\r\n";
    let file = json!({"filename": "n.txt", "contentType": "text/plain", "content": "aGk="});
    for (kind, body, wanted) in [
        (Some("application/json"), &b"[1, 2]"[..], json!([1, 2])),
        (Some("Application/JSON; charset=utf-8"), b"42", json!(42)),
        (Some("json"), b"\"x\"", json!("x")),
        (Some("application/cloudevents+json"), b"{}", json!({})),
        (
            Some(FORM),
            b"name=VMware&place=Palo+Alto&n=1&n=2&q=0",
            json!({"q": ["0", "1"], "name": "VMware", "place": "Palo Alto", "n": ["1", "2"]}),
        ),
        (Some("text/csv"), b"a,b", json!("a,b")),
        (Some("application/soap+xml"), b"<a/>", json!("<a/>")),
        (Some("application/yaml"), b"a: 1", json!("a: 1")),
        (Some("image/png"), b"\x89", json!("iQ==")),
        (Some("application/octet-stream"), b"hi", json!("aGk=")),
        (Some("application/vnd.example"), b"hi", json!("aGk=")),
        (Some("application/base64"), b"aG\r\nk=", json!("aGk=")),
        (None, b"{}", json!("e30=")),
        (Some(" "), b"hi", json!("aGk=")),
        (Some("application/json"), b"", json!({})),
        (Some("unsupported-content-type"), b"", json!({})),
        (Some(MULTIPART), parts, json!({"q": "1", "a": "1", "f": file})),
    ] {
        assert_eq!(post(kind, body).await.unwrap(), wanted, "{kind:?}");
    }
}

#[tokio::test]
async fn without_a_body_the_query_is_the_payload() {
    let query = json!({"a": ["1", "2"], "b": "3", "c": ""});
    for (method, body, wanted) in [
        (Method::GET, &b""[..], &query),
        (Method::GET, b"ignored", &query),
        (Method::HEAD, b"", &query),
        (Method::OPTIONS, b"", &query),
        (Method::DELETE, b"", &query),
        (Method::DELETE, b"[1]", &json!([1])),
        (Method::PUT, b"", &json!({})),
        (Method::PATCH, b"[1]", &json!([1])),
    ] {
        let kind = Some("application/json");
        let payload = send(method.clone(), "a=1&a=2&b=3&c", kind, body).await.unwrap();
        assert_eq!(payload, *wanted, "{method}");
    }
}

#[tokio::test]
async fn what_cannot_be_a_payload_is_refused_in_the_old_words() {
    for (kind, body, wanted) in [
        ("application/json", &b"{"[..], "request body is not json"),
        ("application/json", b"{} {}", "request body is not json"),
        ("application/json", b"\"\xff\"", "request body is not json"),
        ("application/json", br#""\ud800""#, "request body is not json"),
        (
            "unsupported-content-type",
            b"x",
            "request body type is not supported: unsupported-content-type",
        ),
        ("a/b/c", b"x", "request body type is not supported: a/b/c"),
        ("/json", b"x", "request body type is not supported: /json"),
        ("text/plain", b"\xff", "request body is not text in UTF-8"),
        ("application/base64", b"?", "request body is not base64"),
    ] {
        let error = post(Some(kind), body).await.unwrap_err();
        assert_eq!((error.status.as_u16(), error.problem.message.as_str()), (400, wanted));
    }
    let nameless = b"--X\r\nContent-Disposition: form-data\r\n\r\n1\r\n--X--\r\n";
    for (kind, body) in [
        ("multipart/form-data", &b"x"[..]),
        (MULTIPART, b"x"),
        (MULTIPART, nameless),
        (MULTIPART, b"--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\ncut off"),
    ] {
        assert_eq!(post(Some(kind), body).await.unwrap_err().status.as_u16(), 400, "{kind}");
    }
    let long =
        format!("--X\r\nContent-Disposition: form-data; name=\"{}\"\r\n\r\n", "n".repeat(9000));
    let error = post(Some(MULTIPART), long.as_bytes()).await.unwrap_err();
    assert!(error.problem.message.len() < 300, "{}", error.problem.message);
    for (depth, passes) in [(127, true), (128, false), (1_000_000, false)] {
        let nested = "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(post(Some("application/json"), nested.as_bytes()).await.is_ok(), passes);
    }
}

#[tokio::test]
async fn fields_are_counted() {
    let many = |count: usize| "f=1&".repeat(count);
    assert!(post(Some(FORM), many(MAX_FIELDS).as_bytes()).await.is_ok());
    let error = post(Some(FORM), many(MAX_FIELDS + 1).as_bytes()).await.unwrap_err();
    assert_eq!(error.status.as_u16(), 413);
    let part = "--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n";
    let parts = part.repeat(MAX_FIELDS + 1) + "--X--\r\n";
    assert_eq!(post(Some(MULTIPART), parts.as_bytes()).await.unwrap_err().status.as_u16(), 413);
    assert_eq!(fields(many(MAX_FIELDS + 1).as_bytes()).unwrap_err().status.as_u16(), 413);
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #[test]
    fn strange_bytes_are_a_payload_or_refused(
        kind in "[ -~]{0,30}",
        data in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        run(fuzz(&data));
        for kind in [kind.as_str(), MULTIPART, FORM, "application/json", "text/x", "a/b+json"] {
            run(fuzz(&[kind.as_bytes(), b"\n", &data].concat()));
        }
        run(fuzz(&[MULTIPART.as_bytes(), b"\n--X\r\nContent-Disposition: ", &data].concat()));
    }

    #[test]
    fn forms_of_both_kinds_arrive_as_they_were_filled_in(
        filled in prop::collection::btree_map("[a-z]{1,6}", "\\PC{0,12}", 1..8),
    ) {
        let wanted = json!(filled);
        let urlencoded =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&filled).finish();
        let payload = run(send(Method::POST, "", Some(FORM), urlencoded.as_bytes())).unwrap();
        prop_assert_eq!(&payload, &wanted);
        let payload = run(send(Method::GET, &urlencoded, None, b"")).unwrap();
        prop_assert_eq!(&payload, &wanted);
        let parts: String = filled
            .iter()
            .map(|(name, value)| {
                format!("--bound4ry\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
            })
            .chain(["--bound4ry--\r\n".to_owned()])
            .collect();
        let kind = Some("multipart/form-data; boundary=bound4ry");
        let payload = run(send(Method::POST, "", kind, parts.as_bytes())).unwrap();
        prop_assert_eq!(&payload, &wanted);
    }
}
