//! The change log: every write of an entity, numbered in the order of commits and without gaps.

use dispatch_api::Kind;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::writer::Tx;
use super::{Entity, Error, Store};

/// One write of an entity. It says what changed, not how: read the entity to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its number, one more than that of the change before.
    pub seq: i64,
    /// The entity's kind.
    pub kind: Kind,
    /// The entity's organization.
    pub org: String,
    /// The entity's name.
    pub name: String,
    /// What was done.
    pub op: Op,
    /// The entity's revision after it.
    pub revision: i64,
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// It was created or changed.
    Put,
    /// It was removed.
    Delete,
}

impl Op {
    fn as_str(self) -> &'static str {
        match self {
            Op::Put => "put",
            Op::Delete => "delete",
        }
    }
}

fn read(row: &AnyRow) -> Result<Change, Error> {
    let op: String = row.try_get("op")?;
    Ok(Change {
        seq: row.try_get("seq")?,
        kind: super::kind(row.try_get("kind")?)?,
        org: row.try_get("org")?,
        name: row.try_get("name")?,
        op: if op == Op::Delete.as_str() { Op::Delete } else { Op::Put },
        revision: row.try_get("revision")?,
    })
}

impl Tx {
    /// Announces a write of an entity. The counter's row is locked until the commit, so that numbers
    /// are in the order of commits with any number of servers.
    pub(super) async fn announce(&mut self, entity: &Entity, op: Op) -> Result<(), Error> {
        let next = "UPDATE counter SET value = value + 1 WHERE name = 'change' RETURNING value";
        let seq: i64 = sqlx::query(next).fetch_one(&mut self.conn).await?.try_get("value")?;
        sqlx::query(
            "INSERT INTO change (seq, kind, org, name, op, revision) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(seq)
        .bind(entity.kind.as_str())
        .bind(&entity.org)
        .bind(&entity.name)
        .bind(op.as_str())
        .bind(entity.revision)
        .execute(&mut self.conn)
        .await?;
        self.effects.change = Some(seq);
        Ok(())
    }
}

impl Store {
    /// The changes after that number, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Gap`] when some of them were pruned, or the number is one that this store never gave.
    pub async fn changes(&self, after: i64, limit: usize) -> Result<Vec<Change>, Error> {
        let rows = sqlx::query("SELECT * FROM change WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(after)
            .bind(super::number(limit))
            .fetch_all(&self.0.reads)
            .await?;
        // Both counters only grow: asked after the changes, they cannot hide a gap.
        if after < self.counter("pruned").await? || after > self.last_change().await? {
            return Err(Error::Gap);
        }
        rows.iter().map(read).collect()
    }

    /// The number of the last committed change; 0 before the first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn last_change(&self) -> Result<i64, Error> {
        self.counter("change").await
    }

    pub(super) async fn counter(&self, name: &str) -> Result<i64, Error> {
        let row = sqlx::query("SELECT value FROM counter WHERE name = $1").bind(name);
        Ok(row.fetch_one(&self.0.reads).await?.try_get("value")?)
    }
}
