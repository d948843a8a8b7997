//! Where functions went, and wanted to go.

use sqlx::Row as _;

use super::{Error, Store};

/// Destinations kept of one function.
const MAX: i64 = 512;

/// A destination of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The host, as the function named it.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// Why it was refused; empty where it was not.
    pub reason: String,
    /// How often.
    pub count: i64,
    /// The first time, in microseconds since 1970.
    pub first: i64,
    /// The last time.
    pub last: i64,
}

const ADD: &str = "UPDATE egress SET count = count + $5, last = $6 \
                   WHERE function_id = $1 AND host = $2 AND port = $3 AND reason = $4";
const INSERT: &str = "INSERT INTO egress (function_id, host, port, reason, count, first, last) \
                      SELECT $1, $2, $3, $4, $5, $6, $7 WHERE $8 = 1 OR \
                      (SELECT COUNT(*) FROM egress WHERE function_id = $1) < $9";

impl Store {
    /// Adds to what is known of a function's destinations; `unlisted` are those nobody could note.
    /// A function that is gone is no error.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn note_egress(
        &self,
        org: &str,
        function: &str,
        seen: Vec<Seen>,
        mut unlisted: i64,
    ) -> Result<(), Error> {
        let (org, function) = (org.to_owned(), function.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let query =
                    "SELECT id FROM entity WHERE kind = 'Function' AND org = $1 AND name = $2";
                let row = sqlx::query(query).bind(&org).bind(&function);
                let Some(row) = row.fetch_optional(&mut tx.conn).await? else { return Ok(()) };
                let id: String = row.try_get("id")?;
                for one in &seen {
                    if !tx.note(&id, one, false).await? {
                        unlisted += 1;
                    }
                }
                // Those without a place have one together.
                let rest = Seen { count: unlisted, ..Seen::default() };
                if unlisted > 0 {
                    tx.note(&id, &rest, true).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// The destinations of a function, those it used most first, and how many are not among them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn egress(&self, function_id: &str) -> Result<(Vec<Seen>, i64), Error> {
        let query = "SELECT * FROM egress WHERE function_id = $1 ORDER BY count DESC, host, port";
        let rows = sqlx::query(query).bind(function_id).fetch_all(&self.0.reads).await?;
        let mut all = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let rest = all.iter().position(|seen| seen.host.is_empty());
        let unlisted = rest.map_or(0, |at| all.remove(at).count);
        Ok((all, unlisted))
    }
}

impl super::writer::Tx {
    /// Adds to a row, or adds it where there is room or it is `certain`; says whether it could.
    async fn note(&mut self, id: &str, seen: &Seen, certain: bool) -> Result<bool, Error> {
        let port = i64::from(seen.port);
        let added = sqlx::query(ADD)
            .bind(id)
            .bind(&seen.host)
            .bind(port)
            .bind(&seen.reason)
            .bind(seen.count)
            .bind(seen.last)
            .execute(&mut self.conn)
            .await?;
        if added.rows_affected() > 0 {
            return Ok(true);
        }
        let inserted = sqlx::query(INSERT)
            .bind(id)
            .bind(&seen.host)
            .bind(port)
            .bind(&seen.reason)
            .bind(seen.count)
            .bind(seen.first)
            .bind(seen.last)
            .bind(i64::from(certain))
            .bind(MAX)
            .execute(&mut self.conn)
            .await?;
        Ok(inserted.rows_affected() > 0)
    }
}

fn read(row: &sqlx::any::AnyRow) -> Result<Seen, Error> {
    let port: i64 = row.try_get("port")?;
    Ok(Seen {
        host: row.try_get("host")?,
        port: u16::try_from(port).map_err(|_| Error::Corrupt(format!("{port} is not a port")))?,
        reason: row.try_get("reason")?,
        count: row.try_get("count")?,
        first: row.try_get("first")?,
        last: row.try_get("last")?,
    })
}
