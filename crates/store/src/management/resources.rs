//! Resources: what agents ask authority for.

use caracal_core::id::{ProviderId, ResourceId, ZoneId};
use caracal_core::request::Operation;
use caracal_core::time::Time;
use serde::Serialize;

use super::object::{Object, Stamps, identifiers_like};
use super::opt_millis;
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
    /// What can be chosen of it.
    #[serde(flatten)]
    pub spec: ResourceSpec,
    /// Who made and changed it.
    #[serde(flatten)]
    pub stamps: Stamps,
    /// When it was archived.
    #[serde(serialize_with = "opt_millis")]
    pub archived_at: Option<Time>,
}

/// What can be chosen of a resource.
#[derive(Clone, Debug, Serialize)]
pub struct ResourceSpec {
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
}

impl Object for Resource {
    type Id = ResourceId;
    const TABLE: &'static str = "resources";
    const COLUMNS: &'static str = "id, zone_id, name, identifier, upstream_url, scopes, credential_provider_id, operations, \
                                   operation_enforcement, created_by, updated_by, created_at, coalesce(updated_at, created_at), archived_at";
    const VIEWED_AS: Option<&'static str> = Some("resource");

    fn of_row(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id(0)?,
            zone_id: row.id(1)?,
            spec: ResourceSpec {
                name: row.text(2)?,
                identifier: row.text(3)?,
                upstream_url: row.opt_text(4)?,
                scopes: row.json(5, "resources", "scopes")?,
                credential_provider_id: row.opt_id(6)?,
                operations: row.json(7, "resources", "operations")?,
                operation_enforcement: row.text(8)?,
            },
            stamps: Stamps::of_row(row, 9)?,
            archived_at: row.opt_time(13)?,
        })
    }

    fn head(&self) -> (ResourceId, &Stamps) {
        (self.id, &self.stamps)
    }
}

fn json<T: Serialize>(value: &T) -> Value {
    serde_json::to_string(value).unwrap_or_default().into()
}

impl ResourceSpec {
    fn fields(self) -> super::Fields {
        vec![
            ("name", self.name.into()),
            ("identifier", self.identifier.into()),
            ("upstream_url", self.upstream_url.into()),
            ("scopes", json(&self.scopes)),
            ("credential_provider_id", Value::opt_id(self.credential_provider_id)),
            ("operations", json(&self.operations)),
            ("operation_enforcement", self.operation_enforcement.into()),
        ]
    }
}

impl Resource {
    /// Makes a resource; a taken identifier is [`StoreError::Refused`].
    pub async fn insert(
        door: &mut Door<'_>,
        zone: ZoneId,
        id: ResourceId,
        new: ResourceSpec,
        by: &str,
    ) -> Result<Self, StoreError> {
        Self::make(door, zone, id, new.fields(), by).await
    }

    /// Writes everything that can be chosen of it.
    pub async fn update(
        door: &mut Door<'_>,
        zone: ZoneId,
        id: ResourceId,
        new: ResourceSpec,
        by: &str,
    ) -> Result<Option<Self>, StoreError> {
        Self::change(door, zone, id, new.fields(), by).await
    }

    /// A live resource by identifier.
    pub async fn by_identifier(tx: &mut Tx<'_>, zone: ZoneId, identifier: &str) -> Result<Option<Self>, StoreError> {
        let sql = format!("SELECT {} FROM resources WHERE identifier = $1 AND zone_id = $2 AND archived_at IS NULL", Self::COLUMNS);
        tx.first(sql, vec![identifier.into(), Value::id(zone)]).await?.as_ref().map(Self::of_row).transpose()
    }

    /// Identifiers that begin like this one, archived ones included.
    pub async fn identifiers_like(tx: &mut Tx<'_>, zone: ZoneId, base: &str) -> Result<Vec<String>, StoreError> {
        identifiers_like::<Self>(tx, zone, base, false).await
    }
}
