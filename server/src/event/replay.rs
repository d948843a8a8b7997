//! Events of the log for a subscription once more.

use dispatch_api::delivery::{Replay, Replayed};
use dispatch_api::{CloudEvent, Invalid, Kind, filter, validate};
use jiff::Timestamp;

use super::Subscription;
use crate::app::App;
use crate::problem::Error;
use crate::store::{NewDelivery, Stretch};

/// Events that are looked at at once.
const PAGE: usize = 500;

fn time(field: &str, text: &str) -> Result<i64, Error> {
    let time: Timestamp = text.parse().map_err(|_| {
        Invalid::new(
            validate::PATTERN,
            format!("{field} in body should be a time such as 2026-01-31T08:00:00Z, not {text:?}"),
        )
    })?;
    Ok(time.as_microsecond())
}

/// Delivers those events of the log again that the subscription, and the request, want.
///
/// # Errors
/// 422 for a bad request, 503 when nothing can be stored; what was made until then will be delivered.
pub(super) async fn replay(
    app: &App,
    subscription: &Subscription,
    replay: &Replay,
) -> Result<Replayed, Error> {
    let failed = |error| Error::store(Kind::Subscription, &replay.subscription, error);
    let filters = filter::read(&replay.filters).and_then(|filters| filter::compile("*", &filters));
    let filters = filters.map_err(|error| Invalid::new(validate::PATTERN, error.to_string()))?;
    let since = time("since", &replay.since)?;
    let now = Timestamp::now().as_microsecond();
    let until = if replay.until.is_empty() { now } else { time("until", &replay.until)?.min(now) };
    let mut stretch = Stretch { since, until, after: (0, 0), limit: PAGE };
    let mut replayed = Replayed::default();
    loop {
        let page = app.store.event_log(&subscription.org, &stretch).await.map_err(failed)?;
        let Some(last) = page.last() else { return Ok(replayed) };
        stretch.after = (last.accepted, last.seq);
        let mut new = Vec::new();
        for row in &page {
            replayed.events += 1;
            let Ok(event) = serde_json::from_str::<CloudEvent>(&row.body) else { continue };
            if subscription.wants(&event) && filters.matches(&event) {
                let (subscription, ordering) = subscription.delivery_of(&event);
                new.push(NewDelivery { subscription, event: row.seq, ordering });
            }
        }
        if replay.dry_run {
            replayed.deliveries += new.len() as u64;
        } else if !new.is_empty() {
            replayed.deliveries += app.store.deliver_again(new).await.map_err(failed)?;
        }
    }
}
