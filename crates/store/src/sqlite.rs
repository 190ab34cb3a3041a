//! What SQLite needs beside the shared statements: files, pragmas, one writer a file, several readers, and statements run in place.
//!
//! A connection is used by the thread that holds it, so a statement costs what SQLite takes and no wake-up of another thread. The
//! writer has a thread of its own ([`crate::writer`]); a read goes to a thread on which waiting is allowed. Why not through sqlx:
//! `docs/decisions/0006-sqlite-in-place.md`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::{Null, Value as Cell};
use rusqlite::{CachedStatement, Connection, OpenFlags};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::error::StoreError;
use crate::open::Reading;
use crate::sql::{Row, STATEMENTS, Tx, Value};
use crate::writer::Writer;

/// Pages in the write-ahead log before they are written back, 16 MiB: the spool's pages are written over and over, and are written back
/// once a round.
const CHECKPOINT_PAGES: i64 = 4096;
/// Most connections that read one file at a time.
const READERS: usize = 4;

/// One file: its writer and its readers.
pub(crate) struct File {
    pub(crate) writer: Writer,
    pub(crate) readers: Readers,
}

pub(crate) struct Db {
    pub(crate) writer: Writer,
    pub(crate) readers: Readers,
    pub(crate) ledger: File,
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, rusqlite::Error> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(Duration::from_secs(10))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.execute_batch(
        "PRAGMA foreign_keys = on; PRAGMA synchronous = full; PRAGMA temp_store = memory; PRAGMA cache_size = -16384; \
         PRAGMA recursive_triggers = on",
    )?;
    Ok(conn)
}

/// Opens a file for its one writer, so that it can be migrated first.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let opened = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE).and_then(|conn| {
        conn.pragma_update(None, "journal_mode", "wal")?;
        conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        Ok(conn)
    });
    opened.map_err(|e| StoreError::Start(format!("cannot open {}: {e}; is the directory writable?", path.display())))
}

/// Starts the writer, and lets others read.
pub(crate) fn open(path: &Path, writer: Connection) -> Result<File, StoreError> {
    Ok(File { writer: Writer::start(writer)?, readers: Readers::of(path) })
}

/// Connections that read a file. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Readers {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Connection>>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    fn of(path: &Path) -> Self {
        Self { path: Arc::new(path.to_owned()), idle: Arc::default(), turns: Arc::new(Semaphore::new(READERS)) }
    }

    /// Reads inside one snapshot. Runs to its end whatever becomes of the caller.
    pub(crate) async fn read<T, E>(&self, work: Reading<T, E>) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|e| StoreError::Unavailable(e.to_string()))?;
        let (readers, runtime) = (self.clone(), Handle::current());
        let run = tokio::task::spawn_blocking(move || {
            let mut conn = readers.take()?;
            begin(&conn, "BEGIN")?;
            let value = runtime.block_on(work(&mut Tx::sqlite(&mut conn)));
            begin(&conn, "ROLLBACK")?;
            readers.give_back(conn);
            drop(turn);
            value
        });
        run.await.unwrap_or_else(|_| Err(StoreError::Unavailable("a read stopped in its middle".to_owned()).into()))
    }

    /// A connection; one that did not come back (its reader panicked inside a transaction) is replaced by a new one.
    fn take(&self) -> Result<Connection, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(conn) => Ok(conn),
            None => Ok(connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?),
        }
    }

    fn give_back(&self, conn: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
    }
}

/// Begins or ends a transaction or savepoint.
pub(crate) fn begin(conn: &Connection, word: &'static str) -> Result<(), StoreError> {
    conn.prepare_cached(word)?.raw_execute()?;
    Ok(())
}

/// Refuses a statement outside a transaction: SQLite ended it by itself, and what followed would commit alone.
pub(crate) fn inside(conn: &Connection) -> Result<(), StoreError> {
    if conn.is_autocommit() { Err(StoreError::Unavailable("the database ended the transaction".to_owned())) } else { Ok(()) }
}

/// Runs a statement; gives the number of rows it changed.
pub(crate) fn execute(conn: &Connection, sql: &str, args: &[Value]) -> Result<u64, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    bind(&mut statement, args)?;
    let reads = statement.readonly();
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    Ok(if reads { 0 } else { conn.changes() })
}

/// Every row.
pub(crate) fn all(conn: &Connection, sql: &str, args: &[Value]) -> Result<Vec<Row>, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    bind(&mut statement, args)?;
    let width = statement.column_count();
    let mut rows = statement.raw_query();
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let cells = (0..width).map(|at| row.get::<_, Cell>(at)).collect::<Result<Vec<_>, _>>()?;
        found.push(Row::Sqlite(Cells(cells)));
    }
    Ok(found)
}

/// Binds `$n` to the n-th value, wherever and however often it stands.
fn bind(statement: &mut CachedStatement<'_>, args: &[Value]) -> Result<(), StoreError> {
    for at in 1..=statement.parameter_count() {
        let place = statement.parameter_name(at).and_then(|name| name.get(1..)?.parse::<usize>().ok());
        let value = place.and_then(|place| args.get(place.checked_sub(1)?));
        let value = value.ok_or_else(|| StoreError::Unavailable(format!("a statement's parameter {at} has no value")))?;
        match value {
            Value::Bytes(Some(bytes)) => statement.raw_bind_parameter(at, bytes.as_slice())?,
            Value::Int(Some(number)) => statement.raw_bind_parameter(at, number)?,
            Value::Text(Some(text)) => statement.raw_bind_parameter(at, text.as_str())?,
            Value::Bytes(None) | Value::Int(None) | Value::Text(None) => statement.raw_bind_parameter(at, Null)?,
            Value::Ids(ids) => statement.raw_bind_parameter(at, list(ids.iter().map(hex::encode)))?,
            Value::Blobs(blobs) => statement.raw_bind_parameter(at, list(blobs.iter().map(hex::encode)))?,
            Value::Texts(texts) => statement.raw_bind_parameter(at, list(texts.iter().map(String::as_str)))?,
            Value::Ints(numbers) => statement.raw_bind_parameter(at, list(numbers.iter().copied()))?,
        }
    }
    Ok(())
}

/// A list as `json_each` reads it.
fn list<T: Into<serde_json::Value>>(items: impl Iterator<Item = T>) -> String {
    items.collect::<serde_json::Value>().to_string()
}

/// The cells of a row.
pub struct Cells(Vec<Cell>);

impl Cells {
    /// A cell as `T`, if it is one.
    pub(crate) fn get<T: FromCell>(&self, at: usize) -> Result<T, StoreError> {
        let wrong = |found: &str| StoreError::inconsistent("?", "?", format!("column {at} is {found}"));
        let cell = self.0.get(at).ok_or_else(|| wrong("not there"))?;
        T::from_cell(cell).ok_or_else(|| wrong(&cell.data_type().to_string()))
    }
}

/// What a cell can be read as. A type that does not fit is no value: SQLite's columns hold anything.
pub(crate) trait FromCell: Sized {
    fn from_cell(cell: &Cell) -> Option<Self>;
}

impl FromCell for i64 {
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Integer(number) => Some(*number),
            _ => None,
        }
    }
}

impl FromCell for String {
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

impl FromCell for Vec<u8> {
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Blob(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }
}

impl<T: FromCell> FromCell for Option<T> {
    fn from_cell(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Null => Some(None),
            _ => T::from_cell(cell).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let conn = open_writer(&dir.path().join("a.db")).unwrap();
        (dir, conn)
    }

    #[test]
    fn a_row_that_stays_is_not_replaced() {
        let (_dir, one) = opened();
        one.execute_batch(
            "CREATE TABLE kept (id INTEGER PRIMARY KEY, what TEXT);
             CREATE TRIGGER stays BEFORE DELETE ON kept BEGIN SELECT RAISE(ABORT, 'never deleted'); END;
             INSERT INTO kept VALUES (1, 'first')",
        )
        .unwrap();
        let refused = execute(&one, "INSERT OR REPLACE INTO kept VALUES (1, 'second')", &[]).unwrap_err();
        assert!(matches!(&refused, StoreError::Refused(why) if why.contains("never deleted")), "{refused}");
    }

    #[test]
    fn a_parameter_is_its_number_wherever_it_stands() {
        let (_dir, one) = opened();
        let rows = all(&one, "SELECT $2, $1, $2 || $3", &["a".into(), "b".into(), "c".into()]).unwrap();
        let text = |at| rows[0].text(at).unwrap();
        assert_eq!((text(0), text(1), text(2)), ("b".to_owned(), "a".to_owned(), "bc".to_owned()));
        assert!(all(&one, "SELECT $4", &["a".into()]).is_err(), "a parameter without a value is no NULL");
    }

    #[test]
    fn a_cell_of_another_kind_is_an_inconsistency() {
        let (_dir, one) = opened();
        let rows = all(&one, "SELECT 'text', NULL, x'00', 7", &[]).unwrap();
        let row = &rows[0];
        assert!(matches!(row.int(0), Err(StoreError::Inconsistent { .. })));
        assert!(matches!(row.int(1), Err(StoreError::Inconsistent { .. })));
        assert_eq!(row.opt_int(1).unwrap(), None);
        assert_eq!((row.bytes(2).unwrap(), row.int(3).unwrap()), (vec![0], 7));
        assert!(matches!(row.text(4), Err(StoreError::Inconsistent { .. })), "a column that is not there");
    }
}
