//! What tests do to a ledger behind its back.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeSet;

use caracal_testkit::Database;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};

/// Somebody with the database in hand.
pub enum Intruder {
    Sqlite(rusqlite::Connection),
    Postgres(PgConnection),
}

impl Intruder {
    pub async fn of(database: &Database) -> Self {
        match database.url() {
            Some(url) => Self::Postgres(PgConnection::connect(url).await.unwrap()),
            None => Self::Sqlite(rusqlite::Connection::open(database.dir().join("ledger.db")).unwrap()),
        }
    }

    pub async fn does(&mut self, sql: &str) -> Result<(), String> {
        match self {
            Self::Sqlite(conn) => conn.execute_batch(sql).map_err(|e| e.to_string()),
            Self::Postgres(conn) => {
                let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await;
                done.map(|_| ()).map_err(|e| e.to_string())
            }
        }
    }

    /// Takes away what refuses.
    pub async fn disarms(&mut self) {
        let sql = match self {
            Self::Sqlite(_) => "DROP TRIGGER ledger_entries_stay; DROP TRIGGER ledger_entries_remain",
            Self::Postgres(_) => "DROP TRIGGER ledger_entries_stay ON ledger_entries",
        };
        self.does(sql).await.unwrap();
    }

    pub async fn columns(&mut self) -> BTreeSet<String> {
        match self {
            Self::Sqlite(conn) => {
                let mut names = conn.prepare("SELECT name FROM pragma_table_info('ledger_entries')").unwrap();
                names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
            }
            Self::Postgres(conn) => {
                let sql = "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'ledger_entries'";
                sqlx::query(sql).fetch_all(conn).await.unwrap().iter().map(|row| row.get(0)).collect()
            }
        }
    }

    /// Hex in this database's words.
    pub fn bytes(&self, hex: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("X'{hex}'"),
            Self::Postgres(_) => format!("'\\x{hex}'::bytea"),
        }
    }

    /// A column of bytes with some of them, in hex, replaced.
    pub fn replaced(&self, column: &str, from: &str, to: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("unhex(replace(lower(hex({column})), '{from}', '{to}'))"),
            Self::Postgres(_) => format!("decode(replace(encode({column}, 'hex'), '{from}', '{to}'), 'hex')"),
        }
    }
}
