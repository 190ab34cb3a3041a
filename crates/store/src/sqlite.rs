//! What SQLite needs beside the shared statements: files, pragmas, one writer a file, several readers.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::error::StoreError;
use crate::writer::Writer;

/// One file: its writer and its readers.
pub(crate) struct File {
    pub(crate) writer: Writer,
    pub(crate) readers: SqlitePool,
}

pub(crate) struct Db {
    pub(crate) writer: Writer,
    pub(crate) readers: SqlitePool,
    pub(crate) ledger: File,
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(10))
        // Without it `INSERT OR REPLACE` deletes a row and no trigger sees it; the ledger's triggers must.
        .pragma("recursive_triggers", "on")
        .pragma("temp_store", "memory")
        .pragma("cache_size", "-16384")
        .disable_statement_logging()
}

/// Opens a file for its one writer, so that it can be migrated first.
pub(crate) async fn open_writer(path: &Path) -> Result<SqliteConnection, StoreError> {
    SqliteConnection::connect_with(&options(path))
        .await
        .map_err(|e| StoreError::Start(format!("cannot open {}: {e}; is the directory writable?", path.display())))
}

/// Starts the writer and opens the readers.
pub(crate) async fn open(path: &Path, writer: SqliteConnection) -> Result<File, StoreError> {
    let readers = SqlitePoolOptions::new().max_connections(4).connect_with(options(path).read_only(true)).await?;
    Ok(File { writer: Writer::start(writer), readers })
}

#[cfg(test)]
mod tests {
    use sqlx::Executor as _;

    use super::*;

    #[tokio::test]
    async fn a_row_that_stays_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let mut one = open_writer(&dir.path().join("a.db")).await.unwrap();
        one.execute("CREATE TABLE kept (id INTEGER PRIMARY KEY, what TEXT)").await.unwrap();
        one.execute("CREATE TRIGGER stays BEFORE DELETE ON kept BEGIN SELECT RAISE(ABORT, 'never deleted'); END").await.unwrap();
        one.execute("INSERT INTO kept VALUES (1, 'first')").await.unwrap();
        let refused = one.execute("INSERT OR REPLACE INTO kept VALUES (1, 'second')").await.unwrap_err();
        assert!(refused.to_string().contains("never deleted"), "{refused}");
    }
}
