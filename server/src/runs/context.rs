//! What a handler receives as its context.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::Invocation;
use crate::app::App;
use crate::live::Serving;

/// The context as JSON text. Secrets are flattened into one map in which later ones win.
///
/// # Errors
/// A secret that does not exist, in the old server's words.
pub(super) fn build(
    app: &App,
    id: &str,
    invocation: &Invocation,
    serving: &Serving,
) -> Result<Bytes, String> {
    let snapshot = app.live.load();
    let mut secrets = Map::new();
    for name in serving.secrets.iter().chain(&invocation.secrets) {
        let values = snapshot.secret(&invocation.org, name).ok_or_else(|| {
            format!(
                "error when retrieving secrets from secret store: failed to get secrets from \
                 secret store: secret {name} not found; make it with: dispatch create secret \
                 {name} FILE"
            )
        })?;
        secrets.extend(values.iter().map(|(key, value)| (key.clone(), json!(value))));
    }
    let mut context = Map::new();
    context.insert("secrets".to_owned(), Value::Object(secrets));
    context.insert("function".to_owned(), json!(invocation.function.name));
    context.insert("revision".to_owned(), json!(serving.revision.faas_id));
    context.insert("organization".to_owned(), json!(invocation.org));
    context.insert("runId".to_owned(), json!(id));
    if let Some(timeout) = serving.timeout.filter(|_| serving.own_timeout) {
        let timeout = SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX);
        if let Ok(deadline) = Timestamp::now().checked_add(timeout) {
            context.insert("deadline".to_owned(), json!(deadline.to_string()));
            context.insert("timeout".to_owned(), json!(timeout.as_millis()));
        }
    }
    let trace = &invocation.trace;
    let optional = [
        ("httpContext", invocation.http_context.clone().map(Value::Object)),
        ("request", invocation.request.clone()),
        ("event", invocation.event.clone()),
        ("traceparent", trace.traceparent.as_ref().map(|value| json!(value))),
        ("tracestate", trace.tracestate.as_ref().map(|value| json!(value))),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            context.insert(key.to_owned(), value);
        }
    }
    Ok(Value::Object(context).to_string().into())
}
