//! Packages of a private index: who may read it is a secret of the image's.

use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::{Server, until};

/// An index with `tiny`, for those who know the password. It says whom it saw.
const INDEX: &str = r#"
import base64, http.server, io, sys, zipfile
wheel = io.BytesIO()
with zipfile.ZipFile(wheel, "w") as archive:
    archive.writestr("tiny.py", "VALUE = 41\n" + sys.argv[2].replace("\\n", "\n"))
    archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    archive.writestr("tiny-1.0.dist-info/RECORD", "")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = "Basic " + base64.b64encode(b"me:s3cret-word").decode()
        if self.headers["authorization"] != wanted:
            self.send_response(401)
            self.send_header("www-authenticate", 'Basic realm="index"')
            self.send_header("content-length", "0")
            self.end_headers()
            return
        page = b'<a href="/tiny-1.0-py3-none-any.whl">tiny-1.0-py3-none-any.whl</a>'
        body = wheel.getvalue() if self.path.endswith(".whl") else page
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_HEAD = do_GET
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

/// A registry of npm with `tiny`, for those who know the token.
const REGISTRY: &str = r#"
import base64, hashlib, http.server, io, json, sys, tarfile
port = sys.argv[1]
package = io.BytesIO()
with tarfile.open(fileobj=package, mode="w:gz") as archive:
    for name, text in {"package.json": '{"name": "tiny", "version": "1.0.0"}', "index.js": "module.exports = 41\n"}.items():
        entry = tarfile.TarInfo("package/" + name)
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text.encode()))
digest = "sha512-" + base64.b64encode(hashlib.sha512(package.getvalue()).digest()).decode()
dist = {"tarball": f"http://127.0.0.1:{port}/tiny/-/tiny-1.0.0.tgz", "integrity": digest}
version = {"name": "tiny", "version": "1.0.0", "dist": dist}
about = {"name": "tiny", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers["authorization"] == "Bearer s3cret-word"
        body = package.getvalue() if self.path.endswith(".tgz") else json.dumps(about).encode()
        body = body if known else b"{}"
        self.send_response(200 if known else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"#;

struct Index(Child, u16);

impl Index {
    /// `more` is put into the package, as an installer that writes down what it knows would.
    fn start(more: &str) -> Index {
        Index::run(INDEX, more)
    }

    fn run(code: &str, more: &str) -> Index {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("python3");
        command.args(["-c", code, &port.to_string(), more]).stdout(Stdio::null());
        let process = command.spawn().unwrap();
        until("the index listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Index(process, port)
    }

    fn secret(&self, s: &Server, name: &str) {
        let url = format!("http://me:s3cret-word@127.0.0.1:{}/simple/", self.1);
        let values = json!({"PIP_INDEX_URL": url, "UV_DEFAULT_INDEX": url});
        let path = s.file("index.json", &values.to_string());
        s.dispatch(&["create", "secret", name, &path]).ok();
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_private_index_is_used_and_its_password_is_nowhere() {
    let (index, s) = (Index::start(""), Server::start());
    s.image("python3");
    index.secret(&s, "index");
    let manifest = s.file("requirements.txt", "tiny==1.0\n");
    let create = |name: &str, more: &[&str]| {
        let words = ["create", "image", name, "python3-base", "--runtime-deps", &manifest];
        s.dispatch(&[&words[..], more].concat()).ok();
        s.settled("image", name)
    };
    let image = create("with", &["--build-secret", "index"]);
    assert_eq!(image["status"], "READY", "{image}");
    assert_eq!(image["buildSecrets"], json!(["index"]));
    let log = s.dispatch(&["get", "image", "with", "--logs"]).ok();
    assert!(log.contains("tiny") && !log.contains("s3cret-word"), "{log}");
    let source = "import os, tiny\ndef handle(context, payload):\n    \
                  return [tiny.VALUE, os.environ.get('PIP_INDEX_URL'), context['secrets']]\n";
    let path = s.file("src/handler.py", source);
    s.dispatch(&["create", "function", "--image", "with", "fn", &path, "--wait"]).ok();
    assert_eq!(s.run("fn", "1")["output"], json!([41, null, {}]), "the function has no part in it");
    let found = Command::new("grep").args(["-rl", "s3cret-word"]).arg(&s.data).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    // The same packages without the secret are others.
    let without = create("without", &["--build-secret", "missing"]);
    assert!(without["reason"].to_string().contains("secret missing does not exist"), "{without}");
    let useless = s.file("useless.json", r#"{"AWS_SECRET_ACCESS_KEY": "x"}"#);
    s.dispatch(&["create", "secret", "useless", &useless]).ok();
    let image = create("useless", &["--build-secret", "useless"]);
    assert!(image["reason"].to_string().contains("is of no use"), "{image}");
}

#[test]
fn dependencies_with_the_password_in_them_are_thrown_away() {
    let (index, s) = (Index::start("# s3cret-word\\n"), Server::start());
    s.image("python3");
    index.secret(&s, "index");
    let manifest = s.file("requirements.txt", "tiny==1.0\n");
    let create = ["create", "image", "leaky", "python3-base", "--runtime-deps", &manifest];
    s.dispatch(&[&create[..], &["--build-secret", "index"]].concat()).ok();
    let image = s.settled("image", "leaky");
    assert!(image["reason"].to_string().contains("written a password"), "{image}");
    assert_eq!(std::fs::read_dir(s.data.join("layers")).unwrap().count(), 0);
}

#[test]
fn a_private_registry_of_npm_is_used_by_a_file_of_the_secret() {
    let (registry, s) = (Index::run(REGISTRY, ""), Server::start());
    s.image("nodejs");
    let place = format!("127.0.0.1:{}", registry.1);
    let npmrc = format!("registry=http://{place}/\n//{place}/:_authToken=s3cret-word\n");
    let path = s.file("npm.json", &json!({ ".npmrc": npmrc }).to_string());
    s.dispatch(&["create", "secret", "npm", &path]).ok();
    let manifest = s.file("package.json", r#"{"dependencies":{"tiny":"1.0.0"}}"#);
    let image = |name: &str, more: &[&str]| {
        let words = ["create", "image", name, "nodejs-base", "--runtime-deps", &manifest];
        s.dispatch(&[&words[..], more].concat()).ok();
        s.settled("image", name)
    };
    let with = image("with", &["--build-secret", "npm"]);
    assert_eq!(with["status"], "READY", "{with}");
    let path = s.file("src/hello.js", "module.exports = () => require('tiny') + 1\n");
    s.dispatch(&["create", "function", "--image", "with", "fn", &path, "--wait"]).ok();
    assert_eq!(s.run("fn", "1")["output"], 42);
    let log = s.dispatch(&["get", "image", "with", "--logs"]).ok();
    assert!(!log.contains("s3cret-word"), "{log}");
    let found = Command::new("grep").args(["-rl", "s3cret-word"]).arg(&s.data).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}
