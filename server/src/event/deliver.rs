//! One try of a delivery: the call, what is made of its end, and the event that its result becomes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dispatch_api::cloud_event::Data;
use dispatch_api::delivery::DeliveryState;
use dispatch_api::subscription::{DRIVER, Retry, Target};
use dispatch_api::{CloudEvent, ErrorType, Tag};
use dispatch_runner::Cause;
use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Subscription, admit, post, window};
use crate::app::App;
use crate::resource::now;
use crate::runs::{Invocation, RunRecord, attempt};
use crate::store::{DeliveryRow, NewEvent, RunRow, Tried};
use crate::tasks::backoff;
use crate::trace::Trace;

/// The tag of runs that names the subscription they were made for.
const TAG: &str = "Subscription";
/// How long a delivery waits that could not be tried, at first and at most, in milliseconds.
const NOT_MADE: (i64, i64) = (500, 30_000);

/// How a try ended.
pub(super) enum Outcome {
    /// Well, with the event that came of it.
    Done(Option<Box<CloudEvent>>),
    /// It failed.
    Failed {
        /// Why.
        error: String,
        /// Whether another try may help.
        again: bool,
        /// The least pause before it.
        after: Duration,
    },
    /// It was not made, and does not count.
    NotMade {
        /// Why.
        error: String,
        /// When it may be possible, where that is known.
        after: Option<Duration>,
    },
}

/// Tries some deliveries of one subscription in one call, and stores how it ended.
pub(super) async fn deliver(app: &Arc<App>, subscription: &Subscription, rows: Vec<DeliveryRow>) {
    let Some(first) = rows.first() else { return };
    let dead_lettered = first.dead_lettered;
    let resource = &subscription.resource;
    let target = if dead_lettered { resource.dead_letter.clone() } else { Some(resource.target()) };
    let events: Result<Vec<CloudEvent>, serde_json::Error> =
        rows.iter().map(|row| serde_json::from_str(&row.event)).collect();
    let hops = rows.iter().map(|row| row.hops).max().unwrap_or_default();
    let (outcome, run) = match (events, target) {
        (Err(error), _) => (failed(format!("the event in the log cannot be read: {error}")), None),
        // It was taken away since.
        (_, None) => (failed(first.error.clone()), None),
        (Ok(events), Some(target)) => make(app, subscription, &target, &events, &rows).await,
    };
    app.metrics.delivery(&subscription.org, &resource.name, word(&outcome));
    let (reply, note) = match &outcome {
        Outcome::Done(Some(event)) if !dead_lettered => reply(app, subscription, event, hops),
        _ => (None, String::new()),
    };
    let alone = rows.len() == 1;
    let tried: Vec<Tried> =
        rows.iter().map(|row| decide(row, &outcome, resource, alone, &note)).collect();
    let replies = reply.into_iter().collect();
    let stored = app.store.finish_deliveries(tried, run, replies, window(app)).await;
    if let Err(error) = stored {
        // The lease runs out and it is delivered again: at least once.
        tracing::error!(%error, subscription = resource.name, "a delivery's end is not stored");
    }
}

fn failed(error: String) -> Outcome {
    Outcome::Failed { error, again: false, after: Duration::ZERO }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done(_) => "delivered",
        Outcome::Failed { .. } => "failed",
        Outcome::NotMade { .. } => "not-made",
    }
}

async fn make(
    app: &Arc<App>,
    subscription: &Subscription,
    target: &Target,
    events: &[CloudEvent],
    rows: &[DeliveryRow],
) -> (Outcome, Option<RunRow>) {
    if !target.function.is_empty() {
        return call(app, subscription, &target.function, events, rows).await;
    }
    let resource = &subscription.resource;
    let hops = rows.iter().map(|row| row.hops).max().unwrap_or_default();
    let timeout = resource.retry.unwrap_or_default().timeout;
    let outcome = match target.uri.strip_prefix(DRIVER) {
        Some(name) => {
            post::to_driver(app, &subscription.org, name, events, hops + 1, timeout).await
        }
        None => app.poster.post(&target.uri, events, hops + 1, timeout).await,
    };
    (outcome, None)
}

/// The payload and `context.event` of a call: of one event its own, of several a list each.
fn input(events: &[CloudEvent], batch: bool) -> serde_json::Result<(Bytes, Value)> {
    let mut contexts = events
        .iter()
        .map(|event| serde_json::to_value(event.context()))
        .collect::<serde_json::Result<Vec<Value>>>()?;
    let mut payloads: Vec<Box<RawValue>> = events.iter().map(CloudEvent::payload).collect();
    if batch {
        return Ok((serde_json::to_vec(&payloads)?.into(), Value::Array(contexts)));
    }
    let payload = payloads.pop().map_or_else(|| "null".to_owned(), |raw| raw.get().to_owned());
    Ok((payload.into(), contexts.pop().unwrap_or_default()))
}

async fn call(
    app: &Arc<App>,
    subscription: &Subscription,
    name: &str,
    events: &[CloudEvent],
    rows: &[DeliveryRow],
) -> (Outcome, Option<RunRow>) {
    let not_made = |error: String| (Outcome::NotMade { error, after: None }, None);
    let snapshot = app.live.load();
    let Some(function) = snapshot.function(&subscription.org, name) else {
        return not_made(format!("function {name} does not exist"));
    };
    if function.serving.is_none() {
        return not_made(format!("function {name} is not READY"));
    }
    let (input, event) = match input(events, subscription.resource.batch > 1) {
        Ok(input) => input,
        Err(error) => return (failed(format!("the event cannot be written: {error}")), None),
    };
    let of_event = |name: &str| events.first().and_then(|event| event.attribute(name));
    let invocation = Invocation {
        org: subscription.org.clone(),
        function: Arc::clone(function),
        input,
        http_context: None,
        request: None,
        event: Some(event),
        secrets: subscription.resource.secrets.clone(),
        services: Vec::new(),
        tags: vec![Tag { key: TAG.to_owned(), value: subscription.resource.name.clone() }],
        trace: Trace::new(of_event("traceparent").as_deref(), of_event("tracestate").as_deref()),
    };
    let id = Uuid::now_v7().to_string();
    let finished = attempt(app, id, Timestamp::now(), &invocation).await;
    let tries = rows.first().map_or(1, |row| row.attempts + 1);
    let record = RunRecord::ended(&invocation, &finished, false, tries).into_row();
    let outcome = match &finished.result {
        Ok(output) => Outcome::Done(result(app, subscription, rows, output).map(Box::new)),
        Err(failure) => match &failure.cause {
            Cause::Overload { retry_after } => {
                let error = failure.message.clone();
                return (Outcome::NotMade { error, after: Some(*retry_after) }, None);
            }
            Cause::Cancelled => {
                let error = failure.message.clone();
                return (Outcome::NotMade { error, after: Some(Duration::ZERO) }, None);
            }
            // An input that does not fit will not fit the next time.
            _ => Outcome::Failed {
                error: failure.message.clone(),
                again: failure.kind != ErrorType::InputError,
                after: Duration::ZERO,
            },
        },
    };
    (outcome, Some(record))
}

/// The event that a function's result becomes. The same delivery always makes the same one.
fn result(
    app: &App,
    subscription: &Subscription,
    rows: &[DeliveryRow],
    output: &Bytes,
) -> Option<CloudEvent> {
    let reply = subscription.resource.reply.as_ref()?;
    let raw: Box<RawValue> = serde_json::from_slice(output).ok()?;
    if raw.get() == "null" {
        return None;
    }
    let id = format!("{}-{}", subscription.id, rows.first()?.id);
    let own = format!("/{}/subscription/{}", subscription.org, subscription.resource.name);
    let source = if reply.source.is_empty() { own } else { reply.source.clone() };
    let event =
        CloudEvent::new(id, source, &reply.event_type, Timestamp::now(), Some(Data::Json(raw)));
    match event.validate() {
        Ok(()) => Some(event),
        Err(error) => {
            app.metrics.delivery(&subscription.org, &subscription.resource.name, "no-reply");
            tracing::warn!(subscription = subscription.resource.name, %error, "a reply is no event");
            None
        }
    }
}

/// A reply as it is stored, or why it is dropped.
fn reply(
    app: &App,
    subscription: &Subscription,
    event: &CloudEvent,
    hops: i64,
) -> (Option<NewEvent>, String) {
    let limit = app.config.event_hops;
    if hops >= limit {
        app.metrics.delivery(&subscription.org, &subscription.resource.name, "no-reply");
        let text = format!(
            "its reply was dropped: {limit} subscriptions led to it, which is the limit \
             (--event-hops)"
        );
        return (None, text);
    }
    match admit(app, &subscription.org, event, hops + 1) {
        Ok(event) => (Some(event), String::new()),
        Err(error) => (None, format!("its reply was dropped: {}", error.problem.message)),
    }
}

fn decide(
    row: &DeliveryRow,
    outcome: &Outcome,
    subscription: &dispatch_api::Subscription,
    alone: bool,
    note: &str,
) -> Tried {
    let mut tried = Tried {
        id: row.id,
        generation: row.generation,
        state: DeliveryState::Waiting,
        dead_lettered: row.dead_lettered,
        due: now(),
        attempts: row.attempts + 1,
        error: String::new(),
    };
    match outcome {
        // At the dead letter target: it stays dead for its subscription, and says why it died.
        Outcome::Done(_) if row.dead_lettered => {
            tried.state = DeliveryState::Dead;
            tried.error.clone_from(&row.error);
        }
        Outcome::Done(_) => {
            tried.state = DeliveryState::Delivered;
            note.clone_into(&mut tried.error);
        }
        Outcome::Failed { error, again, after } => {
            let retry = subscription.retry.unwrap_or_default();
            tried.error = short(error);
            if *again && (!alone || tried.attempts < retry.attempts) {
                let after = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
                tried.due = tried.due.saturating_add(pause(tried.attempts, &retry).max(after));
            } else if !row.dead_lettered && subscription.dead_letter.is_some() {
                tried.dead_lettered = true;
                tried.attempts = 0;
            } else {
                tried.state = DeliveryState::Dead;
            }
        }
        Outcome::NotMade { error, after } => {
            tried.attempts = row.attempts;
            tried.error = short(error);
            let (least, most) = NOT_MADE;
            // The longer it has waited, the rarer it is tried.
            let age = (tried.due - row.created) / 8000;
            let pause = after.map_or(age.clamp(least, most) * 1000, |after| {
                i64::try_from(after.as_micros()).unwrap_or(i64::MAX)
            });
            tried.due = tried.due.saturating_add(pause);
        }
    }
    tried
}

/// Microseconds before the next try: doubled each time, and varied by a fifth so that what failed
/// together does not come back together.
fn pause(attempts: i64, retry: &Retry) -> i64 {
    let pause = backoff(attempts, retry.backoff, retry.max_backoff.max(retry.backoff));
    let fifth = pause / 5;
    let dice = i64::from(Uuid::new_v4().as_bytes()[0]);
    pause - fifth + fifth.saturating_mul(2) / 255 * dice
}

/// Errors of others can be long.
fn short(error: &str) -> String {
    error.chars().take(2000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(attempts: i64, dead_lettered: bool) -> DeliveryRow {
        DeliveryRow {
            id: 1,
            subscription: "s".into(),
            state: DeliveryState::Waiting,
            dead_lettered,
            due: 0,
            attempts,
            generation: 3,
            error: "before".into(),
            run: String::new(),
            created: 0,
            modified: 0,
            hops: 0,
            event: String::new(),
        }
    }

    fn subscription(dead_letter: bool) -> dispatch_api::Subscription {
        dispatch_api::Subscription {
            retry: Some(Retry { attempts: 3, backoff: 100, max_backoff: 1000, timeout: 0 }),
            dead_letter: dead_letter.then(|| Target { function: "f".into(), ..Target::default() }),
            ..dispatch_api::Subscription::default()
        }
    }

    fn bad(again: bool) -> Outcome {
        Outcome::Failed { error: "no".into(), again, after: Duration::ZERO }
    }

    #[test]
    fn a_failure_is_tried_again_then_goes_to_the_dead() {
        let plain = subscription(false);
        let first = decide(&row(0, false), &bad(true), &plain, true, "");
        assert_eq!((first.state, first.attempts), (DeliveryState::Waiting, 1));
        assert!(first.due > now(), "it waits");
        let last = decide(&row(2, false), &bad(true), &plain, true, "");
        assert_eq!((last.state, last.attempts), (DeliveryState::Dead, 3));
        let hopeless = decide(&row(0, false), &bad(false), &plain, true, "");
        assert_eq!(hopeless.state, DeliveryState::Dead);
        let together = decide(&row(2, false), &bad(true), &plain, false, "");
        assert_eq!(together.state, DeliveryState::Waiting, "it has not been tried alone");
    }

    #[test]
    fn with_a_dead_letter_target_it_goes_there_and_says_why() {
        let target = subscription(true);
        let turned = decide(&row(2, false), &bad(true), &target, true, "");
        assert_eq!((turned.state, turned.attempts), (DeliveryState::Waiting, 0));
        assert!(turned.dead_lettered);
        let there = decide(&row(0, true), &Outcome::Done(None), &target, true, "");
        assert_eq!((there.state, there.error.as_str()), (DeliveryState::Dead, "before"));
        let lost = decide(&row(2, true), &bad(true), &target, true, "");
        assert_eq!(lost.state, DeliveryState::Dead);
    }

    #[test]
    fn what_could_not_be_tried_does_not_count() {
        let outcome = Outcome::NotMade { error: "not READY".into(), after: None };
        let tried = decide(&row(2, false), &outcome, &subscription(false), true, "");
        assert_eq!((tried.state, tried.attempts), (DeliveryState::Waiting, 2));
    }

    #[test]
    fn pauses_double_and_vary_by_a_fifth() {
        let retry = Retry { attempts: 9, backoff: 1000, max_backoff: 4000, timeout: 0 };
        for (attempts, millis) in [(1, 1000), (2, 2000), (3, 4000), (8, 4000)] {
            for _ in 0..50 {
                let pause = pause(attempts, &retry);
                assert!((millis * 800..=millis * 1200).contains(&pause), "{attempts}: {pause}");
            }
        }
    }
}
