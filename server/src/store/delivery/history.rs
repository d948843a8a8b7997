//! Deliveries looked back at: lists, progress, and those that are started over.

use dispatch_api::Problem;
use dispatch_api::delivery::DeliveryState;
use dispatch_api::subscription::Progress;
use sqlx::{AssertSqlSafe, Row as _};

use super::{DeliveryRow, NewDelivery, SELECT, number, read};
use crate::store::{self, Error, Store};

impl Store {
    /// Makes deliveries of events that are in the log; answers how many.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn deliver_again(&self, new: Vec<NewDelivery>) -> Result<u64, Error> {
        self.write(move |tx| Box::pin(async move { tx.deliver(new).await })).await
    }

    /// Deliveries of some subscriptions, the newest first, only in one state where it is given, and
    /// only before the one with the number `before`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn deliveries(
        &self,
        subscriptions: &[String],
        wanted: Option<DeliveryState>,
        before: i64,
        limit: usize,
    ) -> Result<Vec<DeliveryRow>, Error> {
        let mut all = Vec::new();
        for subscription in subscriptions {
            let state = match wanted {
                None => String::new(),
                Some(DeliveryState::Dead) => " AND d.state = 3".to_owned(),
                Some(state) => format!(" AND d.state = {}", number(state)),
            };
            // A number of our own is all that is in this text.
            let statement = format!(
                "{SELECT} WHERE d.subscription = $1 AND d.id < $2{state} ORDER BY d.id DESC LIMIT $3"
            );
            let rows = sqlx::query(AssertSqlSafe(statement))
                .bind(subscription)
                .bind(before)
                .bind(store::number(limit))
                .fetch_all(&self.0.reads)
                .await?;
            for row in &rows {
                all.push(read(row)?);
            }
        }
        all.sort_by_key(|row| std::cmp::Reverse(row.id));
        all.truncate(limit);
        Ok(all)
    }

    /// Reads one delivery of an organization.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn delivery(&self, org: &str, id: i64) -> Result<Option<DeliveryRow>, Error> {
        let statement = format!("{SELECT} WHERE d.id = $1 AND e.org = $2");
        let query = sqlx::query(AssertSqlSafe(statement)).bind(id).bind(org);
        query.fetch_optional(&self.0.reads).await?.as_ref().map(read).transpose()
    }

    /// Starts a dead delivery over, at the subscription's own target.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not dead.
    pub async fn redrive_delivery(&self, id: i64) -> Result<(), Error> {
        let started = self.start_over(format!("id = {id}"), 1).await?;
        if started == 0 {
            let text = format!("delivery {id} is not dead: only those that failed for good are");
            return Err(Error::Refused(Problem::new(400, text)));
        }
        Ok(())
    }

    /// Starts all dead deliveries of a subscription over; answers how many.
    ///
    /// # Errors
    /// The database takes no writes; what was started over until then stays so.
    pub async fn redrive_deliveries(&self, subscription: &str) -> Result<u64, Error> {
        let id = uuid::Uuid::parse_str(subscription)
            .map_err(|_| Error::Corrupt(format!("{subscription:?} is not an id")))?;
        let mut all = 0;
        loop {
            let some = self.start_over(format!("subscription = '{id}'"), 1000).await?;
            all += some;
            if some < 1000 {
                return Ok(all);
            }
        }
    }

    /// `which` is text of our own.
    async fn start_over(&self, which: String, limit: i64) -> Result<u64, Error> {
        self.write(move |tx| {
            Box::pin(async move {
                let statement = format!(
                    "UPDATE delivery SET stage = 0, attempts = 0, due = $1, modified = $1, \
                     generation = generation + 1, owner = '', state = CASE WHEN ordering <> '' \
                     AND EXISTS (SELECT 1 FROM delivery b WHERE b.subscription = \
                     delivery.subscription AND b.ordering = delivery.ordering \
                     AND b.ordering <> '' AND b.state <= 1) THEN 1 ELSE 0 END \
                     WHERE id IN (SELECT id FROM delivery WHERE {which} AND state = 3 \
                     ORDER BY id LIMIT $2)"
                );
                let query = sqlx::query(AssertSqlSafe(statement)).bind(tx.now).bind(limit);
                let started = query.execute(&mut tx.conn).await?.rows_affected();
                tx.effects.deliveries |= started > 0;
                Ok(started)
            })
        })
        .await
    }

    /// How far a subscription is.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn progress(&self, subscription: &str) -> Result<Progress, Error> {
        let row = sqlx::query(
            "SELECT (SELECT COUNT(*) FROM delivery WHERE subscription = $1 AND state <= 1) AS lag, \
             (SELECT COUNT(*) FROM delivery WHERE subscription = $1 AND state = 3) AS dead, \
             COALESCE((SELECT delivered FROM progress WHERE subscription = $1), 0) AS delivered, \
             COALESCE((SELECT last FROM progress WHERE subscription = $1), 0) AS last, \
             COALESCE((SELECT error FROM progress WHERE subscription = $1), '') AS error",
        )
        .bind(subscription)
        .fetch_one(&self.0.reads)
        .await?;
        let last: i64 = row.try_get("last")?;
        let last = jiff::Timestamp::from_microsecond(last).ok().filter(|_| last > 0);
        Ok(Progress {
            lag: row.try_get("lag")?,
            delivered: row.try_get("delivered")?,
            dead: row.try_get("dead")?,
            last_error: row.try_get("error")?,
            last_delivered: last.map(|last| last.to_string()).unwrap_or_default(),
            waiting_for: String::new(),
        })
    }
}
