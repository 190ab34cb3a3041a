//! The ways that evidence leaves a process, as its background work and on demand.

use std::sync::Arc;
use std::time::Duration;

use caracal_audit::Audit;
use caracal_core::message::Stream;
use caracal_host::Supervisor;
use caracal_stream::delivery::SourceError;
use caracal_stream::spool::{Segments, Table};
use caracal_stream::{Bus, Delivery, EVIDENCE_GROUP, OutboxEvidence};

/// Empties a spool, in the form the process has.
pub(crate) enum Emptying {
    Table(Arc<Delivery<Table>>),
    Segments(Arc<Delivery<Segments>>),
}

impl Emptying {
    pub(crate) fn table(table: &Table, bus: &Bus) -> Self {
        Self::Table(Arc::new(Delivery::new(table.clone(), bus.clone())))
    }

    pub(crate) fn segments(segments: &Segments, bus: &Bus) -> Self {
        Self::Segments(Arc::new(Delivery::new(segments.clone(), bus.clone())))
    }

    pub(crate) fn jobs(&self, supervisor: &Supervisor) {
        match self {
            Self::Table(delivery) => delivery.jobs(supervisor),
            Self::Segments(delivery) => delivery.jobs(supervisor),
        }
    }

    async fn pass(&self) -> Result<usize, SourceError> {
        match self {
            Self::Table(delivery) => delivery.pass().await,
            Self::Segments(delivery) => delivery.pass().await,
        }
    }
}

/// How soon it is looked again whether Audit has come further.
const LOOK: Duration = Duration::from_millis(2);

/// All of it, where emitters and Audit share a process.
pub(crate) struct Evidence {
    pub(crate) bus: Bus,
    pub(crate) spool: Emptying,
    pub(crate) outbox: Arc<Delivery<OutboxEvidence>>,
    pub(crate) audit: Audit,
}

impl Evidence {
    /// Brings into the ledger what was told so far.
    pub(crate) async fn settle(&self) -> Result<(), String> {
        let told = |e: &dyn std::fmt::Display| e.to_string();
        loop {
            let moved = self.spool.pass().await.map_err(|e| told(&e))? + self.outbox.pass().await.map_err(|e| told(&e))?;
            let taken = self.audit.ingestor().pass().await.map_err(|e| told(&e))?;
            let progress = self.bus.progress(Stream::AuditEvents, EVIDENCE_GROUP).await.map_err(|e| told(&e))?;
            match (moved + taken, progress.behind) {
                (0, 0) => return Ok(()),
                (0, _) if self.audit.ingestor().health().key_mismatch() => return Err("AUDIT_HMAC_KEY does not fit".to_owned()),
                // Audit's own work is at it.
                (0, _) => tokio::time::sleep(LOOK).await,
                _ => {}
            }
        }
    }
}
