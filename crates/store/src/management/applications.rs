//! Applications: the programs that hold client secrets.

use caracal_core::id::{ApplicationId, ZoneId};
use caracal_core::time::Time;
use serde::Serialize;

use super::object::{Fields, Object, Stamps};
use super::opt_millis;
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
    /// Who made and changed it.
    #[serde(flatten)]
    pub stamps: Stamps,
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

/// What changes of an Application; absent stays.
#[derive(Clone, Debug, Default)]
pub struct ApplicationPatch {
    /// Its name.
    pub name: Option<String>,
    /// What it may beside.
    pub traits: Option<Vec<String>>,
    /// The stored form of its secret.
    pub verifier: Option<String>,
}

impl Object for Application {
    type Id = ApplicationId;
    const TABLE: &'static str = "applications";
    const COLUMNS: &'static str = "id, zone_id, name, registration_method, traits, expires_at, archived_at, \
                                   created_by, updated_by, created_at, updated_at";
    const VIEWED_AS: Option<&'static str> = Some("application");

    fn of_row(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id(0)?,
            zone_id: row.id(1)?,
            name: row.text(2)?,
            registration_method: row.text(3)?,
            traits: row.json(4, "applications", "traits")?,
            expires_at: row.opt_time(5)?,
            archived_at: row.opt_time(6)?,
            stamps: Stamps::of_row(row, 7)?,
        })
    }

    fn head(&self) -> (ApplicationId, &Stamps) {
        (self.id, &self.stamps)
    }
}

fn named(name: &str) -> Fields {
    vec![("name", name.into()), ("name_key", name.to_lowercase().into())]
}

fn traits_text(traits: Vec<String>) -> Value {
    serde_json::Value::from(traits).to_string().into()
}

impl Application {
    /// Makes a managed Application; a taken name is [`StoreError::Refused`].
    pub async fn insert(door: &mut Door<'_>, new: NewApplication) -> Result<Self, StoreError> {
        let mut fields = named(&new.name);
        fields.extend([
            ("registration_method", "managed".into()),
            ("traits", traits_text(new.traits)),
            ("secret_verifier", new.verifier.into()),
        ]);
        Self::make(door, new.zone, new.id, fields, &new.by).await
    }

    /// Changes the name, the traits, or the secret's stored form.
    pub async fn update(
        door: &mut Door<'_>,
        zone: ZoneId,
        id: ApplicationId,
        patch: ApplicationPatch,
        by: &str,
    ) -> Result<Option<Self>, StoreError> {
        let mut fields = patch.name.as_deref().map(named).unwrap_or_default();
        fields.extend(patch.traits.map(|traits| ("traits", traits_text(traits))));
        fields.extend(patch.verifier.map(|verifier| ("secret_verifier", verifier.into())));
        Self::change(door, zone, id, fields, by).await
    }

    /// How many self-registered ones are alive in the zone.
    pub async fn live_registered(tx: &mut Tx<'_>, zone: ZoneId, now: Time) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM applications WHERE zone_id = $1 AND registration_method = 'dcr' AND archived_at IS NULL AND expires_at > $2";
        tx.first(sql, vec![Value::id(zone), now.into()]).await?.map_or(Ok(0), |row| row.count(0))
    }
}
