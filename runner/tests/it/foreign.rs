//! Handlers that were written for other systems: issue 4.

use dispatch_api::ErrorType;
use dispatch_runner::{Call, Runner as _};
use serde_json::{Value, json};

use crate::fixture::{Fixture, Function, call, fixture};

const PYTHON: &str = "
def lambda_handler(event, context):
    if event == 'fail': raise RuntimeError('no')
    return {'event': event, 'id': context.aws_request_id, 'name': context.function_name,
            'left': 0 < context.get_remaining_time_in_millis()}

def on_event(event):
    return {'type': event['type'], 'data': event.data, 'all': sorted(event.get_attributes())}
";

const NODE: &str = "
exports.handler = async (event, context) => {
  if (event === 'fail') throw new Error('no')
  return { event, id: context.awsRequestId, name: context.functionName,
    left: context.getRemainingTimeInMillis() > 0 }
}
exports.callback = (event, context, callback) => setTimeout(() => event === 'fail'
  ? callback('no') : callback(null, { event, id: context.awsRequestId, name: context.functionName,
    left: true }), 1)
exports.onEvent = (event) =>
  ({ type: event.type, data: event.data, all: Object.keys(event).filter((k) => k !== 'data').sort() })
";

async fn outcome(fixture: &Fixture, function: &str, handler: &str, calls: &[Value]) -> Vec<Value> {
    let (language, file, code) = match function {
        "python3" => ("python3", "app.py", PYTHON),
        _ => ("nodejs", "app.js", NODE),
    };
    let files: &[(&str, &str)] = Box::leak(Box::new([(file, code)]));
    let revision = fixture.deploy(Function::new(language, files, handler));
    let full = fixture.runner.prepare(&revision).await.unwrap();
    assert!(full.starts_with(&handler[..6]), "{full}");
    let mut results = Vec::new();
    for one in calls {
        let made = Call {
            context: one["context"].to_string().into(),
            ..call(&one["payload"].to_string())
        };
        results.push(match fixture.invoke(&revision, made).await.result {
            Ok(result) => serde_json::from_slice(&result).unwrap(),
            Err(failed) => json!([failed.kind == ErrorType::InputError, failed.message]),
        });
    }
    results
}

#[tokio::test]
async fn a_lambda_gets_the_payload_or_the_request_of_an_endpoint() {
    let fixture = fixture().await;
    let context = json!({"function": "f", "runId": "r1", "timeout": 60000, "organization": "o"});
    let mut at_endpoint = context.clone();
    at_endpoint["httpContext"] = json!({"remote_addr": "192.0.2.1", "params": {"id": "7"}});
    at_endpoint["request"] = json!({"uri": "/a/7?n=1&n=2&e=", "method": "POST",
        "header": {"X-A": ["1", "2"], "Cookie": ["a=1; b=2"], "Host": ["example.com"]}});
    let calls = [
        json!({"context": context, "payload": {"a": [1]}}),
        json!({"context": at_endpoint, "payload": {"b": "ü"}}),
        json!({"context": context, "payload": "fail"}),
    ];
    for (language, handler) in [
        ("python3", "lambda:app.lambda_handler"),
        ("nodejs", "lambda:app.handler"),
        ("nodejs", "lambda:app.callback"),
    ] {
        let results = outcome(&fixture, language, handler, &calls).await;
        let wanted = json!({"event": {"a": [1]}, "id": "r1", "name": "f", "left": true});
        assert_eq!(results[0], wanted, "{handler}");
        let event = &results[1]["event"];
        for (key, wanted) in [
            ("version", json!("2.0")),
            ("rawPath", json!("/a/7")),
            ("rawQueryString", json!("n=1&n=2&e=")),
            ("cookies", json!(["a=1", "b=2"])),
            ("headers", json!({"x-a": "1,2", "host": "example.com"})),
            ("queryStringParameters", json!({"n": "1,2", "e": ""})),
            ("pathParameters", json!({"id": "7"})),
            ("body", json!(r#"{"b":"ü"}"#)),
            ("isBase64Encoded", json!(false)),
        ] {
            assert_eq!(event[key], wanted, "{handler} {key}");
        }
        let http = &event["requestContext"]["http"];
        assert_eq!((&http["method"], &http["sourceIp"]), (&json!("POST"), &json!("192.0.2.1")));
        assert_eq!(results[2], json!([false, "no"]), "{handler}");
    }
}

#[tokio::test]
async fn an_event_handler_gets_events_and_nothing_else() {
    let fixture = fixture().await;
    let attributes = json!({"type": "t", "source": "s", "id": "1", "specversion": "1.0"});
    let mut whole = attributes.clone();
    whole["data"] = json!([2]);
    let calls = [
        json!({"context": {"event": attributes}, "payload": [2]}),
        json!({"context": {}, "payload": whole}),
        json!({"context": {}, "payload": {"a": 1}}),
    ];
    for (language, handler) in
        [("python3", "cloudevent:app.on_event"), ("nodejs", "cloudevent:app.onEvent")]
    {
        let results = outcome(&fixture, language, handler, &calls).await;
        let all = ["id", "source", "specversion", "type"];
        assert_eq!(results[0], json!({"type": "t", "data": [2], "all": all}), "{handler}");
        assert_eq!(results[1], results[0], "{handler}");
        let refused = "the call is no event: it has neither a context of one nor a type";
        assert_eq!(results[2], json!([true, refused]), "{handler}");
    }
}

#[tokio::test]
async fn other_kinds_are_refused() {
    let fixture = fixture().await;
    let python = Function::new("python3", &[("app.py", PYTHON)], "soap:app.lambda_handler");
    assert!(fixture.refusal(python).await.contains("\"soap:\" means nothing here"));
    let node = Function::new("nodejs", &[("app.js", NODE)], "soap:app.handler");
    assert!(fixture.refusal(node).await.contains("\"soap:\" means nothing here"));
    let http = Function::new("python3", &[("app.py", PYTHON)], "http:app.on_event");
    let said = fixture.prepare(http).await;
    // Where the machine has flask, that is enough.
    assert!(said.is_ok() || format!("{said:?}").contains("add flask"), "{said:?}");
}
