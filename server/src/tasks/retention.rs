//! Keeps the history, and so the disk, bounded.

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::resource::now;
use crate::{gc, store};

/// How often.
const EVERY: Duration = Duration::from_secs(60);
/// Entries of the change log that are kept for slow readers.
const CHANGES: i64 = 10_000;
/// Prunes until the server stops.
pub(super) async fn keep(app: Arc<App>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = app.stopping.cancelled() => return,
        }
        if let Err(error) = prune(&app).await {
            tracing::error!(%error, "the history cannot be pruned");
        }
    }
}

async fn prune(app: &App) -> Result<(), store::Error> {
    let config = &app.config;
    let oldest = now() - config.run_retention_hours.saturating_mul(3_600_000_000);
    let runs = app.store.prune_runs(config.run_retention_count, oldest).await?;
    for faas_id in app.store.prune_revisions(config.revision_retention).await? {
        app.runner.retire(&faas_id);
    }
    app.store.prune_changes(CHANGES).await?;
    let oldest = now() - config.event_retention_hours.saturating_mul(3_600_000_000);
    let bytes = config.event_retention_mib.saturating_mul(1 << 20);
    let events = app.store.prune_events(oldest, bytes).await?;
    let files = gc::tidy(app).await?;
    if runs > 0 || events > 0 || files > 0 {
        tracing::debug!(runs, events, files, "history pruned");
    }
    Ok(())
}
