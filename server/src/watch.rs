//! Lists, and lists that go on: `GET …?watch=true` sends what there is and then what changes, as
//! server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::Stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

use crate::app::App;
use crate::iam::Caller;
use crate::problem::Error;
use crate::resource::{self, CONTINUE, ListQuery, Resource};
use crate::store::{Entity, Op};

/// Events that may wait for a slow reader. A reader that falls further behind is cut off and starts
/// again with the whole list.
const BACKLOG: usize = 256;

/// Answers a list, or follows it.
///
/// # Errors
/// What the store says; 422 for a bad query.
pub async fn list<T: Resource>(
    app: &Arc<App>,
    caller: &Caller,
    query: ListQuery,
    show: impl Fn(&App, &Caller, &Entity) -> Result<T, Error> + Send + Sync + 'static,
) -> Result<Response, Error> {
    // Before the list is read, so that nothing between the two is missed.
    let seq =
        app.store.last_change().await.map_err(|error| Error::store(T::KIND, "list", error))?;
    let (shown, next) =
        resource::list(app, &caller.org, &query, |entity| show(app, caller, entity)).await?;
    // What the list says is so for calls too.
    app.settle().await;
    if query.watch == Some(true) {
        let (events, stream) = channel();
        let (app, caller) = (Arc::clone(app), caller.clone());
        tokio::spawn(async move {
            for resource in shown {
                if send(&events, "put", &resource).await.is_none() {
                    return;
                }
            }
            send(&events, "synced", &json!({})).await;
            follow(&app, &caller, seq, show, &events).await;
        });
        return Ok(stream);
    }
    let mut response = Json(shown).into_response();
    if let Some(next) = next.and_then(|next| next.parse().ok()) {
        response.headers_mut().insert(CONTINUE, next);
    }
    Ok(response)
}

/// A stream of server-sent events and where to put them.
pub fn channel() -> (mpsc::Sender<Event>, Response) {
    let (events, receiver) = mpsc::channel(BACKLOG);
    let keep = KeepAlive::new().interval(Duration::from_secs(15));
    (events, Sse::new(stream(receiver)).keep_alive(keep).into_response())
}

fn stream(events: mpsc::Receiver<Event>) -> impl Stream<Item = Result<Event, Infallible>> {
    futures_util::stream::unfold(events, |mut events| async move {
        Some((Ok(events.recv().await?), events))
    })
}

/// Sends one event; `None` when nobody listens any more.
pub async fn send<T: Serialize>(
    events: &mpsc::Sender<Event>,
    name: &'static str,
    data: &T,
) -> Option<()> {
    let event = Event::default().event(name).json_data(data).ok()?;
    events.send_timeout(event, Duration::from_secs(30)).await.ok()
}

async fn follow<T: Resource>(
    app: &App,
    caller: &Caller,
    mut seq: i64,
    show: impl Fn(&App, &Caller, &Entity) -> Result<T, Error>,
    events: &mpsc::Sender<Event>,
) {
    let mut feed = app.store.subscribe();
    loop {
        let changes = match app.store.changes(seq, 512).await {
            Ok(changes) => changes,
            Err(error) => {
                let text = format!("the changes cannot be read, list again: {error}");
                send(events, "error", &json!({ "message": text })).await;
                return;
            }
        };
        app.settle().await;
        for change in &changes {
            seq = change.seq;
            if change.org != caller.org || change.kind != T::KIND {
                continue;
            }
            let sent = match change.op {
                Op::Delete => send(events, "delete", &json!({ "name": change.name })).await,
                Op::Put => match app.store.get(T::KIND, &caller.org, &change.name).await {
                    Ok(Some(entity)) => match show(app, caller, &entity) {
                        Ok(resource) => send(events, "put", &resource).await,
                        Err(_) => Some(()),
                    },
                    // Deleted since: its own change follows.
                    Ok(None) => Some(()),
                    Err(error) => {
                        tracing::warn!(%error, "a watched resource cannot be read");
                        Some(())
                    }
                },
            };
            if sent.is_none() {
                return;
            }
        }
        if !changes.is_empty() {
            continue;
        }
        tokio::select! {
            changed = feed.changed() => if changed.is_err() { return },
            () = app.stopping.cancelled() => return,
            () = events.closed() => return,
        }
    }
}
