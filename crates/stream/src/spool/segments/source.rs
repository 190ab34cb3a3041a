//! Segments as a source of evidence, and their background work.

use std::time::Duration;

use caracal_core::message::Stream;
use caracal_host::Supervisor;

use super::{Place, Record, Segments};
use crate::delivery::{Source, SourceError};
use crate::message::Published;
use crate::spool::SpoolError;

/// How often segments of stopped neighbours are looked for.
const NEIGHBOURS: Duration = Duration::from_secs(10);
/// How often a disk that refused is tried.
const TRY_AGAIN: Duration = Duration::from_secs(1);

impl Segments {
    /// Starts the background work beside delivery: trying a disk that refused, taking over what neighbours left.
    pub fn jobs(&self, supervisor: &Supervisor) {
        let segments = self.clone();
        supervisor.every("spool of stopped neighbours", NEIGHBOURS, move |_| {
            let segments = segments.clone();
            async move { segments.on_disk(Self::take_over).await.map(drop) }
        });
        let segments = self.clone();
        supervisor.every("spool disk", TRY_AGAIN, move |_| {
            let segments = segments.clone();
            async move { if matches!(segments.check(), Err(SpoolError::Disk(_))) { segments.probe().await } else { Ok(()) } }
        });
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this)).await.unwrap_or(Err(SpoolError::Closed))
    }
}

impl Source for Segments {
    type Place = Place;
    const NAME: &'static str = "evidence of the spool";
    const BATCHES: usize = usize::MAX;

    async fn waiting(&self, most: usize) -> Result<Vec<(Place, Published)>, SourceError> {
        let found = self.on_disk(move |this| this.undelivered(most)).await?;
        Ok(found.into_iter().map(|(place, record)| (place, frame(record))).collect())
    }

    async fn sent(&self, places: Vec<Place>) -> Result<(), SourceError> {
        Ok(self.on_disk(move |this| this.delivered(&places)).await?)
    }

    async fn committed(&self, places: Vec<Place>) -> Result<(), SourceError> {
        Ok(self.on_disk(move |this| this.let_go(&places)).await?)
    }

    async fn again(&self) -> Result<(), SourceError> {
        Ok(self.on_disk(Self::send_again).await?)
    }

    async fn arrived(&self) {
        self.shared.arrived.notified().await;
    }
}

/// The frame of `streams.md` 4.1; `data` goes as it was signed.
fn frame(record: Record) -> Published {
    #[derive(serde::Deserialize)]
    struct Named {
        id: String,
    }
    let id = serde_json::from_slice::<Named>(&record.data).map(|named| named.id).unwrap_or_default();
    let data = String::from_utf8(record.data).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
    let mut fields = vec![("id".to_owned(), id), ("data".to_owned(), data)];
    if !record.sig.is_empty() {
        fields.push(("sig".to_owned(), record.sig));
    }
    Published { stream: Stream::AuditEvents, fields }
}
