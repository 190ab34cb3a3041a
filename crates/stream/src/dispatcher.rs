//! From the outbox to whoever listens. A row is marked when it was published, never before: a crash in between publishes it twice, and
//! its outbox id makes that harmless.

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use caracal_core::id::OutboxId;
use caracal_core::message::Stream;
use caracal_host::jobs::Stop;
use caracal_host::{Supervisor, World};
use caracal_store::outbox::{Waiting, Which};
use caracal_store::{Store, StoreError};

use crate::message::{Keys, Published};
use crate::redis::{BusError, RedisBus};

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
/// How often the public streams are trimmed.
const TRIM: Duration = Duration::from_mins(1);
/// The lease's name.
const LEASE_NAME: &str = "outbox dispatcher";

/// Hears messages in this process, right after they committed. Must not block.
pub type Subscriber = Arc<dyn Fn(&Published) + Send + Sync>;

/// Publishes the outbox. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    store: Store,
    world: World,
    keys: Keys,
    redis: Option<RedisBus>,
    audit_here: bool,
    holder: Arc<str>,
    subscribers: Arc<RwLock<Vec<Subscriber>>>,
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("redis", &self.redis).finish_non_exhaustive()
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
    /// A dispatcher. `audit_here` says that Audit is in this process and takes its rows out of the outbox itself.
    pub fn new(store: Store, keys: Keys, redis: Option<RedisBus>, audit_here: bool, world: World) -> Self {
        let holder = caracal_core::digest::hex(&world.random::<16>()).into();
        Self { store, world, keys, redis, audit_here, holder, subscribers: Arc::default() }
    }

    /// Adds somebody who hears every message of this process's dispatcher.
    pub fn subscribe(&self, subscriber: impl Fn(&Published) + Send + Sync + 'static) {
        self.subscribers.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(subscriber));
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
        if let Some(redis) = &self.redis {
            let (redis, world) = (redis.clone(), self.world.clone());
            supervisor.every("stream trimming", TRIM, move |_| {
                let (redis, now) = (redis.clone(), world.now().as_micros() / 1000);
                async move { redis.trim_public(now).await }
            });
        }
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
                        () = signal.notified() => {}
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
        if self.redis.is_some() {
            let _ = self.store.release(LEASE_NAME, self.holder.to_string()).await;
        }
    }

    /// Publishes what waits now; how many rows were settled.
    pub async fn pass(&self) -> Result<usize, impl fmt::Display + use<>> {
        self.pass_once().await
    }

    async fn pass_once(&self) -> Result<usize, Fault> {
        // Without Redis there is one process, which needs no lease against others.
        if self.redis.is_some() && self.store.lease(LEASE_NAME, self.holder.to_string(), LEASE).await?.is_none() {
            return Ok(0);
        }
        let which = if self.audit_here { Which::Except(Stream::AuditEvents.name()) } else { Which::All };
        let rows = self.store.outbox_waiting_of(which, BATCH).await?;
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
        let mut done: Vec<OutboxId> = Vec::with_capacity(ready.len());
        match &self.redis {
            None => done.extend(ready.iter().map(|(row, _)| row.id)),
            Some(redis) => match redis.add_all(&messages).await {
                Ok(()) => done.extend(ready.iter().map(|(row, _)| row.id)),
                Err(BusError::Refused(_)) => done = self.one_by_one(redis, &ready).await?,
                Err(away) => return Err(away.into()),
            },
        }
        for (row, message) in &ready {
            if done.contains(&row.id) {
                self.tell(message);
            }
        }
        settled += ready.len();
        self.store.outbox_published(done).await?;
        Ok(settled)
    }

    /// After a refusal: each message alone, so that one does not hold up the others. Copies of what a broken batch added are harmless.
    async fn one_by_one(&self, redis: &RedisBus, ready: &[(&Waiting, Published)]) -> Result<Vec<OutboxId>, Fault> {
        let mut done = Vec::new();
        for (row, message) in ready {
            match redis.add_all(std::slice::from_ref(message)).await {
                Ok(()) => done.push(row.id),
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

    fn tell(&self, message: &Published) {
        for subscriber in self.subscribers.read().unwrap_or_else(PoisonError::into_inner).iter() {
            subscriber(message);
        }
    }
}
