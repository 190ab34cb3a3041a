//! Providers: where credentials come from. Secrets are sealed documents beside the row.

use caracal_core::id::{ProviderId, ZoneId};
use caracal_core::time::Time;
use serde::Serialize;
use serde_json::Value as Json;

use super::object::{Fields, Object, Stamps, identifiers_like};
use super::opt_millis;
use crate::door::Door;
use crate::error::StoreError;
use crate::sql::{Row, Tx};

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
    /// Who made and changed it.
    #[serde(flatten)]
    pub stamps: Stamps,
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

impl Object for Provider {
    type Id = ProviderId;
    const TABLE: &'static str = "providers";
    const COLUMNS: &'static str = "id, zone_id, name, identifier, kind, config, secret_keys, created_by, updated_by, created_at, \
                                   coalesce(updated_at, created_at), archived_at";
    const VIEWED_AS: Option<&'static str> = Some("provider");

    fn of_row(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id(0)?,
            zone_id: row.id(1)?,
            name: row.text(2)?,
            identifier: row.text(3)?,
            kind: row.text(4)?,
            config_json: row.json(5, "providers", "config")?,
            secret_config_keys: row.json(6, "providers", "secret_keys")?,
            connectivity_failed_at: None,
            stamps: Stamps::of_row(row, 7)?,
            archived_at: row.opt_time(11)?,
        })
    }

    fn head(&self) -> (ProviderId, &Stamps) {
        (self.id, &self.stamps)
    }
}

fn fields(name: &str, identifier: &str, kind: &str, config: &Json, secret_keys: &[String]) -> Fields {
    vec![
        ("name", name.into()),
        ("identifier", identifier.into()),
        ("kind", kind.into()),
        ("config", config.to_string().into()),
        ("secret_keys", Json::from(secret_keys).to_string().into()),
    ]
}

impl Provider {
    /// Makes a provider; a taken identifier is [`StoreError::Refused`].
    pub async fn insert(door: &mut Door<'_>, new: NewProvider) -> Result<Self, StoreError> {
        let fields = fields(&new.name, &new.identifier, new.kind, &new.config, &new.secret_keys);
        Self::make(door, new.zone, new.id, fields, &new.by).await
    }

    /// Writes every changeable field of the row.
    pub async fn update(&self, door: &mut Door<'_>, by: &str) -> Result<Option<Self>, StoreError> {
        let fields = fields(&self.name, &self.identifier, &self.kind, &self.config_json, &self.secret_config_keys);
        Self::change(door, self.zone_id, self.id, fields, by).await
    }

    /// Identifiers of live providers that begin like this one.
    pub async fn identifiers_like(tx: &mut Tx<'_>, zone: ZoneId, base: &str) -> Result<Vec<String>, StoreError> {
        identifiers_like::<Self>(tx, zone, base, true).await
    }
}
