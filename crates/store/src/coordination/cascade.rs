//! The cascade: one function for every cause. It ends Sessions and everything below them, revokes the edges that touch them and
//! everything below those, revokes user records nothing stands on any more, and announces each exactly once (`streams.md` 5.4).

use caracal_core::event::{AuditEvent, Verdict};
use caracal_core::id::{ApplicationId, AuthorityRecordId, DelegationId, SessionId, ZoneId};
use caracal_core::message::{Anchor, Message};

use crate::change::Entity;
use crate::coordination::delegations;
use crate::door::Door;
use crate::error::StoreError;
use crate::sql::{Sql, Value};

/// What a cascade ended.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Sessions that ended.
    pub sessions: Vec<SessionId>,
    /// Edges that were revoked.
    pub edges: Vec<DelegationId>,
    /// Distinct target Sessions of revoked edges.
    pub affected: usize,
    /// User records that were revoked.
    pub records: Vec<AuthorityRecordId>,
}

/// How the Sessions named in the call end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// They were ended.
    Terminated,
    /// Their time was over.
    Expired,
}

/// Ends these Sessions and everything that follows from it.
pub async fn end_sessions(
    door: &mut Door<'_>,
    zone: ZoneId,
    roots: &[SessionId],
    manner: Manner,
    reason: &str,
    request_id: &str,
) -> Result<Ended, StoreError> {
    let mut ended = Ended::default();
    let live = subtree(door, zone, roots).await?;
    sessions_end(door, zone, &live, roots, manner, reason, request_id, &mut ended).await?;
    let touching = edges_touching(door, zone, &ended.sessions).await?;
    edges_end(door, zone, &touching, reason, request_id, &mut ended).await?;
    Ok(ended)
}

/// Revokes an edge by name: it and every edge below it, then the targets within the issuer's Application that hold no other live
/// inbound edge, with everything below them. `None` when the edge is not active.
pub async fn revoke_edge(
    door: &mut Door<'_>,
    zone: ZoneId,
    edge: DelegationId,
    request_id: &str,
) -> Result<Option<Ended>, StoreError> {
    const REASON: &str = "delegation_revoked";
    let now = door.now();
    let active = "SELECT 1 FROM delegations WHERE id = $1 AND zone_id = $2 AND status = 'active' AND expires_at > $3";
    if door.first(active, vec![Value::id(edge), Value::id(zone), now.into()]).await?.is_none() {
        return Ok(None);
    }
    let mut ended = Ended::default();
    let below = edges_below(door, zone, &[edge]).await?;
    edges_end(door, zone, &below, REASON, request_id, &mut ended).await?;
    // Within one Application a target without any other live inbound edge has lost what it acted by.
    let sql = format!(
        "SELECT DISTINCT s.id FROM sessions s JOIN delegations d ON d.target_session_id = s.id \
         WHERE d.id IN {} AND d.issuer_application_id = s.application_id AND s.status IN ('active', 'suspended') \
         AND NOT EXISTS (SELECT 1 FROM delegations o WHERE o.target_session_id = s.id AND o.status = 'active' AND o.expires_at > $2)",
        door.tx().dialect().ids(1)
    );
    let args = vec![Value::id_list(ended.edges.iter().copied()), now.into()];
    let roots: Vec<SessionId> = ids(door, sql, args).await?;
    if !roots.is_empty() {
        let live = subtree(door, zone, &roots).await?;
        sessions_end(door, zone, &live, &roots, Manner::Terminated, REASON, request_id, &mut ended).await?;
        let touching = edges_touching(door, zone, &ended.sessions).await?;
        edges_end(door, zone, &touching, REASON, request_id, &mut ended).await?;
    }
    let targets = format!("SELECT DISTINCT target_session_id FROM delegations WHERE id IN {}", door.tx().dialect().ids(1));
    ended.affected = ids::<SessionId>(door, targets, vec![Value::id_list(ended.edges.iter().copied())]).await?.len();
    let epoch = delegations::raise_graph_epoch(door, zone).await?;
    door.announce(Message::edge_revoked(zone, edge, ended.edges.len(), epoch));
    Ok(Some(ended))
}

/// Ends all that an Application holds: it is archived.
pub async fn end_application(
    door: &mut Door<'_>,
    zone: ZoneId,
    application: ApplicationId,
    reason: &str,
    request_id: &str,
) -> Result<Ended, StoreError> {
    end_holder(door, zone, Some(application), reason, request_id).await
}

/// Ends all that a zone holds: it is archived.
pub async fn end_zone(door: &mut Door<'_>, zone: ZoneId, reason: &str, request_id: &str) -> Result<Ended, StoreError> {
    end_holder(door, zone, None, reason, request_id).await
}

/// Ends what an Application (or every one of the zone) holds: its records and every one below them, its Sessions and those that
/// ride on these records with everything below them, and the edges that touch them. The graph epoch rises once.
async fn end_holder(
    door: &mut Door<'_>,
    zone: ZoneId,
    holder: Option<ApplicationId>,
    reason: &str,
    request_id: &str,
) -> Result<Ended, StoreError> {
    let held = if holder.is_some() { "AND application_id = $2" } else { "" };
    let args: Vec<Value> = std::iter::once(Value::id(zone)).chain(holder.map(Value::id)).collect();
    let sql = format!(
        "WITH RECURSIVE tree (id) AS (\
           SELECT id FROM authority_records WHERE zone_id = $1 {held} AND status = 'active' \
           UNION SELECT c.id FROM authority_records c JOIN tree ON c.parent_id = tree.id) \
         SELECT id FROM tree"
    );
    let records: Vec<AuthorityRecordId> = ids(door, sql, args.clone()).await?;
    let sql = format!("SELECT id FROM sessions WHERE zone_id = $1 {held} AND status IN ('active', 'suspended')");
    let mut roots: Vec<SessionId> = ids(door, sql, args).await?;
    let riding = format!(
        "SELECT id FROM sessions WHERE zone_id = $1 AND subject_record_id IN {} AND status IN ('active', 'suspended')",
        door.tx().dialect().ids(2)
    );
    roots.extend(ids::<SessionId>(door, riding, vec![Value::id(zone), Value::id_list(records.iter().copied())]).await?);
    let mut ended = end_sessions(door, zone, &roots, Manner::Terminated, reason, request_id).await?;
    records_end(door, zone, &records, reason, request_id, &mut ended).await?;
    if let Some(first) = ended.edges.first().copied() {
        let epoch = delegations::raise_graph_epoch(door, zone).await?;
        door.announce(Message::edge_revoked(zone, first, ended.edges.len(), epoch));
    }
    Ok(ended)
}

async fn ids<I: caracal_core::id::Id>(door: &mut Door<'_>, sql: impl Into<Sql>, args: Vec<Value>) -> Result<Vec<I>, StoreError> {
    door.all(sql, args).await?.iter().map(|row| row.id(0)).collect()
}

/// These Sessions and their live descendants, through live ones.
async fn subtree(door: &mut Door<'_>, zone: ZoneId, roots: &[SessionId]) -> Result<Vec<SessionId>, StoreError> {
    if roots.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "WITH RECURSIVE tree (id) AS (\
           SELECT id FROM sessions WHERE zone_id = $1 AND id IN {} AND status IN ('active', 'suspended') \
           UNION SELECT c.id FROM sessions c JOIN tree ON c.parent_id = tree.id WHERE c.status IN ('active', 'suspended')) \
         SELECT id FROM tree",
        door.tx().dialect().ids(2)
    );
    ids(door, sql, vec![Value::id(zone), Value::id_list(roots.iter().copied())]).await
}

#[allow(clippy::too_many_arguments, reason = "the cascade's one writer of Sessions; every argument is part of what is recorded")]
async fn sessions_end(
    door: &mut Door<'_>,
    zone: ZoneId,
    all: &[SessionId],
    roots: &[SessionId],
    manner: Manner,
    reason: &str,
    request_id: &str,
    ended: &mut Ended,
) -> Result<(), StoreError> {
    let now = door.now();
    let (named, below): (Vec<SessionId>, Vec<SessionId>) = all.iter().partition(|id| roots.contains(id));
    let status = if manner == Manner::Expired { "expired" } else { "terminated" };
    for (these, status, reason) in [(named, status, reason), (below, "terminated", "parent_terminated")] {
        if these.is_empty() {
            continue;
        }
        let sql = format!(
            "UPDATE sessions SET status = $3, end_reason = $4, ended_at = $5, updated_at = $5 \
             WHERE zone_id = $1 AND id IN {} AND status IN ('active', 'suspended') \
             RETURNING id, parent_id, application_id, lifecycle, labels, depth, subject_record_id, subject_is_user",
            door.tx().dialect().ids(2)
        );
        let args = vec![Value::id(zone), Value::id_list(these), status.into(), reason.into(), now.into()];
        let rows = door.all(sql, args).await?;
        let mut users = Vec::new();
        for row in &rows {
            let id: SessionId = row.id(0)?;
            let parent: Option<SessionId> = row.opt_id(1)?;
            let record: AuthorityRecordId = row.id(6)?;
            door.changed(Entity::session(id));
            let last = row.flag(7)? && nothing_stands_on(door, record).await?;
            if last {
                users.push(record);
            }
            let anchor = if last { Anchor::SessionAndRecord(id, record) } else { Anchor::Session(id) };
            door.announce(Message::revoked(zone, anchor, reason));
            door.announce(Message::terminated(zone, id, parent, reason));
            let labels: serde_json::Value = row.json(4, "sessions", "labels")?;
            let mut event =
                AuditEvent::new(door.world().mint(), zone.to_string(), "session_terminated", Verdict::Allow, "complete", now)
                    .with("agent_session_id", id.to_string())
                    .with("application_id", row.id::<ApplicationId>(2)?.to_string())
                    .with("agent_lifecycle", row.text(3)?)
                    .with("agent_labels", labels)
                    .with("agent_depth", row.int(5)?)
                    .with_some("agent_parent_id", parent.map(|p| p.to_string()))
                    .with("authority_record_id", record.to_string())
                    .with("reason", reason);
            request_id.clone_into(&mut event.request_id);
            door.evidence(event);
            ended.sessions.push(id);
        }
        records_end(door, zone, &users, reason, request_id, ended).await?;
    }
    Ok(())
}

async fn nothing_stands_on(door: &mut Door<'_>, record: AuthorityRecordId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM sessions WHERE subject_record_id = $1 AND status IN ('active', 'suspended') LIMIT 1";
    Ok(door.first(sql, vec![Value::id(record)]).await?.is_none())
}

/// Records and every descendant by parent.
async fn records_end(
    door: &mut Door<'_>,
    zone: ZoneId,
    roots: &[AuthorityRecordId],
    reason: &str,
    request_id: &str,
    ended: &mut Ended,
) -> Result<(), StoreError> {
    if roots.is_empty() {
        return Ok(());
    }
    let now = door.now();
    let sql = format!(
        "WITH RECURSIVE tree (id) AS (\
           SELECT id FROM authority_records WHERE zone_id = $1 AND id IN {} \
           UNION SELECT c.id FROM authority_records c JOIN tree ON c.parent_id = tree.id) \
         UPDATE authority_records SET status = 'revoked', revoked_at = $3, reason = $4 \
         WHERE id IN (SELECT id FROM tree) AND status = 'active' RETURNING id",
        door.tx().dialect().ids(2)
    );
    let args = vec![Value::id(zone), Value::id_list(roots.iter().copied()), now.into(), reason.into()];
    for record in ids::<AuthorityRecordId>(door, sql, args).await? {
        door.changed(Entity::record(record));
        // A Session's message already names its user record; the dedupe key differs, and both are true.
        door.announce(Message::revoked(zone, Anchor::Record(record), reason));
        let mut event =
            AuditEvent::new(door.world().mint(), zone.to_string(), "authority_revoked", Verdict::Allow, "complete", now)
                .with("authority_record_id", record.to_string())
                .with("reason", reason);
        request_id.clone_into(&mut event.request_id);
        door.evidence(event);
        ended.records.push(record);
    }
    Ok(())
}

/// Active edges that leave or reach these Sessions, and every active edge below one of them.
async fn edges_touching(door: &mut Door<'_>, zone: ZoneId, sessions: &[SessionId]) -> Result<Vec<DelegationId>, StoreError> {
    if sessions.is_empty() {
        return Ok(Vec::new());
    }
    let dialect = door.tx().dialect();
    let sql = format!(
        "SELECT id FROM delegations WHERE zone_id = $1 AND status = 'active' AND (source_session_id IN {} OR target_session_id IN {})",
        dialect.ids(2),
        dialect.ids(2)
    );
    let touching: Vec<DelegationId> = ids(door, sql, vec![Value::id(zone), Value::id_list(sessions.iter().copied())]).await?;
    edges_below(door, zone, &touching).await
}

/// These edges and every active one below them.
async fn edges_below(door: &mut Door<'_>, zone: ZoneId, roots: &[DelegationId]) -> Result<Vec<DelegationId>, StoreError> {
    if roots.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "WITH RECURSIVE tree (id) AS (\
           SELECT id FROM delegations WHERE zone_id = $1 AND id IN {} \
           UNION SELECT c.id FROM delegations c JOIN tree ON c.parent_id = tree.id) \
         SELECT t.id FROM tree t JOIN delegations d ON d.id = t.id WHERE d.status = 'active'",
        door.tx().dialect().ids(2)
    );
    ids(door, sql, vec![Value::id(zone), Value::id_list(roots.iter().copied())]).await
}

async fn edges_end(
    door: &mut Door<'_>,
    zone: ZoneId,
    edges: &[DelegationId],
    reason: &str,
    request_id: &str,
    ended: &mut Ended,
) -> Result<(), StoreError> {
    if edges.is_empty() {
        return Ok(());
    }
    let now = door.now();
    let sql = format!(
        "UPDATE delegations SET status = 'revoked', revoked_at = $3, version = version + 1 \
         WHERE zone_id = $1 AND id IN {} AND status = 'active' RETURNING id, source_session_id, target_session_id, scopes",
        door.tx().dialect().ids(2)
    );
    let args = vec![Value::id(zone), Value::id_list(edges.iter().copied()), now.into()];
    for row in door.all(sql, args).await? {
        let edge: DelegationId = row.id(0)?;
        door.changed(Entity::delegation(edge));
        door.announce(Message::revoked(zone, Anchor::Delegation(edge), reason));
        let mut event =
            AuditEvent::new(door.world().mint(), zone.to_string(), "delegation_revoked", Verdict::Allow, "complete", now)
                .with("delegation_edge_id", edge.to_string())
                .with("source_session_id", row.id::<SessionId>(1)?.to_string())
                .with("target_session_id", row.id::<SessionId>(2)?.to_string())
                .with("scopes", row.json::<serde_json::Value>(3, "delegations", "scopes")?)
                .with("reason", reason);
        request_id.clone_into(&mut event.request_id);
        door.evidence(event);
        ended.edges.push(edge);
    }
    Ok(())
}
