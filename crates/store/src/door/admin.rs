//! The record of an administrative call, in the transaction of what it did: no change without it, no record without the change.

use caracal_core::admin::AdminCall;
use caracal_core::digest::hex;
use caracal_core::event::{AuditEvent, PLATFORM, Verdict};
use caracal_core::id::AdminAuditId;
use caracal_crypto::mac::chain_link;

use super::Door;
use crate::error::StoreError;
use crate::sql::Value;

/// Members of the payload that the ledger's event repeats (`streams.md` 4.3).
const TOLD: [&str; 3] = ["change_kind", "changed_fields", "secret_rotated"];

impl Door<'_> {
    /// Appends the record to its chain, and tells the ledger.
    pub(super) async fn append_admin(&mut self, call: AdminCall) -> Result<(), StoreError> {
        let call = call.plain();
        let id: AdminAuditId = self.world.mint();
        let (seq, previous) = self.chain_end().await?;
        let zone = self.zone.map(|zone| zone.to_string());
        let content = call.content(&id.to_string(), zone.as_deref(), self.now);
        let link = self.audit_key.as_deref().map(|key| chain_link(key, &content, previous.as_ref()));
        let insert = self.tx.execute(
            "INSERT INTO admin_audit (id, zone_id, seq, request_id, actor_id, actor_name, actor_scope, method, path, entity_type, entity_id, \
             status, payload, content, previous, chain_hmac, occurred_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
            vec![
                Value::id(id),
                Value::opt_id(self.zone),
                seq.into(),
                call.request_id.clone().into(),
                call.actor_id.clone().into(),
                call.actor_name.clone().into(),
                call.actor_scope.clone().into(),
                call.method.clone().into(),
                call.path.clone().into(),
                call.entity_type.clone().into(),
                call.entity_id.clone().into(),
                i64::from(call.status).into(),
                call.payload_text().into(),
                content.to_vec().into(),
                previous.map(|p| p.to_vec()).into(),
                link.map(|l| l.to_vec()).into(),
                self.now.into(),
            ],
        );
        insert.await.map_err(|e| StoreError::Unrecorded(e.to_string()))?;
        let verdict = if call.status >= 400 { Verdict::Deny } else { Verdict::Allow };
        let ledger = zone.unwrap_or_else(|| PLATFORM.to_owned());
        let mut event = AuditEvent::new(self.world.mint(), ledger, "admin_action", verdict, "complete", self.now)
            .with("record_id", id.to_string())
            .with("record_seq", seq)
            .with("record_sha256", hex(&content))
            .with("action", call.action())
            .with("method", call.method)
            .with("path", call.path)
            .with("status_code", call.status)
            .with_some("actor_id", call.actor_id)
            .with_some("actor_name", call.actor_name)
            .with_some("actor_scope", call.actor_scope)
            .with_some("entity_type", call.entity_type)
            .with_some("entity_id", call.entity_id);
        for name in TOLD {
            event = event.with_some(name, call.payload.as_ref().and_then(|payload| payload.get(name)).cloned());
        }
        event.request_id = call.request_id;
        self.events.push(event);
        Ok(())
    }

    /// The place after the chain's last record, and that record's content hash.
    async fn chain_end(&mut self) -> Result<(i64, Option<[u8; 32]>), StoreError> {
        // A zone's chain is held by the zone's lock; the one of no zone has a lock of its own, taken before the statement that reads.
        let last = if let Some(zone) = self.zone {
            let sql = "SELECT seq, content FROM admin_audit WHERE zone_id = $1 ORDER BY seq DESC LIMIT 1";
            self.tx.first(sql, vec![Value::id(zone)]).await?
        } else {
            self.alone().await?;
            let sql = "SELECT seq, content FROM admin_audit WHERE zone_id IS NULL ORDER BY seq DESC LIMIT 1";
            self.tx.first(sql, vec![]).await?
        };
        let Some(last) = last else { return Ok((1, None)) };
        let content =
            last.bytes(1)?.try_into().map_err(|_| StoreError::inconsistent("admin_audit", "content", "is not 32 bytes"))?;
        Ok((last.int(0)? + 1, Some(content)))
    }
}
