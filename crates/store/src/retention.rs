//! What is kept for a while only, and its going: one leader among replicas, batch by batch, each batch a transaction of its own.
//!
//! Nothing here ends anything: what goes is read by time and was over before. Evidence is not kept here (`audit.md` 14).

use std::time::Duration;

use caracal_core::digest::hex;
use caracal_core::id::ZoneId;
use caracal_core::time::Time;
use caracal_host::Supervisor;

use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Dialect, Value};

/// Most rows of one batch.
const BATCH: usize = 1000;
/// How often it is looked for what may go.
const PASS: Duration = Duration::from_mins(1);
/// How long one of several processes does it before another may.
const LEASE: Duration = Duration::from_secs(30);
/// The lease's name.
const NAME: &str = "store.retention";
/// How much longer than its token lives an id is remembered, here and in Redis: clocks of verifiers differ.
pub const CLOCKS: Duration = Duration::from_mins(2);
/// How long a zone's changes are told one by one; a process that was silent for longer reads the zone again.
const CHANGES: Duration = Duration::from_mins(10);
/// How long an Authority record can be looked up after its end; the ledger keeps what happened under it.
const RECORDS: Duration = Duration::from_hours(7 * 24);

/// How long things are kept that are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Outbox rows after they were published.
    pub outbox: Duration,
    /// The change log of the fence.
    pub changes: Duration,
    /// Authority records after they expired.
    pub records: Duration,
}

impl Retention {
    /// With published outbox rows kept this long (`OUTBOX_RETENTION_DAYS`).
    pub const fn of_outbox(outbox: Duration) -> Self {
        Self { outbox, changes: CHANGES, records: RECORDS }
    }
}

impl Store {
    /// Starts the job. Any number of processes may; one of them does it.
    pub fn retention_job(&self, retention: Retention, supervisor: &Supervisor) {
        let (store, holder) = (self.clone(), hex(&self.world().random::<16>()));
        supervisor.every(NAME, PASS, move |_stop| {
            let (store, holder) = (store.clone(), holder.clone());
            async move { store.prune(retention, &holder).await.map(|_| ()) }
        });
    }

    /// Lets go of what is over, until nothing is or somebody else leads; gives the number of rows.
    pub async fn prune(&self, retention: Retention, holder: &str) -> Result<u64, StoreError> {
        let now = self.now().await?;
        let mut gone = 0;
        for (table, over, before) in [
            ("idempotency_receipts", "expires_at <= $1", now),
            ("consumed_ids", "until <= $1", now - CLOCKS),
            ("outbox", "published_at <= $1", now - retention.outbox),
            ("authority_records", "expires_at <= $1", now - retention.records),
        ] {
            while self.lease(NAME, holder.to_owned(), LEASE).await?.is_some() {
                let batch = self.prune_rows(table, over, before).await?;
                gone += batch;
                if batch < BATCH as u64 {
                    break;
                }
            }
        }
        while self.lease(NAME, holder.to_owned(), LEASE).await?.is_some() {
            let batch = self.prune_changes(now - retention.changes).await?;
            gone += batch;
            if batch == 0 {
                break;
            }
        }
        Ok(gone)
    }

    async fn prune_rows(&self, table: &'static str, over: &'static str, before: Time) -> Result<u64, StoreError> {
        let sql = match self.dialect() {
            Dialect::Sqlite => {
                format!("DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {over} LIMIT $2)")
            }
            // Asked again of the row that is deleted: it may have been written anew since it was chosen.
            Dialect::Postgres => {
                format!("DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {over} LIMIT $2)) AND {over}")
            }
        };
        self.plain_write(move |tx| Box::pin(async move { tx.execute(sql, vec![before.into(), BATCH.into()]).await })).await
    }

    /// The oldest changes of the zone that has the oldest; never those of a zone's newest epoch, which tell whose history it is.
    async fn prune_changes(&self, before: Time) -> Result<u64, StoreError> {
        self.plain_write(move |tx| {
            Box::pin(async move {
                let oldest = "SELECT c.zone_id FROM change_log c JOIN zone_epochs e ON e.zone_id = c.zone_id AND c.epoch < e.epoch \
                              WHERE c.at <= $1 LIMIT 1";
                let Some(row) = tx.first(oldest, vec![before.into()]).await? else { return Ok(0) };
                let zone: ZoneId = row.id(0)?;
                let upto = "SELECT max(epoch) FROM (SELECT c.epoch FROM change_log c JOIN zone_epochs e ON e.zone_id = c.zone_id \
                            AND c.epoch < e.epoch WHERE c.zone_id = $1 AND c.at <= $2 ORDER BY c.epoch LIMIT $3) AS batch";
                let row = tx.first(upto, vec![Value::id(zone), before.into(), BATCH.into()]).await?;
                let Some(upto) = row.map(|row| row.opt_int(0)).transpose()?.flatten() else { return Ok(0) };
                let told = "UPDATE zone_epochs SET pruned_before = $2 + 1 WHERE zone_id = $1 AND pruned_before <= $2";
                tx.execute(told, vec![Value::id(zone), upto.into()]).await?;
                tx.execute("DELETE FROM change_log WHERE zone_id = $1 AND epoch <= $2", vec![Value::id(zone), upto.into()]).await
            })
        })
        .await
    }
}
