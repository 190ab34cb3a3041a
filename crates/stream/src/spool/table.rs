//! The spool as a table: it takes evidence up to its bound, and is a source of it. Rows leave when Audit has committed them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caracal_core::message::Stream;
use caracal_store::journal::{Entry, Outcome};
use caracal_store::spool::Spooled;
use caracal_store::{Store, StoreError};
use tokio::sync::Notify;

use super::SpoolError;
use crate::delivery::{Source, SourceError};
use crate::message::Published;

/// The table of a database, for the one process that writes it. Cheap to clone.
#[derive(Clone)]
pub struct Table {
    store: Store,
    arrived: Arc<Notify>,
    /// Bytes in the table, and of what is on its way there.
    held: Arc<AtomicU64>,
    max_bytes: u64,
}

/// A row of it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    seq: i64,
    bytes: u64,
}

impl Table {
    /// The spool of this store, which takes no more than this.
    pub async fn open(store: Store, max_bytes: u64) -> Result<Self, StoreError> {
        let held = Arc::new(AtomicU64::new(store.spool_bytes().await?));
        Ok(Self { arrived: store.spool_signal(), store, held, max_bytes })
    }

    /// Makes a decision and its evidence durable, both or neither.
    pub(super) async fn commit(&self, entry: Entry) -> Result<Outcome, SpoolError> {
        let size = entry.events.iter().map(|event| bytes(&event.data, &event.sig)).sum();
        let room = |held: u64| held.checked_add(size).filter(|held| *held <= self.max_bytes);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).map_err(|_| SpoolError::Full)?;
        // Whoever hangs up here, or is not told how it ended, leaves it counted: that it was written is the safe guess.
        let outcome = self.store.journal().commit(entry).await?;
        if outcome != Outcome::Durable {
            self.less(size);
        }
        Ok(outcome)
    }

    /// Bytes that Audit has not committed.
    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether the next event would probably be kept.
    pub(super) fn healthy(&self) -> bool {
        self.held() < self.max_bytes
    }

    fn less(&self, bytes: u64) {
        let _ = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(held.saturating_sub(bytes)));
    }
}

impl Source for Table {
    type Place = Row;
    const NAME: &'static str = "evidence of the spool";
    // The oldest rows are those that were sent last: one batch at a time.
    const BATCHES: usize = 1;

    async fn waiting(&self, most: usize) -> Result<Vec<(Row, Published)>, SourceError> {
        let before = self.held();
        let rows = self.store.spooled(most).await?;
        if rows.is_empty() {
            // Whatever was counted and never written is known not to be there now.
            self.less(before);
        }
        Ok(rows.into_iter().map(|row| (Row { seq: row.seq, bytes: bytes(&row.data, &row.sig) }, frame(row))).collect())
    }

    async fn committed(&self, rows: Vec<Row>) -> Result<(), SourceError> {
        let bytes = rows.iter().map(|row| row.bytes).sum();
        self.store.release_spool(rows.into_iter().map(|row| row.seq).collect()).await?;
        self.less(bytes);
        Ok(())
    }

    async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

/// What an event takes of the bound.
fn bytes(data: &[u8], sig: &str) -> u64 {
    (data.len() + sig.len()) as u64
}

fn frame(row: Spooled) -> Published {
    let data = String::from_utf8(row.data).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    let mut fields = vec![("id".to_owned(), row.id.to_string()), ("data".to_owned(), data)];
    if !row.sig.is_empty() {
        fields.push(("sig".to_owned(), row.sig));
    }
    Published { stream: Stream::AuditEvents, fields }
}
