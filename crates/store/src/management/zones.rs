//! Zones: the wall between tenants.

use caracal_core::id::ZoneId;
use serde::Serialize;

use super::object::{Slice, Stamps, Where};
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
    /// Who made and changed it.
    #[serde(flatten)]
    pub stamps: Stamps,
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

/// What changes of a zone; absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ZonePatch {
    /// Its name.
    pub name: Option<String>,
    /// Its slug.
    pub slug: Option<String>,
    /// Whether applications may register themselves.
    pub dcr_enabled: Option<bool>,
}

const COLUMNS: &str = "id, name, slug, settings, created_by, updated_by, created_at, coalesce(updated_at, created_at)";

fn of_row(row: &Row) -> Result<Zone, StoreError> {
    let settings: serde_json::Value = row.json(3, "zones", "settings")?;
    Ok(Zone {
        id: row.id(0)?,
        name: row.text(1)?,
        slug: row.text(2)?,
        dcr_enabled: settings["dcr_enabled"].as_bool().unwrap_or(false),
        stamps: Stamps::of_row(row, 4)?,
    })
}

fn settings(dcr_enabled: bool) -> Value {
    serde_json::json!({"dcr_enabled": dcr_enabled}).to_string().into()
}

impl Zone {
    /// Makes a zone; its epoch and graph epoch begin at 1.
    pub async fn insert(door: &mut Door<'_>, new: NewZone) -> Result<Self, StoreError> {
        let now = door.now();
        door.found(new.id);
        door.execute(
            "INSERT INTO zones (id, name, slug, settings, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
            vec![Value::id(new.id), new.name.into(), new.slug.into(), settings(new.dcr_enabled), new.by.into(), now.into()],
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

    /// Whether there is or was such a zone: what it leaves behind can be read when it is archived.
    pub async fn existed(tx: &mut Tx<'_>, id: ZoneId) -> Result<bool, StoreError> {
        Ok(tx.first("SELECT 1 FROM zones WHERE id = $1", vec![Value::id(id)]).await?.is_some())
    }

    /// Live zones outside the platform's own namespace, newest first.
    pub async fn list(tx: &mut Tx<'_>, slice: Slice<ZoneId>) -> Result<Vec<Self>, StoreError> {
        let mut wanted = Where::default();
        wanted.and("archived_at IS NULL AND lower(trim(name)) NOT LIKE 'caracal.sys/%' AND slug NOT LIKE 'caracal-sys-%'", []);
        let (rest, args) = slice.close(wanted);
        tx.all(format!("SELECT {COLUMNS} FROM zones {rest}"), args).await?.iter().map(of_row).collect()
    }

    /// Slugs that begin like this one.
    pub async fn slugs_like(tx: &mut Tx<'_>, base: &str) -> Result<Vec<String>, StoreError> {
        let rows =
            tx.all("SELECT slug FROM zones WHERE slug = $1 OR slug LIKE $2", vec![base.into(), format!("{base}-%").into()]).await?;
        rows.iter().map(|row| row.text(0)).collect()
    }

    /// Changes a live zone; a taken slug is [`StoreError::Refused`].
    pub async fn update(door: &mut Door<'_>, id: ZoneId, patch: ZonePatch, by: &str) -> Result<Option<Self>, StoreError> {
        let now = door.now();
        let args = vec![
            Value::id(id),
            patch.name.into(),
            patch.slug.into(),
            patch.dcr_enabled.map_or(Value::Text(None), settings),
            by.into(),
            now.into(),
        ];
        let sql = "UPDATE zones SET name = coalesce($2, name), slug = coalesce($3, slug), settings = coalesce($4, settings), updated_by = $5, \
                   updated_at = $6 WHERE id = $1 AND archived_at IS NULL";
        if door.execute(sql, args).await? == 0 {
            return Ok(None);
        }
        door.view_changed(ViewChange { entity: "zone", id: id.to_string(), change: "update" });
        Self::get(door.tx(), id).await
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
