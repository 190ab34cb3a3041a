//! The freshness fence: a request is decided on a view at least as new as the moment it arrived.
//!
//! What a process holds of a zone carries a [`Stamp`]: the epoch it was read at and the life of the history it belongs to. The
//! fence keeps, per zone, the highest epoch applied and, for each entity that changed, when. A value is good while nothing it was
//! made of changed after its stamp. So a slow load cannot put back what a revocation took out: its stamp is older than the change.
//!
//! On PostgreSQL the fence asks the primary; on SQLite the one writer tells it, before it answers anybody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caracal_core::id::{Id, ZoneId};
use caracal_core::time::Time;
use caracal_host::World;
use sqlx::PgPool;
use std::sync::{Mutex, PoisonError, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

use crate::change::{Entity, Kind};
use crate::error::StoreError;
use crate::sql::{Tx, Value};

/// Most changed entities that a zone remembers one by one; beyond it everything older is taken as changed.
const REMEMBERED: usize = 65_536;

/// How long a request waits for the fence before it is refused as unavailable.
const PATIENCE: Duration = Duration::from_secs(2);

/// When a value was read: the epoch, and the life of the history that epoch belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The zone's epoch in the snapshot the value was read from.
    pub epoch: u64,
    life: u64,
}

/// What the fence answers: the zone is known up to here, and it is this late.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// What was applied.
    pub stamp: Stamp,
    /// Trusted time: the database's.
    pub now: Time,
}

/// Where a zone's history stands as this process knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) epoch: u64,
    pub(crate) mark: i64,
    life: u64,
}

impl Held {
    /// Whether a value with this stamp belongs to this history.
    pub(crate) const fn is_of(self, stamp: Stamp) -> bool {
        stamp.life == self.life
    }
}

/// The fence of a store.
#[derive(Clone)]
pub struct Fence {
    inner: Arc<Inner>,
}

struct Inner {
    world: World,
    backend: Backend,
    zones: RwLock<HashMap<ZoneId, Arc<Zone>>>,
}

enum Backend {
    Sqlite,
    Postgres(PgPool),
}

/// A request that waits for an answer.
type Ask = oneshot::Sender<Result<Fresh, StoreError>>;

struct Zone {
    id: ZoneId,
    known: Mutex<Known>,
    /// SQLite: the number of doors between raise and settlement; a request that meets one waits for it.
    unsettled: watch::Sender<u64>,
    /// PostgreSQL: requests that wait for the next query.
    asks: Mutex<Option<mpsc::UnboundedSender<Ask>>>,
    lives: AtomicU64,
}

#[derive(Default)]
struct Known {
    epoch: u64,
    mark: i64,
    life: u64,
    /// Values stamped before this epoch are not to be trusted, whatever they are made of.
    floor: u64,
    changed: HashMap<Entity, u64>,
}

impl Known {
    fn apply(&mut self, epoch: u64, entities: impl IntoIterator<Item = Entity>) {
        for entity in entities {
            let at = self.changed.entry(entity).or_default();
            *at = (*at).max(epoch);
        }
        if self.changed.len() > REMEMBERED {
            // Rows come in any order: nothing that is forgotten here may lie above the floor.
            self.floor = self.changed.drain().map(|(_, at)| at).fold(self.floor, u64::max);
        }
        self.epoch = self.epoch.max(epoch);
    }

    fn good(&self, stamp: Stamp, of: &[Entity]) -> bool {
        stamp.life == self.life
            && stamp.epoch >= self.floor
            && of.iter().all(|entity| self.changed.get(entity).is_none_or(|changed| *changed <= stamp.epoch))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fence {
    pub(crate) fn sqlite(world: World) -> Self {
        Self::new(world, Backend::Sqlite)
    }

    pub(crate) fn postgres(world: World, pool: PgPool) -> Self {
        Self::new(world, Backend::Postgres(pool))
    }

    fn new(world: World, backend: Backend) -> Self {
        Self { inner: Arc::new(Inner { world, backend, zones: RwLock::default() }) }
    }

    fn zone(&self, id: ZoneId) -> Arc<Zone> {
        if let Some(zone) = self.inner.zones.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Arc::clone(zone);
        }
        let mut zones = self.inner.zones.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(zones.entry(id).or_insert_with(|| {
            let unsettled = watch::channel(0).0;
            Arc::new(Zone { id, known: Mutex::default(), unsettled, asks: Mutex::new(None), lives: AtomicU64::new(0) })
        }))
    }

    /// Brings what this process knows of the zone up to the moment of the call.
    pub async fn fresh(&self, id: ZoneId) -> Result<Fresh, StoreError> {
        let zone = self.zone(id);
        let ask = async {
            match &self.inner.backend {
                Backend::Sqlite => {
                    let mut unsettled = zone.unsettled.subscribe();
                    unsettled.wait_for(|doors| *doors == 0).await.map_err(|_| gone())?;
                    let known = lock(&zone.known);
                    Ok(Fresh { stamp: Stamp { epoch: known.epoch, life: known.life }, now: self.inner.world.now() })
                }
                Backend::Postgres(pool) => self.ask(&zone, pool).await,
            }
        };
        tokio::time::timeout(PATIENCE, ask)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("the fence was not answered in time".to_owned())))
    }

    /// Whether a value with this stamp, made of these entities, is as new as what was applied.
    pub fn good(&self, id: ZoneId, stamp: Stamp, of: &[Entity]) -> bool {
        let zone = self.zone(id);
        let known = lock(&zone.known);
        known.good(stamp, of)
    }

    /// The stamp for a snapshot that saw this epoch, as long as its history is the one known here.
    pub fn stamp(&self, id: ZoneId, epoch: u64) -> Stamp {
        let zone = self.zone(id);
        let known = lock(&zone.known);
        Stamp { epoch, life: known.life }
    }

    /// The history of the zone as it is known here, for a commit that must stand on the same one.
    pub(crate) fn held(&self, id: ZoneId) -> Held {
        let zone = self.zone(id);
        let known = lock(&zone.known);
        Held { epoch: known.epoch, mark: known.mark, life: known.life }
    }

    /// SQLite: raised before its commit. Who asks for a fresh view now waits.
    pub(crate) fn raise(&self, id: ZoneId, epoch: u64, entities: &[Entity]) {
        let zone = self.zone(id);
        zone.unsettled.send_modify(|doors| *doors += 1);
        lock(&zone.known).apply(epoch, entities.iter().copied());
    }

    /// SQLite: the commit is over. If it failed, what was applied was only more careful than needed.
    pub(crate) fn settle(&self, id: ZoneId) {
        self.zone(id).unsettled.send_modify(|doors| *doors = doors.saturating_sub(1));
    }

    /// A request shares only the answer of a query that had not begun when it arrived: a task takes all that wait, asks once, and
    /// answers them; who comes meanwhile waits for the next round. The task outlives any caller.
    async fn ask(&self, zone: &Arc<Zone>, pool: &PgPool) -> Result<Fresh, StoreError> {
        let (answer, wait) = oneshot::channel();
        {
            let mut asks = lock(&zone.asks);
            let refused = match asks.as_ref() {
                Some(open) => open.send(answer).err().map(|e| e.0),
                None => Some(answer),
            };
            if let Some(answer) = refused {
                let (open, waiting) = mpsc::unbounded_channel();
                let _ = open.send(answer);
                *asks = Some(open);
                tokio::spawn(serve(Arc::clone(zone), pool.clone(), waiting));
            }
        }
        wait.await.map_err(|_| gone())?
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable("the fence has stopped".to_owned())
}

async fn serve(zone: Arc<Zone>, pool: PgPool, mut waiting: mpsc::UnboundedReceiver<Ask>) {
    while let Some(first) = waiting.recv().await {
        let mut all = vec![first];
        while let Ok(more) = waiting.try_recv() {
            all.push(more);
        }
        let answer = tokio::time::timeout(PATIENCE, query(&zone, &pool))
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("timed out".into())));
        for caller in all {
            let copy = answer.as_ref().copied().map_err(|e| StoreError::Unavailable(e.to_string()));
            let _ = caller.send(copy);
        }
    }
}

async fn query(zone: &Zone, pool: &PgPool) -> Result<Fresh, StoreError> {
    let (held, mark) = {
        let known = lock(&zone.known);
        (known.epoch, known.mark)
    };
    let mut conn = pool.acquire().await?;
    let rows = Tx::postgres(&mut conn)
        .all(
            "SELECT e.epoch, e.mark, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, c.epoch, c.kind, c.entity_id, \
             (SELECT h.mark FROM change_log h WHERE h.zone_id = $1 AND h.epoch = $2 LIMIT 1) \
             FROM zone_epochs e LEFT JOIN change_log c ON c.zone_id = e.zone_id AND c.epoch > $2 WHERE e.zone_id = $1",
            vec![Value::id(zone.id), Value::from(held)],
        )
        .await?;
    let Some(head) = rows.first() else {
        // No row: the zone does not exist, and every value of it is absence, which is never cached.
        let mut conn_now = Tx::postgres(&mut conn);
        let now = conn_now.first("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint", vec![]).await?;
        let now = now.ok_or_else(gone)?.time(0)?;
        let known = lock(&zone.known);
        return Ok(Fresh { stamp: Stamp { epoch: known.epoch, life: known.life }, now });
    };
    let (epoch, new_mark, now) = (head.count(0)?, head.int(1)?, head.time(2)?);
    // At the epoch we hold, the mark itself must be ours; past it, the log must still have ours at that place.
    let same_history = held == 0 || (epoch == held && new_mark == mark) || (epoch > held && head.opt_int(6)? == Some(mark));
    let mut changes = Vec::with_capacity(rows.len());
    for row in &rows {
        let (Some(at), Some(kind), Some(id)) = (row.opt_int(3)?, row.opt_int(4)?, row.opt_bytes(5)?) else { continue };
        let kind = Kind::of(kind).ok_or_else(|| StoreError::inconsistent("change_log", "kind", kind.to_string()))?;
        let id = id.try_into().map_err(|_| StoreError::inconsistent("change_log", "entity_id", "not 16 bytes"))?;
        changes.push((u64::try_from(at).unwrap_or(0), Entity { kind, id }));
    }
    let mut known = lock(&zone.known);
    if known.epoch > epoch && same_history {
        // Somebody applied a later answer meanwhile.
        return Ok(Fresh { stamp: Stamp { epoch: known.epoch, life: known.life }, now });
    }
    if !same_history || held == 0 {
        // Another history reached this number, the log was pruned, or we knew nothing: begin a new life, trust nothing older.
        known.life = zone.lives.fetch_add(1, Ordering::Relaxed) + 1;
        known.changed.clear();
        known.epoch = epoch;
        known.floor = epoch;
    } else {
        for (at, entity) in changes {
            known.apply(at, [entity]);
        }
    }
    known.epoch = epoch;
    known.mark = new_mark;
    Ok(Fresh { stamp: Stamp { epoch, life: known.life }, now })
}

/// The advisory lock of a zone on PostgreSQL: shared by journals, exclusive for the door.
pub(crate) fn lock_key(zone: ZoneId) -> i64 {
    let bytes = zone.to_bytes();
    let mut tail = [0; 8];
    tail.copy_from_slice(&bytes[8..]);
    i64::from_be_bytes(tail)
}
