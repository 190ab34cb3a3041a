//! Sessions: rows, capacity, lists.

use caracal_core::id::{ApplicationId, AuthorityRecordId, SessionId, ZoneId};
use caracal_core::session::{Lifecycle, Session, Status, Subject, UserRecord};
use caracal_core::time::Time;
use serde_json::Value as Json;

use crate::change::Entity;
use crate::door::Door;
use crate::error::StoreError;
use crate::management::Page;
use crate::sql::{Row, Tx, Value};

/// A Session with what its readers see beside the rules.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// What the rules need.
    pub session: Session,
    /// The caller's annotations.
    pub metadata: Json,
    /// The last beat of a service.
    pub last_heartbeat_at: Option<Time>,
    /// The generation of its lease; 0 for a task.
    pub lease_generation: i64,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Why.
    pub end_reason: Option<String>,
}

/// A Session to be started.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// Its zone.
    pub zone: ZoneId,
    /// Whose it is.
    pub application: ApplicationId,
    /// What it stands on.
    pub record: AuthorityRecordId,
    /// Whether that is a Federated user's.
    pub user: bool,
    /// Its parent and depth.
    pub parent: Option<SessionId>,
    /// Edges from the root.
    pub depth: u32,
    /// What its life depends on.
    pub lifecycle: Lifecycle,
    /// Its labels.
    pub labels: Vec<String>,
    /// The caller's annotations.
    pub metadata: Json,
}

const COLUMNS: &str = "s.id, s.application_id, s.parent_id, s.subject_record_id, s.subject_is_user, s.lifecycle, s.status, s.depth, s.labels, \
                       s.ttl_seconds, s.started_at, s.heartbeat_deadline_at, r.status, r.expires_at, s.metadata, s.last_heartbeat_at, \
                       s.lease_generation, s.ended_at, s.end_reason";
const FROM: &str = "sessions s LEFT JOIN authority_records r ON r.id = s.subject_record_id AND s.subject_is_user = 1";

fn of_row(row: &Row) -> Result<SessionRow, StoreError> {
    let bad = |column, fault: String| StoreError::inconsistent("sessions", column, fault);
    let lifecycle = match (row.text(5)?.as_str(), row.opt_int(9)?, row.opt_time(11)?) {
        ("task", Some(ttl_seconds), None) => Lifecycle::Task { ttl_seconds },
        ("service", None, Some(deadline)) => Lifecycle::Service { deadline },
        (other, ..) => return Err(bad("lifecycle", other.to_owned())),
    };
    let status = row.text(6)?;
    // A user's record that is gone is a record that is over.
    let user = row.flag(4)?.then_some(UserRecord {
        active: row.opt_text(12)?.as_deref() == Some("active"),
        expires_at: row.opt_time(13)?.unwrap_or(Time::EPOCH),
    });
    let session = Session {
        id: row.id(0)?,
        application: row.id(1)?,
        parent: row.opt_id(2)?,
        subject: Subject { record: row.id(3)?, user },
        status: Status::of(&status).ok_or_else(|| bad("status", status))?,
        lifecycle,
        started_at: row.time(10)?,
        labels: row.json(8, "sessions", "labels")?,
        depth: u32::try_from(row.int(7)?).map_err(|_| bad("depth", "negative".to_owned()))?,
    };
    Ok(SessionRow {
        session,
        metadata: row.json(14, "sessions", "metadata")?,
        last_heartbeat_at: row.opt_time(15)?,
        lease_generation: row.int(16)?,
        ended_at: row.opt_time(17)?,
        end_reason: row.opt_text(18)?,
    })
}

/// Sessions of the zone by id, as the rules need them.
pub async fn by_ids(tx: &mut Tx<'_>, zone: ZoneId, ids: &[SessionId]) -> Result<Vec<Session>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE s.zone_id = $1 AND s.id IN {}", tx.dialect().ids(2));
    let rows = tx.all(sql, vec![Value::id(zone), Value::id_list(ids.iter().copied())]).await?;
    rows.iter().map(|row| of_row(row).map(|r| r.session)).collect()
}

/// A Session of the zone.
pub async fn get(tx: &mut Tx<'_>, zone: ZoneId, id: SessionId) -> Result<Option<SessionRow>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE s.zone_id = $1 AND s.id = $2");
    tx.first(sql, vec![Value::id(zone), Value::id(id)]).await?.as_ref().map(of_row).transpose()
}

/// Which Sessions of a zone a list is about.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this Application.
    pub application: Option<ApplicationId>,
    /// Only in this state.
    pub status: Option<Status>,
    /// Only of this lifecycle.
    pub lifecycle: Option<&'static str>,
    /// Only with this label.
    pub label: Option<String>,
    /// Only direct children of this one.
    pub parent: Option<SessionId>,
}

/// Sessions of the zone, newest first.
pub async fn list(tx: &mut Tx<'_>, zone: ZoneId, filter: &Filter, page: Page<SessionId>) -> Result<Vec<SessionRow>, StoreError> {
    let label = filter.label.as_ref().map(|l| format!("%{}%", serde_json::Value::from(l.as_str())));
    let sql = format!(
        "SELECT {COLUMNS} FROM {FROM} WHERE s.zone_id = $1 AND s.id < $2 AND ($3 IS NULL OR s.application_id = $3) \
         AND ($4 IS NULL OR s.status = $4) AND ($5 IS NULL OR s.lifecycle = $5) AND ($6 IS NULL OR s.labels LIKE $6) \
         AND ($7 IS NULL OR s.parent_id = $7) ORDER BY s.id DESC LIMIT $8"
    );
    let args = vec![
        Value::id(zone),
        page.bound(),
        Value::opt_id(filter.application),
        filter.status.map(Status::as_str).into(),
        filter.lifecycle.into(),
        label.into(),
        Value::opt_id(filter.parent),
        page.limit.into(),
    ];
    let rows: Vec<SessionRow> = tx.all(sql, args).await?.iter().map(of_row).collect::<Result<_, _>>()?;
    // LIKE only narrows; the label itself decides.
    Ok(match &filter.label {
        Some(label) => rows.into_iter().filter(|r| r.session.labels.contains(label)).collect(),
        None => rows,
    })
}

/// Slots that are held: in the zone, and by one Application.
pub async fn slots(tx: &mut Tx<'_>, zone: ZoneId, application: ApplicationId, now: Time) -> Result<(u64, u64), StoreError> {
    let sql = "SELECT count(*), count(CASE WHEN application_id = $2 THEN 1 END) FROM sessions \
               WHERE zone_id = $1 AND status IN ('active', 'suspended') \
               AND ((lifecycle = 'task' AND started_at + ttl_seconds * 1000000 > $3) \
               OR (lifecycle = 'service' AND (status = 'suspended' OR heartbeat_deadline_at > $3)))";
    let row = tx.first(sql, vec![Value::id(zone), Value::id(application), now.into()]).await?;
    row.map_or(Ok((0, 0)), |row| Ok((row.count(0)?, row.count(1)?)))
}

/// Live children of a Session.
pub async fn children(tx: &mut Tx<'_>, parent: SessionId) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM sessions WHERE parent_id = $1 AND status IN ('active', 'suspended')";
    tx.first(sql, vec![Value::id(parent)]).await?.map_or(Ok(0), |row| row.count(0))
}

/// Starts a Session.
pub async fn insert(door: &mut Door<'_>, new: &NewSession) -> Result<(), StoreError> {
    let now = door.now();
    let (ttl, beat, deadline, generation) = match new.lifecycle {
        Lifecycle::Task { ttl_seconds } => (Some(ttl_seconds), None, None, 0_i64),
        Lifecycle::Service { deadline } => (None, Some(now), Some(deadline), 1),
    };
    door.execute(
        "INSERT INTO sessions (id, zone_id, application_id, parent_id, subject_record_id, subject_is_user, lifecycle, status, depth, labels, metadata, \
         ttl_seconds, started_at, last_heartbeat_at, heartbeat_deadline_at, lease_generation, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'active', $8, $9, $10, $11, $12, $13, $14, $15, $12)",
        vec![
            Value::id(new.id),
            Value::id(new.zone),
            Value::id(new.application),
            Value::opt_id(new.parent),
            Value::id(new.record),
            new.user.into(),
            new.lifecycle.as_str().into(),
            new.depth.into(),
            Json::from(new.labels.clone()).to_string().into(),
            new.metadata.to_string().into(),
            ttl.into(),
            now.into(),
            beat.into(),
            deadline.into(),
            generation.into(),
        ],
    )
    .await?;
    door.changed(Entity::session(new.id));
    Ok(())
}

/// Live Sessions whose task time is over, across zones.
pub async fn overdue(tx: &mut Tx<'_>, now: Time, most: usize) -> Result<Vec<(ZoneId, SessionId)>, StoreError> {
    let sql = "SELECT zone_id, id FROM sessions WHERE status IN ('active', 'suspended') AND lifecycle = 'task' \
               AND started_at + ttl_seconds * 1000000 <= $1 ORDER BY id LIMIT $2";
    tx.all(sql, vec![now.into(), most.into()]).await?.iter().map(|row| Ok((row.id(0)?, row.id(1)?))).collect()
}
