//! What PostgreSQL needs beside the shared statements: locks, clock, pool.

use std::collections::BTreeSet;
use std::time::Duration;

use caracal_core::id::ZoneId;
use caracal_core::time::Time;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::error::StoreError;
use crate::fence::lock_key;
use crate::sql::{STATEMENTS, Tx, Value};

pub(crate) struct Db {
    pub(crate) pool: PgPool,
}

/// Connects, and says what to do when that fails.
pub(crate) async fn connect(url: &str, connections: u32) -> Result<PgPool, StoreError> {
    let options: PgConnectOptions = url.parse().map_err(|e| {
        StoreError::Start(format!("DATABASE_URL is not a PostgreSQL URL ({e}); expected postgres://user:password@host/database"))
    })?;
    let shown = format!("{}:{}/{}", options.get_host(), options.get_port(), options.get_database().unwrap_or(""));
    let failed = |why: String| {
        StoreError::Start(format!("cannot connect to PostgreSQL at {shown}: {why}; check DATABASE_URL and that the server runs"))
    };
    let options = options.application_name("caracal").statement_cache_capacity(STATEMENTS);
    // One connection without the pool first: the pool tries again until its time is over, and then says only that.
    match tokio::time::timeout(CONNECT, sqlx::PgConnection::connect_with(&options)).await {
        Ok(Ok(one)) => one.close().await.map_err(|e| failed(e.to_string()))?,
        Ok(Err(e)) => return Err(failed(e.to_string())),
        Err(_) => return Err(failed(format!("no answer in {} s", CONNECT.as_secs()))),
    }
    // A connection is asked whether it lives when it was quiet for a while, not before each use: that would double the fence's cost.
    let pool =
        PgPoolOptions::new().max_connections(connections).acquire_timeout(CONNECT).test_before_acquire(false).before_acquire(
            |one, about| {
                Box::pin(async move {
                    if about.idle_for >= QUIET {
                        one.ping().await?;
                    }
                    Ok(true)
                })
            },
        );
    pool.connect_with(options).await.map_err(|e| failed(e.to_string()))
}

/// A connection that was used so lately is taken as alive.
const QUIET: Duration = Duration::from_secs(1);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Takes a zone's lock alone until the transaction ends, in a statement before the one that reads. The bounds come first, so that they hold
/// for the wait itself: whoever stands still with the lock in hand loses it, or the whole zone would wait for a frozen process.
pub(crate) async fn lock(tx: &mut Tx<'_>, zone: ZoneId) -> Result<(), StoreError> {
    let sql = "WITH bounds AS MATERIALIZED (SELECT set_config('lock_timeout', '10s', true), \
               set_config('idle_in_transaction_session_timeout', '10s', true)) \
               SELECT pg_advisory_xact_lock($1)::text FROM bounds";
    tx.all(sql, vec![Value::from(lock_key(zone))]).await.map(|_| ())
}

/// Shares zones' locks with other journals until the transaction ends, in a statement before the one that reads. Waits two seconds for a
/// door, as long as a request waits for the fence.
pub(crate) async fn lock_shared(tx: &mut Tx<'_>, keys: BTreeSet<i64>) -> Result<(), StoreError> {
    let sql = "WITH bounds AS MATERIALIZED (SELECT set_config('lock_timeout', '2s', true)) \
               SELECT count(pg_advisory_xact_lock_shared(key)) FROM bounds, unnest($1::bigint[]) AS zone(key)";
    tx.all(sql, vec![Value::Ints(keys.into_iter().collect())]).await.map(|_| ())
}

/// The advisory lock of what belongs to no zone.
const PLATFORM: i64 = 0x6361_7261_6361_6c00;

/// Takes the lock of the zone-less chain until the transaction ends.
pub(crate) async fn lock_platform(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    tx.all("SELECT 1 FROM pg_advisory_xact_lock($1)", vec![Value::from(PLATFORM)]).await.map(|_| ())
}

/// The server's clock.
pub(crate) async fn now(tx: &mut Tx<'_>) -> Result<Time, StoreError> {
    let row = tx.first("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", vec![]).await?;
    row.ok_or_else(|| StoreError::Unavailable("no clock".to_owned()))?.time(0)
}
