//! Revisions of functions: each update makes one, and at most one of them serves.

use std::collections::HashMap;

use dispatch_api::{Kind, Problem, Status};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::writer::Tx;
use super::{Entity, Error, NewJob, Store, entity};

/// One revision. Nothing of it changes but what building it finds out: status, reason and body.
#[derive(Clone, Debug, PartialEq)]
pub struct RevisionRow {
    /// The id of the function's entity.
    pub function_id: String,
    /// Counted per function from 1, set by the store.
    pub number: i64,
    /// UUID, unique everywhere.
    pub faas_id: String,
    /// Where it is in its life.
    pub status: Status,
    /// Why it could not be built.
    pub reason: Vec<String>,
    /// Microseconds since 1970.
    pub created: i64,
    /// The function as it was sent, and what building it found out.
    pub body: Value,
}

fn read(row: &AnyRow) -> Result<RevisionRow, Error> {
    Ok(RevisionRow {
        function_id: row.try_get("function_id")?,
        number: row.try_get("number")?,
        faas_id: row.try_get("faas_id")?,
        status: super::status(row.try_get("status")?)?,
        reason: super::json(row.try_get("reason")?)?,
        created: row.try_get("created")?,
        body: super::json(row.try_get("body")?)?,
    })
}

impl Tx {
    async fn newest(&mut self, function_id: &str) -> Result<i64, Error> {
        let query =
            "SELECT COALESCE(MAX(number), 0) AS number FROM revision WHERE function_id = $1";
        let row = sqlx::query(query).bind(function_id).fetch_one(&mut self.conn).await?;
        Ok(row.try_get("number")?)
    }

    async fn add_revision(&mut self, row: &mut RevisionRow) -> Result<(), Error> {
        row.number = self.newest(&row.function_id).await? + 1;
        sqlx::query(
            "INSERT INTO revision (faas_id, function_id, number, serving, status, reason, created, \
             body) VALUES ($1, $2, $3, 0, $4, $5, $6, $7)",
        )
        .bind(&row.faas_id)
        .bind(&row.function_id)
        .bind(row.number)
        .bind(row.status.as_str())
        .bind(super::words(&row.reason))
        .bind(row.created)
        .bind(row.body.to_string())
        .execute(&mut self.conn)
        .await?;
        Ok(())
    }

    async fn update_revision(&mut self, row: &RevisionRow) -> Result<(), Error> {
        sqlx::query("UPDATE revision SET status = $1, reason = $2, body = $3 WHERE faas_id = $4")
            .bind(row.status.as_str())
            .bind(super::words(&row.reason))
            .bind(row.body.to_string())
            .bind(&row.faas_id)
            .execute(&mut self.conn)
            .await?;
        Ok(())
    }

    /// Moves traffic to a revision.
    async fn serve(&mut self, entity: &mut Entity, row: &RevisionRow) -> Result<(), Error> {
        sqlx::query(
            "UPDATE revision SET serving = CASE WHEN number = $1 THEN 1 ELSE 0 END \
             WHERE function_id = $2",
        )
        .bind(row.number)
        .bind(&entity.id)
        .execute(&mut self.conn)
        .await?;
        let Value::Object(body) = &mut entity.body else {
            return Err(Error::Corrupt(format!("function {} is not an object", entity.name)));
        };
        body.insert("servingFaasId".to_owned(), Value::from(row.faas_id.as_str()));
        body.insert("servingRevision".to_owned(), Value::from(row.number));
        Ok(())
    }
}

impl Store {
    /// Stores a new function, its first revision and the jobs they cause.
    ///
    /// # Errors
    /// [`Error::Exists`] when the organization has a function of this name.
    pub async fn create_function(
        &self,
        mut entity: Entity,
        mut revision: RevisionRow,
        jobs: Vec<NewJob>,
    ) -> Result<(Entity, RevisionRow), Error> {
        self.write(move |tx| {
            Box::pin(async move {
                tx.insert(&mut entity).await?;
                revision.function_id.clone_from(&entity.id);
                tx.add_revision(&mut revision).await?;
                tx.enqueue(&jobs).await?;
                Ok((entity, revision))
            })
        })
        .await
    }

    /// Changes a function and adds the revision that follows from it: `change` answers its body and
    /// its `faas_id`. What served before goes on serving.
    ///
    /// # Errors
    /// As [`Store::mutate`].
    pub async fn update_function(
        &self,
        org: &str,
        name: &str,
        expected: Option<i64>,
        change: impl FnOnce(&mut Entity) -> Result<(Value, String), Problem> + Send + 'static,
        jobs: impl FnOnce(&RevisionRow) -> Vec<NewJob> + Send + 'static,
    ) -> Result<(Entity, RevisionRow), Error> {
        let (org, name) = (org.to_owned(), name.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let mut entity = tx.open(Kind::Function, &org, &name, expected).await?;
                let (body, faas_id) = entity::edit(&mut entity, change)?;
                tx.save(&entity).await?;
                let mut revision = RevisionRow {
                    function_id: entity.id.clone(),
                    number: 0,
                    faas_id,
                    status: Status::Initialized,
                    reason: Vec::new(),
                    created: tx.now,
                    body,
                };
                tx.add_revision(&mut revision).await?;
                tx.enqueue(&jobs(&revision)).await?;
                Ok((entity, revision))
            })
        })
        .await
    }

    /// Records how building a revision ended: with its body, now complete, or with the reason why it
    /// failed. The newest revision of its function begins to serve when it is good; when it is not,
    /// what served before goes on and the function carries the reason. A revision that is good
    /// already stays as it is. Answers the function, or nothing where it or the revision is gone or
    /// the revision is not the newest any more.
    ///
    /// # Errors
    /// The database takes no writes.
    pub async fn finish_revision(
        &self,
        org: &str,
        name: &str,
        faas_id: &str,
        result: Result<Value, String>,
    ) -> Result<Option<Entity>, Error> {
        let (org, name, faas_id) = (org.to_owned(), name.to_owned(), faas_id.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let mut entity = match tx.open(Kind::Function, &org, &name, None).await {
                    Err(Error::Missing) => return Ok(None),
                    found => found?,
                };
                let query = "SELECT * FROM revision WHERE function_id = $1 AND faas_id = $2";
                let row = sqlx::query(query).bind(&entity.id).bind(&faas_id);
                let Some(row) = row.fetch_optional(&mut tx.conn).await? else { return Ok(None) };
                let mut row = read(&row)?;
                let newest = tx.newest(&entity.id).await? == row.number;
                if row.status == Status::Ready {
                    // The job is done twice: traffic may have been moved since.
                    return Ok(if newest {
                        Some(tx.find(Kind::Function, &org, &name).await?)
                    } else {
                        None
                    });
                }
                (row.status, row.reason) = match result {
                    Ok(body) => {
                        row.body = body;
                        (Status::Ready, Vec::new())
                    }
                    Err(reason) => (Status::Error, vec![reason]),
                };
                tx.update_revision(&row).await?;
                if !newest {
                    return Ok(None);
                }
                if row.status == Status::Ready {
                    tx.serve(&mut entity, &row).await?;
                }
                (entity.status, entity.reason) = (row.status, row.reason);
                tx.save(&entity).await?;
                Ok(Some(entity))
            })
        })
        .await
    }

    /// Moves traffic to an earlier, or later, good revision. A newer one that is being built takes
    /// over when it is ready.
    ///
    /// # Errors
    /// [`Error::Missing`] without such a function, [`Error::Refused`] without such a revision or when
    /// it is not `READY`.
    pub async fn serve_revision(
        &self,
        org: &str,
        name: &str,
        number: i64,
    ) -> Result<Entity, Error> {
        let (org, name) = (org.to_owned(), name.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let mut entity = tx.open(Kind::Function, &org, &name, None).await?;
                let query = "SELECT * FROM revision WHERE function_id = $1 AND number = $2";
                let row = sqlx::query(query).bind(&entity.id).bind(number);
                let row = row.fetch_optional(&mut tx.conn).await?;
                let row = row.as_ref().map(read).transpose()?;
                let row = row.ok_or_else(|| {
                    let text = format!(
                        "function {name} has no revision {number}: it never had, or it was pruned"
                    );
                    Error::Refused(Problem::new(404, text))
                })?;
                if row.status != Status::Ready {
                    let text = format!(
                        "revision {number} of function {name} is {}: only a READY one can serve",
                        row.status
                    );
                    return Err(Error::Refused(Problem::new(400, text)));
                }
                tx.serve(&mut entity, &row).await?;
                if entity.status == Status::Error {
                    entity.status = Status::Ready;
                    entity.reason.clear();
                }
                tx.save(&entity).await?;
                Ok(entity)
            })
        })
        .await
    }

    /// The revisions of a function, the newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn revisions(&self, function_id: &str) -> Result<Vec<RevisionRow>, Error> {
        let query = "SELECT * FROM revision WHERE function_id = $1 ORDER BY number DESC";
        let rows = sqlx::query(query).bind(function_id).fetch_all(&self.0.reads).await?;
        rows.iter().map(read).collect()
    }

    /// One revision.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn revision(&self, faas_id: &str) -> Result<Option<RevisionRow>, Error> {
        let query = sqlx::query("SELECT * FROM revision WHERE faas_id = $1").bind(faas_id);
        query.fetch_optional(&self.0.reads).await?.as_ref().map(read).transpose()
    }

    /// All functions that serve, of all organizations, with the revision that does.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn all_serving(&self) -> Result<Vec<(Entity, RevisionRow)>, Error> {
        // Revisions first: one that serves only since then is announced by a later change.
        let rows = sqlx::query("SELECT * FROM revision WHERE serving = 1")
            .fetch_all(&self.0.reads)
            .await?;
        let mut rows: HashMap<String, RevisionRow> = rows
            .iter()
            .map(|row| read(row).map(|row| (row.function_id.clone(), row)))
            .collect::<Result<_, _>>()?;
        let functions = self.all(Kind::Function).await?;
        Ok(functions
            .into_iter()
            .filter_map(|entity| rows.remove(&entity.id).map(|row| (entity, row)))
            .collect())
    }
}
