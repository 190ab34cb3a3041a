//! Reading administrative records (`api.md` 21.1): one zone's chain, or all of them.

use caracal_core::id::AdminAuditId;
use caracal_store::management::{AdminChains, AdminFilter, AdminRecord};
use serde_json::{Value, json};

use crate::call::{Call, Reply, store};
use crate::evidence::{LIMIT, LIMIT_MAX, past_zone};
use crate::export::{Export, Fields};
use crate::lists::Query;

/// What chooses records.
const FILTERS: [&str; 6] = ["since", "until", "actor_id", "entity_type", "entity_id", "method"];
/// What can be named of a record, in order.
const NAMES: [&str; 16] = [
    "id",
    "occurred_at",
    "action",
    "method",
    "path",
    "entity_type",
    "entity_id",
    "status_code",
    "actor_id",
    "actor_name",
    "actor_scope",
    "request_id",
    "chain_seq",
    "signed",
    "change_kind",
    "changed_fields",
];

pub(crate) async fn of_zone(call: Call) -> Reply {
    let zone = past_zone(&call).await?;
    let query = call.query(&FILTERS)?;
    let before = query.cursor::<u64>()?.map(|(_, seq)| seq);
    let place = |query: &Query, record: &AdminRecord| query.next(record.occurred_at, record.seq);
    page(&call, &query, AdminChains::Zone(zone, before), place, row, &format!("admin-audit-{zone}.csv")).await
}

pub(crate) async fn of_all(call: Call) -> Reply {
    let query = call.query(&FILTERS)?;
    let before = query.cursor::<AdminAuditId>()?;
    let place = |query: &Query, record: &AdminRecord| query.next(record.occurred_at, record.id);
    let of_zone = |record: &AdminRecord| {
        let mut row = row(record);
        row["zone_id"] = json!(record.zone);
        row
    };
    page(&call, &query, AdminChains::All(before), place, of_zone, "admin-audit.csv").await
}

async fn page(
    call: &Call,
    query: &Query,
    chains: AdminChains,
    place: impl Fn(&Query, &AdminRecord) -> String,
    shown: impl Fn(&AdminRecord) -> Value,
    file: &str,
) -> Reply {
    let limit = query.limit(LIMIT, LIMIT_MAX)?;
    let filter = AdminFilter {
        since: query.time("since")?,
        until: query.time("until")?,
        actor_id: query.text("actor_id", 128)?,
        entity_type: query.text("entity_type", 64)?,
        entity_id: query.text("entity_id", 128)?,
        method: query.word("method", &["POST", "PUT", "PATCH", "DELETE"])?,
    };
    let export = Export::of(query, Fields { known: NAMES.to_vec(), find })?;
    let mut found = call.api.store.admin_audit(chains, filter, limit + 1).await.map_err(store)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|record| place(query, record));
    Ok(export.answer(found.iter().map(shown).collect(), next, file))
}

fn row(record: &AdminRecord) -> Value {
    let call = &record.call;
    json!({
        "id": record.id,
        "request_id": call.request_id,
        "actor_id": call.actor_id,
        "actor_name": call.actor_name,
        "actor_scope": call.actor_scope,
        "action": call.action(),
        "method": call.method,
        "path": call.path,
        "entity_type": call.entity_type,
        "entity_id": call.entity_id,
        "status_code": call.status,
        "payload_json": call.payload,
        "occurred_at": record.occurred_at.rfc3339_millis(),
        "chain_seq": record.seq,
        "signed": record.link.is_some(),
    })
}

/// A field of a row; what the payload does not tell is left out.
fn find(row: &Value, name: &str) -> Option<Value> {
    row.get(name).or_else(|| row["payload_json"].get(name)).cloned()
}
