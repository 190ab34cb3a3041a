//! Idempotency receipts: one per key, committed with its effect (`coordinator.md` 7).

use caracal_core::id::ZoneId;
use caracal_core::time::Time;

use crate::door::Door;
use crate::error::StoreError;
use crate::sql::{Tx, Value};

/// Under which key a request is the same.
#[derive(Clone, Debug)]
pub struct ReceiptKey {
    /// The operation's name.
    pub operation: &'static str,
    /// The zone.
    pub zone: ZoneId,
    /// The Application it is scoped to.
    pub scope: String,
    /// HMAC of the caller's key.
    pub digest: Vec<u8>,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Digest of what was asked.
    pub fingerprint: Vec<u8>,
    /// The answer's status.
    pub status: u16,
    /// The answer's body.
    pub body: String,
}

/// A receipt that still counts.
pub async fn find(tx: &mut Tx<'_>, key: &ReceiptKey, now: Time) -> Result<Option<Receipt>, StoreError> {
    let row = tx
        .first(
            "SELECT fingerprint, status, body FROM idempotency_receipts \
             WHERE operation = $1 AND zone_id = $2 AND scope = $3 AND key_digest = $4 AND expires_at > $5",
            vec![key.operation.into(), Value::id(key.zone), (&key.scope).into(), key.digest.clone().into(), now.into()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let status =
        u16::try_from(row.int(1)?).map_err(|_| StoreError::inconsistent("idempotency_receipts", "status", "out of range"))?;
    Ok(Some(Receipt { fingerprint: row.bytes(0)?, status, body: row.text(2)? }))
}

/// Keeps an answer.
pub async fn keep(door: &mut Door<'_>, key: &ReceiptKey, receipt: &Receipt, seconds: i64) -> Result<(), StoreError> {
    let now = door.now();
    door.execute(
        "INSERT INTO idempotency_receipts (operation, zone_id, scope, key_digest, fingerprint, status, body, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (operation, zone_id, scope, key_digest) \
         DO UPDATE SET fingerprint = $5, status = $6, body = $7, created_at = $8, expires_at = $9",
        vec![
            key.operation.into(),
            Value::id(key.zone),
            (&key.scope).into(),
            key.digest.clone().into(),
            receipt.fingerprint.clone().into(),
            i64::from(receipt.status).into(),
            (&receipt.body).into(),
            now.into(),
            now.plus_secs(seconds).into(),
        ],
    )
    .await
    .map(|_| ())
}

/// How many explicit receipts a scope holds.
pub async fn count(tx: &mut Tx<'_>, key: &ReceiptKey, now: Time) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM idempotency_receipts WHERE operation = $1 AND zone_id = $2 AND scope = $3 AND expires_at > $4";
    let args = vec![key.operation.into(), Value::id(key.zone), (&key.scope).into(), now.into()];
    tx.first(sql, args).await?.map_or(Ok(0), |row| row.count(0))
}
