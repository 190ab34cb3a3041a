//! From wherever evidence waits to `caracal.audit.events`, and back the word that Audit has committed it. Only then is it let go.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use caracal_core::message::Stream;
use caracal_host::Supervisor;
use caracal_host::jobs::Stop;
use caracal_store::StoreError;
use tokio::sync::Mutex;

use crate::bus::{Bus, BusError, EntryId};
use crate::message::Published;
use crate::spool::SpoolError;

/// The group of Audit. What it acknowledges it has committed, as an entry or as a dead letter.
pub const EVIDENCE_GROUP: &str = "audit-ingestor";

/// Most events sent at once.
const BATCH: usize = 1000;
/// Events in the stream above which emitters keep theirs (`streams.md` 11).
const STREAM_MAX: u64 = 1_000_000;
/// How long a quiet source is not looked at.
const IDLE: Duration = Duration::from_millis(250);
/// How long arrivals gather before they are sent: a transaction of the ledger, its sync and the letting go serve all of them. An event
/// is in the ledger that much later, and nothing else waits for it.
const GATHER: Duration = Duration::from_millis(5);
/// How soon the progress of another process is asked for again.
const PROGRESS: Duration = Duration::from_millis(50);
/// Pause after the bus or the source failed.
const AWAY: Duration = Duration::from_millis(500);
/// How long what was decided last may take to leave with the process.
const LAST: Duration = Duration::from_secs(1);

/// Why evidence cannot be sent at the moment. It stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Its files.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Its table.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bus.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Where evidence waits.
pub trait Source: Send + Sync + 'static {
    /// A place in it.
    type Place: Send + 'static;
    /// What the job that empties it is called.
    const NAME: &'static str;
    /// How many batches may be under way: one where the oldest are always those that were sent last.
    const BATCHES: usize;

    /// The oldest events that are not under way.
    fn waiting(&self, most: usize) -> impl Future<Output = Result<Vec<(Self::Place, Published)>, SourceError>> + Send;

    /// These are under way.
    fn sent(&self, _places: Vec<Self::Place>) -> impl Future<Output = Result<(), SourceError>> + Send
    where
        Self::Place: Clone,
    {
        std::future::ready(Ok(()))
    }

    /// Audit has committed these: they may go.
    fn committed(&self, places: Vec<Self::Place>) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// What was under way is lost.
    fn again(&self) -> impl Future<Output = Result<(), SourceError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Waits until something new may be there.
    fn arrived(&self) -> impl Future<Output = ()> + Send;
}

/// What was published and is not let go.
struct Flight<P> {
    /// The place of its last message in the stream.
    last: EntryId,
    places: Vec<P>,
}

struct State<P> {
    /// Which memory of the bus the flights are in.
    memory: Option<Arc<str>>,
    flights: VecDeque<Flight<P>>,
}

/// Empties a source.
pub struct Delivery<S: Source> {
    source: S,
    bus: Bus,
    state: Mutex<State<S::Place>>,
}

impl<S: Source> fmt::Debug for Delivery<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delivery({})", S::NAME)
    }
}

impl<S: Source> Delivery<S>
where
    S::Place: Clone,
{
    /// A delivery. It remembers nothing of an earlier process, so it begins with everything Audit has not committed.
    pub fn new(source: S, bus: Bus) -> Self {
        Self { source, bus, state: Mutex::new(State { memory: None, flights: VecDeque::new() }) }
    }

    /// Lets go of what Audit has committed and sends what waits; how many events moved.
    pub async fn pass(&self) -> Result<usize, SourceError> {
        let mut state = self.state.lock().await;
        let mut moved = 0;
        loop {
            let progress = self.bus.progress(Stream::AuditEvents, EVIDENCE_GROUP).await?;
            if state.memory.as_ref() != Some(&progress.memory) {
                // Another server, or one that was emptied, may never have had what is under way.
                self.source.again().await?;
                state.flights.clear();
                state.memory = Some(progress.memory);
            }
            let mut committed = Vec::new();
            while let Some(flight) = state.flights.pop_front_if(|flight| flight.last <= progress.through) {
                committed.extend(flight.places);
            }
            moved += committed.len();
            if !committed.is_empty() {
                self.source.committed(committed).await?;
            }
            if state.flights.len() >= S::BATCHES || progress.length >= STREAM_MAX {
                return Ok(moved);
            }
            let batch = self.source.waiting(BATCH).await?;
            if batch.is_empty() {
                return Ok(moved);
            }
            moved += batch.len();
            let (places, messages): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let ids = self.bus.publish(messages).await?;
            self.source.sent(places.clone()).await?;
            if let Some(last) = ids.into_iter().max() {
                state.flights.push_back(Flight { last, places });
            }
        }
    }

    /// Starts the background work.
    pub fn jobs(self: &Arc<Self>, supervisor: &Supervisor) {
        let this = Arc::clone(self);
        supervisor.spawn(S::NAME, move |stop| {
            let this = Arc::clone(&this);
            async move {
                this.run(&stop).await;
                Ok::<_, Infallible>(())
            }
        });
    }

    async fn run(&self, stop: &Stop) {
        while !stop.asked() {
            match self.pass().await {
                Ok(0) => {
                    self.rest(stop).await;
                    stop.sleep(GATHER).await;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "evidence waits in its spool");
                    stop.sleep(AWAY).await;
                }
            }
        }
        // What was decided last leaves with the process if the bus takes it; otherwise the next start sends it.
        let _ = tokio::time::timeout(LAST, self.pass()).await;
    }

    /// Waits for something to do.
    async fn rest(&self, stop: &Stop) {
        let under_way = !self.state.lock().await.flights.is_empty();
        let full = under_way && S::BATCHES == 1;
        tokio::select! {
            () = stop.wait() => {}
            () = self.source.arrived(), if !full => {}
            () = self.bus.moved(PROGRESS), if under_way => {}
            () = tokio::time::sleep(IDLE) => {}
        }
    }
}
