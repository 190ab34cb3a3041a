//! Reading administrative records (`audit.md` 10.4). They are written by the door alone.

use caracal_core::id::ZoneId;
use caracal_core::time::Time;
use serde_json::{Value as Json, json};

use crate::error::StoreError;
use crate::open::Store;
use crate::sql::{Row, Value};

/// Which records; all conditions hold together.
#[derive(Clone, Debug)]
pub struct AdminAuditFilter {
    /// Whose.
    pub zone: ZoneId,
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
    /// Older than this place.
    pub before: Option<u64>,
}

impl Store {
    /// Records as rows, newest first, at most `most`.
    pub async fn admin_audit(&self, filter: AdminAuditFilter, most: usize) -> Result<Vec<Json>, StoreError> {
        self.read(move |tx| {
            Box::pin(async move {
                let mut sql = "SELECT record, occurred_at FROM admin_audit WHERE zone_id = $1".to_owned();
                let mut args = vec![Value::id(filter.zone)];
                let mut add = |condition: &str, arg: Value| {
                    args.push(arg);
                    sql += &condition.replace('?', &format!("${}", args.len()));
                };
                if let Some(since) = filter.since {
                    add(" AND occurred_at >= ?", since.into());
                }
                if let Some(until) = filter.until {
                    add(" AND occurred_at < ?", until.into());
                }
                for (condition, value) in [
                    (" AND actor_id = ?", filter.actor_id),
                    (" AND entity_type = ?", filter.entity_type),
                    (" AND entity_id = ?", filter.entity_id),
                ] {
                    if let Some(value) = value {
                        add(condition, value.into());
                    }
                }
                if let Some(before) = filter.before {
                    add(" AND seq < ?", before.into());
                }
                add(" ORDER BY seq DESC LIMIT ?", most.into());
                tx.all(sql, args).await?.iter().map(of_row).collect()
            })
        })
        .await
    }
}

fn of_row(row: &Row) -> Result<Json, StoreError> {
    let record: Json = row.json(0, "admin_audit", "record")?;
    let member = |name: &str| record.get(name).cloned().unwrap_or(Json::Null);
    Ok(json!({
        "id": member("id"),
        "request_id": member("request_id"),
        "actor_id": member("actor_id"),
        "actor_name": member("actor_id"),
        "actor_scope": member("actor_scope"),
        "action": member("action"),
        "method": member("method"),
        "path": member("path"),
        "entity_type": member("entity_type"),
        "entity_id": member("entity_id"),
        "status_code": member("status_code"),
        "payload_json": member("detail"),
        "occurred_at": row.time(1)?.rfc3339_millis(),
        "chain_seq": member("seq"),
        "signed": false,
    }))
}
