//! Images from a real registry, with and without accounts.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::image_files::{Files, Layers};
use crate::support::{Server, until};

/// `secret`, as `htpasswd -B` writes it.
const ACCOUNT: &str = "team:$2b$05$BYYKFSTdvMBgAD5sFcwYc.N.mDy2Gb/BJqIV0ynnJVWxCmQ/vWQGa\n";

/// Debian's docker-registry on loopback.
struct Registry {
    process: Child,
    host: String,
    _place: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    fn start(account: bool) -> Registry {
        let place = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let users = place.path().join("users");
        fs::write(&users, ACCOUNT).unwrap();
        let data = place.path().join("data");
        let mut config = json!({"version": 0.1, "http": {"addr": host},
            "storage": {"filesystem": {"rootdirectory": data}}});
        if account {
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": users}});
        }
        let file = place.path().join("config.yml");
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        until("the registry listens", || std::net::TcpStream::connect(&host).is_ok());
        Registry { process, host, _place: place }
    }

    /// Pushes an image, as any client would.
    async fn push(&self, name: &str, layers: &Layers, config: &serde_json::Value) {
        let http = reqwest::Client::new();
        let with_account =
            |request: reqwest::RequestBuilder| request.basic_auth("team", Some("secret"));
        let (blobs, manifest) = layers.blobs(config);
        for (hex, bytes) in blobs {
            let begin = http.post(format!("http://{}/v2/{name}/blobs/uploads/", self.host));
            let begun = with_account(begin).send().await.unwrap();
            assert_eq!(begun.status(), 202);
            let place = begun.headers()["location"].to_str().unwrap();
            let joint = if place.contains('?') { '&' } else { '?' };
            let put = http.put(format!("{place}{joint}digest=sha256:{hex}")).body(bytes);
            let done = with_account(put.header("content-type", "application/octet-stream"));
            assert_eq!(done.send().await.unwrap().status(), 201);
        }
        let put = http.put(format!("http://{}/v2/{name}/manifests/1", self.host)).body(manifest);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let done = with_account(put.header("content-type", kind)).send().await.unwrap();
        assert_eq!(done.status(), 201, "{}", done.text().await.unwrap());
    }
}

const HELLO: &str = "def handle(context, payload):\n    return open('/marker').read() + payload\n";

#[tokio::test(flavor = "multi_thread")]
async fn images_are_pulled_from_a_registry() {
    let registry = Registry::start(false);
    let layers = Layers::python().with(Files::new().text("marker", "pulled "));
    registry.push("team/python", &layers, &json!({"Cmd": ["python3"]})).await;
    let s = Server::with(&["--insecure-registries", &registry.host]);
    let name = format!("{}/team/python:1", registry.host);
    s.dispatch(&["create", "base-image", "py", &name, "--wait"]).ok();
    let log = s.dispatch(&["get", "base-image", "py", "--logs"]).ok();
    assert!(log.contains("layer 3 of 3") && log.contains("is sha256:"), "{log}");
    s.dispatch(&["create", "image", "py", "py", "--wait"]).ok();
    let path = s.file("hello.py", HELLO);
    s.dispatch(&["create", "function", "--image", "py", "hello", &path, "--wait"]).ok();
    assert_eq!(s.run("hello", "\"it\"")["output"], "pulled it");
    s.dispatch(&["create", "base-image", "none", &format!("{}/team/none:1", registry.host)]).ok();
    let reason = s.settled("base-image", "none")["reason"][0].as_str().unwrap().to_owned();
    assert!(reason.contains("has no such image"), "{reason}");
    // Without the operator's word nobody speaks to it in the clear.
    let strict = Server::start();
    strict.dispatch(&["create", "base-image", "py", &name]).ok();
    let reason = strict.settled("base-image", "py")["reason"][0].as_str().unwrap().to_owned();
    assert!(reason.contains("--insecure-registries"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_comes_from_a_secret_or_from_the_operator() {
    let registry = Registry::start(true);
    registry.push("team/python", &Layers::python(), &json!({"Cmd": ["python3"]})).await;
    let name = format!("{}/team/python:1", registry.host);
    let accounts = tempfile::NamedTempFile::new().unwrap();
    let flags = ["--insecure-registries", &registry.host, "--registry-accounts"];
    let flags = [&flags[..], &[accounts.path().to_str().unwrap()]].concat();
    fs::write(accounts.path(), r#"{"auths": {}}"#).unwrap();
    let s = Server::with(&flags);
    s.dispatch(&["create", "base-image", "none", &name]).ok();
    let reason = s.settled("base-image", "none")["reason"][0].as_str().unwrap().to_owned();
    assert!(reason.contains("--registry-secret"), "it says what to do: {reason}");
    let create = |image: &str, password: &str| {
        let secret = json!({"username": "team", "password": password}).to_string();
        let path = s.file("secret.json", &secret);
        s.dispatch(&["create", "secret", image, &path]).ok();
        s.dispatch(&["create", "base-image", image, &name, "--registry-secret", image]).ok();
        s.settled("base-image", image)
    };
    assert_eq!(create("right", "secret")["status"], "READY");
    let wrong = create("wrong", "guess");
    let reason = wrong["reason"][0].as_str().unwrap();
    assert!(reason.contains("the user team") && !reason.contains("guess"), "{reason}");
    let config = json!({"auths": {&registry.host: {"username": "team", "password": "secret"}}});
    let path = s.file("docker.json", &json!({".dockerconfigjson": config.to_string()}).to_string());
    s.dispatch(&["create", "secret", "docker", &path]).ok();
    s.dispatch(&["create", "base-image", "docker", &name, "--registry-secret", "docker"]).ok();
    assert_eq!(s.settled("base-image", "docker")["status"], "READY");
    // The operator's own account is for the operator's organization.
    fs::write(accounts.path(), config.to_string()).unwrap();
    s.dispatch(&["create", "base-image", "operators", &name, "--wait"]).ok();
    s.dispatch(&["--organization", "other", "create", "base-image", "others", &name]).ok();
    until("it is refused", || {
        let shown =
            s.dispatch(&["--organization", "other", "get", "base-image", "others", "-o", "json"]);
        shown.json()["status"] == "ERROR"
    });
}
