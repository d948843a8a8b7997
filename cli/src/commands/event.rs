//! What is asked about events that were accepted: the log, deliveries, redriving, replaying.

use dispatch_api::subscription::Progress;
use dispatch_api::{
    CloudEvent, Delivery, DeliveryFilter, LoggedEvent, Redriven, Replay, Replayed, Subscription,
};
use jiff::{Span, Timestamp, Zoned};

use super::Session;
use crate::args::{self, Format, GetDelivery, GetEvent, RedriveDelivery};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::output::{self, Show, instant};

/// Shows events of the log.
///
/// # Errors
/// Like all requests.
pub async fn log(session: &Session, args: &GetEvent) -> Result {
    let events = session.client.events(args.event_type.as_deref(), args.limit).await?;
    output::list(&events, &session.settings)
}

/// Shows deliveries, or one.
///
/// # Errors
/// Like all requests.
pub async fn deliveries(session: &Session, args: GetDelivery) -> Result {
    let (client, settings) = (&session.client, &session.settings);
    if let Some(id) = &args.id {
        return output::one(&client.delivery(id).await?, settings);
    }
    let GetDelivery { subscription, state, limit, .. } = args;
    let filter = DeliveryFilter { subscription, state, limit };
    output::list(&client.deliveries(&filter).await?, settings)
}

/// Shows how far a subscription is.
///
/// # Errors
/// Like all requests.
pub async fn progress(session: &Session, name: &str) -> Result {
    let subscription: Subscription = session.client.get(name).await?;
    let progress = subscription.progress.unwrap_or_default();
    output::one(&progress, &session.settings)?;
    if session.settings.format == Format::Table {
        for (what, text) in
            [("Last error", &progress.last_error), ("Waiting", &progress.waiting_for)]
        {
            if !text.is_empty() {
                output::line(&format!("\n{what}: {text}"))?;
            }
        }
    }
    Ok(())
}

/// Starts dead deliveries over.
///
/// # Errors
/// Like all requests.
pub async fn redrive(session: &Session, args: &RedriveDelivery) -> Result {
    let (client, settings) = (&session.client, &session.settings);
    match (&args.id, &args.subscription) {
        (Some(id), _) => {
            let delivery = client.redrive_delivery(id).await?;
            output::done(&format!("Redriven delivery: {id}"), &delivery, settings)
        }
        (None, name) => {
            let name = name.as_deref().unwrap_or_default();
            let redriven = client.redrive_deliveries(name).await?;
            let text = format!("Redriven deliveries of {name}: {}", redriven.deliveries);
            output::done(&text, &redriven, settings)
        }
    }
}

/// Gives a subscription events of the log once more.
///
/// # Errors
/// A time or a filter that is none; else like all requests.
pub async fn replay(session: &Session, args: args::Replay) -> Result {
    let name = args.subscription;
    let replay = Replay {
        subscription: name.clone(),
        since: time("--since", &args.since)?,
        until: args.until.map(|text| time("--until", &text)).transpose()?.unwrap_or_default(),
        filters: args.filters.read()?.unwrap_or_default(),
        dry_run: args.dry_run,
    };
    let replayed = session.client.replay(&replay).await?;
    let what = if args.dry_run { "would be delivered" } else { "will be delivered" };
    let Replayed { events, deliveries } = replayed;
    let text = format!("{deliveries} of {events} events {what} to {name} again");
    output::done(&text, &replayed, &session.settings)
}

/// A point in time in RFC 3339, from one or from how long ago it was.
fn time(flag: &str, text: &str) -> Result<String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.to_string());
    }
    let ago = text.parse::<Span>().and_then(|span| Zoned::now().checked_sub(span.abs()));
    let time = ago.map_err(|_| {
        Error::local(format!(
            "invalid argument {text:?} for {flag:?}: use a time such as 2026-01-31T08:00:00Z, or how \
             long ago it was, such as 90min or 2d"
        ))
    })?;
    Ok(time.timestamp().to_string())
}

/// A point in time of the server, as this machine writes it.
fn local(time: &str) -> String {
    time.parse().map(instant).unwrap_or_else(|_| time.to_owned())
}

impl Show for LoggedEvent {
    const MODEL: &'static str = r#"{"number": 0, "accepted": "", "event": null}"#;
    const COLUMNS: &'static [&'static str] = &["Number", "Type", "Source", "ID", "Accepted"];

    fn label(&self) -> String {
        self.number.to_string()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let event: CloudEvent = serde_json::from_str(&self.event.to_string()).unwrap_or_default();
        let accepted = local(&self.accepted);
        vec![self.number.to_string(), event.event_type, event.source, event.id, accepted]
    }
}

impl Show for Delivery {
    const MODEL: &'static str = r#"{"id": "", "subscription": "", "state": "", "eventid": "",
        "eventsource": "", "eventtype": "", "attempts": 0, "error": "", "run": "",
        "deadlettered": false, "created": "", "modified": "", "due": ""}"#;
    const COLUMNS: &'static [&'static str] =
        &["ID", "Subscription", "State", "Event type", "Event ID", "Attempts", "Error"];

    fn label(&self) -> String {
        self.id.clone()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        vec![
            self.id.clone(),
            self.subscription.clone(),
            self.state.as_str().to_owned(),
            self.event_type.clone(),
            self.event_id.clone(),
            self.attempts.to_string(),
            self.error.clone(),
        ]
    }
}

impl Show for Progress {
    const MODEL: &'static str = r#"{"lag": 0, "delivered": 0, "dead": 0, "lasterror": "",
        "lastdelivered": "", "waitingfor": ""}"#;
    const COLUMNS: &'static [&'static str] = &["Lag", "Delivered", "Dead", "Last delivered"];

    fn label(&self) -> String {
        self.lag.to_string()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        let counts = [self.lag, self.delivered, self.dead].map(|count| count.to_string());
        counts.into_iter().chain([local(&self.last_delivered)]).collect()
    }
}

impl Show for Redriven {
    const MODEL: &'static str = r#"{"deliveries": 0}"#;
    const COLUMNS: &'static [&'static str] = &["Deliveries"];

    fn label(&self) -> String {
        self.deliveries.to_string()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        vec![self.deliveries.to_string()]
    }
}

impl Show for Replayed {
    const MODEL: &'static str = r#"{"events": 0, "deliveries": 0}"#;
    const COLUMNS: &'static [&'static str] = &["Events", "Deliveries"];

    fn label(&self) -> String {
        self.deliveries.to_string()
    }

    fn cells(&self, _: &Settings) -> Vec<String> {
        vec![self.events.to_string(), self.deliveries.to_string()]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_points_or_how_long_ago() {
        let at = |text: &str| time("--since", text).ok()?.parse::<Timestamp>().ok();
        assert_eq!(time("--since", "2026-01-31T09:00:00+01:00").unwrap(), "2026-01-31T08:00:00Z");
        for (text, seconds) in [("90min", 5400), ("1h", 3600), ("1h30m", 5400), ("10s ago", 10)] {
            let ago = Timestamp::now().as_second() - at(text).unwrap().as_second();
            // What passes between the two readings of the clock, at most.
            assert!((seconds..seconds + 60).contains(&ago), "{text}: {ago}");
        }
        // A day may have 23 or 25 hours.
        let days = Timestamp::now().as_second() - at("2d").unwrap().as_second();
        assert!((46 * 3600..51 * 3600).contains(&days), "{days}");
        for bad in ["", "yesterday", "1", "2026-01-31"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
