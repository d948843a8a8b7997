//! What can go wrong in the store.

use dispatch_api::Problem;

use super::dialect;

/// Why an operation was not done. Whatever it is, nothing of the operation was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is one of this name already.
    #[error("it exists already")]
    Exists,
    /// There is none of this name.
    #[error("it does not exist")]
    Missing,
    /// It was changed since the caller read it.
    #[error("it was changed by somebody else: its revision is now {current}")]
    Conflict {
        /// Its revision now.
        current: i64,
    },
    /// The change was not wanted: what the client is told.
    #[error("{}", .0.message)]
    Refused(Problem),
    /// The changes after that number are not all known any more: read everything again.
    #[error("the changes asked for are not kept any more: read everything again")]
    Gap,
    /// The database takes no operations at the moment: a text for the operator.
    #[error("{0}")]
    Unavailable(String),
    /// What was read is not what was written: a text for the operator.
    #[error("the database is damaged or of another program, restore it from a backup: {0}")]
    Corrupt(String),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Error {
        match error {
            sqlx::Error::Database(error) => dialect::explain(error.as_ref()),
            sqlx::Error::RowNotFound => Error::Missing,
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::Decode(_) => Error::Corrupt(error.to_string()),
            other => Error::Unavailable(format!("the database does not answer: {other}")),
        }
    }
}
