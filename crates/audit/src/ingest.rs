//! Taking in what the emitters left: the spool of the path and the outbox of the door. A message is let go when the ledger has
//! committed it, or a dead letter of it; a crash in between only makes a copy, which is recognised.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caracal_core::id::OutboxId;
use caracal_core::message::Stream;
use caracal_host::World;
use caracal_host::jobs::Stop;
use caracal_store::ledger::{DeadLetter, NewHead};
use caracal_store::outbox::Which;
use caracal_store::{Store, StoreError};
use caracal_tlog::tree::Frontier;

use crate::append::{Counts, entries, refused};
use crate::judge::{Accepted, Judge, Message};
use crate::metrics::Numbers;

/// Failed signatures in a row after which the key must be wrong.
const FORGED_MAX: u32 = 100;
/// How long a quiet emitter is not looked at.
const IDLE: Duration = Duration::from_millis(250);
/// First pause after the database failed.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

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
    world: World,
    judge: Arc<Judge>,
    origin: Arc<str>,
    batch: usize,
    numbers: Numbers,
    health: Arc<Health>,
}

impl std::fmt::Debug for Ingestor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ingestor({})", self.origin)
    }
}

impl Ingestor {
    /// An ingestor. `origin` is the first part of the names of new logs.
    pub fn new(store: Store, world: World, judge: Judge, origin: &str, batch: usize, numbers: Numbers) -> Self {
        Self { store, world, judge: Arc::new(judge), origin: origin.into(), batch, numbers, health: Arc::default() }
    }

    /// How ingestion fares.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Takes in what waits now; how many messages were let go.
    pub async fn pass(&self) -> Result<usize, StoreError> {
        // With another key than the emitters' every event would go aside: an operator must look first.
        if self.health.key_mismatch() {
            return Ok(0);
        }
        Ok(self.spool().await? + self.outbox().await?)
    }

    /// Takes in until asked to stop; a last pass takes what came meanwhile.
    pub async fn run(&self, stop: &Stop) {
        let signal = self.store.spool_signal();
        let mut pause = PAUSE_MIN;
        loop {
            match self.pass().await {
                Ok(taken) => {
                    pause = PAUSE_MIN;
                    self.health.failing.store(false, Ordering::Relaxed);
                    if taken > 0 {
                        continue;
                    }
                    if stop.asked() {
                        return;
                    }
                    tokio::select! {
                        () = stop.wait() => {}
                        () = signal.notified() => {}
                        () = tokio::time::sleep(IDLE) => {}
                    }
                }
                Err(error) => {
                    self.numbers.retries.inc();
                    self.health.failing.store(true, Ordering::Relaxed);
                    tracing::warn!(error = %error, "evidence cannot be taken in at the moment");
                    if !stop.sleep(pause).await {
                        return;
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// As a job.
    pub async fn job(self, stop: Stop) -> Result<(), Infallible> {
        self.run(&stop).await;
        Ok(())
    }

    async fn spool(&self) -> Result<usize, StoreError> {
        let waiting = self.store.spooled(self.batch).await?;
        if waiting.is_empty() {
            return Ok(0);
        }
        let seqs: Vec<i64> = waiting.iter().map(|s| s.seq).collect();
        let messages =
            waiting.into_iter().map(|s| Message { source: format!("spool:{}", s.seq), data: Some(s.data), sig: s.sig }).collect();
        let taken = self.take(messages).await?;
        self.store.release_spool(seqs[..taken].to_vec()).await?;
        Ok(taken)
    }

    async fn outbox(&self) -> Result<usize, StoreError> {
        let topic = Stream::AuditEvents.name();
        let waiting = self.store.outbox_waiting_of(Which::Only(topic), self.batch).await?;
        if waiting.is_empty() {
            return Ok(0);
        }
        let ids: Vec<OutboxId> = waiting.iter().map(|w| w.id).collect();
        let messages = waiting
            .into_iter()
            .map(|w| {
                let field = |name: &str| w.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
                let (data, sig) = (field("data").map(String::into_bytes), field("sig").unwrap_or_default());
                Message { source: w.id.to_string(), data, sig }
            })
            .collect();
        let taken = self.take(messages).await?;
        self.store.outbox_published(ids[..taken].to_vec()).await?;
        Ok(taken)
    }

    /// Commits messages, as entries or as dead letters; how many of them. An error means that some are not, and that all may come again.
    async fn take(&self, messages: Vec<Message>) -> Result<usize, StoreError> {
        let now = self.store.now().await?;
        let mut zones: BTreeMap<String, Vec<Accepted>> = BTreeMap::new();
        let (mut dead, mut taken) = (Vec::new(), 0);
        for message in messages {
            taken += 1;
            match self.judge.judge(message, now) {
                Ok(accepted) => {
                    self.health.forged.store(0, Ordering::Relaxed);
                    zones.entry(accepted.event.zone_id.clone()).or_default().push(accepted);
                }
                Err(letter) => {
                    let forged = letter.reason == "hmac_verify_failed";
                    dead.push(letter);
                    if forged && self.health.forged.fetch_add(1, Ordering::Relaxed) + 1 >= FORGED_MAX {
                        tracing::error!("no signature fits: AUDIT_HMAC_KEY is not the emitters' key; nothing more is taken in");
                        self.health.key_mismatch.store(true, Ordering::Relaxed);
                        break;
                    }
                }
            }
        }
        for (zone, batch) in zones {
            self.append(zone, batch).await?;
        }
        // Last, so that a batch that is tried again leaves no letter behind.
        self.bury(dead).await?;
        Ok(taken)
    }

    async fn append(&self, zone: String, batch: Vec<Accepted>) -> Result<(), StoreError> {
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
                for one in batch {
                    Box::pin(self.append(zone.clone(), vec![one])).await?;
                }
                Ok(())
            }
        }
    }

    async fn append_once(&self, zone: &str, batch: Vec<Accepted>) -> Result<(), StoreError> {
        let first = NewHead {
            origin: format!("{}/{zone}", self.origin),
            frontier: Frontier::default().to_bytes(),
            dedupe_key: self.world.random(),
        };
        let candidates = batch.iter().map(|a| a.event.id).collect();
        let (world, judge) = (self.world.clone(), self.judge.clone());
        let counts: Arc<Mutex<Counts>> = Arc::default();
        let counting = counts.clone();
        let make = move |head: &_, known: &_, now| {
            let mut counts = counting.lock().unwrap_or_else(PoisonError::into_inner);
            entries(&batch, head, known, now, &judge, &world, &mut counts)
        };
        self.store.ledger_append(zone.to_owned(), first, candidates, make).await?;
        let counts = *counts.lock().unwrap_or_else(PoisonError::into_inner);
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
