//! Keeps the history, and so the disk, bounded.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dispatch_api::Kind;

use crate::app::App;
use crate::function::{Stored, hex};
use crate::resource::now;
use crate::store;

/// How often.
const EVERY: Duration = Duration::from_secs(60);
/// Entries of the change log that are kept for slow readers.
const CHANGES: i64 = 10_000;
/// An archive nobody refers to may belong to a function that is just being made.
const YOUNG: Duration = Duration::from_secs(3600);

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
    let archives = sweep_archives(app).await?;
    if runs > 0 || archives > 0 {
        tracing::debug!(runs, archives, "history pruned");
    }
    Ok(())
}

/// Removes source archives, and their unpacked trees, that no revision refers to.
async fn sweep_archives(app: &App) -> Result<usize, store::Error> {
    let mut used = HashSet::new();
    for function in app.store.all(Kind::Function).await? {
        for row in app.store.revisions(&function.id).await? {
            let stored: Stored = serde_json::from_value(row.body).unwrap_or_default();
            used.insert(hex(&stored.source_digest).to_owned());
        }
    }
    let data_dir = app.config.data_dir.clone();
    let sweep = move || {
        let mut removed = 0;
        let Ok(entries) = std::fs::read_dir(data_dir.join("archives")) else { return 0 };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let age = entry.metadata().ok().and_then(|data| data.modified().ok());
            let age = age.and_then(|modified| SystemTime::now().duration_since(modified).ok());
            if used.contains(&name) || age.is_none_or(|age| age < YOUNG) {
                continue;
            }
            let tree = data_dir.join("sources").join(&name);
            let gone = std::fs::remove_file(entry.path());
            let tree = if tree.exists() { std::fs::remove_dir_all(tree) } else { Ok(()) };
            if let Err(error) = gone.and(tree) {
                tracing::warn!(%error, archive = name, "an unused source is left over");
            } else {
                removed += 1;
            }
        }
        removed
    };
    Ok(tokio::task::spawn_blocking(sweep).await.unwrap_or(0))
}
