//! Reading and ending Sessions (`coordinator.md` 4.10, 4.11).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use caracal_core::error::coordinator as rows;
use caracal_core::id::{SessionId, ZoneId};
use caracal_core::session::{Lifecycle, Session, Status};
use caracal_core::time::Time;
use caracal_store::coordination::cascade::{self, Manner};
use caracal_store::coordination::sessions::{self, Filter, SessionRow};
use caracal_web::{Problem, RequestId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::caller::{Caller, path_id, store};
use crate::service::{Coordinator, Query, no, page};

/// A Session as its readers see it.
fn shown(zone: ZoneId, row: &SessionRow) -> Value {
    let session = &row.session;
    let (ttl, deadline) = match session.lifecycle {
        Lifecycle::Task { ttl_seconds } => (Some(ttl_seconds), None),
        Lifecycle::Service { deadline } => (None, Some(deadline)),
    };
    json!({
        "agent_session_id": session.id, "zone_id": zone, "application_id": session.application, "parent_id": session.parent,
        "subject_authority_record_id": session.subject.record, "lifecycle": session.lifecycle.as_str(), "labels": session.labels,
        "status": session.status.as_str(), "depth": session.depth, "ttl_seconds": ttl, "metadata": row.metadata,
        "started_at": session.started_at.rfc3339_millis(), "terminated_at": row.ended_at.map(Time::rfc3339_millis),
        "termination_reason": row.end_reason, "last_heartbeat_at": row.last_heartbeat_at.map(Time::rfc3339_millis),
        "heartbeat_deadline_at": deadline.map(Time::rfc3339_millis), "lease_generation": row.lease_generation,
    })
}

async fn visible(coordinator: &Coordinator, caller: &Caller, id: &str) -> Result<SessionRow, Problem> {
    let missing = || Problem::new(rows::SESSION_NOT_FOUND);
    let (zone, id): (_, SessionId) = (caller.zone(), path_id(id, rows::SESSION_NOT_FOUND)?);
    let found =
        coordinator.store.read(move |tx| Box::pin(async move { sessions::get(tx, zone, id).await })).await.map_err(store)?;
    found.filter(|row| caller.sees().is_none_or(|own| row.session.application == own)).ok_or_else(missing)
}

pub(crate) async fn get(
    State(coordinator): State<Arc<Coordinator>>,
    Path((zone, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let caller = coordinator.caller(&zone, &headers).await?;
    let row = visible(&coordinator, &caller, &id).await?;
    Ok(Json(shown(caller.zone(), &row)))
}

fn filter(query: &Query, caller: &Caller, parent: Option<SessionId>) -> Result<Filter, Problem> {
    let bad = |text: &'static str| Problem::because(rows::INVALID_QUERY, text);
    let asked = match query.get("application_id") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| bad("application_id is no id"))?),
    };
    let status = match query.get("status") {
        None => None,
        Some(text) => Some(Status::of(text).ok_or_else(|| bad("status is not one of active, suspended, terminated, expired"))?),
    };
    let lifecycle = match query.get("lifecycle") {
        None => None,
        Some("task") => Some("task"),
        Some("service") => Some("service"),
        Some(_) => return Err(bad("lifecycle must be task or service")),
    };
    // A filter for another application's Sessions finds what the caller may see of them: nothing.
    let application = caller.sees().or(asked);
    Ok(Filter { application, status, lifecycle, label: query.get("label").map(str::to_owned), parent })
}

pub(crate) async fn list(
    State(coordinator): State<Arc<Coordinator>>,
    Path(zone): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let caller = coordinator.caller(&zone, &headers).await?;
    let query = Query::of(&uri)?;
    let filter = filter(&query, &caller, None)?;
    sessions_page(&coordinator, &caller, &query, filter).await
}

pub(crate) async fn children(
    State(coordinator): State<Arc<Coordinator>>,
    Path((zone, id)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let caller = coordinator.caller(&zone, &headers).await?;
    let parent = visible(&coordinator, &caller, &id).await?;
    let query = Query::of(&uri)?;
    let filter = filter(&query, &caller, Some(parent.session.id))?;
    sessions_page(&coordinator, &caller, &query, filter).await
}

async fn sessions_page(coordinator: &Coordinator, caller: &Caller, query: &Query, filter: Filter) -> Result<Json<Value>, Problem> {
    let zone = caller.zone();
    let asked = query.page::<SessionId>()?;
    let found = coordinator
        .store
        .read(move |tx| {
            Box::pin(async move {
                if let Some(cursor) = asked.before {
                    let row = sessions::get(tx, zone, cursor).await?.map(|row| row.session);
                    let within = |s: &Session| {
                        filter.application.is_none_or(|own| s.application == own)
                            && filter.parent.is_none_or(|p| s.parent == Some(p))
                    };
                    if !row.is_some_and(|session| within(&session)) {
                        return Ok(None);
                    }
                }
                sessions::list(tx, zone, &filter, asked).await.map(Some)
            })
        })
        .await
        .map_err(store)?
        .ok_or_else(|| Problem::new(rows::INVALID_CURSOR))?;
    let last = found.last().map(|row| row.session.id.to_string());
    let items: Vec<Value> = found.iter().map(|row| shown(zone, row)).collect();
    Ok(Json(page(&items, asked.limit, last)))
}

#[derive(Default, Deserialize)]
struct End {
    lease_generation: Option<i64>,
}

pub(crate) async fn end(
    State(coordinator): State<Arc<Coordinator>>,
    Extension(request): Extension<RequestId>,
    Path((zone, id)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let caller = coordinator.caller(&zone, &headers).await?;
    let query = Query::of(&uri)?;
    let reason = query.get("reason").unwrap_or("requested").to_owned();
    if !(1..=256).contains(&reason.chars().count()) {
        return Err(Problem::because(rows::INVALID_QUERY, "reason must have 1 to 256 characters"));
    }
    let input: End = coordinator.body.json_opt(&headers, body).await?.unwrap_or_default();
    if input.lease_generation.is_some_and(|g| g < 1) {
        return Err(Problem::because(rows::INVALID_BODY, "lease_generation must be at least 1"));
    }
    let row = visible(&coordinator, &caller, &id).await?;
    let (zone, id) = (caller.zone(), row.session.id);
    let operator = caller.sees().is_none();
    coordinator
        .change(zone, move |door| {
            Box::pin(async move {
                let now = sessions::get(door.tx(), zone, id).await?.filter(|r| !r.session.status.is_over());
                let row = now.ok_or_else(|| no(rows::SESSION_NOT_FOUND))?;
                if matches!(row.session.lifecycle, Lifecycle::Service { .. }) && !operator {
                    let given = input.lease_generation.ok_or_else(|| no(rows::LEASE_GENERATION_REQUIRED))?;
                    if given != row.lease_generation {
                        return Err(no(rows::LEASE_FENCED));
                    }
                }
                cascade::end_sessions(door, zone, &[id], Manner::Terminated, &reason, request.as_str()).await?;
                Ok(())
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
