//! The log of events. An event and its deliveries are written together.

use std::collections::HashSet;

use dispatch_api::Receipt;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::delivery::NewDelivery;
use super::writer::Tx;
use super::{Error, Store};

/// Events that one statement writes.
const MAX_ROWS: usize = 32;
/// Columns of an event without its number.
const COLUMNS: usize = 7;
/// Events that are removed in one transaction.
const REMOVED: i64 = 500;

/// An event that is to be accepted.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The organization it belongs to.
    pub org: String,
    /// Its id.
    pub id: String,
    /// Its source; with the id it names the event.
    pub source: String,
    /// Its type.
    pub event_type: String,
    /// How many deliveries led to it.
    pub hops: i64,
    /// The event as JSON.
    pub body: String,
    /// The ids of the subscriptions it is for, with its ordering key there, or an empty text.
    pub deliveries: Vec<(String, String)>,
}

/// An event of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Its place in the log.
    pub seq: i64,
    /// When it was accepted: microseconds since 1970.
    pub accepted: i64,
    /// The event as JSON.
    pub body: String,
}

/// A part of the log, the oldest first.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// From when on: microseconds since 1970.
    pub since: i64,
    /// Up to when: microseconds since 1970.
    pub until: i64,
    /// Only after this place: the time and number of the event before, or zeros.
    pub after: (i64, i64),
    /// At most this many.
    pub limit: usize,
}

fn read(row: &AnyRow) -> Result<EventRow, Error> {
    Ok(EventRow {
        seq: row.try_get("seq")?,
        accepted: row.try_get("accepted")?,
        body: row.try_get("body")?,
    })
}

/// The statement that appends `rows` events but not those that are in the log since a time, which is
/// its last value.
fn append(rows: usize) -> String {
    let row = |row: usize| {
        let at = |n: usize| row * COLUMNS + n;
        format!(
            "(${}, ${}, ${}, ${}, CAST(${} AS BIGINT), CAST(${} AS BIGINT), ${})",
            at(1),
            at(2),
            at(3),
            at(4),
            at(5),
            at(6),
            at(7)
        )
    };
    let values: Vec<_> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO event (org, id, source, type, accepted, hops, body) \
         SELECT column1, column2, column3, column4, column5, column6, column7 \
         FROM (VALUES {}) AS new WHERE NOT EXISTS (SELECT 1 FROM event e WHERE e.org = column1 \
         AND e.id = column2 AND e.source = column3 AND e.accepted > ${}) RETURNING seq, id, source",
        values.join(", "),
        rows * COLUMNS + 1
    )
}

impl Tx {
    /// Appends events and makes their deliveries. Those that are in the log already, since `window`
    /// microseconds ago, or that come twice, are left out.
    pub(super) async fn append(
        &mut self,
        events: Vec<NewEvent>,
        window: i64,
    ) -> Result<Receipt, Error> {
        let mut receipt = Receipt::default();
        let count = events.len();
        let mut names = HashSet::with_capacity(count);
        let mut fresh = events;
        fresh.retain(|event| names.insert((event.source.clone(), event.id.clone())));
        let (mut bytes, mut rest) = (0, Vec::new());
        for chunk in fresh.chunks_mut(MAX_ROWS) {
            // Nothing from outside is in this text.
            let statement = append(chunk.len());
            let mut query = sqlx::query(AssertSqlSafe(statement));
            for event in chunk.iter() {
                query = query
                    .bind(&event.org)
                    .bind(&event.id)
                    .bind(&event.source)
                    .bind(&event.event_type)
                    .bind(self.now)
                    .bind(event.hops)
                    .bind(&event.body);
            }
            let since = self.now.saturating_sub(window);
            for row in query.bind(since).fetch_all(&mut self.conn).await? {
                let (id, source): (&str, &str) = (row.try_get("id")?, row.try_get("source")?);
                let same = |event: &&mut NewEvent| event.id == id && event.source == source;
                let Some(event) = chunk.iter_mut().find(same) else { continue };
                let seq = row.try_get("seq")?;
                bytes += super::number(event.body.len());
                receipt.events += 1;
                let deliveries = std::mem::take(&mut event.deliveries).into_iter();
                rest.extend(deliveries.map(|(subscription, ordering)| NewDelivery {
                    subscription,
                    event: seq,
                    ordering,
                }));
            }
        }
        self.add_bytes(bytes).await?;
        receipt.deliveries = self.deliver(rest).await?;
        receipt.duplicates = (count as u64).saturating_sub(receipt.events);
        Ok(receipt)
    }

    async fn add_bytes(&mut self, bytes: i64) -> Result<(), Error> {
        let add = "UPDATE counter SET value = value + $1 WHERE name = 'event_bytes'";
        sqlx::query(add).bind(bytes).execute(&mut self.conn).await?;
        Ok(())
    }

    /// Removes the oldest events that nothing waits for, up to a time and up to so many bytes.
    async fn forget(&mut self, before: i64, bytes: i64) -> Result<u64, Error> {
        let rows = sqlx::query(
            "SELECT seq, CAST(LENGTH(body) AS BIGINT) AS size FROM event WHERE accepted < $1 \
             AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.event = event.seq AND d.state <= 1) \
             ORDER BY seq LIMIT $2",
        )
        .bind(before)
        .bind(REMOVED)
        .fetch_all(&mut self.conn)
        .await?;
        let (mut freed, mut gone) = (0, 0);
        for row in &rows {
            if freed >= bytes {
                break;
            }
            sqlx::query("DELETE FROM event WHERE seq = $1")
                .bind(row.try_get::<i64, _>("seq")?)
                .execute(&mut self.conn)
                .await?;
            freed += row.try_get::<i64, _>("size")?;
            gone += 1;
        }
        self.add_bytes(-freed).await?;
        Ok(gone)
    }
}

impl Store {
    /// Accepts events: they and their deliveries are on disk when it answers. `window` microseconds
    /// back an event with the same source and id is the same one, and is not accepted again.
    ///
    /// # Errors
    /// The database takes no writes; then nothing is accepted.
    pub async fn append_events(
        &self,
        events: Vec<NewEvent>,
        window: i64,
    ) -> Result<Receipt, Error> {
        self.write(move |tx| Box::pin(async move { tx.append(events, window).await })).await
    }

    /// Events of an organization's log, the newest first, only of a type where one is given.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn newest_events(
        &self,
        org: &str,
        event_type: Option<&str>,
        limit: usize,
    ) -> Result<Vec<EventRow>, Error> {
        let rows = sqlx::query(
            "SELECT seq, accepted, body FROM event WHERE org = $1 AND ($2 = '' OR type = $2) \
             ORDER BY accepted DESC, seq DESC LIMIT $3",
        )
        .bind(org)
        .bind(event_type.unwrap_or_default())
        .bind(super::number(limit))
        .fetch_all(&self.0.reads)
        .await?;
        rows.iter().map(read).collect()
    }

    /// A part of an organization's log, the oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn event_log(&self, org: &str, stretch: &Stretch) -> Result<Vec<EventRow>, Error> {
        let rows = sqlx::query(
            "SELECT seq, accepted, body FROM event WHERE org = $1 AND accepted >= $2 \
             AND accepted <= $3 AND (accepted, seq) > ($4, $5) ORDER BY accepted, seq LIMIT $6",
        )
        .bind(org)
        .bind(stretch.since)
        .bind(stretch.until)
        .bind(stretch.after.0)
        .bind(stretch.after.1)
        .bind(super::number(stretch.limit))
        .fetch_all(&self.0.reads)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Removes events that were accepted before `older_than` (microseconds since 1970), and the
    /// oldest while the log has more than `most_bytes`. Events that deliveries wait for stay, and
    /// deliveries go with their events. Answers how many are gone.
    ///
    /// # Errors
    /// The database takes no writes; what was removed until then stays removed.
    pub async fn prune_events(&self, older_than: i64, most_bytes: i64) -> Result<u64, Error> {
        let mut gone = 0;
        loop {
            let excess = self.counter("event_bytes").await? - most_bytes;
            let (before, bytes) =
                if excess > 0 { (i64::MAX, excess) } else { (older_than, i64::MAX) };
            let batch = self
                .write(move |tx| Box::pin(async move { tx.forget(before, bytes).await }))
                .await?;
            gone += batch;
            if batch == 0 || (excess <= 0 && batch < REMOVED.unsigned_abs()) {
                return Ok(gone);
            }
        }
    }
}
