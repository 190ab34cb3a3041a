//! Reading and revoking Delegations (`coordinator.md` 6.9, 6.10, 6.13).

use std::sync::Arc;

use axum::extract::{OriginalUri, Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use caracal_core::delegation::{Delegation, Status};
use caracal_core::error::coordinator as rows;
use caracal_core::id::{DelegationId, SessionId, ZoneId};
use caracal_core::time::Time;
use caracal_store::coordination::delegations::{self, Which};
use caracal_store::coordination::{cascade, sessions};
use caracal_web::{Problem, RequestId};
use serde_json::{Value, json};

use crate::caller::{Caller, path_id, store};
use crate::service::{Coordinator, Query, no, page};

/// An edge as its readers see it: a lapsed one says so, whatever its row says.
pub(crate) fn shown(zone: ZoneId, edge: &Delegation, now: Time) -> Value {
    let lapsed = edge.status == Status::Active && edge.authority.expires_at <= now;
    let mut row = json!({
        "id": edge.id, "zone_id": zone, "source_session_id": edge.source, "target_session_id": edge.target,
        "issuer_application_id": edge.issuer, "receiver_application_id": edge.receiver, "parent_edge_id": edge.parent,
        "resource_id": edge.resource_id, "scopes": edge.authority.scopes, "constraints_json": edge.authority.constraints,
        "status": if lapsed { "expired" } else { edge.status.as_str() }, "expires_at": edge.authority.expires_at.rfc3339_millis(),
        "edge_version": edge.version, "revoked_at": edge.revoked_at.map(Time::rfc3339_millis), "created_at": edge.created_at.rfc3339_millis(),
    });
    if edge.authority.constraints.budget.is_some() {
        row["budget_spent"] = edge.budget_spent.into();
    }
    row
}

pub(crate) async fn active(
    State(coordinator): State<Arc<Coordinator>>,
    Path(zone): Path<String>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let caller = coordinator.caller(&zone, &headers).await?;
    listed(&coordinator, &caller, &Query::of(&uri)?, Which::Live).await
}

pub(crate) async fn inbound(
    State(coordinator): State<Arc<Coordinator>>,
    Path((zone, session)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let caller = coordinator.caller(&zone, &headers).await?;
    let session = own_session(&coordinator, &caller, &session).await?;
    listed(&coordinator, &caller, &Query::of(&uri)?, Which::Inbound(session)).await
}

pub(crate) async fn outbound(
    State(coordinator): State<Arc<Coordinator>>,
    Path((zone, session)): Path<(String, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let caller = coordinator.caller(&zone, &headers).await?;
    let session = own_session(&coordinator, &caller, &session).await?;
    listed(&coordinator, &caller, &Query::of(&uri)?, Which::Outbound(session)).await
}

async fn own_session(coordinator: &Coordinator, caller: &Caller, id: &str) -> Result<SessionId, Problem> {
    let missing = || Problem::new(rows::SESSION_NOT_FOUND);
    let (zone, id): (_, SessionId) = (caller.zone(), path_id(id, rows::SESSION_NOT_FOUND)?);
    let found =
        coordinator.store.read(move |tx| Box::pin(async move { sessions::get(tx, zone, id).await })).await.map_err(store)?;
    let row = found.filter(|row| caller.sees().is_none_or(|own| row.session.application == own)).ok_or_else(missing)?;
    Ok(row.session.id)
}

async fn listed(coordinator: &Coordinator, caller: &Caller, query: &Query, which: Which) -> Result<Json<Value>, Problem> {
    let (zone, of) = (caller.zone(), caller.sees());
    let now = coordinator.store.now().await.map_err(store)?;
    // Published Admin clients call these two with the operator's token, without a query, and read a bare array.
    let bare = of.is_none() && !matches!(which, Which::Live) && query.get("limit").is_none() && query.get("cursor").is_none();
    let mut asked = query.page::<DelegationId>()?;
    if bare {
        asked.limit = 500;
    }
    let found = coordinator
        .store
        .read(move |tx| {
            Box::pin(async move {
                // A cursor is a row of this side of this list, and one that the caller sees.
                if let Some(cursor) = asked.before {
                    let row = delegations::get(tx, zone, cursor)
                        .await?
                        .filter(|e| of.is_none_or(|own| e.issuer == own || e.receiver == own));
                    let within = row.is_some_and(|e| match which {
                        Which::Live => true,
                        Which::Inbound(session) => e.target == session,
                        Which::Outbound(session) => e.source == session,
                    });
                    if !within {
                        return Ok(None);
                    }
                }
                delegations::list(tx, zone, which, of, now, asked).await.map(Some)
            })
        })
        .await
        .map_err(store)?
        .ok_or_else(|| Problem::new(rows::INVALID_CURSOR))?;
    let items: Vec<Value> = found
        .iter()
        .map(|edge| {
            let mut row = shown(zone, edge, now);
            if matches!(which, Which::Live) {
                row["broad_reason"] = json!(edge.authority.constraints.broad_reason);
            }
            row
        })
        .collect();
    if bare {
        return Ok(Json(Value::Array(items)));
    }
    Ok(Json(page(&items, asked.limit, found.last().map(|e| e.id.to_string()))))
}

/// How a receiver finds out that an offer stands.
pub(crate) async fn inbound_one(
    State(coordinator): State<Arc<Coordinator>>,
    Path((zone, session, id)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let missing = || Problem::new(rows::DELEGATION_NOT_FOUND);
    let caller = coordinator.caller(&zone, &headers).await?;
    let (zone, id): (_, DelegationId) = (caller.zone(), path_id(&id, rows::DELEGATION_NOT_FOUND)?);
    let session: SessionId = path_id(&session, rows::DELEGATION_NOT_FOUND)?;
    let now = coordinator.store.now().await.map_err(store)?;
    let found =
        coordinator.store.read(move |tx| Box::pin(async move { delegations::get(tx, zone, id).await })).await.map_err(store)?;
    let edge = found
        .filter(|e| e.target == session && e.is_live(now) && caller.sees().is_none_or(|own| e.receiver == own))
        .ok_or_else(missing)?;
    Ok(Json(json!({"id": edge.id, "status": "active", "expires_at": edge.authority.expires_at.rfc3339_millis()})))
}

pub(crate) async fn revoke(
    State(coordinator): State<Arc<Coordinator>>,
    Extension(request): Extension<RequestId>,
    Path((zone, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let caller = coordinator.caller(&zone, &headers).await?;
    let (zone, id): (_, DelegationId) = (caller.zone(), path_id(&id, rows::DELEGATION_NOT_FOUND)?);
    let ended = coordinator
        .change(zone, move |door| {
            Box::pin(async move {
                let now = door.now();
                let edge = delegations::get(door.tx(), zone, id).await?.filter(|e| e.is_live(now));
                let edge = edge.ok_or_else(|| no(rows::DELEGATION_NOT_FOUND))?;
                match caller.sees() {
                    Some(own) if edge.issuer == own => {}
                    None => {}
                    // A receiver may see the edge and cannot drop it; to anybody else it does not exist.
                    Some(own) if edge.receiver == own => return Err(no(rows::ISSUER_OWNERSHIP)),
                    Some(_) => return Err(no(rows::DELEGATION_NOT_FOUND)),
                }
                let ended = cascade::revoke_edge(door, zone, id, request.as_str()).await?;
                ended.ok_or_else(|| no(rows::DELEGATION_NOT_FOUND))
            })
        })
        .await?;
    Ok(Json(json!({
        "revoked_edges": ended.edges.len(), "affected_sessions": ended.affected, "terminated_sessions": ended.sessions.len(),
    })))
}
