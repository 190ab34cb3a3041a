//! Applications: the programs that hold client secrets.

use caracal_core::id::{ApplicationId, ZoneId};
use caracal_core::time::Time;
use serde::Serialize;

use super::{Page, millis, opt_millis};
use crate::change::ViewChange;
use crate::door::Door;
use crate::error::StoreError;
use crate::sql::{Row, Tx, Value};

/// An Application as its readers see it; never its secret.
#[derive(Clone, Debug, Serialize)]
pub struct Application {
    /// Its id.
    pub id: ApplicationId,
    /// Its zone.
    pub zone_id: ZoneId,
    /// Its name.
    pub name: String,
    /// `managed` or `dcr`.
    pub registration_method: String,
    /// What it may beside.
    pub traits: Vec<String>,
    /// When a self-registered one ends.
    #[serde(serialize_with = "opt_millis")]
    pub expires_at: Option<Time>,
    /// When it was archived.
    #[serde(serialize_with = "opt_millis")]
    pub archived_at: Option<Time>,
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

/// An Application to be made.
#[derive(Clone, Debug)]
pub struct NewApplication {
    /// Its id.
    pub id: ApplicationId,
    /// Its zone.
    pub zone: ZoneId,
    /// Its name.
    pub name: String,
    /// What it may beside.
    pub traits: Vec<String>,
    /// The stored form of its secret.
    pub verifier: String,
    /// Who makes it.
    pub by: String,
}

const COLUMNS: &str =
    "id, zone_id, name, registration_method, traits, expires_at, archived_at, created_by, updated_by, created_at, updated_at";

fn of_row(row: &Row) -> Result<Application, StoreError> {
    Ok(Application {
        id: row.id(0)?,
        zone_id: row.id(1)?,
        name: row.text(2)?,
        registration_method: row.text(3)?,
        traits: row.json(4, "applications", "traits")?,
        expires_at: row.opt_time(5)?,
        archived_at: row.opt_time(6)?,
        created_by: row.text(7)?,
        updated_by: row.opt_text(8)?,
        created_at: row.time(9)?,
        updated_at: row.opt_time(10)?,
    })
}

impl Application {
    /// Makes an Application; a taken name is [`StoreError::Refused`].
    pub async fn insert(door: &mut Door<'_>, new: NewApplication) -> Result<Self, StoreError> {
        let now = door.now();
        let traits = serde_json::Value::from(new.traits).to_string();
        door.execute(
            "INSERT INTO applications (id, zone_id, name, name_key, registration_method, traits, secret_verifier, created_by, created_at) \
             VALUES ($1, $2, $3, $4, 'managed', $5, $6, $7, $8)",
            vec![
                Value::id(new.id),
                Value::id(new.zone),
                new.name.clone().into(),
                new.name.to_lowercase().into(),
                traits.into(),
                new.verifier.into(),
                new.by.into(),
                now.into(),
            ],
        )
        .await?;
        door.view_changed(ViewChange::application(new.id, "create"));
        Self::get(door.tx(), new.zone, new.id).await?.ok_or_else(|| StoreError::inconsistent("applications", "id", "vanished"))
    }

    /// A live Application of the zone.
    pub async fn get(tx: &mut Tx<'_>, zone: ZoneId, id: ApplicationId) -> Result<Option<Self>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM applications WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL");
        tx.first(sql, vec![Value::id(id), Value::id(zone)]).await?.as_ref().map(of_row).transpose()
    }

    /// Applications of the zone, live or archived, newest first.
    pub async fn list(tx: &mut Tx<'_>, zone: ZoneId, archived: bool, page: Page<ApplicationId>) -> Result<Vec<Self>, StoreError> {
        let state = if archived { "IS NOT NULL" } else { "IS NULL" };
        let sql = format!(
            "SELECT {COLUMNS} FROM applications WHERE zone_id = $1 AND archived_at {state} AND id < $2 ORDER BY id DESC LIMIT $3"
        );
        tx.all(sql, vec![Value::id(zone), page.bound(), page.limit.into()]).await?.iter().map(of_row).collect()
    }

    /// Changes the name, the traits, or the secret's stored form.
    pub async fn update(
        door: &mut Door<'_>,
        zone: ZoneId,
        id: ApplicationId,
        name: Option<String>,
        traits: Option<Vec<String>>,
        verifier: Option<String>,
        by: &str,
    ) -> Result<Option<Self>, StoreError> {
        let now = door.now();
        let name_key = name.as_ref().map(|n| n.to_lowercase());
        let traits = traits.map(|t| serde_json::Value::from(t).to_string());
        let done = door
            .execute(
                "UPDATE applications SET name = coalesce($3, name), name_key = coalesce($4, name_key), traits = coalesce($5, traits), \
                 secret_verifier = coalesce($6, secret_verifier), updated_by = $7, updated_at = $8 \
                 WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL",
                vec![
                    Value::id(id),
                    Value::id(zone),
                    name.into(),
                    name_key.into(),
                    traits.into(),
                    verifier.into(),
                    by.into(),
                    now.into(),
                ],
            )
            .await?;
        if done == 0 {
            return Ok(None);
        }
        door.view_changed(ViewChange::application(id, "update"));
        Self::get(door.tx(), zone, id).await
    }

    /// Archives an Application.
    pub async fn archive(door: &mut Door<'_>, zone: ZoneId, id: ApplicationId, by: &str) -> Result<bool, StoreError> {
        let now = door.now();
        let done = door
            .execute(
                "UPDATE applications SET archived_at = $3, updated_at = $3, updated_by = $4 WHERE id = $1 AND zone_id = $2 AND archived_at IS NULL",
                vec![Value::id(id), Value::id(zone), now.into(), by.into()],
            )
            .await?
            == 1;
        if done {
            door.view_changed(ViewChange::application(id, "archive"));
        }
        Ok(done)
    }
}
