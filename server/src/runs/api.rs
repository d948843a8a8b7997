//! `/v1/runs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dispatch_api::{Invalid, Problem, Run, Status, validate, wire};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::IntoParams;
use uuid::Uuid;

use super::{Finished, Invocation, RunRecord, shown};
use crate::app::App;
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource::{self, CONTINUE};
use crate::store::{RunFilter, RunRow};
use crate::trace::Trace;
use crate::watch;

/// Filters and paging of run lists.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct RunQuery {
    /// Only runs of this function.
    function_name: Option<String>,
    /// Only runs that changed after this Unix second.
    since: Option<String>,
    /// Only runs in this status.
    status: Option<String>,
    /// Only runs whose last try failed (`true`), or only others (`false`).
    dead: Option<bool>,
    /// At most this many, 1 to 1000, the newest first.
    limit: Option<usize>,
    /// The `X-Dispatch-Continue` header of the page before.
    #[serde(rename = "continue")]
    after: Option<String>,
    /// Follow runs as server-sent events.
    watch: Option<bool>,
    /// Accepted for old clients.
    tags: Option<String>,
}

impl RunQuery {
    fn filter(&self) -> Result<RunFilter, Error> {
        if let Some(name) = &self.function_name {
            validate::path_name("functionName", "query", name)?;
        }
        if self.limit.is_some_and(|limit| !(1..=1000).contains(&limit)) {
            let text = "limit in query should be 1 to 1000";
            return Err(Invalid::new(validate::TOO_LONG, text).into());
        }
        let status = match &self.status {
            None => None,
            Some(word) => Some(Status::parse(word).ok_or_else(|| {
                let words = ["INITIALIZED", "CREATING", "READY", "ERROR"];
                Invalid::not_in("status", "query", &words)
            })?),
        };
        let since = match &self.since {
            None => None,
            Some(text) => {
                let wrong = || Invalid::wrong_type("since", "query", "int64", text);
                Some(text.parse::<i64>().map_err(|_| wrong())?.saturating_mul(1_000_000))
            }
        };
        let (function, dead, limit) = (self.function_name.clone(), self.dead, self.limit);
        Ok(RunFilter { function, since, status, dead, limit, after: self.after.clone() })
    }
}

#[utoipa::path(post, path = "/v1/runs", tag = "run", params(("functionName" = String, Query)),
    request_body = Run,
    responses((status = 200, body = Run, description = "blocking: the run has ended"),
        (status = 202, body = Run, description = "accepted"), (status = 404, body = Problem)))]
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<RunQuery>,
    headers: HeaderMap,
    request: axum::extract::Request,
) -> Result<Response, Error> {
    let name = query.function_name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Error::bad_request("Bad Request: No function specified"))?;
    validate::path_name("functionName", "query", &name)?;
    let body = resource::read(request).await?;
    if body.is_empty() {
        return Err(Error::bad_request("Bad Request: Invalid Payload"));
    }
    let run: Run = wire::decode(&body)?;
    let snapshot = app.live.load();
    let function =
        snapshot.function(&caller.org, &name).ok_or_else(|| Error::not_found("function", &name))?;
    super::serving(function)?;
    let raw = !run.input_bytes.is_empty();
    let invocation = Invocation {
        org: caller.org,
        function: Arc::clone(function),
        input: input(&run)?,
        http_context: text(&run.http_context),
        request: None,
        event: run.event.clone(),
        secrets: run.secrets,
        services: run.services,
        tags: run.tags,
        trace: Trace::from_headers(&headers),
    };
    let invocation = Arc::new(invocation);
    if raw {
        let finished = super::execute(&app, invocation).await;
        return Ok(Json(envelope(&finished)).into_response());
    }
    if run.blocking {
        let finished = super::execute(&app, Arc::clone(&invocation)).await;
        let run = RunRecord::ended(&invocation, &finished, true, 1).into_run();
        return Ok(Json(run).into_response());
    }
    let id = super::accept(&app, &invocation).await?;
    let run = RunRecord::accepted(&invocation, &id, jiff::Timestamp::now()).into_run();
    Ok((StatusCode::ACCEPTED, Json(run)).into_response())
}

/// A context in the form in which it goes to the function.
pub(crate) fn text(context: &BTreeMap<String, Value>) -> Option<Box<RawValue>> {
    if context.is_empty() {
        return None;
    }
    serde_json::value::to_raw_value(context).ok()
}

/// The payload: `input`, or `inputBytes` read by its content type.
fn input(run: &Run) -> Result<Bytes, Error> {
    if run.input_bytes.is_empty() {
        return Ok(run.input.as_ref().unwrap_or(&Value::Null).to_string().into());
    }
    let bytes = STANDARD
        .decode(run.input_bytes.as_bytes())
        .map_err(|error| Error::bad_request(format!("inputBytes is not base64: {error}")))?;
    let kind = run.http_context.get("Content-Type").and_then(Value::as_str);
    let kind = kind.unwrap_or("application/json").split(';').next().unwrap_or_default().trim();
    let value = match kind {
        "text/plain" => json!(String::from_utf8_lossy(&bytes)),
        kind if kind.ends_with("json") || kind.is_empty() => {
            if bytes.iter().all(u8::is_ascii_whitespace) {
                Value::Null
            } else {
                serde_json::from_slice(&bytes).map_err(|error| {
                    Error::bad_request(format!("the input is not JSON: {error}"))
                })?
            }
        }
        _ => json!(STANDARD.encode(&bytes)),
    };
    Ok(value.to_string().into())
}

/// The answer to a run with `inputBytes`: the raw `{context, payload}` of the function, in base64.
fn envelope(finished: &Finished) -> Value {
    let lines = |lines: &Vec<String>| if lines.is_empty() { Value::Null } else { json!(lines) };
    let mut context = json!({
        "logs": { "stdout": lines(&finished.logs.stdout), "stderr": lines(&finished.logs.stderr) },
    });
    let payload = match &finished.result {
        Ok(output) => serde_json::from_slice(output).unwrap_or_default(),
        Err(failure) => {
            context["error"] = json!({
                "type": failure.kind,
                "message": failure.message,
                "stacktrace": failure.stacktrace,
            });
            Value::Null
        }
    };
    let raw = json!({ "context": context, "payload": payload }).to_string();
    json!({
        "name": finished.id,
        "httpContext": { "Content-Type": "application/json" },
        "outputBytes": STANDARD.encode(raw),
    })
}

#[utoipa::path(get, path = "/v1/runs", tag = "run", params(RunQuery),
    responses((status = 200, body = [Run])))]
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(query): Query<RunQuery>,
) -> Result<Response, Error> {
    let filter = query.filter()?;
    if query.watch == Some(true) {
        let (events, stream) = watch::channel();
        tokio::spawn(async move { follow(&app, &caller.org, filter, &events).await });
        return Ok(stream);
    }
    let rows = read(&app, &caller.org, &filter).await?;
    let next = rows.last().filter(|_| filter.limit == Some(rows.len())).map(RunRow::cursor);
    let runs: Vec<Run> = rows.iter().map(shown).collect();
    let mut response = Json(runs).into_response();
    if let Some(next) = next.and_then(|next| next.parse().ok()) {
        response.headers_mut().insert(CONTINUE, next);
    }
    Ok(response)
}

async fn read(app: &App, org: &str, filter: &RunFilter) -> Result<Vec<RunRow>, Error> {
    // A caller finds the runs whose results it has seen.
    app.recorder.flush().await;
    app.store.runs(org, filter.clone()).await.map_err(failed)
}

fn failed(error: crate::store::Error) -> Error {
    Error::store(dispatch_api::Kind::Function, "run", error)
}

/// Runs as they change, the oldest first.
async fn follow(
    app: &App,
    org: &str,
    mut filter: RunFilter,
    events: &tokio::sync::mpsc::Sender<axum::response::sse::Event>,
) {
    let mut changed = app.store.runs_changed();
    let mut synced = false;
    loop {
        let rows = match read(app, org, &filter).await {
            Ok(rows) => rows,
            Err(error) => {
                watch::send(events, "error", &error.problem).await;
                return;
            }
        };
        for row in rows.iter().rev() {
            if watch::send(events, "put", &shown(row)).await.is_none() {
                return;
            }
        }
        let newest = rows.iter().map(|row| row.modified).max();
        filter.since = newest.or(filter.since);
        if !synced {
            synced = true;
            filter.limit = None;
            watch::send(events, "synced", &json!({})).await;
        }
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return },
            () = app.stopping.cancelled() => return,
            () = events.closed() => return,
        }
    }
}

#[utoipa::path(get, path = "/v1/runs/{runName}", tag = "run",
    params(("runName" = String, Path), RunQuery),
    responses((status = 200, body = Run), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<RunQuery>,
) -> Result<Json<Run>, Error> {
    let row = find(&app, &caller.org, &id).await?;
    let since = query.filter()?.since;
    let fits = query.function_name.is_none_or(|name| name.is_empty() || name == row.function)
        && since.is_none_or(|since| row.modified > since);
    if !fits {
        return Err(Error::not_found("function run", &id));
    }
    Ok(Json(shown(&row)))
}

async fn find(app: &App, org: &str, id: &str) -> Result<RunRow, Error> {
    let id = Uuid::parse_str(id)
        .map_err(|_| Invalid::wrong_type("runName", "path", "uuid", id))?
        .hyphenated()
        .to_string();
    app.recorder.flush().await;
    let row = app.store.run(org, &id).await.map_err(failed)?;
    row.ok_or_else(|| Error::not_found("function run", &id))
}

#[utoipa::path(post, path = "/v1/runs/{runName}/redrive", tag = "run",
    params(("runName" = String, Path)),
    responses((status = 202, body = Run), (status = 400, body = Problem),
        (status = 404, body = Problem)))]
pub(crate) async fn redrive(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Run>), Error> {
    let row = find(&app, &caller.org, &id).await?;
    if !row.dead {
        let text =
            format!("function run {id} is not dead: only runs whose last try failed are redriven");
        return Err(Error::bad_request(text));
    }
    let job = super::job(&caller.org, &row.id);
    let row = app.store.redrive(&caller.org, &row.id, job).await.map_err(failed)?;
    Ok((StatusCode::ACCEPTED, Json(shown(&row))))
}
