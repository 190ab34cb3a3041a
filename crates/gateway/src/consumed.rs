//! Which mandates were used (`gateway.md` 5). A mandate opens one call, on whatever replica, for as long as it lives.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use caracal_core::id::{Id, Jti, ZoneId};
use caracal_core::time::Time;
use caracal_store::journal::{Consume, Entry, Journal, Outcome, Purpose, Spend};
use futures::future::BoxFuture;

/// What became of taking a mandate's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was not used before.
    First,
    /// It was; by which request, if that is known.
    Seen(Option<String>),
    /// The memory is younger than the mandate, so nobody can say (`streams.md` 13). Treated as a replay without evidence of one.
    Unsure,
}

/// The memory cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory of used mandates does not answer: {0}")]
pub struct NoMemory(pub String);

/// A memory of used mandates.
pub trait Consumed: Send + Sync + 'static {
    /// Takes an id until `until`, in one atomic step.
    fn take<'a>(
        &'a self,
        zone: ZoneId,
        jti: Jti,
        issued: Time,
        until: Time,
        request_id: &'a str,
    ) -> BoxFuture<'a, Result<Taken, NoMemory>>;

    /// Whether the memory answers.
    fn healthy(&self) -> BoxFuture<'_, bool>;
}

const SHARDS: usize = 16;

#[derive(Default)]
struct Shard {
    seen: HashMap<[u8; 16], Arc<str>>,
    order: VecDeque<[u8; 16]>,
}

/// The memory of a process whose exchange makes consumption durable in the same commit as its evidence: this one only catches what
/// is in flight and remembers who came first. It is bounded; what it forgets, the commit refuses.
pub struct Recent {
    shards: [Mutex<Shard>; SHARDS],
    per_shard: usize,
}

impl Recent {
    /// Remembers about this many.
    pub fn new(most: usize) -> Self {
        Self { shards: Default::default(), per_shard: (most / SHARDS).max(1) }
    }
}

impl Consumed for Recent {
    fn take<'a>(&'a self, _: ZoneId, jti: Jti, _: Time, _: Time, request_id: &'a str) -> BoxFuture<'a, Result<Taken, NoMemory>> {
        let key = jti.to_bytes();
        // The last byte of a UUIDv7 is random, the first is not.
        let mut shard = self.shards[usize::from(key[15]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        let taken = if let Some(first) = shard.seen.get(&key) {
            Taken::Seen(Some(first.to_string()))
        } else {
            if shard.order.len() >= self.per_shard
                && let Some(oldest) = shard.order.pop_front()
            {
                shard.seen.remove(&oldest);
            }
            shard.order.push_back(key);
            shard.seen.insert(key, request_id.into());
            Taken::First
        };
        Box::pin(std::future::ready(Ok(taken)))
    }

    fn healthy(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }
}

/// The memory in the store: an id is taken by a commit of its own, before the exchange is asked.
pub struct Durable {
    journal: Journal,
    recent: Recent,
}

impl Durable {
    /// Through this journal.
    pub fn new(journal: Journal) -> Self {
        Self { journal, recent: Recent::new(65_536) }
    }
}

impl Consumed for Durable {
    fn take<'a>(
        &'a self,
        zone: ZoneId,
        jti: Jti,
        issued: Time,
        until: Time,
        request_id: &'a str,
    ) -> BoxFuture<'a, Result<Taken, NoMemory>> {
        Box::pin(async move {
            if let seen @ Taken::Seen(_) = self.recent.take(zone, jti, issued, until, request_id).await? {
                return Ok(seen);
            }
            let spend = Spend::Id(Consume { purpose: Purpose::Mandate, id: jti.to_bytes().to_vec(), until });
            match self.journal.commit(Entry { zone: Some(zone), spend, ..Entry::default() }).await {
                Ok(Outcome::Durable) => Ok(Taken::First),
                Ok(Outcome::Spent) => Ok(Taken::Seen(None)),
                Ok(other) => Err(NoMemory(format!("the journal answered {other:?}"))),
                Err(error) => Err(NoMemory(error.to_string())),
            }
        })
    }

    fn healthy(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }
}

#[cfg(test)]
mod tests {
    use caracal_host::World;

    use super::*;

    #[tokio::test]
    async fn the_second_use_is_told_who_came_first_and_the_memory_is_bounded() {
        let (world, _) = World::fixed(1);
        let memory = Recent::new(SHARDS * 2);
        let (zone, jti, now) = (world.mint(), world.mint(), world.now());
        assert_eq!(memory.take(zone, jti, now, now, "req-1").await, Ok(Taken::First));
        assert_eq!(memory.take(zone, jti, now, now, "req-2").await, Ok(Taken::Seen(Some("req-1".into()))));
        for _ in 0..1000 {
            memory.take(zone, world.mint(), now, now, "x").await.unwrap();
        }
        assert!(memory.shards.iter().all(|s| s.lock().unwrap().seen.len() <= 2));
    }
}
