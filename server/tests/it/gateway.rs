use std::time::{Duration, Instant};

use dispatch_server::ServerArgs;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, Test, archive, start, start_with};

/// Answers what it got, or does what the payload's `do` says.
const FUNCTION: &str = r#"
import os, time

def handle(ctx, payload):
    wish = payload.get("do") if isinstance(payload, dict) else None
    if wish == "fail":
        raise RuntimeError("an inner detail")
    if wish == "refuse":
        raise ValueError("the name is missing")
    if wish == "exit":
        os._exit(3)
    if wish == "mount":
        import ctypes
        ctypes.CDLL(None).mount(b"x", b"/tmp", b"tmpfs", 0, None)
    if wish == "hang":
        time.sleep(600)
    if wish == "return":
        return payload["value"]
    return {"payload": payload, "http": ctx["httpContext"], "request": ctx.get("request")}
"#;

fn url(t: &Test, path: &str) -> String {
    format!("http://{}{path}", t.server().gateway())
}

fn request(t: &Test, method: Method, path: &str) -> RequestBuilder {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60));
    client.build().unwrap().request(method, url(t, path))
}

async fn post(t: &Test, path: &str, body: Value) -> Answer {
    t.send(request(t, Method::POST, path).json(&body)).await
}

/// What the function returns at `/f`.
async fn returned(t: &Test, value: Value) -> Answer {
    post(t, "/f", json!({ "do": "return", "value": value })).await
}

async fn endpoint(t: &Test, name: &str, extra: Value) {
    let mut body = json!({ "name": name, "function": "f", "enabled": true });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    t.post("/v1/endpoint", body).await.is(200);
}

async fn function(t: &Test, name: &str, extra: Value) {
    let mut body = json!({ "name": name, "image": "python3", "source": archive(FUNCTION) });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    t.post("/v1/function", body).await.is(201);
    assert_eq!(t.settled(&format!("/v1/function/{name}")).await["status"], "READY");
}

/// A server with the function `f` at `/f`.
async fn story(args: ServerArgs) -> Test {
    let t = start_with(args).await;
    t.image("python3").await;
    function(&t, "f", json!({ "timeout": 2000 })).await;
    endpoint(&t, "f", json!({ "uris": ["/f", "/users/{id}/*"] })).await;
    t
}

/// Sends bytes as they are and reads until the server closes.
async fn raw(t: &Test, text: &str) -> String {
    let talk = async {
        let mut stream = tokio::net::TcpStream::connect(t.server().gateway()).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    tokio::time::timeout(Duration::from_secs(60), talk).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_reach_the_function_whole() {
    let t = story(ServerArgs::default()).await;
    let got = t.send(request(&t, Method::GET, "/f?a=1&a=2&b=3")).await.is(200);
    assert_eq!(got["payload"], json!({ "a": ["1", "2"], "b": "3" }));
    assert_eq!(t.send(request(&t, Method::GET, "/f")).await.is(200)["payload"], json!({}));
    assert_eq!(t.send(request(&t, Method::PUT, "/f?a=1")).await.is(200)["payload"], json!({}));
    for (kind, body, wanted) in [
        ("application/json; charset=utf-8", "[1, 2.50]", json!([1, 2.5])),
        (
            "application/x-www-form-urlencoded",
            "name=VMware&place=Palo Alto",
            json!({ "name": "VMware", "place": "Palo Alto" }),
        ),
        (
            "multipart/form-data; boundary=X",
            "--X\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.bin\"\r\n\r\nhi\r\n--X--\r\n",
            json!({ "f": { "filename": "a.bin", "contentType": "application/octet-stream",
                "content": "aGk=" } }),
        ),
        ("text/plain", "hi", json!("hi")),
        ("image/png", "hi", json!("aGk=")),
    ] {
        let put = request(&t, Method::PUT, "/f").header("content-type", kind).body(body);
        assert_eq!(t.send(put).await.is(200)["payload"], wanted, "{kind}");
    }
    for (kind, body, message) in [
        ("application/json", "VMware", "request body is not json"),
        (
            "unsupported-content-type",
            "x",
            "request body type is not supported: unsupported-content-type",
        ),
    ] {
        let put = request(&t, Method::PUT, "/f").header("content-type", kind).body(body);
        let refused = t.send(put).await.is(400);
        assert_eq!((&refused["code"], &refused["message"]), (&json!(400), &json!(message)));
    }
    let put = request(&t, Method::PUT, "/users/a%2Fb%20c/files/x?y=1")
        .header("x-dispatch-org", "invalid")
        .header("x-colour", "red")
        .header("method", "FORGED");
    let got = t.send(put).await.is(200);
    for (key, wanted) in [
        ("method", json!("PUT")),
        ("uri", json!("/users/a%2Fb%20c/files/x")),
        ("request_uri", json!("/users/a%2Fb%20c/files/x?y=1")),
        ("upstream-uri", json!("f")),
        ("params", json!({ "id": "a%2Fb c" })),
        ("query", json!({ "y": ["1"] })),
        ("x-colour", json!("red")),
        ("x-dispatch-org", json!(null)),
        ("remote_addr", json!("127.0.0.1")),
        ("server_protocol", json!("HTTP/1.1")),
    ] {
        assert_eq!(got["http"][key], wanted, "{key}");
    }
    assert_eq!(got["request"]["header"]["X-Colour"], json!(["red"]));
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_become_responses() {
    let t = story(ServerArgs::default()).await;
    let plain = returned(&t, json!({ "myField": "hi" })).await;
    assert_eq!(
        (plain.status, plain.headers["content-type"].as_bytes()),
        (200, &b"application/json"[..])
    );
    assert!(plain.text.ends_with("}\n"), "{:?}", plain.text);
    let timing = plain.headers["server-timing"].to_str().unwrap();
    for part in ["queue;dur=", "start;dur=", "function;dur=", "total;dur="] {
        assert!(timing.contains(part), "{timing}");
    }
    for nothing in [json!(null), json!("")] {
        let answer = returned(&t, nothing).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, ""));
    }
    let made = returned(
        &t,
        json!({ "statusCode": 201, "headers": { "X-Made": "yes" },
        "cookies": ["a=b", "c=d"], "isBase64Encoded": true, "body": "aGk=" }),
    )
    .await;
    assert_eq!(
        (made.status, made.text.as_str(), &made.headers["x-made"]),
        (201, "hi", &"yes".parse().unwrap())
    );
    assert_eq!(made.headers.get_all("set-cookie").iter().count(), 2);
    let forged = json!({ "statusCode": 200, "headers": { "x": "a\r\nset-cookie: b=c" } });
    let forged = returned(&t, forged).await;
    assert!(!forged.headers.contains_key("set-cookie"));
    assert_eq!(forged.is(502)["error"], "function-error");
    let head = raw(&t, "HEAD /f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let (head, body) = head.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && length.parse::<usize>().unwrap() > 2, "{head}");
    assert_eq!(body, "");
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_a_status_and_tell_callers_nothing_of_the_inside() {
    let t = story(ServerArgs::default()).await;
    function(&t, "g", json!({ "secrets": ["hidden"] })).await;
    endpoint(&t, "g", json!({ "uris": ["/g"], "function": "g" })).await;
    for (path, wish, status, page) in [
        ("/f", "refuse", 400, "input-error"),
        ("/f", "fail", 502, "function-error"),
        ("/f", "exit", 502, "worker-crashed"),
        ("/f", "mount", 502, "forbidden-call"),
        ("/f", "hang", 504, "timeout"),
        ("/g", "", 500, "secret-missing"),
    ] {
        let answer = post(&t, path, json!({ "do": wish })).await;
        for inner in ["inner detail", "Traceback", "handler.py", "hidden"] {
            assert!(!answer.text.contains(inner), "{}", answer.text);
        }
        let run = answer.headers["x-dispatch-run-id"].to_str().unwrap().to_owned();
        let request = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        let body = answer.is(status);
        assert_eq!((&body["error"], &body["code"]), (&json!(page), &json!(status)), "{wish}");
        assert_eq!(body["requestId"], request.as_str());
        assert_eq!(status == 400, body["message"] == "the name is missing");
        t.server().app().recorder.flush().await;
        let run = t.get(&format!("/v1/runs/{run}")).await.is(200);
        assert_eq!(run["status"], "ERROR", "its owner finds it: {run}");
    }
    endpoint(&t, "none", json!({ "uris": ["/none"], "function": "none" })).await;
    let missing = t.send(request(&t, Method::GET, "/none")).await.is(404);
    assert_eq!(missing["message"], "function none not found");
    let broken = json!({ "name": "none", "image": "python3", "source": archive("no python") });
    t.post("/v1/function", broken).await.is(201);
    assert_eq!(t.settled("/v1/function/none").await["status"], "ERROR");
    let missing = t.send(request(&t, Method::GET, "/none")).await.is(404);
    assert_eq!(missing["message"], "function none is not READY");
    let nowhere = t.send(request(&t, Method::GET, "/nowhere")).await.is(404);
    assert_eq!(nowhere, json!({ "message": "no API found with those values" }));
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_of_other_origins() {
    let t = story(ServerArgs::default()).await;
    let cors = json!({ "uris": ["/c"], "methods": ["POST", "PUT"], "cors": true });
    endpoint(&t, "c", cors).await;
    endpoint(&t, "d", json!({ "uris": ["/c"], "methods": ["GET", "OPTIONS"] })).await;
    let preflight = |method: &'static str| {
        let request = request(&t, Method::OPTIONS, "/c").header("origin", "https://example.com");
        t.send(request.header("access-control-request-method", method))
    };
    let allowed = preflight("PUT").await;
    assert_eq!((allowed.status, allowed.text.as_str()), (200, ""));
    for header in ["origin", "methods", "headers"] {
        assert_eq!(allowed.headers[&format!("access-control-allow-{header}")], "*");
    }
    assert!(allowed.headers.contains_key("access-control-max-age"));
    let not = preflight("GET").await;
    assert_eq!(not.status, 200);
    assert!(!not.headers.contains_key("access-control-allow-origin"), "another endpoint's");
    // Not a preflight, and the endpoint asked for it.
    let options = t.send(request(&t, Method::OPTIONS, "/c?a=1")).await.is(200);
    assert_eq!(
        (&options["http"]["method"], &options["payload"]),
        (&json!("OPTIONS"), &json!({ "a": "1" }))
    );
    for (body, status) in [(json!({ "do": "fail" }), 502), (json!({}), 200)] {
        let answer = post(&t, "/c", body).await;
        assert_eq!(
            (answer.status, &answer.headers["access-control-allow-origin"]),
            (status, &"*".parse().unwrap())
        );
    }
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_protocol_runs_nothing() {
    let t = story(ServerArgs::default()).await;
    endpoint(&t, "s", json!({ "uris": ["/s"], "protocols": ["https"] })).await;
    assert_eq!(post(&t, "/s", json!({})).await.is(400)["message"], "Please use HTTPS protocol");
    t.server().app().recorder.flush().await;
    assert_eq!(t.get("/v1/runs").await.is(200), json!([]));
    t.stop().await;
    let redirect = ServerArgs { gateway_redirect: Some(true), ..ServerArgs::default() };
    let t = start_with(redirect).await;
    endpoint(&t, "s", json!({ "uris": ["/*"], "protocols": ["https"] })).await;
    let to =
        |host: &'static str| t.send(request(&t, Method::POST, "//s/x?y=1").header("host", host));
    let answer = to("Example.com:8081").await;
    assert_eq!(
        (answer.status, &answer.headers["location"]),
        (308, &"https://example.com//s/x?y=1".parse().unwrap())
    );
    assert_eq!(to("evil.example/").await.status, 400, "where would that lead?");
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_waits_for_is_made() {
    let t = story(ServerArgs::default()).await;
    let request = request(&t, Method::PUT, "/f").header("x-dispatch-blocking", "false");
    let accepted = t.send(request.json(&json!({ "name": "later" }))).await;
    let id = accepted.headers["x-dispatch-run-id"].to_str().unwrap().to_owned();
    assert_eq!(accepted.is(202), json!({ "runId": id, "status": "INITIALIZED" }));
    let end = Instant::now() + Duration::from_secs(60);
    let run = loop {
        let run = t.get(&format!("/v1/runs/{id}")).await.is(200);
        if run["status"] == "READY" {
            break run;
        }
        assert!(Instant::now() < end, "{run}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    };
    assert_eq!(run["output"]["payload"]["name"], "later");
    assert_eq!(run["output"]["http"]["method"], "PUT");
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_or_could_be_read_in_two_ways_is_refused() {
    let t = story(ServerArgs { max_body: Some(1000), ..ServerArgs::default() }).await;
    let text = |bytes: usize| {
        request(&t, Method::POST, "/f").header("content-type", "text/plain").body("x".repeat(bytes))
    };
    t.send(text(1000)).await.is(200);
    let refused = t.send(text(1001)).await.is(413);
    assert_eq!(refused["message"], "the request body is larger than 1000 bytes");
    let head = "Host: x\r\nConnection: close\r\nContent-Type: text/plain\r\n";
    let chunk = format!("258\r\n{}\r\n", "x".repeat(600));
    let chunked = format!(
        "POST /f HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    );
    let expected =
        format!("POST /f HTTP/1.1\r\n{head}Content-Length: 2000\r\nExpect: 100-continue\r\n\r\n");
    let fields = format!("GET /f?{} HTTP/1.1\r\n{head}\r\n", "a&".repeat(1001));
    for (sent, status) in [
        (chunked.as_str(), "413"),
        (&expected, "413"),
        (&fields, "413"),
        ("GET /f HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", "400"),
        ("GET /%ff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "400"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n", "404"),
        (
            "GET http://default.default.dispatch.local/f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "200",
        ),
    ] {
        let answer = raw(&t, sent).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{sent}: {answer}");
    }
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_one_organization() {
    let mut t = start().await;
    let body = |host: &str| json!({ "name": "e", "function": "f", "enabled": true, "uris": ["/*"], "hosts": [host] });
    t.post("/v1/endpoint", body("www.example.com")).await.is(200);
    t.org("other");
    for host in ["www.example.com", "default.default.dispatch.local"] {
        let refused = t.post("/v1/endpoint", body(host)).await.is(409);
        let text = format!("the host {host:?} belongs to another organization");
        assert_eq!(refused["message"], text.as_str());
    }
    t.post("/v1/endpoint", body("shop.example.com")).await.is(200);
    t.put("/v1/endpoint/e", body("www.example.com")).await.is(409);
    t.put("/v1/endpoint/e", body("shop.other.dispatch.local")).await.is(200);
    t.org("default");
    t.put("/v1/endpoint/e", body("www.example.com")).await.is(200);
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_function_sees_credentials_and_the_history_does_not() {
    let t = story(ServerArgs::default()).await;
    let call = request(&t, Method::POST, "/f").header("authorization", "Bearer a-secret-token");
    let answer = t.send(call.header("cookie", "session=a-secret-token").json(&json!({}))).await;
    assert_eq!(answer.body["http"]["authorization"], "Bearer a-secret-token");
    let runs = t.get("/v1/runs?functionName=f").await;
    let context = &runs.body[0]["httpContext"];
    assert_eq!((&context["authorization"], &context["cookie"]), (&json!("***"), &json!("***")));
    assert_eq!(context["headers"]["authorization"], "***");
    // What the function itself returns is its own business.
    assert!(!context.to_string().contains("a-secret-token"), "{context}");
    t.stop().await;
}
