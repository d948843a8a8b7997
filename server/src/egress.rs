//! What functions may reach on the network, and what they reached.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use dispatch_api::{Destination, Egress, EgressPolicy, Function, Kind, Problem};
use dispatch_runner::egress::{News, Operator, Reach};

use crate::app::App;
use crate::config::{Config, EgressMode};
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource::{self, seconds};
use crate::store::Seen;

/// How often what was noted is written down.
const EVERY: Duration = Duration::from_secs(5);

/// What a function says, or the server where it says nothing. Who lists destinations means a proxy.
fn mode(config: &Config, function: &Function) -> EgressMode {
    let asked = match function.egress.as_str() {
        "none" => EgressMode::None,
        "proxy" => EgressMode::Proxy,
        "learn" => EgressMode::Learn,
        "full" => EgressMode::Full,
        _ if function.egress_allow.is_empty() && function.links.is_empty() => config.default_egress,
        _ => EgressMode::Proxy,
    };
    // One that was made before the operator forbade it.
    if asked == EgressMode::Full && config.forbid_full_egress { EgressMode::Proxy } else { asked }
}

/// What the runner is to allow.
pub(crate) fn of(config: &Config, function: &Function) -> dispatch_runner::Egress {
    let reach = || Reach {
        allow: function.egress_allow.iter().filter_map(|entry| entry.parse().ok()).collect(),
        links: function
            .links
            .iter()
            .filter_map(|link| Some((link.listen, link.to.parse().ok()?)))
            .collect(),
    };
    match mode(config, function) {
        EgressMode::None => dispatch_runner::Egress::None,
        EgressMode::Proxy => dispatch_runner::Egress::Proxy(reach()),
        EgressMode::Learn => dispatch_runner::Egress::Learn(reach()),
        EgressMode::Full => dispatch_runner::Egress::Full,
    }
}

/// Checks what the operator allows.
pub(crate) fn check(config: &Config, function: &Function) -> Result<(), Error> {
    if function.egress == "full" && config.forbid_full_egress {
        let text = "egress full is forbidden by the server's operator (--forbid-full-egress): use \
                    proxy, and links for what does not speak through one";
        return Err(Error::new(StatusCode::FORBIDDEN, text).page("egress"));
    }
    Ok(())
}

/// What the operator says, for the runner.
pub(crate) fn operator(config: &Config) -> Operator {
    Operator {
        permit: config.egress_allow_private.0.clone(),
        deny: config.egress_deny.0.clone(),
        ..Operator::default()
    }
}

/// Writes down what functions reached until the server stops.
pub(crate) async fn keep(app: Arc<App>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => write(&app).await,
            () = app.stopping.cancelled() => return,
        }
    }
}

/// Takes what the runner noted: counts it, and writes the destinations down.
pub(crate) async fn write(app: &App) {
    for ((org, function), news) in app.runner.egress() {
        app.metrics.egress(&org, &function, &news);
        let (seen, unlisted) = seen(&news);
        if seen.is_empty() && unlisted == 0 {
            continue;
        }
        if let Err(error) = app.store.note_egress(&org, &function, seen, unlisted).await {
            tracing::error!(%error, function, "what a function reached cannot be written down");
        }
    }
}

fn seen(news: &News) -> (Vec<Seen>, i64) {
    let micros = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    };
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let seen = news.notes.iter().map(|(note, noted)| Seen {
        host: note.target.host.to_string(),
        port: note.target.port,
        reason: note.refusal.map_or("", |refusal| refusal.word()).to_owned(),
        count: number(noted.count),
        first: micros(noted.first),
        last: micros(noted.last),
    });
    (seen.collect(), number(news.unlisted))
}

#[utoipa::path(get, path = "/v1/function/{functionName}/egress", tag = "function",
    params(("functionName" = String, Path)),
    responses((status = 200, body = Egress), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Egress>, Error> {
    let entity = resource::find(&app, Kind::Function, &caller.org, &name).await?;
    write(&app).await;
    let (seen, unlisted) = app
        .store
        .egress(&entity.id)
        .await
        .map_err(|error| Error::store(Kind::Function, &name, error))?;
    let function: Function = resource::resource(&entity)?;
    let policy = EgressPolicy {
        egress: mode(&app.config, &function).to_string(),
        egress_allow: function.egress_allow,
        links: function.links,
    };
    let (refused, reached): (Vec<_>, Vec<_>) =
        seen.into_iter().map(destination).partition(|seen| !seen.reason.is_empty());
    let suggested = suggest(&policy, &reached);
    Ok(Json(Egress { policy, reached, refused, unlisted, suggested }))
}

fn destination(seen: Seen) -> Destination {
    Destination {
        host: seen.host,
        port: seen.port,
        count: seen.count,
        first_seen: seconds(seen.first),
        last_seen: seconds(seen.last),
        reason: seen.reason,
    }
}

/// The policy that allows what was reached and nothing else. What a link leads to needs no entry.
fn suggest(policy: &EgressPolicy, reached: &[Destination]) -> Option<EgressPolicy> {
    let targets = reached.iter().map(|seen| format!("{}:{}", seen.host, seen.port));
    let linked = |target: &String| policy.links.iter().any(|link| link.to == *target);
    let links: Vec<_> = policy.links.clone();
    let allow: Vec<String> = targets.filter(|target| !linked(target)).collect();
    // An empty list would mean the whole internet.
    (!reached.is_empty()).then(|| EgressPolicy {
        egress: if allow.is_empty() && links.is_empty() { "none" } else { "proxy" }.to_owned(),
        egress_allow: allow,
        links,
    })
}
