//! Entities: the resources that clients create, change and remove by name.

use dispatch_api::{Kind, Problem, Status};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::change::Op;
use super::writer::Tx;
use super::{Error, NewJob, Store};

/// The revision of an entity that was just created.
pub const FIRST_REVISION: i64 = 1;

/// One resource as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// What it is.
    pub kind: Kind,
    /// The organization it belongs to.
    pub org: String,
    /// The project it belongs to.
    pub project: String,
    /// Unique for the kind in the organization.
    pub name: String,
    /// UUID, unique everywhere.
    pub id: String,
    /// Counts its writes, from [`FIRST_REVISION`] on.
    pub revision: i64,
    /// Where it is in its life.
    pub status: Status,
    /// Why it is not ready.
    pub reason: Vec<String>,
    /// Microseconds since 1970.
    pub created: i64,
    /// Microseconds since 1970, set by every write.
    pub modified: i64,
    /// The resource itself.
    pub body: Value,
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// At most this many; without it all.
    pub limit: Option<usize>,
    /// Only names after this one.
    pub after: Option<String>,
}

fn read(row: &AnyRow) -> Result<Entity, Error> {
    Ok(Entity {
        kind: super::kind(row.try_get("kind")?)?,
        org: row.try_get("org")?,
        project: row.try_get("project")?,
        name: row.try_get("name")?,
        id: row.try_get("id")?,
        revision: row.try_get("revision")?,
        status: super::status(row.try_get("status")?)?,
        reason: super::json(row.try_get("reason")?)?,
        created: row.try_get("created")?,
        modified: row.try_get("modified")?,
        body: super::json(row.try_get("body")?)?,
    })
}

const GET: &str = "SELECT * FROM entity WHERE kind = $1 AND org = $2 AND name = $3";

impl Tx {
    /// Inserts an entity as its first revision.
    pub(super) async fn insert(&mut self, entity: &mut Entity) -> Result<(), Error> {
        entity.revision = FIRST_REVISION;
        entity.modified = self.now;
        let inserted = sqlx::query(
            "INSERT INTO entity (kind, org, name, project, id, revision, status, reason, created, \
             modified, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (kind, org, name) DO NOTHING",
        )
        .bind(entity.kind.as_str())
        .bind(&entity.org)
        .bind(&entity.name)
        .bind(&entity.project)
        .bind(&entity.id)
        .bind(entity.revision)
        .bind(entity.status.as_str())
        .bind(super::words(&entity.reason))
        .bind(entity.created)
        .bind(entity.modified)
        .bind(entity.body.to_string())
        .execute(&mut self.conn)
        .await?;
        if inserted.rows_affected() == 0 {
            return Err(Error::Exists);
        }
        self.announce(entity, Op::Put).await
    }

    /// Reads an entity; [`Error::Missing`] where there is none.
    pub(super) async fn find(
        &mut self,
        kind: Kind,
        org: &str,
        name: &str,
    ) -> Result<Entity, Error> {
        let query = sqlx::query(GET).bind(kind.as_str()).bind(org).bind(name);
        read(&query.fetch_optional(&mut self.conn).await?.ok_or(Error::Missing)?)
    }

    /// Reads an entity that is to be changed; its revision is the next one already.
    pub(super) async fn open(
        &mut self,
        kind: Kind,
        org: &str,
        name: &str,
        expected: Option<i64>,
    ) -> Result<Entity, Error> {
        let mut entity = self.find(kind, org, name).await?;
        if expected.is_some_and(|expected| expected != entity.revision) {
            return Err(Error::Conflict { current: entity.revision });
        }
        entity.revision += 1;
        entity.modified = self.now;
        Ok(entity)
    }

    /// Writes an entity from [`Tx::open`] back, whatever happened to the fields that name it.
    pub(super) async fn save(&mut self, entity: &Entity) -> Result<(), Error> {
        let updated = sqlx::query(
            "UPDATE entity SET project = $1, revision = $2, status = $3, reason = $4, \
             modified = $5, body = $6 WHERE kind = $7 AND org = $8 AND name = $9 AND revision = $10",
        )
        .bind(&entity.project)
        .bind(entity.revision)
        .bind(entity.status.as_str())
        .bind(super::words(&entity.reason))
        .bind(entity.modified)
        .bind(entity.body.to_string())
        .bind(entity.kind.as_str())
        .bind(&entity.org)
        .bind(&entity.name)
        .bind(entity.revision - 1)
        .execute(&mut self.conn)
        .await?;
        if updated.rows_affected() == 0 {
            return Err(Error::Conflict { current: entity.revision });
        }
        self.announce(entity, Op::Put).await
    }
}

/// Lets a change see the whole entity but keep only what may change: project, status, reason, body.
pub(super) fn edit<T>(
    entity: &mut Entity,
    change: impl FnOnce(&mut Entity) -> Result<T, Problem>,
) -> Result<T, Error> {
    let mut edited = entity.clone();
    let result = change(&mut edited).map_err(Error::Refused)?;
    entity.project = edited.project;
    entity.status = edited.status;
    entity.reason = edited.reason;
    entity.body = edited.body;
    Ok(result)
}

impl Store {
    /// Stores a new entity and the jobs it causes. Its revision becomes [`FIRST_REVISION`].
    ///
    /// # Errors
    /// [`Error::Exists`] when the organization has one of this kind and name.
    pub async fn create(&self, mut entity: Entity, jobs: Vec<NewJob>) -> Result<Entity, Error> {
        self.write(move |tx| {
            Box::pin(async move {
                tx.insert(&mut entity).await?;
                tx.enqueue(&jobs).await?;
                Ok(entity)
            })
        })
        .await
    }

    /// Reads an entity, lets `change` alter it and writes it and the jobs that `change` answers. No
    /// other write comes between. Inside `change` the revision is the next one already; the fields
    /// that name the entity cannot be changed.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Conflict`] when `expected` is not its revision, and
    /// [`Error::Refused`] with what `change` says.
    pub async fn mutate(
        &self,
        kind: Kind,
        org: &str,
        name: &str,
        expected: Option<i64>,
        change: impl FnOnce(&mut Entity) -> Result<Vec<NewJob>, Problem> + Send + 'static,
    ) -> Result<Entity, Error> {
        let (org, name) = (org.to_owned(), name.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let mut entity = tx.open(kind, &org, &name, expected).await?;
                let jobs = edit(&mut entity, change)?;
                tx.save(&entity).await?;
                tx.enqueue(&jobs).await?;
                Ok(entity)
            })
        })
        .await
    }

    /// Removes an entity and answers what it was. A function takes its revisions, its runs and the
    /// jobs of its runs with it, a schedule its next tick.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub async fn remove(&self, kind: Kind, org: &str, name: &str) -> Result<Entity, Error> {
        let (org, name) = (org.to_owned(), name.to_owned());
        self.write(move |tx| {
            Box::pin(async move {
                let entity = tx.find(kind, &org, &name).await?;
                if kind == Kind::Function {
                    sqlx::query(
                        "DELETE FROM job WHERE org = $1 \
                         AND key IN (SELECT id FROM run WHERE function_id = $2)",
                    )
                    .bind(&org)
                    .bind(&entity.id)
                    .execute(&mut tx.conn)
                    .await?;
                    tx.effects.runs = true;
                }
                if kind == Kind::Schedule {
                    let alarm = "DELETE FROM job WHERE org = $1 AND key = $2 AND kind = 'schedule'";
                    let query = sqlx::query(alarm).bind(&org).bind(&name);
                    query.execute(&mut tx.conn).await?;
                }
                // Revisions and runs go with it: they refer to it.
                sqlx::query("DELETE FROM entity WHERE id = $1")
                    .bind(&entity.id)
                    .execute(&mut tx.conn)
                    .await?;
                let gone = Entity { revision: entity.revision + 1, ..entity.clone() };
                tx.announce(&gone, Op::Delete).await?;
                Ok(entity)
            })
        })
        .await
    }

    /// Reads one entity of an organization.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn get(&self, kind: Kind, org: &str, name: &str) -> Result<Option<Entity>, Error> {
        let query = sqlx::query(GET).bind(kind.as_str()).bind(org).bind(name);
        query.fetch_optional(&self.0.reads).await?.as_ref().map(read).transpose()
    }

    /// The entities of a kind in an organization, in the order of their names.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn list(&self, kind: Kind, org: &str, page: Page) -> Result<Vec<Entity>, Error> {
        let rows = sqlx::query(
            "SELECT * FROM entity WHERE kind = $1 AND org = $2 AND name > $3 ORDER BY name LIMIT $4",
        )
        .bind(kind.as_str())
        .bind(org)
        // No name is empty.
        .bind(page.after.unwrap_or_default())
        .bind(page.limit.map_or(i64::MAX, super::number))
        .fetch_all(&self.0.reads)
        .await?;
        rows.iter().map(read).collect()
    }

    /// All entities of a kind, of all organizations: to build tables in memory, never to answer a
    /// client.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn all(&self, kind: Kind) -> Result<Vec<Entity>, Error> {
        let rows = sqlx::query("SELECT * FROM entity WHERE kind = $1 ORDER BY org, name")
            .bind(kind.as_str())
            .fetch_all(&self.0.reads)
            .await?;
        rows.iter().map(read).collect()
    }
}
