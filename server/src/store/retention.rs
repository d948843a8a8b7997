//! Forgetting: history is bounded, in short transactions so that others can write in between.

use sqlx::Row as _;

use super::writer::Tx;
use super::{Error, Store};

/// Runs that are deleted in one transaction.
const RUNS: i64 = 500;
/// Changes that are deleted in one transaction.
const CHANGES: i64 = 10_000;

impl Store {
    /// Forgets ended runs: all that ended before `older_than` (microseconds since 1970), and of each
    /// function all but the newest `keep` that are not dead. Answers how many are gone.
    ///
    /// # Errors
    /// The database takes no writes; what was forgotten until then stays forgotten.
    pub async fn prune_runs(&self, keep: i64, older_than: i64) -> Result<u64, Error> {
        let mut gone = 0;
        let functions = sqlx::query("SELECT id FROM entity WHERE kind = 'Function'")
            .fetch_all(&self.0.reads)
            .await?;
        for function in functions {
            let function: String = function.try_get("id")?;
            gone += self.prune(OLD, &function, older_than).await?;
            gone += self.prune(MANY, &function, keep.max(0)).await?;
        }
        Ok(gone)
    }

    /// Forgets all revisions but the newest `keep` of each function, those that serve and those that
    /// accepted runs wait for. Answers the `faas_id`s of what is gone.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn prune_revisions(&self, keep: usize) -> Result<Vec<String>, Error> {
        let keep = super::number(keep.max(1));
        self.write(move |tx| {
            Box::pin(async move {
                let rows = sqlx::query(
                    "DELETE FROM revision WHERE serving = 0 AND number <= (SELECT MAX(n.number) \
                     FROM revision n WHERE n.function_id = revision.function_id) - $1 \
                     AND NOT EXISTS (SELECT 1 FROM run WHERE run.function_id = revision.function_id \
                     AND run.finished IS NULL AND run.faas_id = revision.faas_id) RETURNING faas_id",
                )
                .bind(keep)
                .fetch_all(&mut tx.conn)
                .await?;
                rows.iter().map(|row| Ok(row.try_get("faas_id")?)).collect()
            })
        })
        .await
    }

    /// Forgets all but the last `keep` changes.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn prune_changes(&self, keep: i64) -> Result<(), Error> {
        let target = self.last_change().await? - keep.max(0);
        let mut reached = self.counter("pruned").await?;
        while reached < target {
            reached = target.min(reached + CHANGES);
            self.write(move |tx| {
                Box::pin(async move {
                    sqlx::query("DELETE FROM change WHERE seq <= $1")
                        .bind(reached)
                        .execute(&mut tx.conn)
                        .await?;
                    sqlx::query(
                        "UPDATE counter SET value = $1 WHERE name = 'pruned' AND value < $1",
                    )
                    .bind(reached)
                    .execute(&mut tx.conn)
                    .await?;
                    Ok(())
                })
            })
            .await?;
        }
        Ok(())
    }

    async fn prune(&self, which: &'static str, function: &str, bound: i64) -> Result<u64, Error> {
        let mut gone = 0;
        loop {
            let function = function.to_owned();
            let batch = self
                .write(move |tx| Box::pin(async move { tx.prune(which, &function, bound).await }))
                .await?;
            gone += batch;
            if batch < RUNS.unsigned_abs() {
                return Ok(gone);
            }
        }
    }
}

const OLD: &str = "DELETE FROM run WHERE id IN (SELECT id FROM run WHERE function_id = $1 \
                   AND finished < $2 LIMIT $3) RETURNING id, org, dead";
const MANY: &str = "DELETE FROM run WHERE id IN (SELECT id FROM run WHERE function_id = $1 \
                    AND finished IS NOT NULL AND dead = 0 \
                    ORDER BY created DESC, id DESC LIMIT $3 OFFSET $2) RETURNING id, org, dead";

impl Tx {
    async fn prune(
        &mut self,
        which: &'static str,
        function: &str,
        bound: i64,
    ) -> Result<u64, Error> {
        let query = sqlx::query(which).bind(function).bind(bound).bind(RUNS);
        let rows = query.fetch_all(&mut self.conn).await?;
        for row in &rows {
            // A dead run has a dead job, which only redriving it could need.
            if row.try_get::<i64, _>("dead")? == 1 {
                sqlx::query("DELETE FROM job WHERE org = $1 AND key = $2")
                    .bind(row.try_get::<String, _>("org")?)
                    .bind(row.try_get::<String, _>("id")?)
                    .execute(&mut self.conn)
                    .await?;
            }
        }
        Ok(rows.len() as u64)
    }
}
