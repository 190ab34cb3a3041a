//! Reading administrative records (`audit.md` 10.4). They are written by the door alone.

use caracal_core::admin::AdminCall;
use caracal_core::id::{AdminAuditId, ZoneId};
use caracal_core::time::Time;

use super::object::Where;
use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Row, Tx, Value};

/// A record, with its place in its chain.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminRecord {
    /// Its id.
    pub id: AdminAuditId,
    /// Whose chain it is in; none for what belongs to no zone.
    pub zone: Option<ZoneId>,
    /// From 1, without a gap.
    pub seq: u64,
    /// What was called.
    pub call: AdminCall,
    /// When; the content hash counts milliseconds.
    pub occurred_at: Time,
    /// The content hash, as stored.
    pub content: [u8; 32],
    /// The content hash before it, as stored.
    pub previous: Option<[u8; 32]>,
    /// The chain's HMAC, where the deployment has a key.
    pub link: Option<[u8; 32]>,
}

impl AdminRecord {
    /// The content hash, made again from what is stored.
    pub fn recomputed(&self) -> [u8; 32] {
        self.call.content(&self.id.to_string(), self.zone.map(|zone| zone.to_string()).as_deref(), self.occurred_at)
    }
}

/// Which chains are read, and so in which order.
#[derive(Clone, Copy, Debug)]
pub enum AdminChains {
    /// One zone's, newest first; only records before this place.
    Zone(ZoneId, Option<u64>),
    /// All, newest first; only records before this time and id.
    All(Option<(Time, AdminAuditId)>),
}

/// Which records; all conditions hold together.
#[derive(Clone, Debug, Default)]
pub struct AdminFilter {
    /// At or after.
    pub since: Option<Time>,
    /// Before.
    pub until: Option<Time>,
    /// Exactly this.
    pub actor_id: Option<String>,
    /// Exactly this.
    pub entity_type: Option<String>,
    /// Exactly this.
    pub entity_id: Option<String>,
    /// Exactly this.
    pub method: Option<String>,
}

const COLUMNS: &str = "id, zone_id, seq, request_id, actor_id, actor_name, actor_scope, method, path, entity_type, entity_id, status, payload, \
                       content, previous, chain_hmac, occurred_at";

impl Store {
    /// Records, newest first, at most `most`.
    pub async fn admin_audit(&self, chains: AdminChains, filter: AdminFilter, most: usize) -> Result<Vec<AdminRecord>, StoreError> {
        self.read(move |tx| Box::pin(async move { list(tx, chains, filter, most).await })).await
    }
}

async fn list(tx: &mut Tx<'_>, chains: AdminChains, filter: AdminFilter, most: usize) -> Result<Vec<AdminRecord>, StoreError> {
    let mut wanted = Where::default();
    let order = match chains {
        AdminChains::Zone(zone, before) => {
            wanted.and("zone_id = ?", [Value::id(zone)]);
            wanted.and_some("seq < ?", before);
            "seq DESC"
        }
        AdminChains::All(before) => {
            if let Some((at, id)) = before {
                wanted.and("(occurred_at, id) < (?, ?)", [at.into(), Value::id(id)]);
            }
            "occurred_at DESC, id DESC"
        }
    };
    wanted.and_some("occurred_at >= ?", filter.since);
    wanted.and_some("occurred_at < ?", filter.until);
    wanted.and_some("actor_id = ?", filter.actor_id);
    wanted.and_some("entity_type = ?", filter.entity_type);
    wanted.and_some("entity_id = ?", filter.entity_id);
    wanted.and_some("method = ?", filter.method);
    let (condition, args) = wanted.into_parts();
    let sql = format!("SELECT {COLUMNS} FROM admin_audit WHERE {condition} ORDER BY {order} LIMIT {most}");
    tx.all(sql, args).await?.iter().map(of_row).collect()
}

fn of_row(row: &Row) -> Result<AdminRecord, StoreError> {
    let hash = |at| {
        let bytes = row.opt_bytes(at)?;
        let sized = bytes.map(|b| b.try_into().map_err(|_| StoreError::inconsistent("admin_audit", "content", "is not 32 bytes")));
        sized.transpose()
    };
    let payload = row.opt_text(12)?;
    let payload = payload.map(|text| serde_json::from_str(&text)).transpose();
    let status = row.int(11)?;
    Ok(AdminRecord {
        id: row.id(0)?,
        zone: row.opt_id(1)?,
        seq: row.count(2)?,
        call: AdminCall {
            request_id: row.text(3)?,
            actor_id: row.opt_text(4)?,
            actor_name: row.opt_text(5)?,
            actor_scope: row.opt_text(6)?,
            method: row.text(7)?,
            path: row.text(8)?,
            entity_type: row.opt_text(9)?,
            entity_id: row.opt_text(10)?,
            status: u16::try_from(status).map_err(|e| StoreError::inconsistent("admin_audit", "status", e.to_string()))?,
            payload: payload.map_err(|e| StoreError::inconsistent("admin_audit", "payload", e.to_string()))?,
        },
        occurred_at: row.time(16)?,
        content: hash(13)?.ok_or_else(|| StoreError::inconsistent("admin_audit", "content", "is missing"))?,
        previous: hash(14)?,
        link: hash(15)?,
    })
}
