//! Providers: where credentials come from. Secrets are sealed documents beside the row.

use caracal_core::id::{ProviderId, ZoneId};
use caracal_core::time::Time;
use serde::Serialize;
use serde_json::Value as Json;

use super::{Page, millis, opt_millis};
use crate::change::ViewChange;
use crate::door::Door;
use crate::error::StoreError;
use crate::sql::{Row, Tx, Value};

/// A provider as its readers see it.
#[derive(Clone, Debug, Serialize)]
pub struct Provider {
    /// Its id.
    pub id: ProviderId,
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its name.
    pub name: String,
    /// Unique among live providers of the zone.
    pub identifier: String,
    /// Its kind.
    pub kind: String,
    /// The public part of its configuration.
    pub config_json: Json,
    /// Names of its sealed values, sorted.
    pub secret_config_keys: Vec<String>,
    /// Not of the kinds built so far: always null.
    pub connectivity_failed_at: Option<String>,
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

/// A provider to be made.
#[derive(Clone, Debug)]
pub struct NewProvider {
    /// Its id.
    pub id: ProviderId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its name.
    pub name: String,
    /// Its identifier.
    pub identifier: String,
    /// Its kind.
    pub kind: &'static str,
    /// Public configuration.
    pub config: Json,
    /// Names of its sealed values, sorted.
    pub secret_keys: Vec<String>,
    /// Who makes it.
    pub by: String,
}

const COLUMNS: &str =
    "id, zone_id, name, identifier, kind, config, secret_keys, created_by, updated_by, created_at, updated_at, archived_at";

fn of_row(row: &Row) -> Result<Provider, StoreError> {
    let created_at = row.time(9)?;
    Ok(Provider {
        id: row.id(0)?,
        zone_id: row.id(1)?,
        name: row.text(2)?,
        identifier: row.text(3)?,
        kind: row.text(4)?,
        config_json: row.json(5, "providers", "config")?,
        secret_config_keys: row.json(6, "providers", "secret_keys")?,
        connectivity_failed_at: None,
        created_by: row.text(7)?,
        updated_by: row.opt_text(8)?,
        created_at,
        updated_at: row.opt_time(10)?.unwrap_or(created_at),
        archived_at: row.opt_time(11)?,
    })
}

fn change(id: ProviderId, change: &'static str) -> ViewChange {
    ViewChange { entity: "provider", id: id.to_string(), change }
}

impl Provider {
    /// Makes a provider; a taken identifier is [`StoreError::Refused`].
    pub async fn insert(door: &mut Door<'_>, new: NewProvider) -> Result<Self, StoreError> {
        let now = door.now();
        door.execute(
            "INSERT INTO providers (id, zone_id, name, identifier, kind, config, secret_keys, created_by, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            vec![
                Value::id(new.id),
                Value::id(new.zone),
                new.name.into(),
                new.identifier.into(),
                new.kind.into(),
                new.config.to_string().into(),
                Json::from(new.secret_keys).to_string().into(),
                new.by.into(),
                now.into(),
            ],
        )
        .await?;
        door.view_changed(change(new.id, "create"));
        Self::get(door.tx(), new.zone, new.id).await?.ok_or_else(|| StoreError::inconsistent("providers", "id", "vanished"))
    }

    /// A live provider of the zone.
    pub async fn get(tx: &mut Tx<'_>, zone: ZoneId, id: ProviderId) -> Result<Option<Self>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM providers WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL");
        tx.first(sql, vec![Value::id(id), Value::id(zone)]).await?.as_ref().map(of_row).transpose()
    }

    /// Providers of the zone, newest first.
    pub async fn list(tx: &mut Tx<'_>, zone: ZoneId, archived: bool, page: Page<ProviderId>) -> Result<Vec<Self>, StoreError> {
        let state = if archived { "IS NOT NULL" } else { "IS NULL" };
        let sql = format!(
            "SELECT {COLUMNS} FROM providers WHERE zone_id = $1 AND archived_at {state} AND id < $2 ORDER BY id DESC LIMIT $3"
        );
        tx.all(sql, vec![Value::id(zone), page.bound(), page.limit.into()]).await?.iter().map(of_row).collect()
    }

    /// Changes name, identifier, kind or configuration.
    pub async fn update(door: &mut Door<'_>, provider: &Self, by: &str) -> Result<Option<Self>, StoreError> {
        let now = door.now();
        let done = door
            .execute(
                "UPDATE providers SET name = $3, identifier = $4, kind = $5, config = $6, secret_keys = $7, updated_by = $8, updated_at = $9 \
                 WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL",
                vec![
                    Value::id(provider.id),
                    Value::id(provider.zone_id),
                    provider.name.clone().into(),
                    provider.identifier.clone().into(),
                    provider.kind.clone().into(),
                    provider.config_json.to_string().into(),
                    Json::from(provider.secret_config_keys.clone()).to_string().into(),
                    by.into(),
                    now.into(),
                ],
            )
            .await?;
        if done == 0 {
            return Ok(None);
        }
        door.view_changed(change(provider.id, "update"));
        Self::get(door.tx(), provider.zone_id, provider.id).await
    }

    /// Archives a provider; resources that name it fail closed.
    pub async fn archive(door: &mut Door<'_>, zone: ZoneId, id: ProviderId, by: &str) -> Result<bool, StoreError> {
        let now = door.now();
        let sql = "UPDATE providers SET archived_at = $3, updated_at = $3, updated_by = $4 WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL";
        let done = door.execute(sql, vec![Value::id(id), Value::id(zone), now.into(), by.into()]).await? == 1;
        if done {
            door.view_changed(change(id, "archive"));
        }
        Ok(done)
    }

    /// Identifiers of live providers that begin like this one.
    pub async fn identifiers_like(tx: &mut Tx<'_>, zone: ZoneId, base: &str) -> Result<Vec<String>, StoreError> {
        let sql = "SELECT identifier FROM providers WHERE zone_id = $1 AND archived_at IS NULL AND (identifier = $2 OR identifier LIKE $3)";
        let rows = tx.all(sql, vec![Value::id(zone), base.into(), format!("{base}-%").into()]).await?;
        rows.iter().map(|row| row.text(0)).collect()
    }
}
