//! Deliveries: each is one event on its way to one subscription, claimed for a time and tried until
//! it ends.

use dispatch_api::Receipt;
use dispatch_api::delivery::DeliveryState;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::event::NewEvent;
use super::writer::Tx;
use super::{Error, RunRow, Store};

mod history;

/// Deliveries that one statement writes.
const MAX_ROWS: usize = 64;

/// A delivery that is to be made.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// The subscription's id.
    pub subscription: String,
    /// The event's place in the log.
    pub event: i64,
    /// What orders it, or an empty text.
    pub ordering: String,
}

/// A delivery as it is stored, with its event.
#[derive(Clone, Debug)]
pub struct DeliveryRow {
    /// Its number.
    pub id: i64,
    /// The subscription's id.
    pub subscription: String,
    /// Where it is in its life.
    pub state: DeliveryState,
    /// Whether it goes, or went, to the dead letter target.
    pub dead_lettered: bool,
    /// When it may be claimed, or the end of the lease: microseconds since 1970.
    pub due: i64,
    /// Tries so far, at the target it goes to.
    pub attempts: i64,
    /// Proves when a try ends that it is still this claim's.
    pub generation: i64,
    /// Why the last try failed.
    pub error: String,
    /// The run of the last try.
    pub run: String,
    /// Microseconds since 1970.
    pub created: i64,
    /// Microseconds since 1970.
    pub modified: i64,
    /// How many deliveries led to its event.
    pub hops: i64,
    /// The event as JSON.
    pub event: String,
}

/// How much of a subscription's deliveries is wanted.
#[derive(Clone, Debug)]
pub struct Share {
    /// The subscription's id.
    pub subscription: String,
    /// At most this many.
    pub limit: usize,
}

/// How a try of a delivery ended.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The delivery.
    pub id: i64,
    /// Of the claim.
    pub generation: i64,
    /// What it is now: [`DeliveryState::Waiting`] to be tried again.
    pub state: DeliveryState,
    /// Whether it goes to the dead letter target from now on, or went there.
    pub dead_lettered: bool,
    /// When it may be claimed again: microseconds since 1970.
    pub due: i64,
    /// Tries so far.
    pub attempts: i64,
    /// Why it failed, or an empty text.
    pub error: String,
}

const SELECT: &str = "SELECT d.*, e.hops AS hops, e.body AS body FROM delivery d \
                      JOIN event e ON e.seq = d.event";

fn state(number: i64) -> Result<DeliveryState, Error> {
    let index = usize::try_from(number).ok();
    let state = index.and_then(|index| DeliveryState::ALL.get(index).copied());
    state.ok_or_else(|| Error::Corrupt(format!("{number} is not a state of a delivery")))
}

/// Its number in the database.
fn number(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Waiting => 0,
        DeliveryState::Blocked => 1,
        DeliveryState::Delivered => 2,
        DeliveryState::Dead => 3,
    }
}

fn read(row: &AnyRow) -> Result<DeliveryRow, Error> {
    Ok(DeliveryRow {
        id: row.try_get("id")?,
        subscription: row.try_get("subscription")?,
        state: state(row.try_get("state")?)?,
        dead_lettered: row.try_get::<i64, _>("stage")? != 0,
        due: row.try_get("due")?,
        attempts: row.try_get("attempts")?,
        generation: row.try_get("generation")?,
        error: row.try_get("error")?,
        run: row.try_get("run")?,
        created: row.try_get("created")?,
        modified: row.try_get("modified")?,
        hops: row.try_get("hops")?,
        event: row.try_get("body")?,
    })
}

/// The statement that makes `rows` deliveries for subscriptions that still exist. Where an earlier one
/// with the same ordering key is open, a delivery is blocked by it.
fn insert(rows: usize, ordered: bool) -> String {
    let row = |row: usize| {
        let at = row * 3;
        format!("(${}, CAST(${} AS BIGINT), ${})", at + 1, at + 2, at + 3)
    };
    let values: Vec<_> = (0..rows).map(row).collect();
    let now = rows * 3 + 1;
    let state = if ordered {
        "CASE WHEN EXISTS (SELECT 1 FROM delivery b WHERE b.subscription = column1 \
         AND b.ordering = column3 AND b.ordering <> '' AND b.state <= 1) THEN 1 ELSE 0 END"
    } else {
        "0"
    };
    format!(
        "INSERT INTO delivery (subscription, event, ordering, state, stage, due, owner, attempts, \
         generation, error, run, created, modified) \
         SELECT column1, column2, column3, {state}, 0, ${now}, '', 0, 0, '', '', ${now}, ${now} \
         FROM (VALUES {}) AS new WHERE EXISTS (SELECT 1 FROM entity WHERE entity.id = column1)",
        values.join(", ")
    )
}

impl Tx {
    /// Makes deliveries; answers how many.
    pub(super) async fn deliver(&mut self, new: Vec<NewDelivery>) -> Result<u64, Error> {
        let (free, ordered): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|delivery| delivery.ordering.is_empty());
        let mut made = 0;
        // One at a time: each has to see the one before.
        let chunks = free.chunks(MAX_ROWS).map(|rows| (rows, false));
        for (rows, ordered) in chunks.chain(ordered.chunks(1).map(|row| (row, true))) {
            // Nothing from outside is in this text.
            let statement = insert(rows.len(), ordered);
            let mut query = sqlx::query(AssertSqlSafe(statement));
            for row in rows {
                query = query.bind(&row.subscription).bind(row.event).bind(&row.ordering);
            }
            made += query.bind(self.now).execute(&mut self.conn).await?.rows_affected();
        }
        self.effects.deliveries |= made > 0;
        Ok(made)
    }

    async fn claim_share(
        &mut self,
        share: &Share,
        owner: &str,
        lease: i64,
    ) -> Result<Vec<DeliveryRow>, Error> {
        let statement = format!(
            "UPDATE delivery SET owner = $1, due = $2, generation = generation + 1 WHERE id IN \
             (SELECT id FROM delivery WHERE subscription = $3 AND state = 0 AND state <= 1 \
             AND due <= $4 ORDER BY due, id LIMIT $5{}) RETURNING id",
            self.dialect.skip_locked
        );
        let claimed = sqlx::query(AssertSqlSafe(statement))
            .bind(owner)
            .bind(self.now.saturating_add(lease))
            .bind(&share.subscription)
            .bind(self.now)
            .bind(super::number(share.limit))
            .fetch_all(&mut self.conn)
            .await?;
        if claimed.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = claimed
            .iter()
            .map(|row| Ok(row.try_get::<i64, _>("id")?.to_string()))
            .collect::<Result<_, Error>>()?;
        // Numbers of our own are all that is in this text.
        let statement = format!("{SELECT} WHERE d.id IN ({}) ORDER BY d.id", ids.join(", "));
        let rows = sqlx::query(AssertSqlSafe(statement)).fetch_all(&mut self.conn).await?;
        rows.iter().map(read).collect()
    }

    /// Ends a try; answers whether the delivery was still the caller's.
    async fn tried(&mut self, tried: &Tried, run: &str) -> Result<bool, Error> {
        let row = sqlx::query(
            "UPDATE delivery SET owner = '', state = $1, stage = $2, due = $3, attempts = $4, \
             error = $5, run = $6, modified = $7 WHERE id = $8 AND generation = $9 AND state = 0 \
             RETURNING subscription, ordering",
        )
        .bind(number(tried.state))
        .bind(i64::from(tried.dead_lettered))
        .bind(tried.due)
        .bind(tried.attempts)
        .bind(&tried.error)
        .bind(run)
        .bind(self.now)
        .bind(tried.id)
        .bind(tried.generation)
        .fetch_optional(&mut self.conn)
        .await?;
        let Some(row) = row else { return Ok(false) };
        let (subscription, ordering): (String, String) =
            (row.try_get("subscription")?, row.try_get("ordering")?);
        if tried.state != DeliveryState::Waiting && !ordering.is_empty() {
            self.unblock(&subscription, &ordering).await?;
        }
        let delivered = i64::from(tried.state == DeliveryState::Delivered);
        sqlx::query(
            "INSERT INTO progress (subscription, delivered, last, error) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (subscription) DO UPDATE SET \
             delivered = progress.delivered + excluded.delivered, error = excluded.error, \
             last = CASE WHEN excluded.last > 0 THEN excluded.last ELSE progress.last END",
        )
        .bind(&subscription)
        .bind(delivered)
        .bind(delivered * self.now)
        .bind(&tried.error)
        .execute(&mut self.conn)
        .await?;
        Ok(true)
    }

    /// Lets the next delivery with an ordering key go.
    async fn unblock(&mut self, subscription: &str, ordering: &str) -> Result<(), Error> {
        sqlx::query(
            "UPDATE delivery SET state = 0, due = $1 WHERE state = 1 AND id = (SELECT MIN(id) \
             FROM delivery WHERE subscription = $2 AND ordering = $3 AND ordering <> '' \
             AND state <= 1)",
        )
        .bind(self.now)
        .bind(subscription)
        .bind(ordering)
        .execute(&mut self.conn)
        .await?;
        self.effects.deliveries = true;
        Ok(())
    }
}

impl Store {
    /// The subscriptions that have open deliveries, with the time at which the first of them is due,
    /// if any is not blocked: microseconds since 1970.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn open_deliveries(&self) -> Result<Vec<(String, Option<i64>)>, Error> {
        // Goes from one subscription to the next by the index, whatever each of them has.
        let rows = sqlx::query(
            "WITH RECURSIVE s (subscription) AS (\
             SELECT MIN(subscription) FROM delivery WHERE state <= 1 UNION ALL \
             SELECT (SELECT MIN(d.subscription) FROM delivery d WHERE d.state <= 1 \
             AND d.subscription > s.subscription) FROM s WHERE s.subscription IS NOT NULL) \
             SELECT s.subscription AS subscription, (SELECT MIN(d.due) FROM delivery d \
             WHERE d.subscription = s.subscription AND d.state = 0 AND d.state <= 1) AS due \
             FROM s WHERE s.subscription IS NOT NULL",
        )
        .fetch_all(&self.0.reads)
        .await?;
        rows.iter().map(|row| Ok((row.try_get("subscription")?, row.try_get("due")?))).collect()
    }

    /// Claims deliveries that are due, for `lease` microseconds.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn claim_deliveries(
        &self,
        shares: Vec<Share>,
        owner: &str,
        lease: i64,
    ) -> Result<Vec<DeliveryRow>, Error> {
        let owner = owner.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let mut rows = Vec::new();
                for share in &shares {
                    rows.extend(tx.claim_share(share, &owner, lease).await?);
                }
                Ok(rows)
            })
        })
        .await
    }

    /// Extends the leases of claimed deliveries to `lease` microseconds from now.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn renew_deliveries(
        &self,
        ids: Vec<i64>,
        owner: &str,
        lease: i64,
    ) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let owner = owner.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                for id in ids {
                    sqlx::query("UPDATE delivery SET due = $1 WHERE id = $2 AND owner = $3")
                        .bind(tx.now.saturating_add(lease))
                        .bind(id)
                        .bind(&owner)
                        .execute(&mut tx.conn)
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Ends all leases of an owner at once: of an earlier life of this server, when it starts.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn release_deliveries(&self, owner: &str) -> Result<(), Error> {
        let owner = owner.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let release = "UPDATE delivery SET owner = '', due = $1 \
                               WHERE state = 0 AND state <= 1 AND owner = $2";
                sqlx::query(release).bind(tx.now).bind(&owner).execute(&mut tx.conn).await?;
                tx.effects.deliveries = true;
                Ok(())
            })
        })
        .await
    }

    /// Stores how a try of some deliveries ended, together with its run and the events that came of
    /// it. Where a delivery is not the caller's any more nothing of it is stored; where none is, the
    /// answer is none.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn finish_deliveries(
        &self,
        tried: Vec<Tried>,
        run: Option<RunRow>,
        replies: Vec<NewEvent>,
        window: i64,
    ) -> Result<Option<Receipt>, Error> {
        self.write(move |tx| {
            Box::pin(async move {
                let name = run.as_ref().map(|run| run.id.clone()).unwrap_or_default();
                let mut ours = false;
                for tried in &tried {
                    ours |= tx.tried(tried, &name).await?;
                }
                if !ours {
                    return Ok(None);
                }
                if let Some(run) = run {
                    tx.put_runs(&[run]).await?;
                }
                Ok(Some(tx.append(replies, window).await?))
            })
        })
        .await
    }
}
