//! From the outbox to whoever listens. A row is marked when it was published, never before: a crash in between publishes it twice, and
//! its outbox id makes that harmless.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caracal_core::id::OutboxId;
use caracal_core::message::Stream;
use caracal_host::jobs::Stop;
use caracal_host::{Supervisor, World};
use caracal_store::outbox::{Waiting, Which};
use caracal_store::{Store, StoreError};

use crate::bus::{Bus, BusError};
use crate::delivery::Delivery;
use crate::message::{Keys, Published};
use crate::outbox::OutboxEvidence;

/// Most rows taken at once.
const BATCH: usize = 128;
/// How long a quiet outbox is not looked at.
const POLL: Duration = Duration::from_millis(250);
/// Attempts after which a row that is refused is dead.
const ATTEMPTS_MAX: u32 = 10;
/// First and longest pause of a refused row.
const PAUSE_MS: (u64, u64) = (1_000, 60_000);
/// Pause while Redis or the database is away.
const AWAY_MS: (u64, u64) = (100, 5_000);
/// How long one of several processes dispatches before another may.
const LEASE: Duration = Duration::from_secs(10);
/// How long an answer about the lease is good.
const LEASE_GOOD: Duration = Duration::from_secs(1);
/// How often the public streams are trimmed.
const TRIM: Duration = Duration::from_mins(1);
/// How long the public streams keep what they were told: no mandate lives longer.
const DAY: i64 = 24 * 3600;
/// How often a stream is asked whether it forgot.
const REMEMBER: Duration = Duration::from_secs(1);
/// The lease's name.
const LEASE_NAME: &str = "outbox dispatcher";

/// Of several processes on one bus, one dispatches.
#[derive(Clone)]
pub(crate) struct Lead {
    store: Store,
    world: World,
    holder: Arc<str>,
    shared: bool,
    asked: Arc<Mutex<Option<(Duration, bool)>>>,
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lead({})", self.holder)
    }
}

impl Lead {
    /// Whether it is this process. A bus of one process needs no lease against others.
    pub(crate) async fn held(&self) -> Result<bool, StoreError> {
        let now = self.world.monotonic();
        let known = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            _ if !self.shared => Ok(true),
            Some((at, held)) if now.saturating_sub(at) < LEASE_GOOD => Ok(held),
            _ => {
                let held = self.store.lease(LEASE_NAME, self.holder.to_string(), LEASE).await?.is_some();
                *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, held));
                Ok(held)
            }
        }
    }

    async fn give_back(&self) {
        if self.shared {
            let _ = self.store.release(LEASE_NAME, self.holder.to_string()).await;
        }
    }
}

/// Publishes the outbox. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    store: Store,
    world: World,
    keys: Keys,
    bus: Bus,
    lead: Lead,
    evidence: OutboxEvidence,
    remembered: Arc<Mutex<Option<Duration>>>,
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("bus", &self.bus).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl Dispatcher {
    /// A dispatcher onto this bus.
    pub fn new(store: Store, keys: Keys, bus: Bus, world: World) -> Self {
        let holder = caracal_core::digest::hex(&world.random::<16>()).into();
        let lead = Lead { store: store.clone(), world: world.clone(), holder, shared: bus.is_shared(), asked: Arc::default() };
        let evidence = OutboxEvidence::new(store.clone(), lead.clone());
        Self { store, world, keys, bus, lead, evidence, remembered: Arc::default() }
    }

    /// The delivery of the outbox's evidence, which has its own way: it is let go when Audit has committed it.
    pub fn evidence(&self) -> Arc<Delivery<OutboxEvidence>> {
        Arc::new(Delivery::new(self.evidence.clone(), self.bus.clone()))
    }

    /// Starts the background work.
    pub fn jobs(&self, supervisor: &Supervisor) {
        let this = self.clone();
        supervisor.spawn("outbox dispatcher", move |stop| {
            let this = this.clone();
            async move {
                this.run(&stop).await;
                Ok::<_, Infallible>(())
            }
        });
        let this = self.clone();
        supervisor.every("stream trimming", TRIM, move |_| {
            let this = this.clone();
            async move { this.trim().await }
        });
    }

    /// Removes what resource servers no longer need.
    async fn trim(&self) -> Result<(), BusError> {
        let before = self.world.now().minus_secs(DAY).as_micros() / 1000;
        for stream in public() {
            self.bus.trim(stream, u64::try_from(before).unwrap_or(0), None).await?;
        }
        Ok(())
    }

    /// Publishes until asked to stop.
    pub async fn run(&self, stop: &Stop) {
        let signal = self.store.outbox_signal();
        let mut pause = AWAY_MS.0;
        loop {
            match self.pass().await {
                Ok(published) => {
                    pause = AWAY_MS.0;
                    if published > 0 {
                        continue;
                    }
                    if stop.asked() {
                        break;
                    }
                    tokio::select! {
                        () = stop.wait() => {}
                        () = signal.notified() => self.evidence.wake(),
                        () = tokio::time::sleep(POLL) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %error, "messages wait in the outbox");
                    if !stop.sleep(Duration::from_millis(pause)).await {
                        break;
                    }
                    pause = (pause * 2).min(AWAY_MS.1);
                }
            }
        }
        self.lead.give_back().await;
    }

    /// Publishes what waits now; how many rows were settled.
    pub async fn pass(&self) -> Result<usize, impl fmt::Display + fmt::Debug + use<>> {
        self.pass_once().await
    }

    /// What resource servers must know is said again to a stream that has forgotten it.
    async fn remind(&self) -> Result<(), Fault> {
        let now = self.world.monotonic();
        let last = *self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|at| now.saturating_sub(at) < REMEMBER) {
            return Ok(());
        }
        for stream in public() {
            if self.bus.forgot(stream).await? {
                let again = self.store.outbox_again(stream.name(), self.world.now().minus_secs(DAY)).await?;
                if again > 0 {
                    tracing::warn!(stream = stream.name(), again, "a stream without its past: the last day is published again");
                }
                self.bus.told(stream).await?;
            }
        }
        *self.remembered.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        Ok(())
    }

    async fn pass_once(&self) -> Result<usize, Fault> {
        if !self.lead.held().await? {
            return Ok(0);
        }
        self.remind().await?;
        let rows = self.store.outbox_waiting_of(Which::Except(Stream::AuditEvents.name()), BATCH).await?;
        let mut ready: Vec<(&Waiting, Published)> = Vec::new();
        let mut settled = 0;
        for row in &rows {
            match Published::of(row, &self.keys) {
                Ok(message) => ready.push((row, message)),
                Err(why) => {
                    tracing::error!(outbox_id = %row.id, topic = row.topic, why, "a message cannot be published");
                    self.store.outbox_failed(row.id, why, None).await?;
                    settled += 1;
                }
            }
        }
        if ready.is_empty() {
            return Ok(settled);
        }
        let messages: Vec<Published> = ready.iter().map(|(_, message)| message.clone()).collect();
        let done: Vec<OutboxId> = match self.bus.publish(messages).await {
            Ok(_) => ready.iter().map(|(row, _)| row.id).collect(),
            Err(BusError::Refused(_)) => self.one_by_one(&ready).await?,
            Err(away) => return Err(away.into()),
        };
        settled += ready.len();
        self.store.outbox_published(done).await?;
        Ok(settled)
    }

    /// After a refusal: each message alone, so that one does not hold up the others. Copies of what a broken batch added are harmless.
    async fn one_by_one(&self, ready: &[(&Waiting, Published)]) -> Result<Vec<OutboxId>, Fault> {
        let mut done = Vec::new();
        for (row, message) in ready {
            match self.bus.publish(vec![message.clone()]).await {
                Ok(_) => done.push(row.id),
                Err(BusError::Refused(why)) => {
                    let last = row.attempts + 1 >= ATTEMPTS_MAX;
                    let millis = (PAUSE_MS.0 << row.attempts.min(6)).min(PAUSE_MS.1);
                    tracing::warn!(outbox_id = %row.id, topic = row.topic, why, last, "a message was refused");
                    self.store.outbox_failed(row.id, why, (!last).then(|| Duration::from_millis(millis))).await?;
                }
                Err(away) => return Err(away.into()),
            }
        }
        Ok(done)
    }
}

/// The streams that resource servers read.
fn public() -> impl Iterator<Item = Stream> {
    Stream::ALL.into_iter().filter(|stream| stream.is_public())
}
