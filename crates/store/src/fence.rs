//! The freshness fence: a request is decided on a view at least as new as the moment it arrived.
//!
//! What a process holds of a zone carries a [`Stamp`]: the epoch it was read at and the life of the history it belongs to. The
//! fence keeps, per zone, the highest epoch applied and, for each entity that changed, when. A value is good while nothing it was
//! made of changed after its stamp. So a slow load cannot put back what a revocation took out: its stamp is older than the change.
//!
//! On PostgreSQL the fence asks the primary; on SQLite the one writer tells it, before it answers anybody.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use caracal_core::id::{Id, ZoneId};
use caracal_core::time::Time;
use caracal_host::World;
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot, watch};

use crate::change::{Entity, Kind};
use crate::error::StoreError;
use crate::sql::{Row, Tx, Value};

/// Most changed entities that a zone remembers one by one; beyond it everything older is taken as changed.
const REMEMBERED: usize = 65_536;

/// How long a request waits for the fence before it is refused as unavailable.
const PATIENCE: Duration = Duration::from_secs(2);

/// When a value was read: the epoch, and the life of the history that epoch belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The zone's epoch in the snapshot the value was read from.
    pub epoch: u64,
    life: Life,
}

/// The life of a zone's history as this process knows it: another one begins when the database turns out to have another.
///
/// Taken before a snapshot begins. Taken inside, it could be the life of what came after the snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life(u64);

impl Life {
    /// The stamp of a snapshot that began in this life and saw this epoch.
    pub const fn at(self, epoch: u64) -> Stamp {
        Stamp { epoch, life: self }
    }
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
    life: Life,
}

impl Held {
    /// Whether a value with this stamp belongs to this history.
    pub(crate) fn is_of(self, stamp: Stamp) -> bool {
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
    /// SQLite: how many doors have settled, in the order in which they raised.
    settled: watch::Sender<u64>,
    /// PostgreSQL: requests that wait for the next query.
    asks: Mutex<Option<mpsc::UnboundedSender<Ask>>>,
}

#[derive(Default)]
struct Known {
    epoch: u64,
    mark: i64,
    life: Life,
    /// Values stamped before this epoch are not to be trusted, whatever they are made of.
    floor: u64,
    changed: HashMap<Entity, u64>,
    /// SQLite: how many doors have raised, and what those raised that wait for their commit.
    raised: u64,
    unsettled: VecDeque<(u64, Vec<Entity>)>,
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

    /// Another history, or one that cannot be followed: nothing read before is to be trusted.
    fn begin(&mut self, epoch: u64) {
        self.life.0 += 1;
        self.changed.clear();
        self.epoch = epoch;
        self.floor = epoch;
    }

    const fn stamp(&self) -> Stamp {
        self.life.at(self.epoch)
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
            let settled = watch::channel(0).0;
            Arc::new(Zone { id, known: Mutex::default(), settled, asks: Mutex::new(None) })
        }))
    }

    /// Brings what this process knows of the zone up to the moment of the call.
    pub async fn fresh(&self, id: ZoneId) -> Result<Fresh, StoreError> {
        let zone = self.zone(id);
        let ask = async {
            match &self.inner.backend {
                Backend::Sqlite => {
                    // Doors that raise from here on are none of this request's: it arrived before them.
                    let (raised, waits) = {
                        let known = lock(&zone.known);
                        (known.raised, !known.unsettled.is_empty())
                    };
                    if waits {
                        zone.settled.subscribe().wait_for(|settled| *settled >= raised).await.map_err(|_| gone())?;
                    }
                    Ok(Fresh { stamp: lock(&zone.known).stamp(), now: self.inner.world.now() })
                }
                Backend::Postgres(pool) => self.ask(&zone, pool).await,
            }
        };
        tokio::time::timeout(PATIENCE, ask)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("the fence was not answered in time".to_owned())))
    }

    /// How many zones are followed.
    pub fn zones(&self) -> usize {
        self.inner.zones.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether a value with this stamp, made of these entities, is as new as what was applied.
    pub fn good(&self, id: ZoneId, stamp: Stamp, of: &[Entity]) -> bool {
        let zone = self.zone(id);
        let known = lock(&zone.known);
        known.good(stamp, of)
    }

    /// The life of the zone's history, to be taken before a snapshot begins.
    pub fn life(&self, id: ZoneId) -> Life {
        let zone = self.zone(id);
        let known = lock(&zone.known);
        known.life
    }

    /// The history of the zone as it is known here, for a commit that must stand on the same one.
    pub(crate) fn held(&self, id: ZoneId) -> Held {
        let zone = self.zone(id);
        let known = lock(&zone.known);
        Held { epoch: known.epoch, mark: known.mark, life: known.life }
    }

    /// SQLite: a door raised before its commit. Who asks for a fresh view from here on waits for that commit.
    pub(crate) fn raise(&self, id: ZoneId, epoch: u64, entities: Vec<Entity>) {
        let zone = self.zone(id);
        let mut known = lock(&zone.known);
        known.raised += 1;
        known.unsettled.push_back((epoch, entities));
    }

    /// SQLite, inside the writer's transaction: [`Self::good`], and no door of this transaction raised any of these entities.
    pub(crate) fn stands(&self, id: ZoneId, stamp: Stamp, of: &[Entity]) -> bool {
        let zone = self.zone(id);
        let known = lock(&zone.known);
        known.good(stamp, of) && !known.unsettled.iter().any(|(_, raised)| raised.iter().any(|entity| of.contains(entity)))
    }

    /// SQLite: the commit of the zone's oldest unsettled door is over. One that failed left an epoch that never was, and perhaps
    /// more than that: what is held of the zone is read again.
    pub(crate) fn settle(&self, id: ZoneId, committed: bool) {
        let zone = self.zone(id);
        {
            let mut known = lock(&zone.known);
            match known.unsettled.pop_front() {
                Some((epoch, entities)) if committed => known.apply(epoch, entities),
                _ => {
                    let epoch = known.epoch;
                    known.begin(epoch);
                }
            }
        }
        zone.settled.send_modify(|settled| *settled += 1);
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
    // Who holds nothing has nothing to forget, and reads no log.
    let since = if held == 0 { u64::MAX } else { held };
    let mut conn = pool.acquire().await?;
    let rows = Tx::postgres(&mut conn)
        .all(
            "SELECT t.now, coalesce(e.epoch, 0), coalesce(e.mark, 0), \
             (SELECT h.mark FROM change_log h WHERE h.zone_id = $1 AND h.epoch = $2 LIMIT 1), c.epoch, c.kind, c.entity_id \
             FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) t \
             LEFT JOIN zone_epochs e ON e.zone_id = $1 LEFT JOIN change_log c ON c.zone_id = $1 AND c.epoch > $2 LIMIT $3",
            vec![Value::id(zone.id), since.into(), (REMEMBERED + 1).into()],
        )
        .await?;
    let head = rows.first().ok_or_else(gone)?;
    let (now, epoch, new_mark) = (head.time(0)?, head.count(1)?, head.int(2)?);
    // At the epoch we hold, the mark itself must be ours; past it, the log must still have ours at that place.
    let ours = if epoch == held { new_mark == mark } else { epoch > held && head.opt_int(3)? == Some(mark) };
    let changes = rows.iter().filter_map(|row| change(row, 4).transpose()).collect::<Result<Vec<_>, _>>()?;
    let mut known = lock(&zone.known);
    if ours && changes.len() <= REMEMBERED {
        for (at, entity) in changes {
            known.apply(at, [entity]);
        }
        known.epoch = epoch;
    } else {
        // We knew nothing, another history reached this number, the log was pruned, or it is longer than what can be remembered.
        known.begin(epoch);
    }
    known.mark = new_mark;
    Ok(Fresh { stamp: known.stamp(), now })
}

/// A row of the change log: epoch, kind and id in three columns; `None` where an outer join found none.
pub(crate) fn change(row: &Row, first: usize) -> Result<Option<(u64, Entity)>, StoreError> {
    if row.opt_int(first)?.is_none() {
        return Ok(None);
    }
    let (epoch, number) = (row.count(first)?, row.int(first + 1)?);
    let kind = Kind::of(number).ok_or_else(|| StoreError::inconsistent("change_log", "kind", number.to_string()))?;
    let id = row.bytes(first + 2)?.try_into().map_err(|_| StoreError::inconsistent("change_log", "entity_id", "not 16 bytes"))?;
    Ok(Some((epoch, Entity { kind, id })))
}

/// The advisory lock of a zone on PostgreSQL: shared by journals, exclusive for the door.
pub(crate) fn lock_key(zone: ZoneId) -> i64 {
    let bytes = zone.to_bytes();
    let mut tail = [0; 8];
    tail.copy_from_slice(&bytes[8..]);
    i64::from_be_bytes(tail)
}

#[cfg(test)]
mod tests;
