//! Functions that were written for other systems, with what they need: issue 4.

use serde_json::json;

use crate::support::Server;

const HELLO: &str = "
import flask
def hello(request):
    if request.headers.get('x-a') == 'throw':
        raise RuntimeError('inner')
    if not request.is_json:
        return 'no name\\n', 400
    name = request.get_json()['name']
    return flask.jsonify(hello=name, query=request.args.get('q')), 201, {'X-Path': request.path}
";

const NODE: &str = "
exports.hello = async (req, res) => {
  if (req.get('x-a') === 'throw') throw new Error('inner')
  if (!req.body?.name) return res.status(400).send('no name\\n')
  res.status(201).set('X-Path', req.path).json({ hello: req.body.name, query: req.query.q ?? null })
}
";

/// What an image needs, and the source.
struct Case {
    language: &'static str,
    manifest: (&'static str, &'static str),
    source: (&'static str, &'static str),
    refusal: &'static str,
}

#[tokio::test]
async fn a_python_handler_of_functions_framework_answers_requests_and_calls() {
    story(Case {
        language: "python3",
        manifest: ("requirements.txt", "flask==3.1.3\n"),
        source: ("src/hello.py", HELLO),
        refusal: "400 BAD REQUEST: no name",
    })
    .await;
}

#[tokio::test]
async fn a_node_handler_of_functions_framework_answers_requests_and_calls() {
    story(Case {
        language: "nodejs",
        manifest: ("package.json", r#"{"dependencies":{"express":"4.21.2"}}"#),
        source: ("src/hello.js", NODE),
        refusal: "400: no name",
    })
    .await;
}

async fn story(case: Case) {
    let s = tokio::task::spawn_blocking(move || {
        let s = Server::start();
        s.image(case.language);
        let path = s.file(case.manifest.0, case.manifest.1);
        let base = format!("{}-base", case.language);
        let create = ["create", "image", "framework", &base, "--runtime-deps", &path];
        s.dispatch(&create).ok();
        s.ready("image", "framework");
        let path = s.file(case.source.0, case.source.1);
        let create = ["create", "function", "--image", "framework", "hello", &path];
        s.dispatch(&[&create[..], &["--handler", "http:hello.hello"]].concat()).ok();
        s.ready("function", "hello");
        assert_eq!(s.run("hello", r#"{"name": "Jon"}"#)["output"]["hello"], "Jon");
        let refused = s.run("hello", "null");
        assert_eq!(refused["error"]["type"], "InputError", "{refused}");
        assert_eq!(refused["error"]["message"], case.refusal);
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
    let kind = answer.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/json"), "{kind}");
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body, json!({"hello": "Jon", "query": "1"}));
    let failing = reqwest::Client::new().post(s.url("/hello/a")).header("x-a", "throw");
    let answer = failing.send().await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(!answer.text().await.unwrap().contains("inner"), "that is for the function's owner");
    let answer = post("null").await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.text().await.unwrap().as_str()),
        (400, "no name\n")
    );
}
