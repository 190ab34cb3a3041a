//! Everything a zone's view is made of, read in one snapshot.

use caracal_core::id::{ApplicationId, ProviderId, ResourceId, ZoneId};
use caracal_core::request::Operation;
use caracal_core::time::Time;
use serde_json::Value as Json;

use crate::error::StoreError;
use crate::fence::Stamp;
use crate::management::{ActiveSet, SigningKeyRow};
use crate::open::Store;
use crate::sql::{Tx, Value};

/// An Application as the path needs it.
#[derive(Clone, Debug)]
pub struct ApplicationRow {
    /// Its id.
    pub id: ApplicationId,
    /// Its name.
    pub name: String,
    /// `managed` or `dcr`.
    pub registration_method: String,
    /// What it may beside.
    pub traits: Vec<String>,
    /// The stored form of its secret.
    pub verifier: Option<String>,
    /// When a self-registered one ends.
    pub expires_at: Option<Time>,
}

/// A resource as the path needs it.
#[derive(Clone, Debug)]
pub struct ResourceRow {
    /// Its id.
    pub id: ResourceId,
    /// Its identifier.
    pub identifier: String,
    /// Where governed calls go.
    pub upstream_url: Option<String>,
    /// What may be asked.
    pub scopes: Vec<String>,
    /// Declared operations.
    pub operations: Vec<Operation>,
    /// Whether undeclared operations are refused.
    pub enforced: bool,
    /// Where its credential comes from.
    pub provider: Option<ProviderId>,
}

/// A provider as the path needs it.
#[derive(Clone, Debug)]
pub struct ProviderRow {
    /// Its id.
    pub id: ProviderId,
    /// Its kind.
    pub kind: String,
    /// Public configuration.
    pub config: Json,
    /// Its sealed document, if it has one.
    pub sealed: Option<Vec<u8>>,
}

/// A zone as one snapshot saw it.
#[derive(Clone, Debug)]
pub struct ZoneRows {
    /// Which zone.
    pub zone: ZoneId,
    /// As of when.
    pub stamp: Stamp,
    /// The Delegation graph epoch.
    pub graph_epoch: u64,
    /// Live Applications.
    pub applications: Vec<ApplicationRow>,
    /// Live resources.
    pub resources: Vec<ResourceRow>,
    /// Live providers.
    pub providers: Vec<ProviderRow>,
    /// What governs.
    pub policy: Option<ActiveSet>,
    /// The signing key first, then those that still verify.
    pub keys: Vec<SigningKeyRow>,
}

impl Store {
    /// Whether there is a live zone of that id. Asks nothing of the fence, which remembers every zone it was asked about.
    pub async fn zone_lives(&self, zone: ZoneId) -> Result<bool, StoreError> {
        self.read(move |tx| {
            Box::pin(async move {
                let sql = "SELECT 1 FROM zones WHERE id = $1 AND archived_at IS NULL";
                Ok(tx.first(sql, vec![Value::id(zone)]).await?.is_some())
            })
        })
        .await
    }

    /// Reads a live zone whole; `None` when there is none of that id. Keys replaced before `keys_since` are left out.
    pub async fn zone_rows(&self, zone: ZoneId, keys_since: Time) -> Result<Option<ZoneRows>, StoreError> {
        let life = self.fence().life(zone);
        self.read(move |tx| {
            Box::pin(async move {
                let sql = "SELECT z.graph_epoch, e.epoch FROM zones z LEFT JOIN zone_epochs e ON e.zone_id = z.id \
                           WHERE z.id = $1 AND z.archived_at IS NULL";
                let Some(row) = tx.first(sql, vec![Value::id(zone)]).await? else { return Ok(None) };
                let epoch = u64::try_from(row.opt_int(1)?.unwrap_or(0)).unwrap_or(0);
                Ok(Some(ZoneRows {
                    zone,
                    stamp: life.at(epoch),
                    graph_epoch: row.count(0)?,
                    applications: applications(tx, zone).await?,
                    resources: resources(tx, zone).await?,
                    providers: providers(tx, zone).await?,
                    policy: ActiveSet::of_zone(tx, zone).await?,
                    keys: SigningKeyRow::of_zone(tx, zone, keys_since).await?,
                }))
            })
        })
        .await
    }

    /// The zone an Application lives in, wherever that is.
    pub async fn zone_of_application(&self, id: ApplicationId) -> Result<Option<ZoneId>, StoreError> {
        self.read(move |tx| {
            Box::pin(async move {
                let sql = "SELECT a.zone_id FROM applications a JOIN zones z ON z.id = a.zone_id \
                           WHERE a.id = $1 AND a.archived_at IS NULL AND z.archived_at IS NULL";
                tx.first(sql, vec![Value::id(id)]).await?.map(|row| row.id(0)).transpose()
            })
        })
        .await
    }
}

async fn applications(tx: &mut Tx<'_>, zone: ZoneId) -> Result<Vec<ApplicationRow>, StoreError> {
    let sql = "SELECT id, name, registration_method, traits, secret_verifier, expires_at FROM applications \
               WHERE zone_id = $1 AND archived_at IS NULL";
    let rows = tx.all(sql, vec![Value::id(zone)]).await?;
    rows.iter()
        .map(|row| {
            Ok(ApplicationRow {
                id: row.id(0)?,
                name: row.text(1)?,
                registration_method: row.text(2)?,
                traits: row.json(3, "applications", "traits")?,
                verifier: row.opt_text(4)?,
                expires_at: row.opt_time(5)?,
            })
        })
        .collect()
}

async fn resources(tx: &mut Tx<'_>, zone: ZoneId) -> Result<Vec<ResourceRow>, StoreError> {
    let sql = "SELECT id, identifier, upstream_url, scopes, operations, operation_enforcement, credential_provider_id FROM resources \
               WHERE zone_id = $1 AND archived_at IS NULL";
    let rows = tx.all(sql, vec![Value::id(zone)]).await?;
    rows.iter()
        .map(|row| {
            Ok(ResourceRow {
                id: row.id(0)?,
                identifier: row.text(1)?,
                upstream_url: row.opt_text(2)?,
                scopes: row.json(3, "resources", "scopes")?,
                operations: row.json(4, "resources", "operations")?,
                enforced: row.text(5)? == "enforced",
                provider: row.opt_id(6)?,
            })
        })
        .collect()
}

async fn providers(tx: &mut Tx<'_>, zone: ZoneId) -> Result<Vec<ProviderRow>, StoreError> {
    let rows =
        tx.all("SELECT id, kind, config FROM providers WHERE zone_id = $1 AND archived_at IS NULL", vec![Value::id(zone)]).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let id: ProviderId = row.id(0)?;
        let reference = format!("zones/{zone}/providers/{id}/secretConfig");
        let sealed = crate::management::secrets::document(tx, &reference).await?;
        found.push(ProviderRow { id, kind: row.text(1)?, config: row.json(2, "providers", "config")?, sealed });
    }
    Ok(found)
}
