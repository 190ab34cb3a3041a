//! Zones: the wall between tenants.

use caracal_core::id::ZoneId;
use caracal_core::time::Time;
use serde::Serialize;

use super::{Page, millis};
use crate::change::{Entity, ViewChange};
use crate::door::Door;
use crate::error::StoreError;
use crate::sql::{Row, Tx, Value};

/// A zone as its readers see it.
#[derive(Clone, Debug, Serialize)]
pub struct Zone {
    /// Its id.
    pub id: ZoneId,
    /// Its name.
    pub name: String,
    /// Unique over all zones, archived ones included.
    pub slug: String,
    /// Whether applications may register themselves.
    pub dcr_enabled: bool,
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
}

/// A zone to be made.
#[derive(Clone, Debug)]
pub struct NewZone {
    /// Its id.
    pub id: ZoneId,
    /// Its name.
    pub name: String,
    /// Its slug.
    pub slug: String,
    /// Whether applications may register themselves.
    pub dcr_enabled: bool,
    /// Who makes it.
    pub by: String,
}

const COLUMNS: &str = "id, name, slug, settings, created_by, updated_by, created_at, updated_at";

fn of_row(row: &Row) -> Result<Zone, StoreError> {
    let settings: serde_json::Value = row.json(3, "zones", "settings")?;
    let created_at = row.time(6)?;
    Ok(Zone {
        id: row.id(0)?,
        name: row.text(1)?,
        slug: row.text(2)?,
        dcr_enabled: settings["dcr_enabled"].as_bool().unwrap_or(false),
        created_by: row.text(4)?,
        updated_by: row.opt_text(5)?,
        created_at,
        updated_at: row.opt_time(7)?.unwrap_or(created_at),
    })
}

impl Zone {
    /// Makes a zone; its epoch and graph epoch begin at 1.
    pub async fn insert(door: &mut Door<'_>, new: NewZone) -> Result<Self, StoreError> {
        let now = door.now();
        door.found(new.id);
        let settings = serde_json::json!({"dcr_enabled": new.dcr_enabled}).to_string();
        door.execute(
            "INSERT INTO zones (id, name, slug, settings, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            vec![Value::id(new.id), new.name.into(), new.slug.into(), settings.into(), new.by.into(), now.into()],
        )
        .await?;
        door.view_changed(ViewChange { entity: "zone", id: new.id.to_string(), change: "create" });
        Self::get(door.tx(), new.id).await?.ok_or_else(|| StoreError::inconsistent("zones", "id", "vanished"))
    }

    /// A live zone.
    pub async fn get(tx: &mut Tx<'_>, id: ZoneId) -> Result<Option<Self>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM zones WHERE id = $1 AND archived_at IS NULL");
        tx.first(sql, vec![Value::id(id)]).await?.as_ref().map(of_row).transpose()
    }

    /// Live zones, newest first.
    pub async fn list(tx: &mut Tx<'_>, page: Page<ZoneId>) -> Result<Vec<Self>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM zones WHERE archived_at IS NULL AND id < $1 ORDER BY id DESC LIMIT $2");
        tx.all(sql, vec![page.bound(), page.limit.into()]).await?.iter().map(of_row).collect()
    }

    /// Slugs that begin like this one.
    pub async fn slugs_like(tx: &mut Tx<'_>, base: &str) -> Result<Vec<String>, StoreError> {
        let rows =
            tx.all("SELECT slug FROM zones WHERE slug = $1 OR slug LIKE $2", vec![base.into(), format!("{base}-%").into()]).await?;
        rows.iter().map(|row| row.text(0)).collect()
    }

    /// Archives a zone: everything in it is refused from here on.
    pub async fn archive(door: &mut Door<'_>, id: ZoneId, by: &str) -> Result<bool, StoreError> {
        let now = door.now();
        let sql = "UPDATE zones SET archived_at = $2, updated_at = $2, updated_by = $3 WHERE id = $1 AND archived_at IS NULL";
        let done = door.execute(sql, vec![Value::id(id), now.into(), by.into()]).await? == 1;
        if done {
            door.changed(Entity::VIEW);
            door.view_changed(ViewChange { entity: "zone", id: id.to_string(), change: "archive" });
        }
        Ok(done)
    }
}
