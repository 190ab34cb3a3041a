//! Numbered SQL files, forward only. A schema newer than the binary is refused.

use caracal_core::digest::sha256;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgPool;

use crate::error::StoreError;

macro_rules! files {
    ($folder:literal: $($version:literal $name:literal),+ $(,)?) => {
        &[$(($version, $name, include_str!(concat!("../migrations/", $folder, "/", $name, ".sql")))),+]
    };
}

type Files = &'static [(i64, &'static str, &'static str)];

const SQLITE: Files = files!("sqlite": 1 "0001_base", 2 "0002_management", 3 "0003_coordination");
const LEDGER: Files = files!("ledger": 1 "0001_ledger");
const POSTGRES: Files = files!("postgres": 1 "0001_base", 2 "0002_management", 3 "0003_coordination", 4 "0004_ledger");

/// Brings `caracal.db` up to date.
pub(crate) fn sqlite(conn: &mut Connection) -> Result<(), StoreError> {
    in_file(SQLITE, conn)
}

/// Brings `ledger.db` up to date.
pub(crate) fn ledger(conn: &mut Connection) -> Result<(), StoreError> {
    in_file(LEDGER, conn)
}

/// Each file in a transaction of its own, with its mark; what is marked is never run again and must not have changed.
fn in_file(files: Files, conn: &mut Connection) -> Result<(), StoreError> {
    let failed = |e: rusqlite::Error| StoreError::Start(format!("the database could not be migrated: {e}"));
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 BLOB NOT NULL)",
    )
    .map_err(failed)?;
    let newest: i64 = conn.query_row("SELECT coalesce(max(version), 0) FROM migrations", [], |row| row.get(0)).map_err(failed)?;
    if let Some((known, ..)) = files.last()
        && newest > *known
    {
        return Err(newer(newest));
    }
    for (version, name, sql) in files {
        let digest = sha256(&[sql.as_bytes()]);
        let one = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let held = one.query_row("SELECT sha256 FROM migrations WHERE version = $1", [version], |row| row.get::<_, Vec<u8>>(0));
        match held.optional().map_err(failed)? {
            Some(held) if held == digest => continue,
            Some(_) => {
                let what = format!("migration {name} is not the one this database was made with; use the binary that made it");
                return Err(StoreError::Start(what));
            }
            None => {}
        }
        one.execute_batch(sql).map_err(failed)?;
        let mark = "INSERT INTO migrations (version, name, sha256) VALUES ($1, $2, $3)";
        one.execute(mark, (version, name, digest)).map_err(failed)?;
        one.commit().map_err(failed)?;
    }
    Ok(())
}

fn newer(version: i64) -> StoreError {
    StoreError::Start(format!(
        "the database has migration {version}, which this binary does not know: it is newer; use the binary that wrote it"
    ))
}

fn migrator(files: Files) -> Migrator {
    let migrations = files
        .iter()
        .map(|(version, name, sql)| Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false));
    Migrator::with_migrations(migrations.collect())
}

/// Brings a PostgreSQL database up to date; several processes at once are safe (the migrator takes a lock).
pub(crate) async fn postgres(pool: &PgPool) -> Result<(), StoreError> {
    migrator(POSTGRES).run(pool).await.map_err(|e| failed(&e))
}

fn failed(error: &MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(version) => newer(*version),
        other => StoreError::Start(format!("the database could not be migrated: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Files = &[(1, "0001_one", "CREATE TABLE one (id INTEGER)")];
    const CHANGED: Files = &[(1, "0001_one", "CREATE TABLE one (id TEXT)")];
    const BROKEN: Files = &[
        (1, "0001_one", "CREATE TABLE one (id INTEGER)"),
        (2, "0002_two", "CREATE TABLE two (id INTEGER); CREATE TABLE one (id)"),
    ];

    #[test]
    fn a_migration_runs_once_whole_or_not_at_all() {
        let mut conn = Connection::open_in_memory().unwrap();
        in_file(FIRST, &mut conn).unwrap();
        in_file(FIRST, &mut conn).unwrap();
        assert!(in_file(BROKEN, &mut conn).is_err());
        let two = conn.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'two'", [], |row| row.get::<_, i64>(0));
        assert_eq!(two.unwrap(), 0, "the half that worked is undone");
        let refused = in_file(CHANGED, &mut conn).unwrap_err().to_string();
        assert!(refused.contains("0001_one"), "{refused}");
    }

    #[test]
    fn a_newer_database_is_refused() {
        let mut conn = Connection::open_in_memory().unwrap();
        in_file(FIRST, &mut conn).unwrap();
        conn.execute("INSERT INTO migrations VALUES (2, '0002_later', x'00')", []).unwrap();
        let refused = in_file(FIRST, &mut conn).unwrap_err().to_string();
        assert!(refused.contains("migration 2") && refused.contains("newer"), "{refused}");
    }
}
