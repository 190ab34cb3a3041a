//! Which mandates were used (`gateway.md` 5). A mandate opens one call, on whatever replica, for as long as it lives.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use caracal_core::id::{Id, Jti, ZoneId};
use caracal_core::time::Time;
pub use caracal_ephemeral::{Away, Taken};
use caracal_ephemeral::{Kind, Memory, Presented};
use futures::future::BoxFuture;

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
    ) -> BoxFuture<'a, Result<Taken, Away>>;

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
    fn take<'a>(&'a self, _: ZoneId, jti: Jti, _: Time, _: Time, request_id: &'a str) -> BoxFuture<'a, Result<Taken, Away>> {
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

/// The memory that all replicas share: an id is taken before the exchange is asked.
pub struct Shared(Memory);

impl Shared {
    /// This memory.
    pub const fn new(memory: Memory) -> Self {
        Self(memory)
    }
}

impl Consumed for Shared {
    fn take<'a>(
        &'a self,
        _: ZoneId,
        jti: Jti,
        issued: Time,
        until: Time,
        request_id: &'a str,
    ) -> BoxFuture<'a, Result<Taken, Away>> {
        Box::pin(async move {
            let id = jti.to_string();
            let presented = Presented { kind: Kind::Mandate, id: &id, issued, until, by: request_id };
            self.0.take(presented).await
        })
    }

    fn healthy(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { self.0.ping().await.is_ok() })
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
