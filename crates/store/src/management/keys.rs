//! Signing keys of a zone, sealed.

use caracal_core::id::{SigningKeyId, ZoneId};
use caracal_core::message::Message;
use caracal_core::time::Time;

use crate::change::{Entity, ViewChange};
use crate::door::Door;
use crate::error::StoreError;
use crate::sql::{Row, Tx, Value};

/// A key's row.
#[derive(Clone, Debug)]
pub struct SigningKeyRow {
    /// Its id, the header's `kid`.
    pub id: SigningKeyId,
    /// The sealed private half.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Time,
    /// When a newer one took its place.
    pub replaced_at: Option<Time>,
}

pub(crate) fn of_row(row: &Row) -> Result<SigningKeyRow, StoreError> {
    Ok(SigningKeyRow { id: row.id(0)?, sealed: row.bytes(1)?, created_at: row.time(2)?, replaced_at: row.opt_time(3)? })
}

impl SigningKeyRow {
    /// Makes a key the zone's signing one; the one before stays for verification.
    pub async fn insert(door: &mut Door<'_>, zone: ZoneId, id: SigningKeyId, sealed: Vec<u8>) -> Result<(), StoreError> {
        let now = door.now();
        door.execute(
            "UPDATE signing_keys SET replaced_at = $2 WHERE zone_id = $1 AND replaced_at IS NULL",
            vec![Value::id(zone), now.into()],
        )
        .await?;
        door.execute(
            "INSERT INTO signing_keys (id, zone_id, sealed, created_at) VALUES ($1, $2, $3, $4)",
            vec![Value::id(id), Value::id(zone), sealed.into(), now.into()],
        )
        .await?;
        door.changed(Entity::VIEW);
        door.view_changed(ViewChange { entity: "signing_key", id: id.to_string(), change: "create" });
        door.announce(Message::key_changed(zone, id));
        Ok(())
    }

    /// The signing key first, then those replaced after `since`.
    pub async fn of_zone(tx: &mut Tx<'_>, zone: ZoneId, since: Time) -> Result<Vec<Self>, StoreError> {
        let rows = tx
            .all(
                "SELECT id, sealed, created_at, replaced_at FROM signing_keys WHERE zone_id = $1 AND (replaced_at IS NULL OR replaced_at > $2) \
                 ORDER BY created_at DESC, id DESC",
                vec![Value::id(zone), since.into()],
            )
            .await?;
        rows.iter().map(of_row).collect()
    }
}
