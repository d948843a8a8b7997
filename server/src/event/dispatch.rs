//! Who is delivered to next: claims deliveries that are due and hands them out, so that each
//! subscription has its turn whatever the others have waiting.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dispatch_api::subscription::{DRIVER, Target};
use tokio::task::JoinSet;

use super::Subscription;
use super::deliver::deliver;
use crate::app::App;
use crate::live::Snapshot;
use crate::resource::now;
use crate::store::{self, DeliveryRow, Share};
use crate::tasks::{LEASE_MICROS, OWNER, RENEW, RETRY};

/// How long nothing is looked at where nothing wakes it.
const LONGEST: Duration = Duration::from_secs(5);

/// What is under way.
#[derive(Default)]
struct Hands {
    tasks: JoinSet<(String, Vec<i64>)>,
    calls: HashMap<String, usize>,
    claimed: Vec<i64>,
    /// Where the next round of claims begins, so that the last are the first another time.
    turn: usize,
}

impl Hands {
    fn begin(&mut self, app: &Arc<App>, subscription: &Arc<Subscription>, rows: Vec<DeliveryRow>) {
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        self.claimed.extend(&ids);
        *self.calls.entry(subscription.id.clone()).or_default() += 1;
        let (app, subscription) = (Arc::clone(app), Arc::clone(subscription));
        self.tasks.spawn(async move {
            deliver(&app, &subscription, rows).await;
            (subscription.id.clone(), ids)
        });
    }

    fn ended(&mut self, subscription: &str, ids: &[i64]) {
        self.claimed.retain(|id| !ids.contains(id));
        if let Some(calls) = self.calls.get_mut(subscription) {
            *calls -= 1;
            if *calls == 0 {
                self.calls.remove(subscription);
            }
        }
    }
}

/// Delivers events until the server stops; what runs then is finished.
pub async fn run(app: Arc<App>) {
    let mut hands = Hands::default();
    let mut renewal = tokio::time::interval(RENEW);
    // A function that becomes ready, a subscription that goes on: both change the tables.
    let mut tables = app.live.follow();
    loop {
        // Before the claim: what is committed after it must not be missed.
        let wake = app.store.wake_deliveries();
        let woken = wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        tables.mark_unchanged();
        let mut pause = LONGEST;
        if !app.stopping.is_cancelled() {
            pause = claim(&app, &mut hands).await.unwrap_or_else(|error| {
                tracing::error!(%error, "deliveries cannot be claimed");
                RETRY
            });
        } else if hands.tasks.is_empty() {
            return;
        }
        let room = hands.tasks.len() < app.config.event_concurrency;
        tokio::select! {
            Some(done) = hands.tasks.join_next() => {
                let mut done = Some(done);
                while let Some(ended) = done {
                    match ended {
                        Ok((subscription, ids)) => hands.ended(&subscription, &ids),
                        Err(error) => tracing::error!(%error, "a delivery was lost"),
                    }
                    done = hands.tasks.try_join_next();
                }
            }
            () = woken, if room => {}
            _ = tables.changed(), if room => {}
            () = tokio::time::sleep(pause), if room => {}
            _ = renewal.tick() => {
                let claimed = hands.claimed.clone();
                if let Err(error) = app.store.renew_deliveries(claimed, OWNER, LEASE_MICROS).await {
                    tracing::error!(%error, "leases of deliveries cannot be renewed");
                }
            }
            () = app.stopping.cancelled(), if !app.stopping.is_cancelled() => {}
        }
    }
}

/// Why nothing is delivered to a subscription at the moment.
pub(super) fn waits_for(
    app: &App,
    snapshot: &Snapshot,
    subscription: &Subscription,
) -> Option<String> {
    let resource = &subscription.resource;
    if resource.paused {
        return Some("it is paused".to_owned());
    }
    let Target { function: name, uri } = resource.target();
    if name.is_empty() {
        let driver = uri.strip_prefix(DRIVER)?;
        let runs = app.drivers.runs(&subscription.org, driver);
        return (!runs).then(|| format!("event driver {driver} does not run"));
    }
    match snapshot.function(&subscription.org, &name) {
        None => Some(format!("function {name} does not exist")),
        Some(function) if function.serving.is_none() => {
            Some(format!("function {name} is not READY"))
        }
        Some(_) => None,
    }
}

/// Claims what is due and there is room for; answers how long nothing will be due.
async fn claim(app: &Arc<App>, hands: &mut Hands) -> Result<Duration, store::Error> {
    let mut room = app.config.event_concurrency.saturating_sub(hands.tasks.len());
    if room == 0 {
        return Ok(LONGEST);
    }
    let open = app.store.open_deliveries().await?;
    let (snapshot, now) = (app.live.load(), now());
    let mut pause = LONGEST;
    let mut wanted = Vec::new();
    for (id, due) in open {
        let Some(subscription) = snapshot.subscription(&id) else { continue };
        let width = usize::try_from(subscription.resource.width()).unwrap_or(1);
        let free = width.saturating_sub(hands.calls.get(&id).copied().unwrap_or_default());
        let Some(due) = due.filter(|_| free > 0) else { continue };
        if waits_for(app, &snapshot, subscription).is_some() {
            continue;
        }
        if due > now {
            let wait = u64::try_from(due - now).unwrap_or(0);
            pause = pause.min(Duration::from_micros(wait));
        } else {
            wanted.push((Arc::clone(subscription), free));
        }
    }
    if wanted.is_empty() {
        return Ok(pause);
    }
    let turn = hands.turn % wanted.len();
    wanted.rotate_left(turn);
    hands.turn = hands.turn.wrapping_add(1);
    let mut shares = Vec::new();
    for (index, (subscription, free)) in wanted.iter().enumerate() {
        let calls = room.div_ceil(wanted.len() - index).min(*free);
        if calls == 0 {
            break;
        }
        room -= calls;
        let limit = calls * batch(subscription);
        shares.push(Share { subscription: subscription.id.clone(), limit });
    }
    let rows = app.store.claim_deliveries(shares, OWNER, LEASE_MICROS).await?;
    let mut of: HashMap<String, Vec<DeliveryRow>> = HashMap::new();
    for row in rows {
        of.entry(row.subscription.clone()).or_default().push(row);
    }
    for (subscription, _) in &wanted {
        for rows in calls(of.remove(&subscription.id).unwrap_or_default(), batch(subscription)) {
            hands.begin(app, subscription, rows);
        }
    }
    // There may be more of it.
    Ok(Duration::from_millis(1))
}

fn batch(subscription: &Subscription) -> usize {
    usize::try_from(subscription.resource.batch).unwrap_or(1).max(1)
}

/// The calls that some deliveries make. What failed before, or goes to another place, goes alone, so
/// that one bad event does not take others with it again and again.
fn calls(rows: Vec<DeliveryRow>, batch: usize) -> Vec<Vec<DeliveryRow>> {
    let fresh = |row: &DeliveryRow| batch > 1 && row.attempts == 0 && !row.dead_lettered;
    let (together, alone): (Vec<_>, Vec<_>) = rows.into_iter().partition(fresh);
    let mut calls: Vec<Vec<DeliveryRow>> = alone.into_iter().map(|row| vec![row]).collect();
    let mut together = together.into_iter().peekable();
    while together.peek().is_some() {
        calls.push(together.by_ref().take(batch).collect());
    }
    calls
}
