//! How the store fails.

/// The store could not do it. Nothing was half-written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer, or not in time.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A row is not what it should be: which table, column and why.
    #[error("inconsistent row in {table}.{column}: {fault}")]
    Inconsistent {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// What is wrong.
        fault: String,
    },
    /// A uniqueness or reference rule of the database refused the statement.
    #[error("the database refused: {0}")]
    Refused(String),
    /// The administrative record could not be written, and so nothing was.
    #[error("the administrative record cannot be written: {0}")]
    Unrecorded(String),
    /// The start is not possible; says what to do.
    #[error("{0}")]
    Start(String),
}

impl StoreError {
    /// An inconsistent row.
    pub fn inconsistent(table: &'static str, column: &'static str, fault: impl Into<String>) -> Self {
        Self::Inconsistent { table, column, fault: fault.into() }
    }

    /// Whether a uniqueness rule refused the statement.
    pub const fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            // A value that cannot be stored (class 22) or is beyond a limit (class 54) is refused for good: trying again stops everything
            // that waits behind it.
            sqlx::Error::Database(inner)
                if inner.is_unique_violation()
                    || inner.is_foreign_key_violation()
                    || inner.is_check_violation()
                    || inner.code().is_some_and(|code| code.starts_with("22") || code.starts_with("54")) =>
            {
                Self::Refused(inner.message().to_owned())
            }
            sqlx::Error::ColumnDecode { index, source } => {
                Self::Inconsistent { table: "?", column: "?", fault: format!("{index}: {source}") }
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::SqliteFailure(failure, why) if failure.code == rusqlite::ErrorCode::ConstraintViolation => {
                Self::Refused(why.clone().unwrap_or_else(|| failure.to_string()))
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}
