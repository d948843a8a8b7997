//! The queue: durable jobs that are claimed for a time and tried until they end.

use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::writer::Tx;
use super::{Error, Store};

/// A job that is to be queued. Kind, organization and key name it: queueing it again while it has
/// not ended starts it over, with the new payload, even when somebody works on it at the moment.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Who does it.
    pub kind: &'static str,
    /// Unique for the kind in the organization.
    pub key: String,
    /// The organization it is done for.
    pub org: String,
    /// What to do.
    pub payload: Value,
    /// Microseconds since 1970; 0 means now.
    pub run_at: i64,
}

/// A claimed job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Never used for another job.
    pub id: i64,
    /// Who does it.
    pub kind: String,
    /// What names it, with the kind and the organization.
    pub key: String,
    /// The organization it is done for.
    pub org: String,
    /// What to do.
    pub payload: Value,
    /// How often it was claimed since it was queued, counting this time.
    pub attempts: i64,
    /// Proves when it ends that it is still this claim's.
    pub generation: i64,
}

/// How work on a job ended.
#[derive(Clone, Debug)]
pub enum JobEnd {
    /// Well: it is forgotten.
    Done,
    /// It is tried again.
    Retry {
        /// Microseconds since 1970.
        at: i64,
        /// Why.
        error: String,
    },
    /// It is kept, but never tried again by itself.
    Dead {
        /// Why.
        error: String,
    },
}

fn read(row: &AnyRow) -> Result<Job, Error> {
    Ok(Job {
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        key: row.try_get("key")?,
        org: row.try_get("org")?,
        payload: super::json(row.try_get("payload")?)?,
        attempts: row.try_get("attempts")?,
        generation: row.try_get("generation")?,
    })
}

impl Tx {
    /// Queues jobs, or starts those over that are queued already.
    pub(super) async fn enqueue(&mut self, jobs: &[NewJob]) -> Result<(), Error> {
        for job in jobs {
            let run_at = if job.run_at == 0 { self.now } else { job.run_at };
            sqlx::query(
                "INSERT INTO job (kind, key, org, payload, run_at, due, attempts, generation, \
                 owner, lease, dead, error) VALUES ($1, $2, $3, $4, $5, $5, 0, 1, '', 0, 0, '') \
                 ON CONFLICT (org, key, kind) DO UPDATE SET payload = excluded.payload, \
                 run_at = excluded.run_at, generation = job.generation + 1, attempts = 0, dead = 0, \
                 error = '', due = CASE WHEN job.owner = '' THEN excluded.due ELSE job.due END",
            )
            .bind(job.kind)
            .bind(&job.key)
            .bind(&job.org)
            .bind(job.payload.to_string())
            .bind(run_at)
            .execute(&mut self.conn)
            .await?;
            self.effects.jobs = true;
        }
        Ok(())
    }

    /// Ends work on a job; answers whether it was still the caller's and not queued again meanwhile.
    pub(super) async fn end(
        &mut self,
        id: i64,
        generation: i64,
        end: JobEnd,
    ) -> Result<bool, Error> {
        let statement = match end {
            JobEnd::Done => "DELETE FROM job WHERE id = $1 AND generation = $2",
            JobEnd::Retry { .. } => {
                "UPDATE job SET owner = '', error = $3, run_at = $4, due = $4 \
                 WHERE id = $1 AND generation = $2"
            }
            JobEnd::Dead { .. } => {
                "UPDATE job SET owner = '', error = $3, dead = 1 WHERE id = $1 AND generation = $2"
            }
        };
        let query = sqlx::query(statement).bind(id).bind(generation);
        let query = match end {
            JobEnd::Done => query,
            JobEnd::Retry { at, error } => query.bind(error).bind(at),
            JobEnd::Dead { error } => query.bind(error),
        };
        let ended = query.execute(&mut self.conn).await?.rows_affected() > 0;
        if !ended {
            // Queued again while it ran: this claim's lease ends, the job stays.
            sqlx::query(
                "UPDATE job SET owner = '', due = run_at \
                 WHERE id = $1 AND lease = $2 AND owner <> ''",
            )
            .bind(id)
            .bind(generation)
            .execute(&mut self.conn)
            .await?;
        }
        self.effects.jobs = true;
        Ok(ended)
    }

    async fn claim(
        &mut self,
        kind: &str,
        owner: &str,
        lease: i64,
        limit: usize,
    ) -> Result<Vec<Job>, Error> {
        let statement = format!(
            "UPDATE job SET owner = $1, due = $2, attempts = attempts + 1, \
             generation = generation + 1, lease = generation + 1 WHERE id IN \
             (SELECT id FROM job WHERE dead = 0 AND kind = $3 AND due <= $4 \
             ORDER BY due, id LIMIT $5{}) RETURNING *",
            self.dialect.skip_locked
        );
        let rows = sqlx::query(AssertSqlSafe(statement))
            .bind(owner)
            .bind(self.now.saturating_add(lease))
            .bind(kind)
            .bind(self.now)
            .bind(super::number(limit))
            .fetch_all(&mut self.conn)
            .await?;
        let mut jobs = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        jobs.sort_by_key(|job| job.id);
        Ok(jobs)
    }
}

impl Store {
    /// Claims up to `limit` jobs that are due, for `lease` microseconds; earlier kinds come first. A
    /// job whose lease has ended is due again.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn claim(
        &self,
        kinds: &[&str],
        owner: &str,
        lease: i64,
        limit: usize,
    ) -> Result<Vec<Job>, Error> {
        let kinds: Vec<_> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let owner = owner.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let mut jobs = Vec::new();
                for kind in kinds {
                    jobs.extend(tx.claim(&kind, &owner, lease, limit - jobs.len()).await?);
                }
                Ok(jobs)
            })
        })
        .await
    }

    /// Extends the leases of claimed jobs to `lease` microseconds from now; answers how many of them
    /// are still the owner's.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn renew(&self, ids: &[i64], owner: &str, lease: i64) -> Result<u64, Error> {
        if ids.is_empty() {
            return Ok(0);
        }
        let (ids, owner) = (ids.to_vec(), owner.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let mut renewed = 0;
                for id in ids {
                    let query = sqlx::query("UPDATE job SET due = $1 WHERE id = $2 AND owner = $3");
                    let query = query.bind(tx.now.saturating_add(lease)).bind(id).bind(&owner);
                    renewed += query.execute(&mut tx.conn).await?.rows_affected();
                }
                Ok(renewed)
            })
        })
        .await
    }

    /// Ends work on a job. A job that was queued again while it ran stays queued, and one whose
    /// lease ended and that somebody else has claimed stays theirs; the answer is then false.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn finish_job(&self, id: i64, generation: i64, end: JobEnd) -> Result<bool, Error> {
        self.write(move |tx| Box::pin(async move { tx.end(id, generation, end).await })).await
    }

    /// Ends all leases of an owner at once: of an earlier life of this server, when it starts.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn release(&self, owner: &str) -> Result<(), Error> {
        let owner = owner.to_owned();
        self.write(move |tx| {
            Box::pin(async move {
                let release = "UPDATE job SET owner = '', due = run_at WHERE owner = $1";
                sqlx::query(release).bind(owner).execute(&mut tx.conn).await?;
                tx.effects.jobs = true;
                Ok(())
            })
        })
        .await
    }

    /// When the next job of these kinds can be claimed, in microseconds since 1970; a time that has
    /// passed means now.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn next_due(&self, kinds: &[&str]) -> Result<Option<i64>, Error> {
        let mut next: Option<i64> = None;
        for kind in kinds {
            let row = sqlx::query(
                "SELECT due FROM job WHERE dead = 0 AND kind = $1 ORDER BY due, id LIMIT 1",
            )
            .bind(*kind)
            .fetch_optional(&self.0.reads)
            .await?;
            if let Some(row) = row {
                let due = row.try_get("due")?;
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        Ok(next)
    }

    /// How many jobs of each kind wait, run and are dead, in this order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn queue_depths(&self) -> Result<Vec<(String, i64, i64, i64)>, Error> {
        let rows = sqlx::query(
            "SELECT kind, \
             COUNT(CASE WHEN dead = 0 AND owner = '' THEN 1 END) AS waiting, \
             COUNT(CASE WHEN dead = 0 AND owner <> '' THEN 1 END) AS running, \
             COUNT(CASE WHEN dead = 1 THEN 1 END) AS dead \
             FROM job GROUP BY kind ORDER BY kind",
        )
        .fetch_all(&self.0.reads)
        .await?;
        let depth = |row: &AnyRow| {
            Ok((
                row.try_get("kind")?,
                row.try_get("waiting")?,
                row.try_get("running")?,
                row.try_get("dead")?,
            ))
        };
        rows.iter().map(depth).collect()
    }
}
