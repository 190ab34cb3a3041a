//! Reading evidence (`audit.md` 10.1 to 10.3): a zone's ledger, everything under a request id, and why it was decided so.

use axum::Json;
use axum::response::IntoResponse;
use caracal_core::error::api as rows;
use caracal_core::event::{PLATFORM, UNKNOWN};
use caracal_core::id::{EventId, ZoneId};
use caracal_store::ledger::{Entry, Filter, Order, csv_fields, explain as explained, project, row};
use caracal_store::management::Zone;
use caracal_web::Problem;
use http::HeaderValue;
use serde_json::Value;

use crate::call::{Call, Reply, store};
use crate::export::{Export, Fields};
use crate::lists::bad;

/// Rows of a page that names no limit.
pub(crate) const LIMIT: usize = 100;
/// Most rows of a page, and of a request.
pub(crate) const LIMIT_MAX: usize = 1000;
/// Most types in one question.
const TYPES_MAX: usize = 16;
/// What was decided.
const DECISIONS: [&str; 7] = ["allow", "deny", "partial", "pending", "approved", "rejected", "consumed"];
/// What chooses entries.
const FILTERS: [&str; 9] =
    ["since", "until", "request_id", "decision", "event_type", "application_id", "session_id", "authority_record_id", "label"];

pub(crate) async fn list(call: Call) -> Reply {
    let zone = ledger(&call).await?;
    let query = call.query(&FILTERS)?;
    let limit = query.limit(LIMIT, LIMIT_MAX)?;
    let types = query.text("event_type", 512)?;
    let event_types: Vec<String> =
        types.iter().flat_map(|t| t.split(',')).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect();
    if types.is_some() && !(1..=TYPES_MAX).contains(&event_types.len()) {
        return Err(bad("event_type must name 1 to 16 types"));
    }
    let by_seq = query.word("by", &["seq"])?.is_some();
    if by_seq && query.get("cursor").is_some() {
        return Err(bad("by=seq goes on from a place in the ledger, not from a cursor"));
    }
    let after_seq = query.number("after")?.unwrap_or(0);
    let filter = Filter {
        since: query.time("since")?,
        until: query.time("until")?,
        request_id: query.text("request_id", usize::MAX)?,
        decision: query.word("decision", &DECISIONS)?,
        event_types,
        application_id: query.text("application_id", 128)?,
        session_id: query.text("session_id", 128)?,
        record_id: query.text("authority_record_id", 128)?,
        label: query.text("label", 64)?,
        after_seq: by_seq.then_some(after_seq),
        after: query.cursor::<EventId>()?,
        order: if by_seq { Order::Ledger } else { Order::NewestFirst },
        ..Filter::default()
    };
    let export = Export::of(&query, Fields { known: csv_fields().collect(), find })?;
    let mut entries = call.api.store.ledger_entries(zone.clone(), filter, limit + 1).await.map_err(store)?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more && !by_seq).map(|entry| query.next(entry.event.occurred_at, entry.event.id));
    Ok(export.answer(entries.iter().map(row).collect(), next, &format!("audit-{zone}.csv")))
}

/// A field of a row; members of the metadata that are not there are left out.
fn find(row: &Value, name: &str) -> Option<Value> {
    let found = project(row, &[name.to_owned()])[name].take();
    (!found.is_null() || row.get(name).is_some()).then_some(found)
}

pub(crate) async fn by_request(call: Call) -> Reply {
    let (_, _, entries, more) = request(&call).await?;
    let mut response = Json(entries.iter().map(row).collect::<Vec<_>>()).into_response();
    if more {
        response.headers_mut().insert("x-truncated", HeaderValue::from_static("true"));
    }
    Ok(response)
}

pub(crate) async fn explain(call: Call) -> Reply {
    let (zone, request, entries, _) = request(&call).await?;
    call.answer(explained(&zone, &request, &entries))
}

/// A ledger of the path: a zone's, archived or not, or one of the two others. Evidence outlives its zone.
async fn ledger(call: &Call) -> Result<String, Problem> {
    let text = call.head.param("zone").unwrap_or_default();
    if text != PLATFORM && text != UNKNOWN {
        past_zone(call).await?;
    }
    Ok(text.to_owned())
}

/// A zone of the path, archived or not.
pub(crate) async fn past_zone(call: &Call) -> Result<ZoneId, Problem> {
    let zone: ZoneId = call.id("zone", rows::ZONE_NOT_FOUND)?;
    let known = call.api.read(move |tx| Box::pin(async move { Zone::existed(tx, zone).await })).await?;
    if known { Ok(zone) } else { Err(Problem::new(rows::ZONE_NOT_FOUND)) }
}

/// Everything under a request id, oldest first; whether there is more.
async fn request(call: &Call) -> Result<(String, String, Vec<Entry>, bool), Problem> {
    let zone = ledger(call).await?;
    let request = call.head.param("request").unwrap_or_default().to_owned();
    let found = call.api.store.ledger_by_request(zone.clone(), request.clone(), LIMIT_MAX + 1).await;
    let mut entries = found.map_err(store)?;
    let more = entries.len() > LIMIT_MAX;
    entries.truncate(LIMIT_MAX);
    if entries.is_empty() { Err(Problem::new(rows::REQUEST_NOT_FOUND)) } else { Ok((zone, request, entries, more)) }
}
