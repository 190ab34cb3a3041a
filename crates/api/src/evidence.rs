//! Reading evidence (`audit.md` 10): a zone's ledger, everything under a request id, why it was decided so, and administrative records.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::{OriginalUri, Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use caracal_core::error::api as rows;
use caracal_core::id::{EventId, ZoneId};
use caracal_core::time::Time;
use caracal_store::ledger::{Entry, Filter, Order, csv_fields, explain as explained, project, row};
use caracal_store::management::AdminAuditFilter;
use caracal_web::Problem;
use http::HeaderValue;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::admin::{Admin, store};
use crate::lists::Query;
use crate::service::Api;

/// Rows of a page that names no limit.
const LIMIT: usize = 100;
/// Most rows of a page, and of a request.
const LIMIT_MAX: usize = 1000;
/// Most types in one question.
const TYPES_MAX: usize = 16;
/// Ledgers that are no zones.
const OTHERS: &[&str] = &[caracal_core::event::PLATFORM, caracal_core::event::UNKNOWN];

pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path(zone): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Result<Response, Problem> {
    let zone = api.ledger(&zone).await?;
    let query = Query::of(&uri)?;
    let limit = limit(&query)?;
    let text = |name: &'static str, most: usize| bounded(&query, name, most);
    let event_types: Vec<String> =
        text("event_type", 512)?.map(|t| t.split(',').map(|t| t.trim().to_owned()).collect()).unwrap_or_default();
    if event_types.len() > TYPES_MAX || event_types.iter().any(String::is_empty) {
        return Err(bad("event_type must name 1 to 16 types"));
    }
    let decision = text("decision", 32)?;
    let known = ["allow", "deny", "partial", "pending", "approved", "rejected", "consumed"];
    if decision.as_deref().is_some_and(|d| !known.contains(&d)) {
        return Err(bad("decision is not one of the known ones"));
    }
    let by_seq = match query.get("by") {
        None => false,
        Some("seq") => true,
        Some(_) => return Err(bad("by can only be seq")),
    };
    let after_seq = query.get("after").map(|t| t.parse::<u64>().map_err(|_| bad("after must be a whole number"))).transpose()?;
    let filter = Filter {
        since: time(&query, "since")?,
        until: time(&query, "until")?,
        request_id: text("request_id", 256)?,
        decision,
        event_types,
        application_id: text("application_id", 128)?,
        session_id: text("session_id", 128)?,
        record_id: text("authority_record_id", 128)?,
        label: text("label", 64)?,
        after_seq: if by_seq { Some(after_seq.unwrap_or(0)) } else { None },
        after: if by_seq { None } else { cursor(&query)? },
        order: if by_seq { Order::Ledger } else { Order::NewestFirst },
        ..Filter::default()
    };
    let format = Format::of(&query)?;
    let mut entries = api.store.ledger_entries(zone.clone(), filter, limit + 1).await.map_err(store)?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more && !by_seq).map(place);
    let rows: Vec<Value> = entries.iter().map(row).collect();
    Ok(format.answer(&rows, next, &format!("audit-{zone}.csv")))
}

pub(crate) async fn by_request(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path((zone, request)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (_, entries, more) = api.request(&zone, &request).await?;
    let mut response = Json(entries.iter().map(row).collect::<Vec<_>>()).into_response();
    if more {
        response.headers_mut().insert("x-truncated", HeaderValue::from_static("true"));
    }
    Ok(response)
}

pub(crate) async fn explain(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path((zone, request)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let (zone, entries, _) = api.request(&zone, &request).await?;
    Ok(Json(explained(&zone, &request, &entries)))
}

pub(crate) async fn admin_list(
    State(api): State<Arc<Api>>,
    _admin: Admin,
    Path(zone): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Result<Json<Value>, Problem> {
    let zone: ZoneId = api.zone(&zone).await?;
    let query = Query::of(&uri)?;
    let limit = limit(&query)?;
    let before = match query.get("cursor") {
        None => None,
        Some(text) => Some(seq_cursor(text).ok_or_else(|| Problem::new(rows::INVALID_CURSOR))?),
    };
    let filter = AdminAuditFilter {
        zone,
        since: time(&query, "since")?,
        until: time(&query, "until")?,
        actor_id: bounded(&query, "actor_id", 128)?,
        entity_type: bounded(&query, "entity_type", 64)?,
        entity_id: bounded(&query, "entity_id", 128)?,
        before,
    };
    let mut found = api.store.admin_audit(filter, limit + 1).await.map_err(store)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|r| B64.encode(json!({"seq": r["chain_seq"]}).to_string()));
    Ok(Json(json!({"items": found, "next_cursor": next})))
}

impl Api {
    /// A ledger of the path: a zone's, archived or not, or one of the two others.
    async fn ledger(&self, text: &str) -> Result<String, Problem> {
        if OTHERS.contains(&text) {
            return Ok(text.to_owned());
        }
        match self.zone(text).await {
            Ok(zone) => Ok(zone.to_string()),
            // Evidence outlives its zone.
            Err(missing) => match self.store.ledger_head(text.to_owned()).await.map_err(store)? {
                Some(_) => Ok(text.to_owned()),
                None => Err(missing),
            },
        }
    }

    /// Everything under a request id, oldest first; whether there is more.
    async fn request(&self, zone: &str, request: &str) -> Result<(String, Vec<Entry>, bool), Problem> {
        if !caracal_web::request_id::is_id(request) {
            return Err(Problem::new(rows::INVALID_PARAMS));
        }
        let zone = self.ledger(zone).await?;
        let mut entries = self.store.ledger_by_request(zone.clone(), request.to_owned(), LIMIT_MAX + 1).await.map_err(store)?;
        let more = entries.len() > LIMIT_MAX;
        entries.truncate(LIMIT_MAX);
        if entries.is_empty() { Err(Problem::new(rows::REQUEST_NOT_FOUND)) } else { Ok((zone, entries, more)) }
    }
}

fn bad(text: &'static str) -> Problem {
    Problem::because(rows::INVALID_QUERY, text)
}

fn limit(query: &Query) -> Result<usize, Problem> {
    match query.get("limit") {
        None => Ok(LIMIT),
        Some(text) => text.parse().ok().filter(|n| (1..=LIMIT_MAX).contains(n)).ok_or_else(|| bad("limit must be 1 to 1000")),
    }
}

fn bounded(query: &Query, name: &'static str, most: usize) -> Result<Option<String>, Problem> {
    match query.get(name) {
        None => Ok(None),
        Some(text) if (1..=most).contains(&text.chars().count()) => Ok(Some(text.to_owned())),
        Some(_) => Err(Problem::because(rows::INVALID_QUERY, format!("{name} must have 1 to {most} characters"))),
    }
}

fn time(query: &Query, name: &'static str) -> Result<Option<Time>, Problem> {
    let parse = |text: &str| {
        // A client that forgets to escape `+` in an offset sends a space.
        Time::parse_rfc3339(&text.replace(' ', "+"))
            .ok_or_else(|| Problem::because(rows::INVALID_QUERY, format!("{name} must be an RFC 3339 time")))
    };
    query.get(name).map(parse).transpose()
}

fn cursor(query: &Query) -> Result<Option<(Time, EventId)>, Problem> {
    let Some(text) = query.get("cursor") else { return Ok(None) };
    if text.is_empty() || text.len() > 512 {
        return Err(bad("cursor must have 1 to 512 characters"));
    }
    let read = || {
        let value: Value = serde_json::from_slice(&B64.decode(text).ok()?).ok()?;
        Some((Time::parse_rfc3339(value["ts"].as_str()?)?, value["id"].as_str()?.parse().ok()?))
    };
    read().map(Some).ok_or_else(|| Problem::new(rows::INVALID_CURSOR))
}

fn seq_cursor(text: &str) -> Option<u64> {
    let value: Value = serde_json::from_slice(&B64.decode(text).ok()?).ok()?;
    value["seq"].as_u64()
}

fn place(entry: &Entry) -> String {
    B64.encode(json!({"ts": entry.occurred_at.rfc3339_micros(), "id": entry.event_id.to_string()}).to_string())
}

/// How rows are given.
enum Format {
    Json(Option<Vec<String>>),
    Csv(Vec<String>),
}

impl Format {
    fn of(query: &Query) -> Result<Self, Problem> {
        let fields = match query.get("fields") {
            None => None,
            Some(text) => {
                let names: Vec<String> = text.split(',').map(|f| f.trim().to_owned()).collect();
                if text.len() > 1000 || names.iter().any(|name| !csv_fields().any(|known| known == name)) {
                    return Err(Problem::new(rows::INVALID_FIELDS));
                }
                Some(names)
            }
        };
        match query.get("format") {
            None | Some("json") => Ok(Self::Json(fields)),
            Some("csv") => Ok(Self::Csv(fields.unwrap_or_else(|| csv_fields().map(str::to_owned).collect()))),
            Some(_) => Err(bad("format must be json or csv")),
        }
    }

    fn answer(self, rows: &[Value], next: Option<String>, file: &str) -> Response {
        match self {
            Self::Json(None) => Json(json!({"items": rows, "next_cursor": next})).into_response(),
            Self::Json(Some(fields)) => {
                let items: Vec<Value> = rows.iter().map(|row| project(row, &fields)).collect();
                Json(json!({"items": items, "next_cursor": next})).into_response()
            }
            Self::Csv(fields) => {
                let mut text = fields.join(",") + "\r\n";
                for row in rows {
                    let projected = project(row, &fields);
                    let cells: Vec<String> = fields.iter().map(|name| cell(&projected[name])).collect();
                    let _ = write!(text, "{}\r\n", cells.join(","));
                }
                let mut response = text.into_response();
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
                let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{file}\""));
                headers.insert(CONTENT_DISPOSITION, disposition.unwrap_or_else(|_| HeaderValue::from_static("attachment")));
                if let Some(next) = next.and_then(|n| HeaderValue::from_str(&n).ok()) {
                    headers.insert("x-next-cursor", next);
                }
                response
            }
        }
    }
}

/// A cell that no spreadsheet runs as a formula.
fn cell(value: &Value) -> String {
    let mut text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            items.iter().map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned)).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    };
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        text.insert(0, '\'');
    }
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_guarded_and_quoted() {
        for (value, wanted) in [
            (json!(null), ""),
            (json!("=1+1"), "'=1+1"),
            (json!("a,\"b\"\r\n"), "\"a,\"\"b\"\"\r\n\""),
            (json!(["a", "b"]), "a b"),
            (json!(-5), "'-5"),
            (json!({"a": 1}), "\"{\"\"a\"\":1}\""),
        ] {
            assert_eq!(cell(&value), wanted);
        }
    }
}
