//! The schema: numbered migrations, each applied once.

use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::Error;
use super::dialect::Dialect;

/// Migration n stands at place n - 1. A published one is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_initial.sql"),
    include_str!("migrations/0002_egress.sql"),
    include_str!("migrations/0003_events.sql"),
];

/// Brings the schema to this program's version, in one transaction.
///
/// # Errors
/// The database is of a newer program, or cannot be written.
pub(super) async fn migrate(conn: &mut AnyConnection, dialect: &Dialect) -> Result<(), Error> {
    sqlx::raw_sql(dialect.begin).execute(&mut *conn).await?;
    let result = apply(conn, dialect).await;
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = sqlx::raw_sql(end).execute(conn).await;
    result?;
    ended?;
    Ok(())
}

async fn apply(conn: &mut AnyConnection, dialect: &Dialect) -> Result<(), Error> {
    let table = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY)";
    sqlx::raw_sql(table).execute(&mut *conn).await?;
    let latest = "SELECT COALESCE(MAX(version), 0) AS version FROM schema_version";
    let found: i64 = sqlx::query(latest).fetch_one(&mut *conn).await?.try_get("version")?;
    let found = usize::try_from(found).map_err(|_| Error::Corrupt(format!("schema {found}")))?;
    if found > MIGRATIONS.len() {
        return Err(Error::Unavailable(format!(
            "the database has schema version {found}, but this program knows only up to {}: it was \
             written by a newer release; start that one, or restore a backup from before the upgrade",
            MIGRATIONS.len()
        )));
    }
    for (version, text) in (1i64..).zip(MIGRATIONS).skip(found) {
        // Nothing from outside is in this text.
        let text = AssertSqlSafe(dialect.migration(text));
        sqlx::raw_sql(text).execute(&mut *conn).await?;
        sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
            .bind(version)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}
