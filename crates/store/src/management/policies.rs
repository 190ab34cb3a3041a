//! Policies, their immutable versions, policy sets, and which set version is active.

use caracal_core::event::{AuditEvent, DecidedBy, Verdict};
use caracal_core::id::{Id as _, OutboxId, PolicyId, PolicySetId, PolicySetVersionId, PolicyVersionId, ZoneId};
use caracal_core::message::Message;
use caracal_core::time::Time;
use serde::Serialize;

use super::{Page, millis, opt_millis};
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
    /// Who made it.
    pub created_by: String,
    /// Who changed it last.
    pub updated_by: Option<String>,
    /// When it was made.
    #[serde(serialize_with = "millis")]
    pub created_at: Time,
    /// When it was changed last.
    #[serde(serialize_with = "opt_millis")]
    pub updated_at: Option<Time>,
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
    /// When.
    #[serde(serialize_with = "millis")]
    pub created_at: Time,
}

/// A policy to be made, with its first version.
#[derive(Clone, Debug)]
pub struct NewPolicy {
    /// Its id.
    pub id: PolicyId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its name.
    pub name: String,
    /// In words.
    pub description: Option<String>,
    /// Who makes it.
    pub by: String,
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
    /// Who made it.
    pub created_by: String,
    /// Who changed it last.
    pub updated_by: Option<String>,
    /// When it was made.
    #[serde(serialize_with = "millis")]
    pub created_at: Time,
    /// When it was changed last.
    #[serde(serialize_with = "opt_millis")]
    pub updated_at: Option<Time>,
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

const POLICY: &str = "id, zone_id, name, description, created_by, updated_by, created_at, updated_at";
const VERSION: &str = "id, policy_id, version, content, content_sha256, schema_version, created_by, created_at";
const SET: &str =
    "s.id, s.zone_id, s.name, s.description, b.policy_set_version_id, s.created_by, s.updated_by, s.created_at, s.updated_at";
const SET_VERSION: &str = "id, policy_set_id, version, manifest_sha256, manifest, schema_version, created_by, created_at";

fn policy_of(row: &Row) -> Result<Policy, StoreError> {
    Ok(Policy {
        id: row.id(0)?,
        zone_id: row.id(1)?,
        name: row.text(2)?,
        description: row.opt_text(3)?,
        created_by: row.text(4)?,
        updated_by: row.opt_text(5)?,
        created_at: row.time(6)?,
        updated_at: row.opt_time(7)?,
    })
}

fn version_of(row: &Row) -> Result<PolicyVersion, StoreError> {
    Ok(PolicyVersion {
        id: row.id(0)?,
        policy_id: row.id(1)?,
        version: row.int(2)?,
        content: row.text(3)?,
        content_sha256: row.text(4)?,
        schema_version: row.text(5)?,
        created_by: row.text(6)?,
        created_at: row.time(7)?,
    })
}

fn set_of(row: &Row) -> Result<PolicySet, StoreError> {
    Ok(PolicySet {
        id: row.id(0)?,
        zone_id: row.id(1)?,
        name: row.text(2)?,
        description: row.opt_text(3)?,
        active_version_id: row.opt_id(4)?,
        created_by: row.text(5)?,
        updated_by: row.opt_text(6)?,
        created_at: row.time(7)?,
        updated_at: row.opt_time(8)?,
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
        created_at: row.time(7)?,
    })
}

fn vanished(table: &'static str) -> StoreError {
    StoreError::inconsistent(table, "id", "vanished")
}

impl Policy {
    /// Makes a policy; a taken name is [`StoreError::Refused`].
    pub async fn insert(door: &mut Door<'_>, new: NewPolicy) -> Result<Self, StoreError> {
        let now = door.now();
        door.execute(
            "INSERT INTO policies (id, zone_id, name, description, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            vec![Value::id(new.id), Value::id(new.zone), new.name.into(), new.description.into(), new.by.into(), now.into()],
        )
        .await?;
        Self::get(door.tx(), new.zone, new.id).await?.ok_or_else(|| vanished("policies"))
    }

    /// A live policy of the zone.
    pub async fn get(tx: &mut Tx<'_>, zone: ZoneId, id: PolicyId) -> Result<Option<Self>, StoreError> {
        let sql = format!("SELECT {POLICY} FROM policies WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL");
        tx.first(sql, vec![Value::id(id), Value::id(zone)]).await?.as_ref().map(policy_of).transpose()
    }

    /// Live policies of the zone, newest first.
    pub async fn list(tx: &mut Tx<'_>, zone: ZoneId, page: Page<PolicyId>) -> Result<Vec<Self>, StoreError> {
        let sql = format!(
            "SELECT {POLICY} FROM policies WHERE zone_id = $1 AND archived_at IS NULL AND id < $2 ORDER BY id DESC LIMIT $3"
        );
        tx.all(sql, vec![Value::id(zone), page.bound(), page.limit.into()]).await?.iter().map(policy_of).collect()
    }

    /// Archives a policy; versions stay where sets refer to them.
    pub async fn archive(door: &mut Door<'_>, zone: ZoneId, id: PolicyId, by: &str) -> Result<bool, StoreError> {
        let now = door.now();
        let sql = "UPDATE policies SET archived_at = $3, updated_at = $3, updated_by = $4 WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL";
        Ok(door.execute(sql, vec![Value::id(id), Value::id(zone), now.into(), by.into()]).await? == 1)
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
        door.execute(
            "UPDATE policies SET updated_at = $2, updated_by = $3 WHERE id = $1",
            vec![Value::id(policy), now.into(), by.into()],
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
    /// Makes a set; a taken name is [`StoreError::Refused`].
    pub async fn insert(
        door: &mut Door<'_>,
        zone: ZoneId,
        id: PolicySetId,
        name: &str,
        description: Option<&str>,
        by: &str,
    ) -> Result<Self, StoreError> {
        let now = door.now();
        door.execute(
            "INSERT INTO policy_sets (id, zone_id, name, description, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            vec![Value::id(id), Value::id(zone), name.into(), description.into(), by.into(), now.into()],
        )
        .await?;
        Self::get(door.tx(), zone, id).await?.ok_or_else(|| vanished("policy_sets"))
    }

    /// A live set of the zone.
    pub async fn get(tx: &mut Tx<'_>, zone: ZoneId, id: PolicySetId) -> Result<Option<Self>, StoreError> {
        let sql = format!(
            "SELECT {SET} FROM policy_sets s LEFT JOIN policy_bindings b ON b.policy_set_id = s.id \
             WHERE s.id = $1 AND s.zone_id = $2 AND s.archived_at IS NULL"
        );
        tx.first(sql, vec![Value::id(id), Value::id(zone)]).await?.as_ref().map(set_of).transpose()
    }

    /// Live sets of the zone, newest first.
    pub async fn list(tx: &mut Tx<'_>, zone: ZoneId, page: Page<PolicySetId>) -> Result<Vec<Self>, StoreError> {
        let sql = format!(
            "SELECT {SET} FROM policy_sets s LEFT JOIN policy_bindings b ON b.policy_set_id = s.id \
             WHERE s.zone_id = $1 AND s.archived_at IS NULL AND s.id < $2 ORDER BY s.id DESC LIMIT $3"
        );
        tx.all(sql, vec![Value::id(zone), page.bound(), page.limit.into()]).await?.iter().map(set_of).collect()
    }

    /// Makes a version of this zone's set the one that governs. Gives the outbox id under which it is announced.
    pub async fn activate(
        door: &mut Door<'_>,
        zone: ZoneId,
        version: &PolicySetVersion,
        by: &str,
        request_id: &str,
    ) -> Result<(), StoreError> {
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
        door.announce(Message::policy_changed(zone, version.policy_set_id, Some(version.id)));
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
        Ok(())
    }

    /// Archives a set; one that governs stops governing, and the zone denies everything.
    pub async fn archive(door: &mut Door<'_>, zone: ZoneId, id: PolicySetId, by: &str) -> Result<bool, StoreError> {
        let now = door.now();
        let sql = "UPDATE policy_sets SET archived_at = $3, updated_at = $3, updated_by = $4 WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL";
        if door.execute(sql, vec![Value::id(id), Value::id(zone), now.into(), by.into()]).await? == 0 {
            return Ok(false);
        }
        let governed = door
            .execute("DELETE FROM policy_bindings WHERE zone_id = $1 AND policy_set_id = $2", vec![Value::id(zone), Value::id(id)])
            .await?;
        if governed == 1 {
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
        page: Page<PolicySetVersionId>,
    ) -> Result<Vec<Self>, StoreError> {
        let sql = format!(
            "SELECT {SET_VERSION} FROM policy_set_versions WHERE policy_set_id = $1 AND zone_id = $2 AND id < $3 ORDER BY id DESC LIMIT $4"
        );
        let args = vec![Value::id(set), Value::id(zone), page.bound(), page.limit.into()];
        tx.all(sql, args).await?.iter().map(set_version_of).collect()
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

/// How far an activation's announcement has come: `pending`, `dispatched`, `dead`.
pub async fn announcement(
    tx: &mut Tx<'_>,
    zone: ZoneId,
    set: PolicySetId,
) -> Result<Option<(OutboxId, &'static str, i64)>, StoreError> {
    let row = tx
        .first(
            "SELECT id, published_at, dead, attempts FROM outbox WHERE zone_id = $1 AND topic = 'caracal.policy.invalidate' AND payload LIKE $2 \
             ORDER BY id DESC LIMIT 1",
            vec![Value::Bytes(Some(zone.to_bytes().to_vec())), format!("%{set}%").into()],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let state = match (row.opt_int(1)?, row.flag(2)?) {
        (Some(_), _) => "dispatched",
        (None, true) => "dead",
        (None, false) => "pending",
    };
    Ok(Some((row.id(0)?, state, row.int(3)?)))
}
