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
