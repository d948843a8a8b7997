//! Schedules: a tick, what it causes and when the next one is are one write.

use sqlx::Row as _;

use super::change::Op;
use super::writer::Tx;
use super::{Entity, Error, Job, JobEnd, NewJob, RunRow, Store};

/// What a schedule does when its job is due.
pub struct Tick {
    /// The schedule as it is afterwards, of the revision that was read.
    pub schedule: Entity,
    /// The run that is accepted, its job, and how many of the function may wait; none where the tick is
    /// left out.
    pub run: Option<(RunRow, NewJob, i64)>,
    /// The job of the next tick; none after the last.
    pub next: Option<NewJob>,
}

impl Tx {
    /// Writes the state of an entity that changes by itself: its revision stays, so that nobody who
    /// edits it is in the way of that, or the other way round.
    async fn touch(&mut self, entity: &Entity) -> Result<(), Error> {
        let updated = sqlx::query(
            "UPDATE entity SET status = $1, reason = $2, modified = $3, body = $4 \
             WHERE id = $5 AND revision = $6",
        )
        .bind(entity.status.as_str())
        .bind(super::words(&entity.reason))
        .bind(self.now)
        .bind(entity.body.to_string())
        .bind(&entity.id)
        .bind(entity.revision)
        .execute(&mut self.conn)
        .await?;
        if updated.rows_affected() == 0 {
            return Err(Error::Missing);
        }
        self.announce(entity, Op::Put).await
    }

    /// Whether there is a run with this id: a tick has one id, however often it is made.
    async fn is_made(&mut self, run: &str) -> Result<bool, Error> {
        let query = sqlx::query("SELECT COUNT(*) AS runs FROM run WHERE id = $1").bind(run);
        Ok(query.fetch_one(&mut self.conn).await?.try_get::<i64, _>("runs")? > 0)
    }
}

impl Store {
    /// Stores a tick: the accepted run, the schedule, the end of the job that was due and the job of the
    /// next tick. Where the job is not the caller's any more nothing is stored, and the answer is false.
    ///
    /// # Errors
    /// [`Error::Missing`] when the schedule was changed or removed since it was read, or the function is
    /// gone; [`Error::Refused`] when too many runs of the function wait. Nothing is stored then.
    pub async fn tick(&self, due: &Job, tick: Tick) -> Result<bool, Error> {
        let (id, generation) = (due.id, due.generation);
        self.write(move |tx| {
            Box::pin(async move {
                if !tx.end(id, generation, JobEnd::Done).await? {
                    return Ok(false);
                }
                tx.touch(&tick.schedule).await?;
                if let Some((run, job, max_queued)) = tick.run
                    && !tx.is_made(&run.id).await?
                {
                    tx.accept(run, job, max_queued).await?;
                }
                tx.enqueue(tick.next.as_slice()).await?;
                Ok(true)
            })
        })
        .await
    }
}
