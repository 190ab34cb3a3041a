//! Delegations: rows, lines to the root, lists.

use caracal_core::constraint::{Authority, Constraints};
use caracal_core::delegation::{Delegation, Status};
use caracal_core::id::{ApplicationId, DelegationId, SessionId, ZoneId};
use caracal_core::scope::Scopes;
use caracal_core::time::Time;

use crate::change::Entity;
use crate::door::Door;
use crate::error::StoreError;
use crate::management::Page;
use crate::sql::{Row, Tx, Value};

const COLUMNS: &str = "d.id, d.parent_id, d.source_session_id, d.target_session_id, d.issuer_application_id, d.receiver_application_id, \
                       d.resource_id, d.scopes, d.constraints, d.status, d.version, d.budget_spent, d.presented, d.expires_at, d.revoked_at, \
                       d.created_at, r.identifier";
const FROM: &str = "delegations d LEFT JOIN resources r ON r.id = d.resource_id";

fn of_row(row: &Row) -> Result<Delegation, StoreError> {
    let status = row.text(9)?;
    let scopes: Vec<String> = row.json(7, "delegations", "scopes")?;
    let constraints: Constraints = row.json(8, "delegations", "constraints")?;
    let resource_id = row.opt_id(6)?;
    // A resource whose row is gone reaches nothing, rather than everything.
    let resource = resource_id.is_some().then(|| row.opt_text(16)).transpose()?.map(Option::unwrap_or_default);
    Ok(Delegation {
        id: row.id(0)?,
        parent: row.opt_id(1)?,
        source: row.id(2)?,
        target: row.id(3)?,
        issuer: row.id(4)?,
        receiver: row.id(5)?,
        resource_id,
        authority: Authority {
            scopes: scopes.into_iter().collect::<Scopes>(),
            resource,
            expires_at: row.opt_time(13)?.ok_or_else(|| StoreError::inconsistent("delegations", "expires_at", "missing"))?,
            constraints,
        },
        status: Status::of(&status).ok_or_else(|| StoreError::inconsistent("delegations", "status", status))?,
        version: row.int(10)?,
        budget_spent: row.int(11)?,
        presented: row.flag(12)?,
        created_at: row.time(15)?,
        revoked_at: row.opt_time(14)?,
    })
}

/// The line of an edge, from its root to itself; empty when the edge is not of the zone. Bounded: a cycle ends it.
pub async fn line(tx: &mut Tx<'_>, zone: ZoneId, id: DelegationId) -> Result<Vec<Delegation>, StoreError> {
    let sql = format!(
        "WITH RECURSIVE line (id, parent_id, at) AS (\
           SELECT id, parent_id, 0 FROM delegations WHERE id = $2 AND zone_id = $1 \
           UNION ALL SELECT p.id, p.parent_id, line.at + 1 FROM delegations p JOIN line ON p.id = line.parent_id \
           WHERE p.zone_id = $1 AND line.at < 16) \
         SELECT {COLUMNS} FROM line JOIN {FROM} ON d.id = line.id ORDER BY line.at DESC"
    );
    let sql = sql.replace(
        "JOIN delegations d LEFT JOIN resources r ON r.id = d.resource_id ON d.id = line.id",
        "JOIN delegations d ON d.id = line.id LEFT JOIN resources r ON r.id = d.resource_id",
    );
    tx.all(sql, vec![Value::id(zone), Value::id(id)]).await?.iter().map(of_row).collect()
}

/// An edge of the zone.
pub async fn get(tx: &mut Tx<'_>, zone: ZoneId, id: DelegationId) -> Result<Option<Delegation>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE d.zone_id = $1 AND d.id = $2");
    tx.first(sql, vec![Value::id(zone), Value::id(id)]).await?.as_ref().map(of_row).transpose()
}

/// Every edge that reaches a Session, whatever its state, newest first.
pub async fn inbound(tx: &mut Tx<'_>, zone: ZoneId, target: SessionId) -> Result<Vec<Delegation>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM {FROM} WHERE d.zone_id = $1 AND d.target_session_id = $2 ORDER BY d.id DESC LIMIT 1000");
    tx.all(sql, vec![Value::id(zone), Value::id(target)]).await?.iter().map(of_row).collect()
}

/// Which edges a list is about.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// Live ones of the zone.
    Live,
    /// Those that reach a Session.
    Inbound(SessionId),
    /// Those that leave a Session.
    Outbound(SessionId),
}

/// Edges of the zone, newest first; with `of`, only those an Application issued or received.
pub async fn list(
    tx: &mut Tx<'_>,
    zone: ZoneId,
    which: Which,
    of: Option<ApplicationId>,
    now: Time,
    page: Page<DelegationId>,
) -> Result<Vec<Delegation>, StoreError> {
    let (condition, session) = match which {
        Which::Live => ("d.status = 'active' AND d.expires_at > $4 AND ($5 IS NULL)", None),
        Which::Inbound(session) => ("$4 > 0 AND d.target_session_id = $5", Some(session)),
        Which::Outbound(session) => ("$4 > 0 AND d.source_session_id = $5", Some(session)),
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM {FROM} WHERE d.zone_id = $1 AND d.id < $2 \
         AND ($3 IS NULL OR d.issuer_application_id = $3 OR d.receiver_application_id = $3) AND {condition} ORDER BY d.id DESC LIMIT $6"
    );
    let args = vec![Value::id(zone), page.bound(), Value::opt_id(of), now.into(), Value::opt_id(session), page.limit.into()];
    tx.all(sql, args).await?.iter().map(of_row).collect()
}

/// Creates an edge.
pub async fn insert(door: &mut Door<'_>, zone: ZoneId, edge: &Delegation) -> Result<(), StoreError> {
    door.execute(
        "INSERT INTO delegations (id, zone_id, parent_id, source_session_id, target_session_id, issuer_application_id, receiver_application_id, \
         resource_id, scopes, constraints, budget, presented, status, expires_at, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'active', $13, $14)",
        vec![
            Value::id(edge.id),
            Value::id(zone),
            Value::opt_id(edge.parent),
            Value::id(edge.source),
            Value::id(edge.target),
            Value::id(edge.issuer),
            Value::id(edge.receiver),
            Value::opt_id(edge.resource_id),
            serde_json::Value::from(edge.authority.scopes.to_vec()).to_string().into(),
            serde_json::to_string(&edge.authority.constraints).unwrap_or_default().into(),
            edge.authority.constraints.budget.into(),
            edge.presented.into(),
            edge.authority.expires_at.into(),
            edge.created_at.into(),
        ],
    )
    .await?;
    door.changed(Entity::delegation(edge.id));
    Ok(())
}

/// Whether `from` reaches `to` along live edges, in at most ten of them.
pub async fn reaches(tx: &mut Tx<'_>, zone: ZoneId, from: SessionId, to: SessionId, now: Time) -> Result<bool, StoreError> {
    let sql = "WITH RECURSIVE reach (id, at) AS (\
                 SELECT $2, 0 UNION \
                 SELECT d.target_session_id, reach.at + 1 FROM delegations d JOIN reach ON d.source_session_id = reach.id \
                 WHERE d.zone_id = $1 AND d.status = 'active' AND d.expires_at > $4 AND reach.at < 10) \
               SELECT 1 FROM reach WHERE id = $3 LIMIT 1";
    let sql = match tx.dialect() {
        crate::Dialect::Sqlite => sql.to_owned(),
        crate::Dialect::Postgres => sql.replace("SELECT $2, 0", "SELECT $2::bytea, 0"),
    };
    let row = tx.first(sql, vec![Value::id(zone), Value::id(from), Value::id(to), now.into()]).await?;
    Ok(row.is_some())
}

/// Live offers of other Applications to a Session.
pub async fn foreign_offers(tx: &mut Tx<'_>, zone: ZoneId, target: SessionId, now: Time) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM delegations WHERE zone_id = $1 AND target_session_id = $2 AND status = 'active' AND expires_at > $3 \
               AND issuer_application_id <> receiver_application_id";
    tx.first(sql, vec![Value::id(zone), Value::id(target), now.into()]).await?.map_or(Ok(0), |row| row.count(0))
}

/// The zone's Delegation graph epoch.
pub async fn graph_epoch(tx: &mut Tx<'_>, zone: ZoneId) -> Result<u64, StoreError> {
    tx.first("SELECT graph_epoch FROM zones WHERE id = $1", vec![Value::id(zone)]).await?.map_or(Ok(1), |row| row.count(0))
}

/// Raises it: an explicit revocation.
pub async fn raise_graph_epoch(door: &mut Door<'_>, zone: ZoneId) -> Result<u64, StoreError> {
    let row = door
        .first("UPDATE zones SET graph_epoch = graph_epoch + 1 WHERE id = $1 RETURNING graph_epoch", vec![Value::id(zone)])
        .await?;
    door.changed(Entity::GRAPH);
    row.map_or(Ok(1), |row| row.count(0))
}
