//! Resources: what agents ask authority for.

use caracal_core::id::{ProviderId, ResourceId, ZoneId};
use caracal_core::request::Operation;
use caracal_core::time::Time;
use serde::Serialize;

use super::{Page, millis, opt_millis};
use crate::change::ViewChange;
use crate::door::Door;
use crate::error::StoreError;
use crate::sql::{Row, Tx, Value};

/// A resource as its readers see it.
#[derive(Clone, Debug, Serialize)]
pub struct Resource {
    /// Its id.
    pub id: ResourceId,
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its name.
    pub name: String,
    /// Unique among live resources of the zone; compared byte by byte.
    pub identifier: String,
    /// Where governed calls go.
    pub upstream_url: Option<String>,
    /// What may be asked.
    pub scopes: Vec<String>,
    /// Where its credential comes from.
    pub credential_provider_id: Option<ProviderId>,
    /// Declared operations.
    pub operations: Vec<Operation>,
    /// `enforced` or `transport_uniform`.
    pub operation_enforcement: String,
    /// Who made it.
    pub created_by: String,
    /// Who changed it last.
    pub updated_by: Option<String>,
    /// When it was made.
    #[serde(serialize_with = "millis")]
    pub created_at: Time,
    /// When it was changed last.
    #[serde(serialize_with = "millis")]
    pub updated_at: Time,
    /// When it was archived.
    #[serde(serialize_with = "opt_millis")]
    pub archived_at: Option<Time>,
}

/// A resource to be made.
#[derive(Clone, Debug)]
pub struct NewResource {
    /// Its id.
    pub id: ResourceId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its name.
    pub name: String,
    /// Its identifier.
    pub identifier: String,
    /// Where governed calls go.
    pub upstream_url: Option<String>,
    /// What may be asked.
    pub scopes: Vec<String>,
    /// Where its credential comes from.
    pub provider: Option<ProviderId>,
    /// Declared operations.
    pub operations: Vec<Operation>,
    /// `enforced` or `transport_uniform`.
    pub enforcement: &'static str,
    /// Who makes it.
    pub by: String,
}

const COLUMNS: &str = "id, zone_id, name, identifier, upstream_url, scopes, credential_provider_id, operations, operation_enforcement, \
                       created_by, updated_by, created_at, updated_at, archived_at";

fn of_row(row: &Row) -> Result<Resource, StoreError> {
    let created_at = row.time(11)?;
    Ok(Resource {
        id: row.id(0)?,
        zone_id: row.id(1)?,
        name: row.text(2)?,
        identifier: row.text(3)?,
        upstream_url: row.opt_text(4)?,
        scopes: row.json(5, "resources", "scopes")?,
        credential_provider_id: row.opt_id(6)?,
        operations: row.json(7, "resources", "operations")?,
        operation_enforcement: row.text(8)?,
        created_by: row.text(9)?,
        updated_by: row.opt_text(10)?,
        created_at,
        updated_at: row.opt_time(12)?.unwrap_or(created_at),
        archived_at: row.opt_time(13)?,
    })
}

fn change(id: ResourceId, change: &'static str) -> ViewChange {
    ViewChange { entity: "resource", id: id.to_string(), change }
}

fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_string(value).unwrap_or_default().into()
}

impl Resource {
    /// Makes a resource; a taken identifier is [`StoreError::Refused`].
    pub async fn insert(door: &mut Door<'_>, new: NewResource) -> Result<Self, StoreError> {
        let now = door.now();
        door.execute(
            "INSERT INTO resources (id, zone_id, name, identifier, upstream_url, scopes, operations, operation_enforcement, \
             credential_provider_id, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            vec![
                Value::id(new.id),
                Value::id(new.zone),
                new.name.into(),
                new.identifier.into(),
                new.upstream_url.into(),
                json(&new.scopes),
                json(&new.operations),
                new.enforcement.into(),
                Value::opt_id(new.provider),
                new.by.into(),
                now.into(),
            ],
        )
        .await?;
        door.view_changed(change(new.id, "create"));
        Self::get(door.tx(), new.zone, new.id).await?.ok_or_else(|| StoreError::inconsistent("resources", "id", "vanished"))
    }

    /// A live resource of the zone.
    pub async fn get(tx: &mut Tx<'_>, zone: ZoneId, id: ResourceId) -> Result<Option<Self>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM resources WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL");
        tx.first(sql, vec![Value::id(id), Value::id(zone)]).await?.as_ref().map(of_row).transpose()
    }

    /// A live resource by identifier.
    pub async fn by_identifier(tx: &mut Tx<'_>, zone: ZoneId, identifier: &str) -> Result<Option<Self>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM resources WHERE identifier = $1 AND zone_id = $2 AND archived_at IS NULL");
        tx.first(sql, vec![identifier.into(), Value::id(zone)]).await?.as_ref().map(of_row).transpose()
    }

    /// Resources of the zone, newest first.
    pub async fn list(tx: &mut Tx<'_>, zone: ZoneId, archived: bool, page: Page<ResourceId>) -> Result<Vec<Self>, StoreError> {
        let state = if archived { "IS NOT NULL" } else { "IS NULL" };
        let sql = format!(
            "SELECT {COLUMNS} FROM resources WHERE zone_id = $1 AND archived_at {state} AND id < $2 ORDER BY id DESC LIMIT $3"
        );
        tx.all(sql, vec![Value::id(zone), page.bound(), page.limit.into()]).await?.iter().map(of_row).collect()
    }

    /// Writes every changeable field of the row.
    pub async fn update(door: &mut Door<'_>, resource: &Self, by: &str) -> Result<Option<Self>, StoreError> {
        let now = door.now();
        let done = door
            .execute(
                "UPDATE resources SET name = $3, identifier = $4, upstream_url = $5, scopes = $6, operations = $7, operation_enforcement = $8, \
                 credential_provider_id = $9, updated_by = $10, updated_at = $11 WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL",
                vec![
                    Value::id(resource.id),
                    Value::id(resource.zone_id),
                    resource.name.clone().into(),
                    resource.identifier.clone().into(),
                    resource.upstream_url.clone().into(),
                    json(&resource.scopes),
                    json(&resource.operations),
                    resource.operation_enforcement.clone().into(),
                    Value::opt_id(resource.credential_provider_id),
                    by.into(),
                    now.into(),
                ],
            )
            .await?;
        if done == 0 {
            return Ok(None);
        }
        door.view_changed(change(resource.id, "update"));
        Self::get(door.tx(), resource.zone_id, resource.id).await
    }

    /// Archives a resource.
    pub async fn archive(door: &mut Door<'_>, zone: ZoneId, id: ResourceId, by: &str) -> Result<bool, StoreError> {
        let now = door.now();
        let sql = "UPDATE resources SET archived_at = $3, updated_at = $3, updated_by = $4 WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL";
        let done = door.execute(sql, vec![Value::id(id), Value::id(zone), now.into(), by.into()]).await? == 1;
        if done {
            door.view_changed(change(id, "archive"));
        }
        Ok(done)
    }

    /// Identifiers that begin like this one, archived ones included.
    pub async fn identifiers_like(tx: &mut Tx<'_>, zone: ZoneId, base: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT identifier FROM resources WHERE zone_id = $1 AND (identifier = $2 OR identifier LIKE $3)";
        let rows = tx.all(sql, vec![Value::id(zone), base.into(), format!("{base}-%").into()]).await?;
        rows.iter().map(|row| row.text(0)).collect()
    }
}
