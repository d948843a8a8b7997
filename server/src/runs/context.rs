//! What a handler receives as its context.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Invocation;
use crate::app::App;
use crate::live::Serving;

/// Written straight to text: it is made for every call.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    secrets: BTreeMap<&'a str, &'a str>,
    function: &'a str,
    revision: &'a str,
    organization: &'a str,
    run_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<i128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_context: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
}

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
    let mut secrets = BTreeMap::new();
    for name in serving.secrets.iter().chain(&invocation.secrets) {
        let values = snapshot.secret(&invocation.org, name).ok_or_else(|| {
            format!(
                "error when retrieving secrets from secret store: failed to get secrets from \
                 secret store: secret {name} not found; make it with: dispatch create secret \
                 {name} FILE"
            )
        })?;
        secrets.extend(values.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    }
    let timeout = serving.timeout.filter(|_| serving.own_timeout);
    let timeout = timeout.map(|own| SignedDuration::try_from(own).unwrap_or(SignedDuration::MAX));
    let deadline = timeout.and_then(|timeout| Timestamp::now().checked_add(timeout).ok());
    let trace = &invocation.trace;
    let context = Context {
        secrets,
        function: &invocation.function.name,
        revision: &serving.revision.faas_id,
        organization: &invocation.org,
        run_id: id,
        timeout: timeout.filter(|_| deadline.is_some()).map(|timeout| timeout.as_millis()),
        deadline: deadline.map(|deadline| deadline.to_string()),
        http_context: invocation.http_context.as_deref(),
        request: invocation.request.as_deref(),
        event: invocation.event.as_ref(),
        traceparent: trace.traceparent.as_deref(),
        tracestate: trace.tracestate.as_deref(),
    };
    let mut text = Vec::with_capacity(2048);
    serde_json::to_writer(&mut text, &context)
        .map_err(|error| format!("the context cannot be written: {error}"))?;
    Ok(text.into())
}
