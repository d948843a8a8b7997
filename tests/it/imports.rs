//! Functions that were written for other systems, with what they need: issue 4.

use serde_json::json;

use crate::support::Server;

const HELLO: &str = "
import flask
def hello(request):
    if not request.is_json:
        return 'no name\\n', 400
    name = request.get_json()['name']
    return flask.jsonify(hello=name, query=request.args.get('q')), 201, {'X-Path': request.path}
";

#[tokio::test]
async fn a_handler_of_functions_framework_answers_requests_and_calls() {
    let s = tokio::task::spawn_blocking(|| {
        let s = Server::start();
        s.image("python3");
        let path = s.file("requirements.txt", "flask==3.1.3\n");
        let create = ["create", "image", "flask", "python3-base", "--runtime-deps", &path];
        s.dispatch(&create).ok();
        s.ready("image", "flask");
        let path = s.file("src/hello.py", HELLO);
        let create = ["create", "function", "--image", "flask", "hello", &path];
        s.dispatch(&[&create[..], &["--handler", "http:hello.hello"]].concat()).ok();
        s.ready("function", "hello");
        assert_eq!(s.run("hello", r#"{"name": "Jon"}"#)["output"]["hello"], "Jon");
        let refused = s.run("hello", "null");
        assert_eq!(refused["error"]["type"], "InputError", "{refused}");
        assert_eq!(refused["error"]["message"], "400 BAD REQUEST: no name");
        let create = ["create", "endpoint", "hello", "hello", "-p", "/hello/*", "-m", "POST"];
        s.dispatch(&create).ok();
        s
    });
    let s = s.await.unwrap();
    let post = |body: &'static str| {
        let request = reqwest::Client::new().post(s.url("/hello/a?q=1"));
        request.header("content-type", "application/json").body(body).send()
    };
    let answer = post(r#"{"name": "Jon"}"#).await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["x-path"], "/hello/a");
    assert_eq!(answer.headers()["content-type"], "application/json");
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body, json!({"hello": "Jon", "query": "1"}));
    let answer = post("null").await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.text().await.unwrap().as_str()),
        (400, "no name\n")
    );
}
