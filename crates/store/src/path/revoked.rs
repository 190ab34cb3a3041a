//! What ended lately, over all zones: the Gateway's snapshot (`gateway.md` 6.3). Ids are globally unique, so no zone is named.

use caracal_core::id::{AuthorityRecordId, DelegationId, Id, SessionId};
use caracal_core::time::Time;

use crate::error::StoreError;
use crate::open::Store;
use crate::sql::Tx;

/// What ended since a moment, and what is suspended now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Authority records that were revoked and would not have ended before.
    pub records: Vec<AuthorityRecordId>,
    /// Sessions that were terminated or expired.
    pub sessions: Vec<SessionId>,
    /// Delegations that were revoked or expired.
    pub edges: Vec<DelegationId>,
    /// Sessions that are suspended.
    pub suspended: Vec<SessionId>,
}

impl Store {
    /// Reads all of it in one snapshot.
    pub async fn revoked_since(&self, since: Time) -> Result<Revoked, StoreError> {
        self.read(move |tx| {
            Box::pin(async move {
                Ok(Revoked {
                    records: ids(tx, "SELECT id FROM authority_records WHERE status = 'revoked' AND expires_at > $1", Some(since)).await?,
                    sessions: ids(
                        tx,
                        "SELECT id FROM sessions WHERE status IN ('terminated', 'expired') AND updated_at > $1",
                        Some(since),
                    )
                    .await?,
                    edges: ids(
                        tx,
                        "SELECT id FROM delegations WHERE status IN ('revoked', 'expired') AND coalesce(revoked_at, expires_at) > $1",
                        Some(since),
                    )
                    .await?,
                    suspended: ids(tx, "SELECT id FROM sessions WHERE status = 'suspended'", None).await?,
                })
            })
        })
        .await
    }
}

async fn ids<I: Id>(tx: &mut Tx<'_>, sql: &'static str, since: Option<Time>) -> Result<Vec<I>, StoreError> {
    let args = since.map(Into::into).into_iter().collect();
    tx.all(sql, args).await?.iter().map(|row| row.id(0)).collect()
}
