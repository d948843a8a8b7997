//! `dispatch exec`.

use std::io::IsTerminal as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dispatch_api::{Logs, Run, RunError, Status};
use serde::Serialize;
use serde_json::{Value, json};

use super::Session;
use crate::args::{Exec, Format};
use crate::error::{Error, Result};
use crate::input;
use crate::output::{self, INDENT};

/// What a function answered, as functions themselves answer it.
#[derive(Serialize)]
struct Envelope<'a> {
    context: Context<'a>,
    payload: &'a Option<Value>,
}

#[derive(Serialize)]
struct Context<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RunError>,
    logs: Lines<'a>,
}

#[derive(Serialize)]
struct Lines<'a> {
    stdout: Option<&'a [String]>,
    stderr: Option<&'a [String]>,
}

/// Calls a function.
///
/// # Errors
/// A malformed payload, what the server says, and with `--fail` the function's failure.
pub async fn run(session: &Session, args: Exec) -> Result {
    let run = Run {
        blocking: !args.asynchronous,
        input: Some(payload(&args)?),
        secrets: args.secret,
        ..Run::default()
    };
    let run = session.client.run(&args.function, &run).await?;
    let settings = &session.settings;
    match settings.format {
        Format::Table if args.wait || args.asynchronous => print(&run)?,
        Format::Table => print(&envelope(&run))?,
        _ => output::one(&run, settings)?,
    }
    if args.fail && (run.error.is_some() || run.status == Status::Error) {
        return Err(Error::Silent);
    }
    Ok(())
}

fn print<T: Serialize>(value: &T) -> Result {
    output::print(&output::json(value, INDENT))
}

fn envelope(run: &Run) -> Envelope<'_> {
    let lines = |pick: fn(&Logs) -> &Vec<String>| {
        run.logs.as_ref().map(|logs| pick(logs).as_slice()).filter(|lines| !lines.is_empty())
    };
    Envelope {
        context: Context {
            error: run.error.as_ref(),
            logs: Lines { stdout: lines(|logs| &logs.stdout), stderr: lines(|logs| &logs.stderr) },
        },
        payload: &run.output,
    }
}

/// The payload from where it was given: a flag, a file or standard input; `{}` from nowhere.
fn payload(args: &Exec) -> Result<Value> {
    let bytes = match args.input.as_deref() {
        Some("-" | "@-") => input::stdin()?,
        Some(text) => match text.strip_prefix('@') {
            Some(file) => input::read(Path::new(file)).map_err(|cause| {
                Error::local(format!("error when reading content of {file}: {cause}"))
            })?,
            None => text.as_bytes().to_vec(),
        },
        None if args.wait || std::io::stdin().is_terminal() => Vec::new(),
        None => input::stdin()?,
    };
    if args.input.is_none() && bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(json!({}));
    }
    let kind = args.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind.starts_with("text/") {
        return Ok(Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    }
    if !kind.is_empty() && !kind.ends_with("json") {
        return Ok(Value::String(STANDARD.encode(bytes)));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        let shown: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
        let cause = match error.is_eof() {
            true => "unexpected end of JSON input".to_owned(),
            false => error.to_string(),
        };
        Error::local(format!(
            "Error when parsing function parameters {}\n{cause}",
            shown.trim_end()
        ))
    })
}
