//! Functions where there are no namespaces.

use std::sync::Arc;

use dispatch_runner::process::{Launcher, Wish};
use dispatch_runner::{BuildError, BuildSecrets, Cause, LayerRequest, Revision, Runner, Tier};
use serde_json::json;

use crate::fixture::{Fixture, Function, fixture_on};

/// Nothing, where this machine cannot do without namespaces.
async fn fixture() -> Option<Fixture> {
    let wish = Wish { at_most: Tier::C, without_isolation: false };
    let launcher = Launcher::start_with(wish).unwrap();
    if launcher.tier() != Tier::C {
        eprintln!("skipped: {}", launcher.probe().await);
        return None;
    }
    Some(fixture_on(launcher, |_| ()).await)
}

#[tokio::test]
async fn functions_run_with_their_dependencies_and_a_tmp_of_their_own() {
    let Some(fixture) = fixture().await else { return };
    let build = async |language: &str, manifest: &str| {
        let request = LayerRequest {
            organization: "default".to_owned(),
            language: language.to_owned(),
            manifest: manifest.to_owned(),
            secrets: BuildSecrets::default(),
        };
        fixture.runner.build_layer(&request, &|_| ()).await.unwrap().path
    };
    let six = build("python3", "six==1.16.0\n").await;
    let python = "
import os, six, tempfile
def handle(context, payload):
    with tempfile.TemporaryFile() as file: file.write(b'x')
    try: os.listdir('/tmp'); seen = True
    except PermissionError: seen = False
    return [six.__version__, seen, payload]
";
    // Nothing is forked ahead either, whatever the function asks for.
    let function = Function::python(python).set(|settings| settings.preload = true);
    let revision = fixture.deploy(Function { layer: Some(&six), ..function });
    assert_eq!(fixture.value(&revision, "7").await, json!(["1.16.0", false, 7]));
    assert_eq!(fixture.runner.waiting("python3"), 0, "nothing can be attached to what waits");
    // One package that needs another: it must be found from where the first one is.
    let package = build("nodejs", r#"{"dependencies":{"is-odd":"3.0.1"}}"#).await;
    let required = "
const odd = require('is-odd')
module.exports = (context, payload) => odd(payload)
";
    let imported = "
import odd from 'is-odd'
import fs from 'node:fs'
import os from 'node:os'
export const handle = (context, payload) => {
  fs.writeFileSync(os.tmpdir() + '/file', 'x')
  return odd(payload)
}
";
    for (file, code) in [("hello.js", required), ("hello.mjs", imported)] {
        let files = [(file, code)];
        let handler = if file == "hello.js" { "./hello.js" } else { "./hello.mjs" };
        let function = Function::new("nodejs", &files, handler);
        let revision = fixture.deploy(Function { layer: Some(&package), ..function });
        assert_eq!(fixture.value(&revision, "7").await, true, "{file}");
    }
}

#[tokio::test]
async fn one_organization_is_served() {
    let Some(fixture) = fixture().await else { return };
    let code = "def handle(context, payload): return payload";
    let first = fixture.deploy(Function::python(code));
    assert_eq!(fixture.value(&first, "1").await, 1);
    let second = fixture.deploy(Function::python(code));
    let second =
        Arc::new(Revision { organization: "other".to_owned(), ..Revision::clone(&second) });
    let failure = fixture.failure(&second, "1").await;
    assert_eq!(failure.cause, Cause::Load);
    assert!(failure.message.contains("of one only"), "{}", failure.message);
    let refused = fixture.runner.prepare(&second).await.unwrap_err();
    assert_eq!(refused, BuildError::Rejected(failure.message));
    let request = LayerRequest {
        organization: "other".to_owned(),
        language: "python3".to_owned(),
        manifest: "six==1.16.0\n".to_owned(),
        secrets: BuildSecrets::default(),
    };
    let refused = fixture.runner.build_layer(&request, &|_| ()).await.unwrap_err();
    assert!(matches!(refused, BuildError::Rejected(_)), "{refused}");
    assert_eq!(fixture.value(&first, "2").await, 2);
}
