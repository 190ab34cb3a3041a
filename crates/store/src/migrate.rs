//! Numbered SQL files, forward only. A schema newer than the binary is refused.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqliteConnection;

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

fn migrator(files: Files) -> Migrator {
    let migrations = files
        .iter()
        .map(|(version, name, sql)| Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false));
    Migrator::with_migrations(migrations.collect())
}

/// Brings `caracal.db` up to date.
pub(crate) async fn sqlite(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    migrator(SQLITE).run_direct(None, conn, false).await.map_err(|e| failed(&e))
}

/// Brings `ledger.db` up to date.
pub(crate) async fn ledger(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    migrator(LEDGER).run_direct(None, conn, false).await.map_err(|e| failed(&e))
}

/// Brings a PostgreSQL database up to date; several processes at once are safe (the migrator takes a lock).
pub(crate) async fn postgres(pool: &PgPool) -> Result<(), StoreError> {
    migrator(POSTGRES).run(pool).await.map_err(|e| failed(&e))
}

fn failed(error: &MigrateError) -> StoreError {
    StoreError::Start(match error {
        MigrateError::VersionMissing(version) => {
            format!(
                "the database has migration {version}, which this binary does not know: it is newer; use the binary that wrote it"
            )
        }
        other => format!("the database could not be migrated: {other}"),
    })
}
