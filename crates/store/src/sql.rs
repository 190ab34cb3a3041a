//! One statement text for both backends: `$1` placeholders, a handful of value kinds, rows read by position.
//!
//! Ids are 16 bytes (`BLOB`, `BYTEA`), times and numbers 64-bit integers, JSON is text. Lists go in through [`Dialect::ids`] and
//! [`Dialect::texts`]. Why this and not an object mapper: `docs/decisions/0001-one-sql-layer.md`.

use std::borrow::Cow;

use caracal_core::id::Id;
use caracal_core::time::Time;
use rusqlite::Connection as SqliteConnection;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres, Row as _, SqlSafeStr, SqlStr};

use crate::error::StoreError;
use crate::sqlite;

/// Most prepared statements of a connection: more than there are texts, so that each is prepared once.
pub(crate) const STATEMENTS: usize = 512;

/// Which backend a statement runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Embedded.
    Sqlite,
    /// Production.
    Postgres,
}

impl Dialect {
    /// A subquery of the ids bound at placeholder `n`.
    pub fn ids(self, n: usize) -> String {
        match self {
            Self::Sqlite => format!("(SELECT unhex(value) FROM json_each(${n}))"),
            Self::Postgres => format!("(SELECT unnest(${n}::bytea[]))"),
        }
    }

    /// A subquery of the texts bound at placeholder `n`.
    pub fn texts(self, n: usize) -> String {
        match self {
            Self::Sqlite => format!("(SELECT value FROM json_each(${n}))"),
            Self::Postgres => format!("(SELECT unnest(${n}::text[]))"),
        }
    }

    /// One of two texts.
    pub const fn pick(self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self {
            Self::Sqlite => sqlite,
            Self::Postgres => postgres,
        }
    }
}

/// A bound value.
#[derive(Clone, Debug)]
pub enum Value {
    /// An id or other bytes.
    Bytes(Option<Vec<u8>>),
    /// A number, a time, a flag.
    Int(Option<i64>),
    /// Text or JSON text.
    Text(Option<String>),
    /// A list of ids.
    Ids(Vec<[u8; 16]>),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of numbers.
    Ints(Vec<i64>),
    /// A list of byte strings.
    Blobs(Vec<Vec<u8>>),
}

macro_rules! from {
    ($($from:ty => |$value:ident| $to:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $to
            }
        }
    )*};
}

from! {
    i64 => |v| Self::Int(Some(v));
    i32 => |v| Self::Int(Some(v.into()));
    u32 => |v| Self::Int(Some(v.into()));
    u64 => |v| Self::Int(Some(i64::try_from(v).unwrap_or(i64::MAX)));
    usize => |v| Self::Int(Some(i64::try_from(v).unwrap_or(i64::MAX)));
    bool => |v| Self::Int(Some(v.into()));
    Time => |v| Self::Int(Some(v.as_micros()));
    Option<i64> => |v| Self::Int(v);
    Option<Time> => |v| Self::Int(v.map(Time::as_micros));
    String => |v| Self::Text(Some(v));
    &str => |v| Self::Text(Some(v.to_owned()));
    &String => |v| Self::Text(Some(v.clone()));
    Option<String> => |v| Self::Text(v);
    Option<&str> => |v| Self::Text(v.map(str::to_owned));
    Vec<u8> => |v| Self::Bytes(Some(v));
    &[u8] => |v| Self::Bytes(Some(v.to_vec()));
    Option<Vec<u8>> => |v| Self::Bytes(v);
    Vec<String> => |v| Self::Texts(v);
}

impl Value {
    /// An id.
    pub fn id<I: Id>(id: I) -> Self {
        Self::Bytes(Some(id.to_bytes().to_vec()))
    }

    /// An id that may be absent.
    pub fn opt_id<I: Id>(id: Option<I>) -> Self {
        Self::Bytes(id.map(|id| id.to_bytes().to_vec()))
    }

    /// A list of ids.
    pub fn id_list<I: Id>(ids: impl IntoIterator<Item = I>) -> Self {
        Self::Ids(ids.into_iter().map(Id::to_bytes).collect())
    }
}

/// Binds: ids by reference, everything else by `Into`.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::Value::from($value)),*] };
}

/// A statement's text: constant, or put together from constants.
pub type Sql = Cow<'static, str>;

fn safe(sql: Sql) -> SqlStr {
    match sql {
        Cow::Borrowed(text) => text.into_sql_str(),
        // Put together by this crate from constants and dialect fragments; values are always bound.
        Cow::Owned(text) => AssertSqlSafe(text).into_sql_str(),
    }
}

pub(crate) enum Conn<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

/// A transaction: reads and, where its owner allows it, writes. Ended by whoever made it, never by a repository.
pub struct Tx<'c> {
    pub(crate) conn: Conn<'c>,
}

impl<'c> Tx<'c> {
    pub(crate) const fn sqlite(conn: &'c mut SqliteConnection) -> Self {
        Self { conn: Conn::Sqlite(conn) }
    }

    pub(crate) const fn postgres(conn: &'c mut PgConnection) -> Self {
        Self { conn: Conn::Postgres(conn) }
    }

    /// Which backend this is.
    pub const fn dialect(&self) -> Dialect {
        match self.conn {
            Conn::Sqlite(_) => Dialect::Sqlite,
            Conn::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Runs a statement; gives the number of rows it changed.
    pub async fn execute(&mut self, sql: impl Into<Sql>, args: Vec<Value>) -> Result<u64, StoreError> {
        let sql = sql.into();
        match &mut self.conn {
            Conn::Sqlite(conn) => sqlite::inside(conn).and_then(|()| sqlite::execute(conn, &sql, &args)),
            Conn::Postgres(conn) => Ok(bind_postgres(sqlx::query(safe(sql)), args).execute(&mut **conn).await?.rows_affected()),
        }
    }

    /// Every row.
    pub async fn all(&mut self, sql: impl Into<Sql>, args: Vec<Value>) -> Result<Vec<Row>, StoreError> {
        let sql = sql.into();
        match &mut self.conn {
            Conn::Sqlite(conn) => sqlite::inside(conn).and_then(|()| sqlite::all(conn, &sql, &args)),
            Conn::Postgres(conn) => {
                let rows = bind_postgres(sqlx::query(safe(sql)), args).fetch_all(&mut **conn).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The first row, if there is one.
    pub async fn first(&mut self, sql: impl Into<Sql>, args: Vec<Value>) -> Result<Option<Row>, StoreError> {
        Ok(self.all(sql, args).await?.into_iter().next())
    }
}

fn bind_postgres(mut query: Query<'_, Postgres, PgArguments>, args: Vec<Value>) -> Query<'_, Postgres, PgArguments> {
    for arg in args {
        query = match arg {
            Value::Bytes(v) => query.bind(v),
            Value::Int(v) => query.bind(v),
            Value::Text(v) => query.bind(v),
            Value::Ids(v) => query.bind(v.into_iter().map(|id| id.to_vec()).collect::<Vec<_>>()),
            Value::Blobs(v) => query.bind(v),
            Value::Texts(v) => query.bind(v),
            Value::Ints(v) => query.bind(v),
        };
    }
    query
}

/// A row, read by position.
pub enum Row {
    /// Of SQLite.
    Sqlite(sqlite::Cells),
    /// Of PostgreSQL.
    Postgres(PgRow),
}

macro_rules! get {
    ($row:expr, $at:expr) => {
        match $row {
            Row::Sqlite(cells) => cells.get($at)?,
            Row::Postgres(row) => row.try_get($at)?,
        }
    };
}

impl Row {
    /// A number.
    pub fn int(&self, at: usize) -> Result<i64, StoreError> {
        Ok(get!(self, at))
    }

    /// A number that may be absent.
    pub fn opt_int(&self, at: usize) -> Result<Option<i64>, StoreError> {
        Ok(get!(self, at))
    }

    /// A number that is not negative.
    pub fn count(&self, at: usize) -> Result<u64, StoreError> {
        u64::try_from(self.int(at)?).map_err(|_| StoreError::inconsistent("?", "?", format!("column {at} is negative")))
    }

    /// A flag.
    pub fn flag(&self, at: usize) -> Result<bool, StoreError> {
        Ok(self.int(at)? != 0)
    }

    /// A time.
    pub fn time(&self, at: usize) -> Result<Time, StoreError> {
        self.int(at).map(Time::from_micros)
    }

    /// A time that may be absent.
    pub fn opt_time(&self, at: usize) -> Result<Option<Time>, StoreError> {
        Ok(self.opt_int(at)?.map(Time::from_micros))
    }

    /// Text.
    pub fn text(&self, at: usize) -> Result<String, StoreError> {
        Ok(get!(self, at))
    }

    /// Text that may be absent.
    pub fn opt_text(&self, at: usize) -> Result<Option<String>, StoreError> {
        Ok(get!(self, at))
    }

    /// Bytes.
    pub fn bytes(&self, at: usize) -> Result<Vec<u8>, StoreError> {
        Ok(get!(self, at))
    }

    /// Bytes that may be absent.
    pub fn opt_bytes(&self, at: usize) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(get!(self, at))
    }

    /// An id.
    pub fn id<I: Id>(&self, at: usize) -> Result<I, StoreError> {
        id_of(&self.bytes(at)?, at)
    }

    /// An id that may be absent.
    pub fn opt_id<I: Id>(&self, at: usize) -> Result<Option<I>, StoreError> {
        self.opt_bytes(at)?.map(|bytes| id_of(&bytes, at)).transpose()
    }

    /// JSON text, read as `T`.
    pub fn json<T: serde::de::DeserializeOwned>(
        &self,
        at: usize,
        table: &'static str,
        column: &'static str,
    ) -> Result<T, StoreError> {
        serde_json::from_str(&self.text(at)?).map_err(|e| StoreError::inconsistent(table, column, e.to_string()))
    }
}

fn id_of<I: Id>(bytes: &[u8], at: usize) -> Result<I, StoreError> {
    let bytes = bytes.try_into().map_err(|_| StoreError::inconsistent("?", I::KIND, format!("column {at} is not 16 bytes")))?;
    Ok(I::from_bytes(bytes))
}
