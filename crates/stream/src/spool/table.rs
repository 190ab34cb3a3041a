//! The spool's table as a source of evidence. Rows leave when Audit has committed them.

use std::sync::Arc;

use caracal_core::message::Stream;
use caracal_store::Store;
use caracal_store::spool::Spooled;
use tokio::sync::Notify;

use crate::delivery::{Source, SourceError};
use crate::message::Published;

/// The table of a database.
#[derive(Clone)]
pub struct Table {
    store: Store,
    arrived: Arc<Notify>,
}

impl Table {
    /// The spool of this store.
    pub fn new(store: Store) -> Self {
        Self { arrived: store.spool_signal(), store }
    }
}

impl Source for Table {
    type Place = i64;
    const NAME: &'static str = "evidence of the spool";
    // The oldest rows are those that were sent last: one batch at a time.
    const BATCHES: usize = 1;

    async fn waiting(&self, most: usize) -> Result<Vec<(i64, Published)>, SourceError> {
        Ok(self.store.spooled(most).await?.into_iter().map(|row| (row.seq, frame(row))).collect())
    }

    async fn committed(&self, places: Vec<i64>) -> Result<(), SourceError> {
        Ok(self.store.release_spool(places).await?)
    }

    async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

fn frame(row: Spooled) -> Published {
    let data = String::from_utf8(row.data).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    let mut fields = vec![("id".to_owned(), row.id.to_string()), ("data".to_owned(), data)];
    if !row.sig.is_empty() {
        fields.push(("sig".to_owned(), row.sig));
    }
    Published { stream: Stream::AuditEvents, fields }
}
