//! Taking in what the emitters sent: a member of the group that reads `caracal.audit.events`, on whichever bus. A message is acknowledged
//! when the ledger has committed it, or a dead letter of it, and its emitter lets go of it only then; a crash in between only makes
//! a copy, which is recognised.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use caracal_core::message::Stream;
use caracal_host::World;
use caracal_host::jobs::Stop;
use caracal_store::ledger::DeadLetter;
use caracal_store::{Store, StoreError};
use caracal_stream::bus::{Bus, BusError, Delivered, EntryId, Member, Membership};
use caracal_stream::{EVIDENCE_GROUP, Published};

use crate::append::{Ledger, refused};
use crate::judge::{Accepted, Judge, Message};
use crate::metrics::Numbers;

/// Failed signatures in a row after which the key must be wrong.
const FORGED_MAX: u32 = 100;
/// How long a read waits for something new.
const WAIT: Duration = Duration::from_secs(5);
/// How long it waits where it only looks.
const SHORT: Duration = Duration::from_millis(1);
/// How long a message waits for its member before another takes it.
const IDLE: Duration = Duration::from_secs(30);
/// First pause after the bus or the database failed.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why nothing can be taken in at the moment. What was not acknowledged comes again.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The ledger.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bus.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// How ingestion fares, for readiness.
#[derive(Debug, Default)]
pub struct Health {
    failing: AtomicBool,
    key_mismatch: AtomicBool,
    forged: AtomicU32,
}

impl Health {
    /// Whether the last pass failed.
    pub fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Whether so many signatures failed in a row that the key must be wrong; ends with the process.
    pub fn key_mismatch(&self) -> bool {
        self.key_mismatch.load(Ordering::Relaxed)
    }
}

/// Takes evidence in.
#[derive(Clone)]
pub struct Ingestor {
    store: Store,
    reader: Arc<Reader>,
    ledger: Ledger,
    judge: Arc<Judge>,
    batch: usize,
    numbers: Numbers,
    health: Arc<Health>,
}

impl std::fmt::Debug for Ingestor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ingestor({:?})", self.ledger)
    }
}

/// This process's place in the group.
struct Reader {
    bus: Bus,
    name: String,
    member: tokio::sync::Mutex<Option<Member>>,
}

impl Ingestor {
    /// An ingestor. `name` is its name in the group, unlike every other that lives and the same after a restart; `origin` is the first part
    /// of the names of new logs.
    #[allow(clippy::too_many_arguments, reason = "each is one thing it stands on")]
    pub fn new(
        store: Store,
        bus: Bus,
        name: String,
        world: World,
        judge: Judge,
        origin: &str,
        batch: usize,
        numbers: Numbers,
    ) -> Self {
        let reader = Arc::new(Reader { bus, name, member: tokio::sync::Mutex::default() });
        let ledger = Ledger::new(store.clone(), world, &judge.keys, origin);
        Self { store, reader, ledger, judge: Arc::new(judge), batch, numbers, health: Arc::default() }
    }

    /// How ingestion fares.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Takes in what has arrived; how many messages were acknowledged. None where the background work is at it.
    pub async fn pass(&self) -> Result<usize, IngestError> {
        match self.reader.member.try_lock() {
            Ok(mut place) => self.pass_within(&mut place, SHORT, &Stop::new()).await,
            Err(_) => Ok(0),
        }
    }

    /// As [`Self::pass`], waiting for the first message; a stop ends the wait, never what was begun.
    async fn pass_within(&self, place: &mut Option<Member>, mut wait: Duration, stop: &Stop) -> Result<usize, IngestError> {
        let mut taken = 0;
        // With another key than the emitters' every event would go aside: an operator must look first.
        while !self.health.key_mismatch() {
            let member = match place.as_mut() {
                Some(member) => member,
                None => place.insert(self.reader.join().await?),
            };
            let batch = tokio::select! {
                biased;
                () = stop.wait() => Vec::new(),
                batch = member.read(self.batch, wait) => batch?,
            };
            if batch.is_empty() {
                break;
            }
            match self.take_in(member, batch).await {
                Ok(count) => taken += count,
                Err(error) => {
                    member.again();
                    return Err(error);
                }
            }
            wait = SHORT;
        }
        Ok(taken)
    }

    async fn take_in(&self, member: &mut Member, batch: Vec<Delivered>) -> Result<usize, IngestError> {
        let ids: Vec<EntryId> = batch.iter().map(|one| one.id).collect();
        let taken = self.take(batch.into_iter().map(message).collect()).await?;
        member.acknowledge(&ids[..taken]).await?;
        Ok(taken)
    }

    /// Takes in until asked to stop; a last pass takes what came meanwhile.
    pub async fn run(&self, stop: &Stop) {
        let mut pause = PAUSE_MIN;
        while !stop.asked() {
            let passed = self.pass_within(&mut *self.reader.member.lock().await, WAIT, stop).await;
            match passed {
                Ok(_) => {
                    pause = PAUSE_MIN;
                    self.health.failing.store(false, Ordering::Relaxed);
                }
                Err(error) => {
                    self.numbers.retries.inc();
                    self.health.failing.store(true, Ordering::Relaxed);
                    tracing::warn!(error = %error, "evidence cannot be taken in at the moment");
                    stop.sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
            if self.health.key_mismatch() {
                stop.wait().await;
            }
        }
        // The wait that was given up may have been given something: it is joined, and read, again.
        *self.reader.member.lock().await = None;
        if let Err(error) = self.pass().await {
            tracing::warn!(error = %error, "the last evidence waits for the next start");
        }
    }

    /// As a job.
    pub async fn job(self, stop: Stop) -> Result<(), Infallible> {
        self.run(&stop).await;
        Ok(())
    }

    /// Commits messages, as entries or as dead letters; how many of them. An error means that some are not, and that all may come again.
    async fn take(&self, messages: Vec<Message>) -> Result<usize, StoreError> {
        let now = self.store.now().await?;
        let mut zones: BTreeMap<String, Vec<Accepted>> = BTreeMap::new();
        let (mut dead, mut taken, mut forged) = (Vec::new(), 0, self.health.forged.load(Ordering::Relaxed));
        for message in messages {
            taken += 1;
            match self.judge.judge(message, now) {
                Ok(accepted) => {
                    forged = 0;
                    zones.entry(accepted.read.event.zone_id.clone()).or_default().push(accepted);
                }
                Err(letter) => {
                    forged += u32::from(letter.reason == "hmac_verify_failed");
                    dead.push(letter);
                    if forged >= FORGED_MAX {
                        break;
                    }
                }
            }
        }
        for (zone, batch) in zones {
            self.append(zone, batch.into()).await?;
        }
        // Last, so that a batch that is tried again leaves no letter behind.
        self.bury(dead).await?;
        // What comes again is counted when it is committed, and not before.
        self.health.forged.store(forged, Ordering::Relaxed);
        if forged >= FORGED_MAX {
            tracing::error!("no signature fits: AUDIT_HMAC_KEY is not the emitters' key; nothing more is taken in");
            self.health.key_mismatch.store(true, Ordering::Relaxed);
        }
        Ok(taken)
    }

    async fn append(&self, zone: String, batch: Arc<[Accepted]>) -> Result<(), StoreError> {
        match self.append_once(&zone, batch.clone()).await {
            Ok(()) => Ok(()),
            // An outage, or a head that is not what it should be, holds everything back; only a refused event goes aside.
            Err(error @ (StoreError::Unavailable(_) | StoreError::Inconsistent { .. })) => Err(error),
            Err(error) if batch.len() == 1 => {
                tracing::error!(zone, error = %error, "an event cannot be appended");
                self.bury(batch.iter().map(|one| refused(one, &error.to_string())).collect()).await
            }
            // One bad event must not hold up the others.
            Err(_) => {
                for one in batch.iter() {
                    Box::pin(self.append(zone.clone(), [one.clone()].into())).await?;
                }
                Ok(())
            }
        }
    }

    async fn append_once(&self, zone: &str, batch: Arc<[Accepted]>) -> Result<(), StoreError> {
        let counts = self.ledger.append(zone, batch).await?;
        self.numbers.inserts.inc_by(counts.inserted);
        self.numbers.duplicates.inc_by(counts.duplicates);
        self.numbers.tamper_replay.inc_by(counts.tampered);
        self.numbers.dlq.inc_by(counts.dead);
        self.numbers.log_entries.add(i64::try_from(counts.inserted).unwrap_or(0));
        Ok(())
    }

    async fn bury(&self, dead: Vec<DeadLetter>) -> Result<(), StoreError> {
        if dead.is_empty() {
            return Ok(());
        }
        for letter in &dead {
            match letter.reason.as_str() {
                "hmac_verify_failed" => self.numbers.hmac_failures.inc(),
                reason if reason.starts_with("json_parse_error") => self.numbers.parse_errors.inc(),
                _ => {}
            }
            tracing::warn!(source = letter.source, reason = letter.reason, "a message was put aside");
        }
        let count = dead.len() as u64;
        self.store.ledger_dead_letters(dead).await?;
        self.numbers.dlq.inc_by(count);
        Ok(())
    }
}

impl Reader {
    async fn join(&self) -> Result<Member, BusError> {
        // Evidence is trusted for the signature over its own bytes; the bus signs none of it.
        let keys = Vec::new();
        let (stream, group, name) = (Stream::AuditEvents, EVIDENCE_GROUP, self.name.clone());
        self.bus.join(Membership { stream, group, name, keys, idle: IDLE }).await
    }
}

fn message(one: Delivered) -> Message {
    // Nobody else holds it where it came over a wire: then its bytes move and are not copied.
    let Published { fields, .. } = Arc::unwrap_or_clone(one.message);
    let (mut data, mut sig) = (None, String::new());
    for (name, value) in fields {
        match name.as_str() {
            "data" => data = Some(value.into_bytes()),
            "sig" => sig = value,
            _ => {}
        }
    }
    Message { source: one.id.to_string(), data, sig }
}
