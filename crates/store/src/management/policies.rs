//! Policies, their immutable versions, policy sets, and which set version is active.

use caracal_core::event::{AuditEvent, DecidedBy, Verdict};
use caracal_core::id::{OutboxId, PolicyId, PolicySetId, PolicySetVersionId, PolicyVersionId, ZoneId};
use caracal_core::message::{Message, Stream};
use caracal_core::time::Time;
use serde::Serialize;

use super::millis;
use super::object::{Object, Slice, Stamps, Where, set};
use crate::change::Entity;
use crate::door::Door;
use crate::error::StoreError;
use crate::sql::{Row, Tx, Value};

/// The schema every version is of.
pub const SCHEMA: &str = "2026-05-20";

/// A policy as its readers see it.
#[derive(Clone, Debug, Serialize)]
pub struct Policy {
    /// Its id.
    pub id: PolicyId,
    /// Its zone.
    pub zone_id: ZoneId,
    /// Unique among live policies of the zone.
    pub name: String,
    /// In words.
    pub description: Option<String>,
    /// Who made and changed it.
    #[serde(flatten)]
    pub stamps: Stamps,
}

/// A version of a policy; immutable.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyVersion {
    /// Its id.
    pub id: PolicyVersionId,
    /// Its policy.
    pub policy_id: PolicyId,
    /// From 1.
    pub version: i64,
    /// The document's text, exactly as received.
    pub content: String,
    /// SHA-256 of the text.
    pub content_sha256: String,
    /// Always the one schema.
    pub schema_version: String,
    /// Who made it.
    pub created_by: String,
    /// Whether an assistant did; nothing here comes from one.
    pub created_via_operator: bool,
    /// When.
    #[serde(serialize_with = "millis")]
    pub created_at: Time,
    /// A version is never archived: always null.
    pub archived_at: Option<String>,
}

/// A policy set as its readers see it.
#[derive(Clone, Debug, Serialize)]
pub struct PolicySet {
    /// Its id.
    pub id: PolicySetId,
    /// Its zone.
    pub zone_id: ZoneId,
    /// Unique among live sets of the zone.
    pub name: String,
    /// In words.
    pub description: Option<String>,
    /// The version that governs, when this set does.
    pub active_version_id: Option<PolicySetVersionId>,
    /// Who made and changed it.
    #[serde(flatten)]
    pub stamps: Stamps,
}

/// A version of a policy set; immutable.
#[derive(Clone, Debug, Serialize)]
pub struct PolicySetVersion {
    /// Its id.
    pub id: PolicySetVersionId,
    /// Its set.
    pub policy_set_id: PolicySetId,
    /// From 1.
    pub version: i64,
    /// SHA-256 of the manifest.
    pub manifest_sha256: String,
    /// The policy versions, in order.
    #[serde(skip)]
    pub manifest: Vec<PolicyVersionId>,
    /// Always the one schema.
    pub schema_version: String,
    /// Who made it.
    pub created_by: String,
    /// Whether an assistant did; nothing here comes from one.
    pub created_via_operator: bool,
    /// When.
    #[serde(serialize_with = "millis")]
    pub created_at: Time,
}

/// What governs a zone, with the texts that decide.
#[derive(Clone, Debug)]
pub struct ActiveSet {
    /// The set.
    pub set: PolicySetId,
    /// Its version.
    pub version: PolicySetVersionId,
    /// SHA-256 of its manifest, as stored.
    pub manifest_sha256: String,
    /// The policy versions and their texts, in order.
    pub documents: Vec<(PolicyVersionId, String)>,
}

const VERSION: &str = "id, policy_id, version, content, content_sha256, schema_version, created_by, created_at";
const SET_VERSION: &str = "id, policy_set_id, version, manifest_sha256, manifest, schema_version, created_by, created_at";

fn version_of(row: &Row) -> Result<PolicyVersion, StoreError> {
    Ok(PolicyVersion {
        id: row.id(0)?,
        policy_id: row.id(1)?,
        version: row.int(2)?,
        content: row.text(3)?,
        content_sha256: row.text(4)?,
        schema_version: row.text(5)?,
        created_by: row.text(6)?,
        created_via_operator: false,
        created_at: row.time(7)?,
        archived_at: None,
    })
}

fn set_version_of(row: &Row) -> Result<PolicySetVersion, StoreError> {
    Ok(PolicySetVersion {
        id: row.id(0)?,
        policy_set_id: row.id(1)?,
        version: row.int(2)?,
        manifest_sha256: row.text(3)?,
        manifest: row.json(4, "policy_set_versions", "manifest")?,
        schema_version: row.text(5)?,
        created_by: row.text(6)?,
        created_via_operator: false,
        created_at: row.time(7)?,
    })
}

fn vanished(table: &'static str) -> StoreError {
    StoreError::inconsistent(table, "id", "vanished")
}

impl Object for Policy {
    type Id = PolicyId;
    const TABLE: &'static str = "policies";
    const COLUMNS: &'static str = "id, zone_id, name, description, created_by, updated_by, created_at, updated_at";
    const VIEWED_AS: Option<&'static str> = None;

    fn of_row(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id(0)?,
            zone_id: row.id(1)?,
            name: row.text(2)?,
            description: row.opt_text(3)?,
            stamps: Stamps::of_row(row, 4)?,
        })
    }

    fn head(&self) -> (PolicyId, &Stamps) {
        (self.id, &self.stamps)
    }
}

impl Object for PolicySet {
    type Id = PolicySetId;
    const TABLE: &'static str = "policy_sets";
    const COLUMNS: &'static str = "id, zone_id, name, description, \
                                   (SELECT b.policy_set_version_id FROM policy_bindings b WHERE b.policy_set_id = policy_sets.id), \
                                   created_by, updated_by, created_at, updated_at";
    const VIEWED_AS: Option<&'static str> = None;

    fn of_row(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id(0)?,
            zone_id: row.id(1)?,
            name: row.text(2)?,
            description: row.opt_text(3)?,
            active_version_id: row.opt_id(4)?,
            stamps: Stamps::of_row(row, 5)?,
        })
    }

    fn head(&self) -> (PolicySetId, &Stamps) {
        (self.id, &self.stamps)
    }

    /// One that governs stops governing, and the zone denies everything.
    async fn archive(door: &mut Door<'_>, zone: ZoneId, id: PolicySetId, by: &str) -> Result<bool, StoreError> {
        let now = door.now();
        if !set::<Self>(door, zone, id, vec![("archived_at", now.into())], by).await? {
            return Ok(false);
        }
        let sql = "DELETE FROM policy_bindings WHERE zone_id = $1 AND policy_set_id = $2";
        if door.execute(sql, vec![Value::id(zone), Value::id(id)]).await? == 1 {
            door.changed(Entity::VIEW);
            door.announce(Message::policy_changed(zone, id, None));
            let event =
                AuditEvent::new(door.world().mint(), zone.to_string(), "policy_deactivated", Verdict::Allow, "complete", now)
                    .with("policy_set_id", id.to_string());
            door.evidence(event);
        }
        Ok(true)
    }
}

impl PolicyVersion {
    /// Appends a version.
    pub async fn insert(
        door: &mut Door<'_>,
        zone: ZoneId,
        policy: PolicyId,
        content: &str,
        sha: &str,
        by: &str,
    ) -> Result<Self, StoreError> {
        let (now, id): (_, PolicyVersionId) = (door.now(), door.world().mint());
        door.execute(
            "INSERT INTO policy_versions (id, zone_id, policy_id, version, content, content_sha256, schema_version, created_by, created_at) \
             SELECT $1, $2, $3, coalesce(max(version), 0) + 1, $4, $5, $6, $7, $8 FROM policy_versions WHERE policy_id = $3",
            vec![
                Value::id(id),
                Value::id(zone),
                Value::id(policy),
                content.into(),
                sha.into(),
                SCHEMA.into(),
                by.into(),
                now.into(),
            ],
        )
        .await?;
        let sql = format!("SELECT {VERSION} FROM policy_versions WHERE id = $1");
        door.first(sql, vec![Value::id(id)]).await?.as_ref().map(version_of).transpose()?.ok_or_else(|| vanished("policy_versions"))
    }

    /// Versions of a policy, newest first.
    pub async fn of_policy(tx: &mut Tx<'_>, zone: ZoneId, policy: PolicyId) -> Result<Vec<Self>, StoreError> {
        let sql = format!("SELECT {VERSION} FROM policy_versions WHERE policy_id = $1 AND zone_id = $2 ORDER BY version DESC");
        tx.all(sql, vec![Value::id(policy), Value::id(zone)]).await?.iter().map(version_of).collect()
    }

    /// Versions by id, with the zone each belongs to.
    pub async fn by_ids(tx: &mut Tx<'_>, ids: &[PolicyVersionId]) -> Result<Vec<(ZoneId, Self)>, StoreError> {
        let sql = format!("SELECT {VERSION}, zone_id FROM policy_versions WHERE id IN {}", tx.dialect().ids(1));
        let rows = tx.all(sql, vec![Value::id_list(ids.iter().copied())]).await?;
        rows.iter().map(|row| Ok((row.id(8)?, version_of(row)?))).collect()
    }
}

impl PolicySet {
    /// Makes a version of this zone's set the one that governs. Gives the id under which it is announced.
    pub async fn activate(
        door: &mut Door<'_>,
        zone: ZoneId,
        version: &PolicySetVersion,
        by: &str,
        request_id: &str,
    ) -> Result<OutboxId, StoreError> {
        let now = door.now();
        door.execute(
            "INSERT INTO policy_bindings (zone_id, policy_set_id, policy_set_version_id, activated_by, activated_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (zone_id) DO UPDATE SET policy_set_id = $2, policy_set_version_id = $3, activated_by = $4, activated_at = $5",
            vec![Value::id(zone), Value::id(version.policy_set_id), Value::id(version.id), by.into(), now.into()],
        )
        .await?;
        door.execute(
            "UPDATE policy_sets SET updated_at = $2, updated_by = $3 WHERE id = $1",
            vec![Value::id(version.policy_set_id), now.into(), by.into()],
        )
        .await?;
        door.changed(Entity::VIEW);
        let announced = door.announce(Message::policy_changed(zone, version.policy_set_id, Some(version.id)));
        let mut event = AuditEvent::new(door.world().mint(), zone.to_string(), "policy_activated", Verdict::Allow, "complete", now)
            .with("policy_set_id", version.policy_set_id.to_string())
            .with("policy_set_version_id", version.id.to_string())
            .with("manifest_sha", version.manifest_sha256.clone());
        request_id.clone_into(&mut event.request_id);
        event.decided_by = Some(DecidedBy {
            policy_set_id: version.policy_set_id.to_string(),
            policy_set_version_id: version.id.to_string(),
            manifest_sha: version.manifest_sha256.clone(),
        });
        door.evidence(event);
        Ok(announced)
    }
}

impl PolicySetVersion {
    /// Appends a version.
    pub async fn insert(
        door: &mut Door<'_>,
        zone: ZoneId,
        set: PolicySetId,
        manifest: &[PolicyVersionId],
        sha: &str,
        by: &str,
    ) -> Result<Self, StoreError> {
        let (now, id): (_, PolicySetVersionId) = (door.now(), door.world().mint());
        door.execute(
            "INSERT INTO policy_set_versions (id, zone_id, policy_set_id, version, manifest, manifest_sha256, schema_version, created_by, created_at) \
             SELECT $1, $2, $3, coalesce(max(version), 0) + 1, $4, $5, $6, $7, $8 FROM policy_set_versions WHERE policy_set_id = $3",
            vec![
                Value::id(id),
                Value::id(zone),
                Value::id(set),
                serde_json::to_string(manifest).unwrap_or_default().into(),
                sha.into(),
                SCHEMA.into(),
                by.into(),
                now.into(),
            ],
        )
        .await?;
        Self::get(door.tx(), zone, set, id).await?.ok_or_else(|| vanished("policy_set_versions"))
    }

    /// A version of a set of the zone.
    pub async fn get(tx: &mut Tx<'_>, zone: ZoneId, set: PolicySetId, id: PolicySetVersionId) -> Result<Option<Self>, StoreError> {
        let sql = format!("SELECT {SET_VERSION} FROM policy_set_versions WHERE id = $1 AND policy_set_id = $2 AND zone_id = $3");
        tx.first(sql, vec![Value::id(id), Value::id(set), Value::id(zone)]).await?.as_ref().map(set_version_of).transpose()
    }

    /// Versions of a set, newest first.
    pub async fn list(
        tx: &mut Tx<'_>,
        zone: ZoneId,
        set: PolicySetId,
        slice: Slice<PolicySetVersionId>,
    ) -> Result<Vec<Self>, StoreError> {
        let mut wanted = Where::default();
        wanted.and("policy_set_id = ? AND zone_id = ?", [Value::id(set), Value::id(zone)]);
        let (rest, args) = slice.close(wanted);
        tx.all(format!("SELECT {SET_VERSION} FROM policy_set_versions {rest}"), args).await?.iter().map(set_version_of).collect()
    }
}

/// Which version governs a zone, and since when.
#[derive(Clone, Debug)]
pub struct Governing {
    /// The version.
    pub version: PolicySetVersionId,
    /// SHA-256 of its manifest.
    pub manifest_sha256: String,
    /// When it was activated.
    pub since: Time,
}

impl Governing {
    /// Of a zone; none means deny everything.
    pub async fn of_zone(tx: &mut Tx<'_>, zone: ZoneId) -> Result<Option<Self>, StoreError> {
        let sql = "SELECT v.id, v.manifest_sha256, b.activated_at FROM policy_bindings b \
                   JOIN policy_set_versions v ON v.id = b.policy_set_version_id WHERE b.zone_id = $1";
        let row = tx.first(sql, vec![Value::id(zone)]).await?;
        row.map(|row| Ok(Self { version: row.id(0)?, manifest_sha256: row.text(1)?, since: row.time(2)? })).transpose()
    }
}

impl ActiveSet {
    /// What governs the zone, with its texts; `None` means deny everything.
    pub async fn of_zone(tx: &mut Tx<'_>, zone: ZoneId) -> Result<Option<Self>, StoreError> {
        let row = tx
            .first(
                "SELECT v.policy_set_id, v.id, v.manifest_sha256, v.manifest FROM policy_bindings b \
                 JOIN policy_set_versions v ON v.id = b.policy_set_version_id WHERE b.zone_id = $1",
                vec![Value::id(zone)],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let manifest: Vec<PolicyVersionId> = row.json(3, "policy_set_versions", "manifest")?;
        let sql = format!("SELECT id, content FROM policy_versions WHERE id IN {}", tx.dialect().ids(1));
        let mut texts: Vec<(PolicyVersionId, String)> = Vec::with_capacity(manifest.len());
        for found in tx.all(sql, vec![Value::id_list(manifest.iter().copied())]).await? {
            texts.push((found.id(0)?, found.text(1)?));
        }
        let in_order = |id: &PolicyVersionId| texts.iter().find(|(found, _)| found == id).cloned();
        let documents: Option<Vec<_>> = manifest.iter().map(in_order).collect();
        let documents =
            documents.ok_or_else(|| StoreError::inconsistent("policy_set_versions", "manifest", "names a missing version"))?;
        Ok(Some(Self { set: row.id(0)?, version: row.id(1)?, manifest_sha256: row.text(2)?, documents }))
    }
}

/// How far the announcement of an activation has come.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// Its id in the outbox.
    pub id: OutboxId,
    /// Whether it says what was asked about: this zone, set and version.
    pub fits: bool,
    /// Whether it was given up.
    pub dead: bool,
    /// How often it was tried.
    pub attempts: i64,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When it went out.
    pub published_at: Option<Time>,
}

impl Announcement {
    /// The one of that id, or the newest of this version.
    pub async fn find(
        tx: &mut Tx<'_>,
        zone: ZoneId,
        set: PolicySetId,
        version: &str,
        id: Option<OutboxId>,
    ) -> Result<Option<Self>, StoreError> {
        let mut wanted = Where::default();
        if let Some(id) = id {
            wanted.and("id = ?", [Value::id(id)]);
        } else {
            let said = [Value::id(zone), format!("%{set}%").into(), format!("%{version}%").into()];
            wanted.and("zone_id = ? AND topic = 'caracal.policy.invalidate' AND payload LIKE ? AND payload LIKE ?", said);
        }
        let (condition, args) = wanted.into_parts();
        let columns = "id, zone_id, topic, payload, dead, attempts, last_error, published_at";
        let row = tx.first(format!("SELECT {columns} FROM outbox WHERE {condition} ORDER BY id DESC LIMIT 1"), args).await?;
        let Some(row) = row else { return Ok(None) };
        let said: Vec<(String, String)> = row.json(3, "outbox", "payload")?;
        let says = |name: &str, value: &str| said.iter().any(|(n, v)| n == name && v == value);
        let fits = row.opt_id(1)? == Some(zone)
            && row.text(2)? == Stream::PolicyInvalidate.name()
            && says("policy_set_id", &set.to_string())
            && says("policy_set_version_id", version);
        Ok(Some(Self {
            id: row.id(0)?,
            fits,
            dead: row.flag(4)?,
            attempts: row.int(5)?,
            last_error: row.opt_text(6)?,
            published_at: row.opt_time(7)?,
        }))
    }
}
