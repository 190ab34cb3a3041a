//! Ending what time has ended already: so that slots are freed and observers are told. Nothing depends on it: state is read by time.

use caracal_core::message::Producer;
use caracal_host::Supervisor;
use caracal_store::coordination::cascade::{self, Manner};
use caracal_store::coordination::sessions;
use caracal_store::{DoorError, StoreError};

use crate::service::Coordinator;

/// Most Sessions of one pass.
const BATCH: usize = 500;
/// How long a pass holds its lease.
const LEASE: std::time::Duration = std::time::Duration::from_secs(30);

impl Coordinator {
    /// The Coordinator's background work, one leader among replicas.
    pub fn jobs(self: &std::sync::Arc<Self>, supervisor: &Supervisor) {
        let own = std::sync::Arc::clone(self);
        supervisor.every("coordinator.sweep", self.config.sweep, move |_stop| {
            let own = std::sync::Arc::clone(&own);
            async move { own.pass().await }
        });
        self.store.retention_job(self.config.retention, supervisor);
    }

    async fn pass(&self) -> Result<(), StoreError> {
        if self.store.lease("coordinator.sweep", self.holder.clone(), LEASE).await?.is_none() {
            return Ok(());
        }
        let now = self.store.now().await?;
        let over = self.store.read(move |tx| Box::pin(async move { sessions::overdue(tx, now, BATCH).await })).await?;
        for (zone, session) in over {
            let done = self
                .store
                .door::<_, (), _>(Some(zone), Producer::Coordinator, move |door| {
                    Box::pin(async move {
                        cascade::end_sessions(door, zone, &[session], Manner::Expired, "ttl", "").await?;
                        Ok(())
                    })
                })
                .await;
            match done {
                Ok(()) | Err(DoorError::Refused(())) => {}
                Err(DoorError::Store(e)) => return Err(e),
            }
        }
        Ok(())
    }
}
