//! The outbox's evidence as a source: events that committed with the change they tell of. Unlike other rows they are marked only when
//! Audit has committed them, so that no memory of Redis matters.

use std::sync::Arc;

use caracal_core::id::OutboxId;
use caracal_core::message::Stream;
use caracal_store::Store;
use caracal_store::outbox::Which;

use crate::delivery::{Source, SourceError};
use crate::dispatcher::Lead;
use crate::message::{Keys, Published};

/// Evidence of the outbox. Of several processes one sends it.
#[derive(Clone)]
pub struct OutboxEvidence {
    store: Store,
    lead: Lead,
    arrived: Arc<tokio::sync::Notify>,
}

impl std::fmt::Debug for OutboxEvidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboxEvidence").field("lead", &self.lead).finish_non_exhaustive()
    }
}

impl OutboxEvidence {
    pub(crate) fn new(store: Store, lead: Lead) -> Self {
        Self { store, lead, arrived: Arc::default() }
    }

    /// Wakes whoever waits for rows: the outbox's own signal wakes one, the dispatcher.
    pub(crate) fn wake(&self) {
        self.arrived.notify_one();
    }
}

impl Source for OutboxEvidence {
    type Place = OutboxId;
    const NAME: &'static str = "evidence of the outbox";
    const BATCHES: usize = 1;

    async fn waiting(&self, most: usize) -> Result<Vec<(OutboxId, Published)>, SourceError> {
        if !self.lead.held().await? {
            return Ok(Vec::new());
        }
        let rows = self.store.outbox_waiting_of(Which::Only(Stream::AuditEvents.name()), most).await?;
        // Evidence was signed when it was made; no key of the bus is asked for.
        let keys = Keys::default();
        Ok(rows.iter().filter_map(|row| Some((row.id, Published::of(row, &keys).ok()?))).collect())
    }

    async fn committed(&self, places: Vec<OutboxId>) -> Result<(), SourceError> {
        Ok(self.store.outbox_published(places).await?)
    }

    async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
