//! Functions on container images, without a container engine.

use serde_json::{Value, json};

use crate::image_files::{Files, Layers};
use crate::support::Server;

const PATHS: &str = "PATH=/usr/local/bin:/usr/bin:/bin";

/// Makes base image and image of a layout that is written below the home directory.
fn image(s: &Server, name: &str, layers: &Layers, config: &Value) {
    layers.layout(&s.home().join(name), config);
    let place = format!("oci:{}", s.home().join(name).display());
    s.dispatch(&["create", "base-image", name, &place, "--wait"]).ok();
    s.dispatch(&["create", "image", name, name, "--wait"]).ok();
}

const LOOK: &str = "import os
def handle(context, payload):
    print('from inside')
    try:
        open('/usr/bin/new', 'w')
    except OSError as error:
        refused = type(error).__name__
    with open('/var/log/new', 'w') as file:
        file.write('yes')
    return {'of': os.environ['OF'], 'etc': sorted(os.listdir('/etc')), 'payload': payload,
            'home': os.path.exists('/home'), 'refused': refused, 'marker': open('/marker').read()}
";

#[test]
fn a_function_runs_on_any_image_that_holds_its_language() {
    let s = Server::start();
    let files = Files::new().text("marker", "of the image").text("var/log/old", "");
    let python = Layers::python().with(files);
    image(&s, "py", &python, &json!({"Env": [PATHS, "OF=image"], "Cmd": ["python3"]}));
    let base = s.dispatch(&["get", "base-image", "py", "-o", "json"]).json();
    assert_eq!(base["language"], "python3", "nobody said it: {base}");
    let log = s.dispatch(&["get", "base-image", "py", "--logs"]).ok();
    assert!(log.contains("functions on it are in python3"), "{log}");
    let path = s.file("look.py", LOOK);
    s.dispatch(&["create", "function", "--image", "py", "look", &path, "--wait"]).ok();
    let wanted = json!({"of": "image", "etc": ["group", "hosts", "passwd", "resolv.conf"],
        "payload": [1], "home": false, "refused": "OSError", "marker": "of the image"});
    let run = s.run("look", "[1]");
    assert_eq!(
        (&run["output"], &run["logs"]["stdout"]),
        (&wanted, &json!(["from inside"])),
        "{run}"
    );
    // Nothing of the host's languages is mixed in, and what is in an image is found after a crash.
    let s = s.crash_and_restart(&[]);
    assert_eq!(s.run("look", "[1]")["output"], wanted);
    // The label of the first Dispatch's bases says more than a port does. It has the same files.
    let label = json!({"io.dispatchframework.functionTemplate": "/function-template"});
    let labelled = json!({"Env": [PATHS], "Cmd": ["/server"], "Labels": label,
        "ExposedPorts": {"8080/tcp": {}}});
    image(&s, "labelled", &python, &labelled);
    let base = s.dispatch(&["get", "base-image", "labelled", "-o", "json"]).json();
    assert_eq!(base["language"], "python3", "{base}");
    s.dispatch(&["delete", "image", "labelled"]).ok();
    s.dispatch(&["delete", "base-image", "labelled"]).ok();
    // An image is kept for as long as somebody uses it.
    let records = || std::fs::read_dir(s.data.join("images/records")).unwrap().flatten();
    let aged = || {
        for directory in ["records", "archives"] {
            for entry in std::fs::read_dir(s.data.join("images").join(directory)).unwrap().flatten()
            {
                let then = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
                std::fs::File::open(entry.path()).unwrap().set_modified(then).unwrap();
            }
        }
        s.dispatch(&["manage", "gc", "--older-than", "1"]).ok()
    };
    assert!(aged().contains("image"), "the labelled one");
    assert_eq!(records().count(), 1);
    let other = s.file("other.py", &LOOK.replace("'payload': payload", "'payload': 'new'"));
    s.dispatch(&["update", "function", "look", &other, "--wait"]).ok();
    assert_eq!(s.run("look", "[1]")["output"]["payload"], "new");
    s.dispatch(&["delete", "base-image", "py"]).ok();
    s.dispatch(&["delete", "image", "py"]).ok();
    assert!(aged().contains("image archive"));
    assert_eq!(records().count(), 1, "the function uses it");
    assert_eq!(s.run("look", "[1]")["output"]["payload"], "new");
    s.dispatch(&["delete", "function", "look"]).ok();
    assert!(aged().contains("image"));
    assert_eq!(records().count(), 0);
    assert_eq!(std::fs::read_dir(s.data.join("images/trees")).unwrap().count(), 0);
}

/// A function server of the first Dispatch, an action of OpenWhisk, and one that is neither.
const SERVER: &str = r#"import http.server, json, os, sys
kind = sys.argv[1]
END = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX"
code = {}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        healthy = kind in ("dispatch", "knative") and self.path == "/healthz"
        self.answer(200 if healthy else 404, {})
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"null")
        if kind == "dispatch":
            if body["payload"] == "fail":
                error = {"type": "InputError", "message": "not that", "stacktrace": ["line"]}
                return self.answer(200, {"context": {"error": error, "logs": {"stdout": [], "stderr": []}}, "payload": None})
            logs = {"stdout": ["printed"], "stderr": None}
            self.answer(200, {"context": {"logs": logs}, "payload": [body["payload"], sorted(body["context"]["secrets"])]})
        elif kind == "knative":
            logs = {"stdout": None, "stderr": ["warned"]}
            self.answer(200, {"context": {"logs": logs}, "payload": {"got": body}})
        elif kind == "whisk":
            if self.path == "/init":
                code.update(body["value"])
                exec(code["code"], code)
                self.answer(200, {"ok": True})
            else:
                print("in the action", body["value"], flush=True)
                try:
                    status, result = 200, code["main"](body["value"])
                except Exception as error:
                    status, result = 502, {"error": str(error)}
                self.answer(status, result)
            for stream in sys.stdout, sys.stderr:
                print(END, file=stream, flush=True)
        else:
            self.answer(201, {"path": self.path, "body": body, "port": os.environ["PORT"]})
    def answer(self, status, result):
        text = json.dumps(result).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"#;

fn serving(kind: &str, more: &[&str]) -> Value {
    let environment: Vec<&str> = [PATHS].iter().chain(more).copied().collect();
    json!({"Env": environment, "Entrypoint": ["python3", "/app/server.py"], "Cmd": [kind],
        "WorkingDir": "/app", "ExposedPorts": {"9090/tcp": {}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_serve_http_are_functions() {
    let s = Server::start();
    let layers = Layers::python().with(Files::new().text("app/server.py", SERVER));
    image(&s, "plain", &layers, &serving("plain", &[]));
    image(&s, "old", &layers, &serving("dispatch", &[]));
    image(&s, "whisk", &layers, &serving("whisk", &["__OW_EXECUTION_ENV=python:3"]));
    let make = |name: &str, image: &str, more: &[&str]| {
        let words = ["create", "function", "--image", image, name, "--wait"];
        s.dispatch(&[&words[..], more].concat()).ok();
        s.dispatch(&["get", "function", name, "-o", "json"]).json()["handler"].clone()
    };
    make("plain", "plain", &[]);
    let run = s.run("plain", r#"{"a": 1}"#);
    assert_eq!(run["output"], json!({"path": "/", "body": {"a": 1}, "port": "9090"}), "{run}");
    make("old", "old", &[]);
    let secret = s.file("secret.json", r#"{"key": "value"}"#);
    s.dispatch(&["create", "secret", "mine", &secret]).ok();
    let run =
        s.dispatch(&["exec", "old", "--wait", "--input", "2", "--secret", "mine", "-o", "json"]);
    let run = run.json();
    assert_eq!(run["output"], json!([2, ["key"]]), "{run}");
    assert_eq!(run["logs"]["stdout"], json!(["printed"]));
    let run = s.run("old", "\"fail\"");
    assert_eq!(
        run["error"],
        json!({"type": "InputError", "message": "not that", "stacktrace": ["line"]})
    );
    let code = s.file("action.py", "def main(args):\n    return {'twice': 2 * args['n']}\n");
    make("whisk", "whisk", &[&code]);
    let run = s.run("whisk", r#"{"n": 21}"#);
    assert_eq!(run["output"], json!({"twice": 42}), "{run}");
    assert_eq!(run["logs"]["stdout"], json!(["in the action {'n': 21}"]), "without the end's mark");
    let run = s.run("whisk", r#"{"m": 1}"#);
    assert_eq!(run["error"]["message"], "'n'", "{run}");
    // The gateway passes requests and responses as they are.
    let flags = ["--method", "POST", "--path", "/there"];
    s.dispatch(&[&["create", "endpoint", "there", "plain"], &flags[..]].concat()).ok();
    let request = reqwest::Client::new().post(s.url("/there?x=1")).body("[3]");
    let response = request.header("content-type", "application/json").send().await.unwrap();
    assert_eq!(response.status(), 201);
    let text = response.text().await.unwrap();
    assert!(text.contains("/there?x=1") && text.contains("[3]"), "{text}");
    let wrong = ["create", "function", "--image", "plain", "wrong", "--handler", "soap"];
    s.dispatch(&wrong).ok();
    let reason = s.settled("function", "wrong")["reason"][0].as_str().unwrap().to_owned();
    assert!(reason.contains("openwhisk"), "it says what there is: {reason}");
    // Other languages have no function without a source.
    s.image("python3");
    let error = s.dispatch(&["create", "function", "--image", "python3", "none"]).fails();
    assert!(error.contains("either source or sourceURL must be specified"), "{error}");
}

#[test]
fn what_an_image_is_for_is_seen_from_what_it_says() {
    let s = Server::start();
    let layers = Layers::python().with(Files::new().text("app/server.py", SERVER));
    let language = |name: &str| {
        s.dispatch(&["get", "base-image", name, "-o", "json"]).json()["language"].clone()
    };
    let make = |name: &str, more: &[&str]| {
        let words = ["create", "function", "--image", name, name, "--wait"];
        s.dispatch(&[&words[..], more].concat()).ok();
    };
    // A function of Dispatch's Knative branch: the payload in, an envelope out.
    image(&s, "knative", &layers, &serving("knative", &["TIMEOUT=300"]));
    assert_eq!(language("knative"), "http");
    make("knative", &[]);
    let run = s.run("knative", r#"{"n": 1}"#);
    assert_eq!(run["output"], json!({"got": {"n": 1}}), "{run}");
    assert_eq!(run["logs"]["stderr"], json!(["warned"]));
    // One of OpenFaaS with of-watchdog, which declares no port.
    let mut watchdog = serving("plain", &["fprocess=cat", "mode=http"]);
    watchdog.as_object_mut().unwrap().remove("ExposedPorts");
    image(&s, "watchdog", &layers, &watchdog);
    assert_eq!(language("watchdog"), "http");
    make("watchdog", &["--handler", "openfaas"]);
    let run = s.run("watchdog", "[1]");
    assert_eq!(run["output"], json!({"path": "/", "body": [1], "port": "8080"}), "{run}");
    // A base image of the first Dispatch, by its label: a language, though it declares a port.
    let mut base = serving("dispatch", &[]);
    base["Labels"] = json!({"io.dispatchframework.imageTemplate": "/image-template",
        "io.dispatchframework.functionTemplate": "/function-template"});
    image(&s, "old-base", &layers, &base);
    assert_eq!(language("old-base"), "python3");
    let path = s.file("hello.py", "def handle(context, payload):\n    return payload + 1\n");
    s.dispatch(&["create", "function", "--image", "old-base", "old", &path, "--wait"]).ok();
    assert_eq!(s.run("old", "1")["output"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_needs_no_c_library() {
    let s = Server::start();
    let busybox = Files::new()
        .copy(std::path::Path::new("/bin/busybox"), "bin/busybox")
        .text("www/hello.txt", "hello from a static program\n");
    let command = json!(["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]);
    image(&s, "static", &Layers::of(vec![busybox]), &json!({"Cmd": command}));
    let base = s.dispatch(&["get", "base-image", "static", "-o", "json"]).json();
    assert_eq!(base["language"], "http");
    s.dispatch(&["create", "function", "--image", "static", "files", "--wait"]).ok();
    s.dispatch(&[
        "create",
        "endpoint",
        "files",
        "files",
        "--method",
        "GET",
        "--path",
        "/hello.txt",
    ])
    .ok();
    let response = reqwest::get(s.url("/hello.txt")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), "hello from a static program\n");
}

#[test]
fn an_ordinary_user_runs_images_too() {
    let s = Server::as_user(12_345);
    let files = Files::new().text("marker", "of the image").text("var/log/old", "");
    let python = Layers::python().with(files);
    image(&s, "py", &python, &json!({"Env": [PATHS, "OF=image"], "Cmd": ["python3"]}));
    let path = s.file("look.py", LOOK);
    s.dispatch(&["create", "function", "--image", "py", "look", &path, "--wait"]).ok();
    assert_eq!(s.run("look", "1")["output"]["marker"], "of the image");
}

#[test]
fn what_cannot_be_used_says_why() {
    let s = Server::start();
    let empty = Layers::of(vec![Files::new().text("file", "")]);
    empty.layout(&s.home().join("empty"), &json!({}));
    let place = format!("oci:{}", s.home().join("empty").display());
    s.dispatch(&["create", "base-image", "empty", &place]).ok();
    let reason = s.settled("base-image", "empty")["reason"][0].as_str().unwrap().to_owned();
    assert!(reason.contains("the image has no runtime for python3 or nodejs or ruby"), "{reason}");
    s.dispatch(&["create", "base-image", "ruby", &place, "--language", "cobol"]).ok();
    let reason = s.settled("base-image", "ruby")["reason"][0].as_str().unwrap().to_owned();
    assert!(reason.contains("there is no language cobol; use one of: bash"), "{reason}");
    s.dispatch(&["create", "image", "on-it", "empty"]).ok();
    let image = s.settled("image", "on-it");
    assert_eq!(image["status"], "ERROR");
    let reason = image["reason"][0].as_str().unwrap();
    assert!(reason.contains("base image empty is in error status"), "{reason}");
    let error = s.dispatch(&["create", "base-image", "x", "oci:./not-there"]).fails();
    assert!(error.contains("not-there"), "{error}");
}
