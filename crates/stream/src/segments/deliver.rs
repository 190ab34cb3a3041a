//! From the spool to `caracal.audit.events`. What the stream took stays in the spool until Audit has committed it.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use caracal_core::message::Stream;
use caracal_host::Supervisor;
use caracal_host::jobs::Stop;
use tokio::sync::Mutex;

use super::{Record, Spool, SpoolError};
use crate::message::Published;
use crate::redis::{BusError, RedisBus};

const BATCH: usize = 512;
const POLL: Duration = Duration::from_millis(50);
const AWAY: Duration = Duration::from_secs(1);
const NEIGHBOURS: Duration = Duration::from_secs(30);

/// Sends a spool to Redis.
pub struct Delivery {
    spool: Spool,
    bus: RedisBus,
    run: Mutex<Option<String>>,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery").field("spool", &self.spool).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl Delivery {
    /// A delivery. It remembers no earlier run of Redis, so it begins with everything Audit has not committed.
    pub fn new(spool: Spool, bus: RedisBus) -> Self {
        Self { spool, bus, run: Mutex::new(None) }
    }

    /// Sends what waits now; how many events the stream took.
    pub async fn pass(&self) -> Result<usize, impl fmt::Display + fmt::Debug + use<>> {
        self.pass_once().await
    }

    async fn pass_once(&self) -> Result<usize, Fault> {
        // Asked before anything is sent: a server that changes behind this line is seen by the next pass, which sends again.
        let run = self.bus.run_id().await?;
        let mut last = self.run.lock().await;
        if last.as_ref() != Some(&run) {
            self.spool.send_again()?;
            *last = Some(run);
        }
        let mut sent = 0;
        loop {
            let batch = self.on_disk(|spool| spool.undelivered(BATCH)).await?;
            if batch.is_empty() {
                return Ok(sent);
            }
            let messages: Vec<Published> = batch.iter().map(|(_, record)| frame(record)).collect();
            self.bus.add_all(&messages).await?;
            sent += batch.len();
            self.on_disk(move |spool| spool.delivered(&batch.iter().map(|(place, _)| *place).collect::<Vec<_>>())).await?;
        }
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let spool = self.spool.clone();
        tokio::task::spawn_blocking(move || work(&spool)).await.unwrap_or(Err(SpoolError::Closed))
    }

    /// Starts the background work: sending, trying a disk that refused, taking over what neighbours left.
    pub fn jobs(self, supervisor: &Supervisor) {
        let spool = self.spool.clone();
        let this = std::sync::Arc::new(self);
        supervisor.spawn("evidence delivery", move |stop| {
            let this = this.clone();
            async move {
                this.run(&stop).await;
                Ok::<_, Infallible>(())
            }
        });
        supervisor.every("spool of stopped neighbours", NEIGHBOURS, move |_| {
            let spool = spool.clone();
            async move {
                if !spool.healthy() {
                    spool.probe().await?;
                }
                tokio::task::spawn_blocking(move || spool.take_over()).await.unwrap_or(Err(SpoolError::Closed)).map(drop)
            }
        });
    }

    async fn run(&self, stop: &Stop) {
        loop {
            let pause = match self.pass_once().await {
                Ok(_) => POLL,
                Err(error) => {
                    tracing::warn!(%error, "evidence waits in the spool");
                    AWAY
                }
            };
            if !stop.sleep(pause).await {
                break;
            }
        }
        // What was decided last leaves with the process if Redis takes it; otherwise the next start sends it.
        let _ = tokio::time::timeout(AWAY, self.pass_once()).await;
    }
}

/// The frame of `streams.md` 4.1; `data` goes as it was signed.
fn frame(record: &Record) -> Published {
    #[derive(serde::Deserialize)]
    struct Named {
        id: String,
    }
    let id = serde_json::from_slice::<Named>(&record.data).map(|named| named.id).unwrap_or_default();
    let data = String::from_utf8_lossy(&record.data).into_owned();
    let mut fields = vec![("id".to_owned(), id), ("data".to_owned(), data)];
    if !record.sig.is_empty() {
        fields.push(("sig".to_owned(), record.sig.clone()));
    }
    Published { stream: Stream::AuditEvents, fields }
}
