//! Events: accepted into the log together with their deliveries, then delivered until each of them
//! has ended.

pub mod api;
mod deliver;
mod dispatch;
mod post;
mod replay;
mod table;

use axum::http::StatusCode;
use dispatch_api::{CloudEvent, Receipt};

use crate::app::App;
use crate::problem::Error;
use crate::store::NewEvent;

pub use dispatch::run as dispatch;
pub use post::Poster;
pub use table::{Subscription, Table, compile};

/// Bytes of one event as JSON.
pub const MAX_EVENT: usize = 1 << 20;
/// Bytes of the body of a request with events.
pub const MAX_BODY: usize = 16 << 20;
/// The extension that counts, on the way through places outside, how many deliveries led to an event.
pub const HOPS: &str = "dispatchhops";

/// Accepts events of an organization: once this returns they and their deliveries are on disk. Events
/// that were accepted a while ago, by source and id, are counted and not delivered again.
///
/// # Errors
/// 400 for an event that went round in circles, 413 for too large a one, 503 when nothing can be
/// stored; then none is accepted.
pub async fn accept(app: &App, org: &str, events: Vec<CloudEvent>) -> Result<Receipt, Error> {
    let limit = app.config.event_hops;
    let mut new = Vec::with_capacity(events.len());
    for event in events {
        let hops = hops(&event);
        if hops > limit {
            let text = format!(
                "Error validating event: it has passed {hops} subscriptions, and {limit} is the \
                 limit (--event-hops): events go round in circles"
            );
            return Err(Error::bad_request(text));
        }
        new.push(admit(app, org, &event, hops)?);
    }
    let receipt = app.store.append_events(new, window(app)).await;
    let receipt =
        receipt.map_err(|error| Error::store(dispatch_api::Kind::Subscription, "event", error))?;
    app.metrics.events(org, receipt.events, receipt.duplicates);
    Ok(receipt)
}

/// Why nothing is delivered to a subscription at the moment, by its id.
pub fn waiting_for(app: &App, id: &str) -> Option<String> {
    let snapshot = app.live.load();
    dispatch::waits_for(app, &snapshot, snapshot.subscription(id)?)
}

/// How many deliveries led to an event that comes from outside, as it says itself.
fn hops(event: &CloudEvent) -> i64 {
    let said = event.attribute(HOPS).and_then(|hops| hops.parse().ok());
    said.unwrap_or(0).max(0)
}

/// Microseconds in which an event is the same as one before.
fn window(app: &App) -> i64 {
    app.config.event_dedup_minutes.saturating_mul(60_000_000)
}

/// An event as it is stored, for the subscriptions there are at the moment.
fn admit(app: &App, org: &str, event: &CloudEvent, hops: i64) -> Result<NewEvent, Error> {
    let body = serde_json::to_string(event)
        .map_err(|error| Error::internal("internal error when emitting an event", &error))?;
    if body.len() > MAX_EVENT {
        let text = format!(
            "Error validating event: event {} has {} bytes, and {MAX_EVENT} is the limit: put the \
             data somewhere else and send where it is",
            event.id,
            body.len()
        );
        return Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let snapshot = app.live.load();
    let matching = snapshot.events(org).into_iter().flat_map(|table| table.matching(event));
    let deliveries = matching.map(|subscription| subscription.delivery_of(event)).collect();
    Ok(NewEvent {
        org: org.to_owned(),
        id: event.id.clone(),
        source: event.source.clone(),
        event_type: event.event_type.clone(),
        hops,
        body,
        deliveries,
    })
}
