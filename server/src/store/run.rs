//! Runs: the history of calls, and the calls that were accepted and are still to be made.

use std::collections::HashMap;
use std::slice;

use dispatch_api::{Problem, Status};
use futures_util::TryStreamExt as _;
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::writer::Tx;
use super::{Error, JobEnd, NewJob, Store};

/// The most runs of one answer.
const MAX_RUNS: usize = 10_000;
/// Bytes of bodies after which a list without a limit ends.
const MAX_BYTES: usize = 64 << 20;
/// Columns of a run, and runs written by one statement.
const COLUMNS: usize = 12;
const MAX_ROWS: usize = 32;

/// One run as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// UUID, unique everywhere.
    pub id: String,
    /// The organization it belongs to.
    pub org: String,
    /// The function's name.
    pub function: String,
    /// The id of the function's entity.
    pub function_id: String,
    /// The revision it was accepted for.
    pub faas_id: String,
    /// Where it is in its life.
    pub status: Status,
    /// When it was accepted: microseconds since 1970.
    pub created: i64,
    /// Microseconds since 1970, set by every write.
    pub modified: i64,
    /// When it ended: microseconds since 1970.
    pub finished: Option<i64>,
    /// How often it was tried.
    pub attempts: i64,
    /// Whether all tries failed and it waits to be redriven.
    pub dead: bool,
    /// The rest of it, as JSON.
    pub body: String,
}

impl RunRow {
    /// Where a list goes on after this run: see [`RunFilter::after`].
    pub fn cursor(&self) -> String {
        format!("{}.{}", self.created, self.id)
    }
}

/// Which runs are wanted.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only of the function with this name.
    pub function: Option<String>,
    /// Only what was modified later than this: microseconds since 1970.
    pub since: Option<i64>,
    /// Only in this status.
    pub status: Option<Status>,
    /// Only those that are, or are not, dead.
    pub dead: Option<bool>,
    /// At most this many, and never more than 10000. Without it a list ends early, too, when it has
    /// 64 MiB.
    pub limit: Option<usize>,
    /// Only older runs than the one with this [cursor](RunRow::cursor).
    pub after: Option<String>,
}

fn read(row: &AnyRow) -> Result<RunRow, Error> {
    Ok(RunRow {
        id: row.try_get("id")?,
        org: row.try_get("org")?,
        function: row.try_get("function")?,
        function_id: row.try_get("function_id")?,
        faas_id: row.try_get("faas_id")?,
        status: super::status(row.try_get("status")?)?,
        created: row.try_get("created")?,
        modified: row.try_get("modified")?,
        finished: row.try_get("finished")?,
        attempts: row.try_get("attempts")?,
        dead: row.try_get::<i64, _>("dead")? != 0,
        body: row.try_get("body")?,
    })
}

/// The statement that writes `rows` runs, or overwrites those that are the same organization's.
fn upsert(rows: usize) -> String {
    let row = |row: usize| {
        let places: Vec<_> = (1..=COLUMNS).map(|n| format!("${}", row * COLUMNS + n)).collect();
        format!("({})", places.join(", "))
    };
    let values: Vec<_> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO run (id, org, function, function_id, faas_id, status, created, modified, \
         finished, attempts, dead, body) VALUES {} \
         ON CONFLICT (id) DO UPDATE SET status = excluded.status, modified = excluded.modified, \
         finished = excluded.finished, attempts = excluded.attempts, dead = excluded.dead, \
         body = excluded.body WHERE run.org = excluded.org",
        values.join(", ")
    )
}

impl Tx {
    /// Writes runs, but not those whose function is gone or that are another organization's; answers
    /// how many it wrote.
    pub(super) async fn put_runs(&mut self, runs: &[RunRow]) -> Result<u64, Error> {
        let mut functions: HashMap<&str, bool> = HashMap::new();
        let mut kept = Vec::with_capacity(runs.len());
        for run in runs {
            self.waiting.remove(&run.function_id);
            let id = run.function_id.as_str();
            let exists = match functions.get(id) {
                Some(exists) => *exists,
                None => self.function_exists(id).await?,
            };
            functions.insert(id, exists);
            if exists {
                kept.push(run);
            }
        }
        let mut written = 0;
        for chunk in kept.chunks(MAX_ROWS) {
            // Nothing from outside is in this text.
            let statement = upsert(chunk.len());
            let mut query = sqlx::query(AssertSqlSafe(statement));
            for run in chunk {
                query = query
                    .bind(&run.id)
                    .bind(&run.org)
                    .bind(&run.function)
                    .bind(&run.function_id)
                    .bind(&run.faas_id)
                    .bind(run.status.as_str())
                    .bind(run.created)
                    .bind(self.now)
                    .bind(run.finished)
                    .bind(run.attempts)
                    .bind(i64::from(run.dead))
                    .bind(&run.body);
            }
            written += query.execute(&mut self.conn).await?.rows_affected();
        }
        self.effects.runs = true;
        Ok(written)
    }

    /// How many runs of a function wait. Counted once per transaction, unless something other than
    /// a further one changes it: with a long queue counting costs more than writing.
    async fn waiting(&mut self, function_id: &str) -> Result<i64, Error> {
        if let Some(waiting) = self.waiting.get(function_id) {
            return Ok(*waiting);
        }
        let query = "SELECT COUNT(*) AS waiting FROM run \
                     WHERE function_id = $1 AND finished IS NULL";
        let row = sqlx::query(query).bind(function_id).fetch_one(&mut self.conn).await?;
        Ok(row.try_get("waiting")?)
    }

    /// Stores a run that is to be made later, and its job, whose key becomes the run's id.
    pub(super) async fn accept(
        &mut self,
        run: RunRow,
        mut job: NewJob,
        max_queued: i64,
    ) -> Result<(), Error> {
        job.key.clone_from(&run.id);
        job.org.clone_from(&run.org);
        let waiting = self.waiting(&run.function_id).await?;
        if waiting >= max_queued {
            let text = format!(
                "{waiting} runs of function {} wait already, which is the limit: try again later",
                run.function
            );
            return Err(Error::Refused(Problem::new(429, text)));
        }
        if self.put_runs(slice::from_ref(&run)).await? == 0 {
            return Err(Error::Missing);
        }
        self.waiting.insert(run.function_id, waiting + 1);
        self.enqueue(&[job]).await
    }

    async fn function_exists(&mut self, id: &str) -> Result<bool, Error> {
        let query = sqlx::query("SELECT id FROM entity WHERE id = $1").bind(id);
        Ok(query.fetch_optional(&mut self.conn).await?.is_some())
    }
}

impl Store {
    /// Stores a run that is to be made later, and its job, whose key becomes the run's id.
    ///
    /// # Errors
    /// [`Error::Missing`] when the function is gone, [`Error::Refused`] when `max_queued` runs of it
    /// wait already.
    pub async fn accept_run(&self, run: RunRow, job: NewJob, max_queued: i64) -> Result<(), Error> {
        self.write(move |tx| Box::pin(async move { tx.accept(run, job, max_queued).await })).await
    }

    /// Stores runs that ended, in one go. Those whose function is gone are not kept.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn record_runs(&self, runs: Vec<RunRow>) -> Result<(), Error> {
        self.write(move |tx| {
            Box::pin(async move {
                tx.put_runs(&runs).await?;
                Ok(())
            })
        })
        .await
    }

    /// Stores how a try of an accepted run ended, together with the end of its job. Where the job is
    /// not the caller's any more nothing is stored, and the answer is false.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn finish_run(
        &self,
        run: RunRow,
        job_id: i64,
        generation: i64,
        end: JobEnd,
    ) -> Result<bool, Error> {
        self.write(move |tx| {
            Box::pin(async move {
                let ours = tx.end(job_id, generation, end).await?;
                Ok(ours && tx.put_runs(&[run]).await? > 0)
            })
        })
        .await
    }

    /// Reads one run of an organization.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn run(&self, org: &str, id: &str) -> Result<Option<RunRow>, Error> {
        let query = sqlx::query("SELECT * FROM run WHERE id = $1 AND org = $2").bind(id).bind(org);
        query.fetch_optional(&self.0.reads).await?.as_ref().map(read).transpose()
    }

    /// The runs of an organization that pass the filter, the newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] for a cursor that is none.
    pub async fn runs(&self, org: &str, filter: RunFilter) -> Result<Vec<RunRow>, Error> {
        let whole = filter.limit.is_none();
        let (statement, binds) = select(org, filter)?;
        // Nothing from outside is in this text.
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for bind in binds {
            query = match bind {
                Bind::Number(number) => query.bind(number),
                Bind::Text(text) => query.bind(text),
            };
        }
        let mut rows = query.fetch(&self.0.reads);
        let (mut runs, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.try_next().await? {
            let run = read(&row)?;
            bytes += run.body.len();
            runs.push(run);
            if whole && bytes >= MAX_BYTES {
                break;
            }
        }
        Ok(runs)
    }

    /// Queues a dead run again, from the first try on.
    ///
    /// # Errors
    /// [`Error::Missing`] without such a run in the organization, [`Error::Refused`] when it is not
    /// dead.
    pub async fn redrive(&self, org: &str, id: &str, mut job: NewJob) -> Result<RunRow, Error> {
        let (org, id) = (org.to_owned(), id.to_owned());
        job.key.clone_from(&id);
        job.org.clone_from(&org);
        self.write(move |tx| {
            Box::pin(async move {
                let query = "SELECT * FROM run WHERE id = $1 AND org = $2";
                let row = sqlx::query(query).bind(&id).bind(&org);
                let row = row.fetch_optional(&mut tx.conn).await?.ok_or(Error::Missing)?;
                let mut run = read(&row)?;
                if !run.dead {
                    let text = format!("run {id} is not dead: only runs that failed for good are");
                    return Err(Error::Refused(Problem::new(400, text)));
                }
                run.dead = false;
                run.status = Status::Initialized;
                run.attempts = 0;
                run.finished = None;
                run.modified = tx.now;
                tx.put_runs(slice::from_ref(&run)).await?;
                tx.enqueue(&[job]).await?;
                Ok(run)
            })
        })
        .await
    }
}

enum Bind {
    Number(i64),
    Text(String),
}

/// The statement of a filter, and what belongs in its places.
fn select(org: &str, filter: RunFilter) -> Result<(String, Vec<Bind>), Error> {
    let mut binds = vec![Bind::Text(org.to_owned())];
    let mut statement = "SELECT * FROM run WHERE org = $1".to_owned();
    let mut and = |condition: &str, values: Vec<Bind>| {
        let mut condition = condition.to_owned();
        for value in values {
            binds.push(value);
            condition = condition.replacen('?', &format!("${}", binds.len()), 1);
        }
        statement = format!("{statement} AND {condition}");
    };
    if let Some(name) = filter.function {
        let id = "function_id = \
                  (SELECT id FROM entity WHERE kind = 'Function' AND org = $1 AND name = ?)";
        and(id, vec![Bind::Text(name)]);
    }
    if let Some(since) = filter.since {
        and("modified > ?", vec![Bind::Number(since)]);
    }
    if let Some(status) = filter.status {
        and("status = ?", vec![Bind::Text(status.as_str().to_owned())]);
    }
    if let Some(dead) = filter.dead {
        and("dead = ?", vec![Bind::Number(i64::from(dead))]);
    }
    if let Some(cursor) = filter.after {
        let place = cursor.split_once('.');
        let place = place.and_then(|(created, id)| Some((created.parse().ok()?, id.to_owned())));
        let (created, id) = place.ok_or_else(|| {
            let text = "continue in query is not a place in the list of runs: take it from the \
                        X-Dispatch-Continue header of the page before";
            Error::Refused(Problem::new(400, text))
        })?;
        and("(created, id) < (?, ?)", vec![Bind::Number(created), Bind::Text(id)]);
    }
    let limit = filter.limit.unwrap_or(MAX_RUNS).min(MAX_RUNS);
    binds.push(Bind::Number(super::number(limit)));
    statement = format!("{statement} ORDER BY created DESC, id DESC LIMIT ${}", binds.len());
    Ok((statement, binds))
}
